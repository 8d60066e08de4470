//! What a run did, second by second, and what the runs of a scenario reached.

use std::fmt::Write as _;
use std::ops::Range;

use crate::common::number;

/// A second of a run. Answers count in the second in which their requests were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Second {
    pub(crate) sent: u64,
    pub(crate) served: u64,
    pub(crate) refused: u64,
    /// What the limiter shows at its end, in requests a window.
    pub(crate) capacity: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) seconds: Vec<Second>,
    /// When each request was sent, in nanoseconds.
    pub(crate) sent_at: Vec<u64>,
    pub(crate) last_refusal: u64,
    /// When it was told to wait.
    pub(crate) told: Option<u64>,
}

impl Report {
    pub(crate) fn second(&mut self, second: u64) -> &mut Second {
        let index = second as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    /// The sum over some seconds, with the last capacity.
    pub(crate) fn over(&self, seconds: Range<u64>) -> Second {
        let range = seconds.start as usize..(seconds.end as usize).min(self.seconds.len());
        self.seconds[range].iter().fold(Second::default(), |sum, second| Second {
            sent: sum.sent + second.sent,
            served: sum.served + second.served,
            refused: sum.refused + second.refused,
            capacity: second.capacity,
        })
    }

    /// The most that the limiter showed at the end of one of these seconds.
    pub(crate) fn most_capacity(&self, seconds: Range<u64>) -> f64 {
        let range = seconds.start as usize..seconds.end as usize;
        self.seconds[range].iter().map(|second| second.capacity).max().unwrap_or(0) as f64
    }

    /// All clients as one.
    pub(crate) fn sum(reports: &[Self]) -> Self {
        let mut all = Self::default();
        for report in reports {
            for (i, of) in report.seconds.iter().enumerate() {
                let second = all.second(i as u64);
                second.sent += of.sent;
                second.served += of.served;
                second.refused += of.refused;
                second.capacity += of.capacity;
            }
            all.sent_at.extend(&report.sent_at);
            all.last_refusal = all.last_refusal.max(report.last_refusal);
        }
        all.sent_at.sort_unstable();
        all
    }

    /// The share of what was sent that was refused, in percent.
    pub(crate) fn refused(&self, seconds: Range<u64>) -> f64 {
        let Second { sent, refused, .. } = self.over(seconds);
        percent(refused as f64, sent as f64)
    }

    /// The share of `rate` requests a second that was served, in percent.
    pub(crate) fn served(&self, seconds: Range<u64>, rate: f64) -> f64 {
        let length = (seconds.end - seconds.start) as f64;
        percent(self.over(seconds).served as f64, rate * length)
    }

    /// Seconds from `from` on until `part` of `rate` is served, over as long as 200 requests come, at least
    /// 5 s; never is a day.
    #[allow(clippy::cast_sign_loss)] // a saturating cast
    pub(crate) fn back_after(&self, from: u64, part: f64, rate: f64) -> f64 {
        let length = (200.0 / rate).max(5.0) as u64;
        let end = (self.seconds.len() as u64).saturating_sub(length);
        let back = (from..end).find(|at| self.served(*at..at + length, rate) >= 100.0 * part);
        back.map_or(86_400.0, |at| (at - from) as f64)
    }

    /// As JSON, for `scripts/upstream.py`.
    pub(crate) fn json(&self) -> String {
        let mut rows = String::new();
        for Second { sent, served, refused, capacity } in &self.seconds {
            let comma = if rows.is_empty() { "" } else { ",\n" };
            let _ = write!(
                rows,
                r#"{comma}{{"sent":{sent},"served":{served},"refused":{refused},"capacity":{capacity}}}"#
            );
        }
        format!("[{rows}]\n")
    }

    pub(crate) fn trace(&self) {
        if number("TOLLGATE_UPSTREAM_TRACE").is_some() {
            for (i, Second { sent, served, refused, capacity }) in self.seconds.iter().enumerate() {
                println!("{i:5} s: {sent} sent, {served} served, {refused} refused, at {capacity}");
            }
        }
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole.max(1.0)
}

/// A figure of each seed of a scenario, and the line that all must hold.
pub(crate) struct Figure {
    what: String,
    line: Line,
    found: Vec<(u64, f64)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    Below(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Line {
    fn holds(self, found: f64) -> bool {
        match self {
            Self::Below(most) => found < most,
            Self::AtMost(most) => found <= most,
            Self::AtLeast(least) => found >= least,
        }
    }
}

/// What all seeds of a scenario reached.
#[derive(Default)]
pub(crate) struct Table {
    figures: Vec<Figure>,
}

impl Table {
    pub(crate) fn add(&mut self, seed: u64, what: &str, found: f64, line: Line) {
        if !self.figures.iter().any(|figure| figure.what == what) {
            self.figures.push(Figure { what: what.to_string(), line, found: Vec::new() });
        }
        let figure = self.figures.iter_mut().find(|figure| figure.what == what);
        figure.expect("one was added").found.push((seed, found));
    }

    /// Prints it, and panics if a line does not hold for some seed.
    pub(crate) fn judge(self, scenario: &str) {
        let mut text = format!("{scenario}\n");
        let mut holds = true;
        for Figure { what, line, found } in &self.figures {
            let least = found.iter().map(|(_, found)| *found).fold(f64::INFINITY, f64::min);
            let most = found.iter().map(|(_, found)| *found).fold(f64::NEG_INFINITY, f64::max);
            let mean = found.iter().map(|(_, found)| *found).sum::<f64>() / found.len() as f64;
            let missed: Vec<u64> = found
                .iter()
                .filter(|(_, found)| !line.holds(*found))
                .map(|(seed, _)| *seed)
                .collect();
            let verdict =
                if missed.is_empty() { "ok".into() } else { format!("MISSED by {missed:?}") };
            holds &= missed.is_empty();
            let _ = writeln!(
                text,
                "  {what:<58} {least:9.2} {mean:9.2} {most:9.2}  {line:?} {verdict}"
            );
        }
        println!("{text}");
        assert!(holds, "{scenario}: a line does not hold, see the table above");
    }
}
