//! Limits that refusals and their recovery scale: every admission is within the limit of its moment.
#![allow(clippy::cast_precision_loss)] // small numbers

use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, Recovery, Resource};

use crate::common::SECOND;

/// All happens at multiples of it, so that no limit changes in between.
const STEP: u64 = SECOND / 20;

/// A limiter beside the most that its bucket can hold, by what it says of its limit in whole tokens.
struct Run {
    time: ManualClock,
    api: Resource,
    burst: f64,
    per_second: f64,
    most: f64,
    since: u64,
    admitted: u64,
}

impl Run {
    fn new(limit: Limit) -> Self {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let api = limiter.configure("api", limit).expect("a limit");
        let burst = api.capacity().burst as f64;
        let mut run =
            Self { time, api, burst, per_second: 0.0, most: burst, since: 0, admitted: 0 };
        run.look();
        run
    }

    /// What accrued until now, then the limit from now on.
    fn look(&mut self) {
        let now = self.time.now();
        self.most += self.per_second * (now - self.since) as f64 / SECOND as f64;
        self.most = self.most.min(self.burst);
        let capacity = self.api.capacity();
        // Whole tokens are rounded down.
        (self.burst, self.per_second) =
            (capacity.burst as f64 + 1.0, capacity.per_window as f64 + 1.0);
        (self.most, self.since) = (self.most.min(self.burst), now);
    }

    fn advance(&mut self, steps: u64) {
        for _ in 0..steps {
            self.time.set(self.time.now() + STEP);
            self.look();
        }
    }

    fn take(&mut self, n: u64, is_refused: bool) -> bool {
        let taken = self.api.try_acquire_n(n);
        let is_taken = taken.is_ok();
        if let Ok(permit) = taken {
            self.admitted += n;
            self.most -= n as f64;
            assert!(self.most > -1e-6, "{} too many at {}", -self.most, self.time.now());
            if is_refused {
                permit.throttled("429");
            }
        }
        is_taken
    }
}

fn run(limit: Limit, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut run = Run::new(limit);
    for _ in 0..100 {
        match random.u8(..8) {
            0 => run.advance(random.u64(..60)),
            1 => run.advance(random.u64(..600)),
            // Takes all that there is, for a while.
            2 => {
                for _ in 0..random.u64(..100) {
                    run.advance(1);
                    while run.take(1, false) {}
                }
            }
            3 => _ = run.take(1, true),
            4 => _ = run.take(random.u64(1..20), random.bool()),
            _ => {
                run.advance(random.u64(..3));
                run.take(random.u64(1..5), false);
            }
        }
        run.look();
    }
}

#[test]
fn ceilings_cuts_and_pauses() {
    let recovery = Recovery { interval: Duration::from_secs(1), ..Recovery::default() };
    for seed in 0..60 {
        run(Limit::per_second(40).recovery(recovery), seed);
        run(Limit::per_second(40).burst(7).recovery(recovery), seed);
    }
}

#[test]
fn adaptive_slots() {
    for seed in 0..60 {
        run(Limit::per_second(10).adaptive(1, 200), seed);
        run(Limit::per_second(40).burst(7).adaptive(2, 90), seed);
    }
}

/// Whoever takes all that there is gets the whole rate.
#[test]
fn an_adaptive_limit_delivers_its_rate() {
    let mut run = Run::new(Limit::per_second(20).adaptive(1, 20));
    for _ in 0..40 * SECOND / STEP {
        run.advance(1);
        run.take(1, false);
    }
    assert!((40 * 20..=40 * 20 + 20).contains(&run.admitted), "{}", run.admitted);
}

/// A limit of fewer than 8 admissions a minute is in use, too.
#[test]
fn a_slow_adaptive_limit_grows() {
    for limit in [Limit::per_minute(5), Limit::per_hour(10), Limit::per_minute(30)] {
        let mut run = Run::new(limit.adaptive(1, 6_000));
        let before = run.api.capacity().per_window;
        for _ in 0..4 * 3_600 {
            run.time.set(run.time.now() + SECOND);
            run.look();
            while run.take(1, false) {}
        }
        assert!(run.api.capacity().per_window >= before * 20, "{:?}", run.api.capacity());
    }
}
