//! Contenders run alternately, so that a temporary slowdown of the machine cancels out in ratios.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use crate::contenders::Contender;

/// Long enough for thousands of calls, short enough to be mostly undisturbed.
pub(crate) const TURN: Duration = Duration::from_millis(2);
/// Calls between two clock readings.
const CALLS: u64 = 256;

/// One thread's turn.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) calls: u64,
    admitted: u64,
    cpu: Duration,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl Turn {
    fn take(contender: &Contender, from: u64, length: Duration) -> Self {
        let (mut calls, mut admitted) = (from, 0);
        let (cpu, start) = (ThreadTime::now(), Instant::now());
        while start.elapsed() < length {
            admitted += contender.run(calls..calls + CALLS);
            calls += CALLS;
        }
        Self { calls: calls - from, admitted, cpu: cpu.elapsed(), start, end: Instant::now() }
    }
}

/// The simultaneous turns of all threads.
pub(crate) struct Round(pub(crate) Vec<Turn>);

impl Round {
    /// CPU time per call; `None` if a thread was preempted or ran without the others.
    pub(crate) fn nanos(&self) -> Option<f64> {
        let calls = self.0.iter().map(|turn| turn.calls).sum::<u64>();
        let cpu = self.0.iter().map(|turn| turn.cpu.as_secs_f64()).sum::<f64>();
        self.is_undisturbed().then(|| cpu * 1e9 / float(calls))
    }

    fn is_undisturbed(&self) -> bool {
        let first_end = self.0.iter().map(|turn| turn.end).min();
        let last_start = self.0.iter().map(|turn| turn.start).max();
        let together = first_end.zip(last_start).map_or(Duration::ZERO, |(end, start)| end - start);
        let most = |time: Duration| time.mul_f64(0.95);
        together > most(TURN) && self.0.iter().all(|turn| turn.cpu > most(turn.end - turn.start))
    }
}

/// A contender's rounds.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) rounds: Vec<Round>,
}

impl Score {
    pub(crate) fn admitted(&self) -> f64 {
        let sum = |of: fn(&Turn) -> u64| {
            float(self.rounds.iter().flat_map(|round| &round.0).map(of).sum::<u64>())
        };
        sum(|turn| turn.admitted) / sum(|turn| turn.calls)
    }

    pub(crate) fn nanos(&self) -> f64 {
        median(self.rounds.iter().filter_map(Round::nanos).collect())
    }

    /// The median of the rounds' ratios.
    pub(crate) fn over(&self, other: &Self) -> f64 {
        let rounds = self.rounds.iter().zip(&other.rounds);
        median(rounds.filter_map(|(a, b)| Some(a.nanos()? / b.nanos()?)).collect())
    }
}

/// NaN if `values` is empty.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A table cell: `-` if every turn was disturbed.
pub(crate) fn cell(value: f64, digits: usize) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

/// Runs all contenders on `threads` threads, in a rotating order. Threads start each turn together.
pub(crate) fn compete(
    contenders: &[Contender],
    threads: u64,
    rounds: u64,
    length: Duration,
) -> Vec<Score> {
    let count = contenders.len() as u64;
    let arrived = AtomicU64::new(0);
    let order = |turn: u64| ((turn + turn / count) % count) as usize;
    let take_all = |thread: u64| {
        let take = |turn: u64| {
            // A thread that has slept is scheduled soon, and on a free CPU.
            thread::sleep(Duration::from_micros(100));
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < (turn + 1) * threads {
                thread::yield_now();
            }
            Turn::take(&contenders[order(turn)], (thread << 40) | (turn << 20), length)
        };
        (0..rounds * count).map(take).collect::<Vec<_>>()
    };
    let turns: Vec<Vec<Turn>> = thread::scope(|scope| {
        let run = |thread| scope.spawn(move || take_all(thread));
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread's turns")).collect()
    });
    let mut scores: Vec<Score> = contenders.iter().map(|_| Score::default()).collect();
    for turn in 0..rounds * count {
        let all = turns.iter().map(|thread| thread[turn as usize]).collect();
        scores[order(turn)].rounds.push(Round(all));
    }
    scores
}
