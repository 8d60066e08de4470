//! Strict windows: never more than was allowed in any stretch of time as long, its two ends included,
//! wherever it begins; and no less than the rate that the docs promise.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::{Dice, SECOND, cases, manual, turns};
use tollgate::{Limit, ManualClock, MemoryLimiter, Recovery, Resource};

fn seeds() -> u64 {
    cases(turns(4_000, 500))
}

#[derive(Clone, Copy, Debug)]
struct Strict {
    n: u64,
    burst: u64,
    window: u64,
}

impl Strict {
    fn any(dice: &mut Dice, window: u64) -> Self {
        let scale = dice.roll(3) as usize;
        let n = 1 + dice.roll([3, 20, 200][scale]);
        let burst = match dice.roll(4) {
            0 => 1,
            1 => n,
            2 => (n / 10).max(1),
            _ => 1 + dice.roll(n),
        };
        Self { n, burst, window }
    }

    fn limit(self) -> Limit {
        Limit::at_most(self.n, Duration::from_nanos(self.window))
            .burst(self.burst)
            .cooldown(Duration::ZERO)
    }
}

/// Every admission of the last window, and what each window since may have at most.
struct SlidingLog {
    window: u64,
    admitted: VecDeque<(u64, u64)>,
    inside: u64,
    total: u64,
    /// What was allowed, and until when.
    before: VecDeque<(u64, u64)>,
    now: u64,
}

impl SlidingLog {
    fn new(strict: Strict) -> Self {
        let (admitted, before) = (VecDeque::new(), VecDeque::new());
        Self { window: strict.window, admitted, inside: 0, total: 0, before, now: strict.n }
    }

    fn change(&mut self, strict: Strict, at: u64) {
        self.before.push_back((at, self.now));
        self.now = strict.n;
    }

    /// Most in the window that ends at `at`, its ends included.
    fn most(&mut self, at: u64) -> u64 {
        let begin = at.saturating_sub(self.window);
        while self.before.front().is_some_and(|(until, _)| *until < begin) {
            self.before.pop_front();
        }
        self.before.iter().map(|(_, most)| *most).fold(self.now, u64::max)
    }

    fn admit(&mut self, n: u64, at: u64, seed: u64) {
        self.admitted.push_back((at, n));
        self.inside += n;
        self.total += n;
        while let Some((first, n)) = self.admitted.front().copied() {
            if first + self.window >= at {
                break;
            }
            self.inside -= n;
            self.admitted.pop_front();
        }
        let (inside, most) = (self.inside, self.most(at));
        assert!(
            inside <= most,
            "seed {seed}: {inside} in the window that ends at {at}, not {most}"
        );
    }
}

struct Run {
    seed: u64,
    dice: Dice,
    time: ManualClock,
    limiter: MemoryLimiter,
    api: Resource,
    log: SlidingLog,
    strict: Strict,
}

const WINDOWS: [u64; 5] = [1, 1_000, 999_983, SECOND, 60 * SECOND];

impl Run {
    fn new(seed: u64, with: impl Fn(Limit) -> Limit) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let window = WINDOWS[dice.roll(5) as usize];
        let strict = Strict::any(&mut dice, window);
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let api = limiter.configure("api", with(strict.limit())).expect("a limit");
        Self { seed, dice, time, limiter, api, log: SlidingLog::new(strict), strict }
    }

    /// As greedy as can be, or in any other way; then on by a token's time, or a nanosecond less or
    /// more, or up to two windows.
    fn demand(&mut self) {
        let Strict { n, burst, window } = self.strict;
        let (most, tries) = match self.dice.roll(4) {
            0 => (burst, 1),
            1 => (3, 3),
            2 => (burst, 0),
            _ => (1, u64::MAX),
        };
        for _ in 0..tries {
            let n = 1 + self.dice.roll(most);
            if self.api.check_n(n).is_err() {
                break;
            }
            self.log.admit(n, self.time.now(), self.seed);
        }
        let token = (window + 1) / (n + 1 - burst);
        let by = match self.dice.roll(8) {
            0 => 0,
            1..4 => token.saturating_sub(1) + self.dice.roll(3),
            4 => window.saturating_sub(2) + self.dice.roll(4),
            5 => self.dice.roll(2 * window + 1),
            _ => self.dice.roll(token + 2),
        };
        self.time.advance(Duration::from_nanos(by));
    }

    fn turn_to(&mut self, strict: Strict, with: impl Fn(Limit) -> Limit) {
        self.limiter.configure("api", with(strict.limit())).expect("a limit");
        self.log.change(strict, self.time.now());
        self.strict = strict;
    }
}

#[test]
fn never_more_in_any_sliding_window() {
    for seed in 1..=seeds() {
        let mut run = Run::new(seed, |limit| limit);
        (0..300).for_each(|_| run.demand());
    }
}

