//! A limit that finds its upstream's: a rate that grows until a request is refused.
//!
//! It doubles each second until the first refusal, as far as what was admitted over 5 seconds allows, which
//! makes it a third or so. Then it grows as the congestion window of CUBIC does (RFC 9438): fast, slowly near the
//! rate at which it was refused, and then ever faster, with a fixed time to be back there. It grows only while it
//! is what holds the demand back.

/// Nanoseconds between two steps.
const STEP: u64 = 1_000_000_000;
/// What a refusal leaves of the rate that got through.
const LEFT: f64 = 0.7;
/// Growth needs this part of the rate to be in use.
const IN_USE: f64 = 0.5;
/// Growth ends at this many times what was admitted.
const MOST_GROWTH: f64 = 2.0;
/// Steps that are taken one by one; after a longer rest there is nothing to grow from.
const MAX_STEPS: u64 = 64;

/// As factors of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Nanoseconds from a cut until the rate is back where it was refused.
    pub(crate) back_in: u64,
}

/// What permits were granted, as factors of the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Over the last second or the last 8 admissions.
    pub(crate) lately: f64,
    /// Over the last 5 seconds.
    pub(crate) longer: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Adaptive {
    range: Range,
    pub(super) level: f64,
    /// The rate that got through when a request was last refused; `None` until the first refusal.
    peak: Option<f64>,
    /// Nanoseconds of growth since.
    grown: u64,
    /// When the next step is due.
    pub(super) due: u64,
}

impl Adaptive {
    pub(super) fn new(range: Range, level: f64, now: u64) -> Self {
        let level = range.clip(level);
        Self { range, level, peak: None, grown: 0, due: now.saturating_add(STEP) }
    }

    /// Another range, in factors of a limit that is `ratio` of the present one. The rate stays if it may.
    pub(super) fn change(&mut self, range: Range, ratio: f64) {
        self.range = range;
        self.level = range.clip(self.level / ratio);
        self.peak = self.peak.map(|peak| peak / ratio);
    }

    /// Takes the steps that are due.
    pub(super) fn advance(&mut self, now: u64, usage: Usage) {
        if now < self.due {
            return;
        }
        let steps = (now - self.due) / STEP + 1;
        for _ in 0..steps.min(MAX_STEPS) {
            if self.is_in_use(usage) {
                self.grown += STEP;
                let most = usage.longer * MOST_GROWTH;
                let next = self.peak.map_or(self.level * 2.0, |peak| self.curve(peak)).min(most);
                self.level = self.range.clip(next.max(self.level));
            }
        }
        self.due = self.due.saturating_add(steps.saturating_mul(STEP));
    }

    pub(super) fn is_in_use(&self, usage: Usage) -> bool {
        usage.lately >= self.level * IN_USE
    }

    /// From `LEFT` of the peak to the peak in the time to be back, and beyond.
    #[allow(clippy::cast_precision_loss)] // seconds
    fn curve(&self, peak: f64) -> f64 {
        let part = self.grown as f64 / self.range.back_in as f64 - 1.0;
        peak * (1.0 + (1.0 - LEFT) * part.powi(3))
    }

    /// A request was refused while `through` got through.
    pub(super) fn cut(&mut self, through: f64, now: u64) {
        // From next to nothing the way back would be endless.
        let through = through.max(self.range.min);
        (self.peak, self.grown) = (Some(through), 0);
        self.level = self.range.clip((through * LEFT).min(self.level));
        self.due = now.saturating_add(STEP);
    }
}

impl Range {
    fn clip(&self, level: f64) -> f64 {
        level.clamp(self.min, self.max)
    }
}