/// Through cuts and recoveries, pauses, changes to other strict limits, and other windows beside it:
/// at most what the largest of those limits allows that were in force in the window.
#[test]
fn never_more_whatever_is_done_to_it() {
    for seed in 1..=2 * seeds() {
        let with = |limit: Limit| {
            let interval = Duration::from_millis([1, 7, 100][seed as usize % 3]);
            let limit = limit.recovery(Recovery { interval, factor: 1.3, cap: seed % 2 == 0 });
            match seed % 5 {
                0 => limit.and(Limit::per_second(50)),
                1 => limit.and(Limit::at_most(40, Duration::from_secs(7))).and(Limit::per_day(9)),
                _ => limit,
            }
        };
        let mut run = Run::new(seed, with);
        for _ in 0..300 {
            match run.dice.roll(24) {
                0 => {
                    let strict = Strict::any(&mut run.dice, run.strict.window);
                    run.turn_to(strict, with);
                }
                1 => run.turn_to(run.strict, with),
                2 | 3 => run.api.announce_reduced("429"),
                4 => run.api.pause_for(Duration::from_nanos(run.dice.roll(run.strict.window))),
                _ => run.demand(),
            }
        }
    }
}

/// Threads that take what they can while the limit becomes another one and back, and gets other windows
/// beside it: the clock stands still in each phase, and moves between two.
#[test]
fn never_more_for_many_threads() {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    let all_phases = cases(turns(10_000, 1_000));
    let mut run = Run::new(5, |limit| limit);
    let (begin, end, taken) = (Barrier::new(3), Barrier::new(3), AtomicU64::new(0));
    let api = run.api.clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for phase in 0..all_phases {
                    begin.wait();
                    for turn in 0..10 {
                        let n = 1 + (turn + phase) % 3;
                        if api.check_n(n).is_ok() {
                            taken.fetch_add(n, Ordering::Relaxed);
                        }
                    }
                    end.wait();
                }
            });
        }
        for _ in 0..all_phases {
            begin.wait();
            if run.dice.roll(60) == 0 {
                let strict = Strict::any(&mut run.dice, run.strict.window);
                let more = run.dice.roll(2) == 0;
                let beside = Limit::per_second(1_000_000_000).burst(1 << 40);
                run.turn_to(strict, |limit| if more { limit.and(beside) } else { limit });
            }
            end.wait();
            run.log.admit(taken.swap(0, Ordering::Relaxed), run.time.now(), run.seed);
            let by = run.dice.roll(run.strict.window / 20 + 2);
            run.time.advance(Duration::from_nanos(by));
        }
    });
    assert!(run.log.total > all_phases / 10, "{} admitted", run.log.total);
}

/// Taking all there is as soon as it is there gets what the docs say: the burst, and `n + 1 - burst`
/// a window.
#[test]
fn unrelenting_demand_gets_the_documented_rate() {
    for (n, burst) in [(1, 1), (10, 1), (10, 10), (100, 1), (100, 10), (100, 50), (100, 100)] {
        let limit = Limit::at_most(n, Duration::from_mins(1)).burst(burst);
        let (_, api, time) = manual(limit);
        assert_eq!(api.capacity().per_window, n + 1 - burst);
        let (mut served, mut end) = (0, false);
        while !end {
            match api.check() {
                Ok(()) => served += 1,
                Err(error) => {
                    time.advance(error.retry_after().expect("it is exhausted"));
                    end = time.now() >= 60 * 1_000 * SECOND;
                }
            }
        }
        let promised = 1_000 * (n + 1 - burst);
        assert!(served >= promised * 999 / 1_000, "{n}, {burst}: {served} of {promised}");
        assert!(served <= promised + burst, "{n}, {burst}: {served} of {promised}");
    }
}

/// The default trades a tenth for the burst.
#[test]
fn a_strict_limit_shows_its_trade() {
    let (limiter, api, _) = manual(Limit::at_most(100, Duration::from_mins(1)));
    let shown = api.capacity();
    assert_eq!(
        (shown.available, shown.burst, shown.per_window, shown.configured_burst),
        (10, 10, 91, 10)
    );
    let few = limiter.configure("few", Limit::at_most(9, Duration::from_mins(1))).unwrap();
    assert_eq!((few.capacity().burst, few.capacity().per_window), (1, 9));
}

/// The same limit once more is no change, cut or not.
#[test]
fn configuring_the_same_costs_nothing() {
    let limit = Limit::at_most(100, Duration::from_mins(1)).burst(10);
    let (limiter, api, _) = manual(limit);
    for total in [10, 7] {
        for _ in 0..100 {
            limiter.configure("api", limit).unwrap();
        }
        assert_eq!(api.capacity().available, total);
        api.announce_reduced("429");
    }
}

/// What a cut took from the bucket does not count as held when another limit makes it smaller.
#[test]
fn a_smaller_burst_during_a_cut_keeps_the_bound() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let minute = Duration::from_mins(1);
    let recovery = Recovery { interval: Duration::from_secs(1), factor: 2.0, cap: true };
    let limit = |burst| Limit::at_most(100, minute).burst(burst).recovery(recovery);
    let api = limiter.configure("api", limit(50)).unwrap();
    api.check_n(40).unwrap();
    api.announce_reduced("429");
    limiter.configure("api", limit(10)).unwrap();
    let mut admitted = 40;
    while time.now() < 60 * SECOND {
        time.advance(Duration::from_millis(100));
        admitted += u64::from(api.check().is_ok());
    }
    assert!(admitted <= 100, "{admitted} in a minute");
}
