//! Prepaid batches beside many threads: no window ever has more than the bound, and nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use crate::common::watchdog::Watchdog;
use crate::common::{Change, Dice, Log, SECOND, Terms, cases, drain, heat, manual, turns};
use crate::many_threads;
use tollgate::{Clock, Limit, ManualClock, MemoryLimiter, OnRelease, Permit, Resource};

/// Time goes on in steps of so many nanoseconds: each reading is one at which a take is a sign of demand.
const STEP: u64 = 1 << 16;

/// Somebody who takes at random and counts what was certainly admitted at one reading of the clock.
struct Taker<'a> {
    limiter: &'a MemoryLimiter,
    api: &'a Resource,
    other: &'a Resource,
    time: &'a ManualClock,
    /// Who gives tokens back does so while the clock stands still: taken and given back is nothing.
    still: &'a RwLock<()>,
    batch: u64,
    dice: Dice,
    admitted: Vec<u32>,
    in_all: u64,
}

impl Taker<'_> {
    fn take(&mut self) {
        let n = 1 + self.dice.roll(2 * self.batch);
        let before = self.time.now();
        let taken = match self.dice.roll(256) {
            0 => {
                let _still = self.still.read().unwrap();
                self.api.try_acquire().map(Permit::refund).unwrap_or_default();
                0
            }
            1 => {
                let _still = self.still.read().unwrap();
                self.api.try_acquire_n(n).map(|permit| permit.settle(n / 2)).map_or(0, |()| n / 2)
            }
            2 => self.api.try_acquire_n(n).map_or(0, |permit| permit.tokens()),
            3 => self.api.peek(n).map_or(0, |()| 0),
            4 => u64::from(self.api.capacity().available > u64::MAX / 2),
            5 => {
                let both = [(self.api, n), (self.other, 1)];
                self.limiter.check_all_of(&both).map_or(0, |()| n)
            }
            6 if self.dice.roll(16) == 0 => {
                let half = self.batch * 32;
                self.api.check_n(half).map_or(0, |()| half)
            }
            7..40 => self.api.check_n(n).map_or(0, |()| n),
            40..72 => self.api.try_acquire().map_or(0, |permit| permit.tokens()),
            _ => self.api.check().map_or(0, |()| 1),
        };
        self.in_all += taken;
        if taken > 0 && self.time.now() == before {
            let step = (before / STEP) as usize;
            if step >= self.admitted.len() {
                self.admitted.resize(step + 1_000, 0);
            }
            self.admitted[step] += taken as u32;
        }
    }
}

/// Three threads take, in phases of plenty and of drought, and one of them moves the clock.
fn never_over_the_bound(terms: Terms, all_turns: u64) {
    (0..cases(1)).for_each(|round| never_over_the_bound_from(terms, all_turns, 4 * round));
}

fn never_over_the_bound_from(terms: Terms, all_turns: u64, seeds: u64) {
    let (limiter, api, time) = manual(terms.limit());
    let other = limiter.configure("other", Limit::per_second(1 << 40)).unwrap();
    let (over, still) = (AtomicBool::new(false), RwLock::new(()));
    let taker = |seed| Taker {
        limiter: &limiter,
        api: &api,
        other: &other,
        time: &time,
        still: &still,
        batch: (terms.burst / 64).min(256),
        dice: Dice(seeds + seed),
        admitted: Vec::new(),
        in_all: 0,
    };
    let takers: Vec<_> = thread::scope(|scope| {
        let beside: Vec<_> = (1..3)
            .map(|seed| {
                let mut taker = taker(seed);
                let over = &over;
                scope.spawn(move || {
                    let mut turns = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        taker.take();
                        turns += 1;
                    }
                    (taker, turns)
                })
            })
            .collect();
        let mut taker = taker(3);
        let mut dice = Dice(seeds + 4);
        let mut turns = 0;
        while turns * 3 < all_turns {
            let (phase, every) = (1 + dice.roll(2_000), [16, 64, 4_096][dice.roll(3) as usize]);
            for _ in 0..phase * 64 / every {
                (0..every).for_each(|_| taker.take());
                turns += every;
                let _still = still.write().unwrap();
                time.advance(Duration::from_nanos(STEP * (1 + dice.roll(3))));
            }
        }
        over.store(true, Ordering::Relaxed);
        let beside = beside.into_iter().map(|taker| taker.join().unwrap());
        beside.chain([(taker, turns)]).collect()
    });
    let mut log = Log::new(terms);
    let steps = takers.iter().map(|(taker, _)| taker.admitted.len()).max().unwrap_or(0);
    for step in 0..steps {
        let at_step = |(taker, _): &(Taker, u64)| taker.admitted.get(step).copied().unwrap_or(0);
        let n: u64 = takers.iter().map(|taker| u64::from(at_step(taker))).sum();
        log.admit(step as u64 * STEP, n);
    }
    let in_all: u64 = takers.iter().map(|(taker, _)| taker.in_all).sum();
    assert!(log.admitted() > in_all / 10, "most are counted: {} of {in_all}", log.admitted());
}

#[test]
fn never_over_the_bound_of_a_small_bucket() {
    let _many = many_threads();
    let terms = Terms::per_second(15_000_000).burst(1_024);
    never_over_the_bound(terms, turns(20_000_000, 200_000));
}

#[test]
fn never_over_the_bound_at_an_odd_rate() {
    let _many = many_threads();
    let terms = Terms::per_second(15_000_007).burst(20_011);
    never_over_the_bound(terms, turns(60_000_000, 600_000));
}

#[test]
fn never_over_the_bound_of_a_large_bucket() {
    let _many = many_threads();
    let terms = Terms::per_second(50_000_000).burst(1_000_000);
    never_over_the_bound(terms, turns(20_000_000, 200_000));
}

/// More than half a bucket in each step, all of which is taken: also where one thread takes a few,
/// which sets tokens apart, and then stops for good.
#[test]
fn unrelenting_demand_gets_the_rate() {
    let _many = many_threads();
    for (burst, stops) in [(1_024, false), (20_000, false), (20_000, true), (1_000_000, true)] {
        let terms = Terms::per_second(1_000_003).burst(burst);
        let (_, api, time) = manual(terms.limit());
        let (over, parked) = (AtomicBool::new(false), Barrier::new(2));
        let steps = turns(200_000_000, 2_000_000) / burst;
        let step = terms.due(burst * 6 / 10);
        let mut taken = AtomicU64::new(0);
        thread::scope(|scope| {
            if stops {
                scope.spawn(|| {
                    heat(&api);
                    (0..3).for_each(|_| api.check().unwrap());
                    taken.fetch_add(3, Ordering::Relaxed);
                    parked.wait();
                    parked.wait();
                });
                parked.wait();
            }
            let take = || {
                while !over.load(Ordering::Relaxed) {
                    taken.fetch_add(drain(&api), Ordering::Relaxed);
                }
            };
            (0..2).for_each(|_| drop(scope.spawn(take)));
            for _ in 0..steps / 32 {
                taken.fetch_add(drain(&api), Ordering::Relaxed);
                time.advance(Duration::from_nanos(step.next_multiple_of(1 << 10)));
            }
            over.store(true, Ordering::Relaxed);
            if stops {
                parked.wait();
            }
        });
        let all = *taken.get_mut() + drain(&api);
        let earned = u128::from(time.now()) * u128::from(terms.tokens) / u128::from(SECOND);
        let earned = u64::try_from(earned).unwrap() + burst;
        assert!(all <= earned, "{all} of {earned}");
        assert!(earned - all <= earned / 1_000, "{all} of {earned}");
    }
}

/// More threads than stripes take all that there is, in pieces that become smaller.
#[test]
fn a_bucket_is_emptied_to_the_last_token() {
    let _many = many_threads();
    for (capacity, times) in [(1_000_000, cases(turns(60, 4))), (5_000, cases(turns(1_000, 30)))] {
        for time in 1..=times {
            let (_, api, _) = manual(Limit::per_hour(capacity));
            if time % 2 == 0 {
                heat(&api);
            }
            let ready = Barrier::new(12);
            let take = |seed| {
                let mut dice = Dice(seed);
                let (mut most, mut taken) = (capacity / 40, 0);
                ready.wait();
                while most > 0 {
                    let n = 1 + dice.roll(most);
                    match api.check_n(n) {
                        Ok(()) => taken += n,
                        Err(_) => most = (n - 1).min(most / 2),
                    }
                    if dice.roll(200) == 0 {
                        most = most.min(300);
                    }
                }
                taken
            };
            let take = &take;
            let taken: u64 = thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..12).map(|i| scope.spawn(move || take(time * 12 + i))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(taken + drain(&api), capacity, "turn {time}");
        }
    }
}

/// Taken on one thread and given back on another.
#[test]
fn permits_go_round_and_come_back() {
    let _many = many_threads();
    for capacity in [1_024, 20_000, 1_000_000] {
        for _ in 0..cases(turns(10, 1)) {
            let (_, api, _) = manual(Limit::per_hour(capacity).on_release(OnRelease::Refund));
            let others = Mutex::new(Vec::new());
            let take = |seed| {
                let mut dice = Dice(seed);
                let mut held = Vec::new();
                for _ in 0..turns(20_000, 2_000) {
                    match dice.roll(8) {
                        0 => others.lock().unwrap().append(&mut held),
                        1 => drop(others.lock().unwrap().pop()),
                        2 => held
                            .extend(api.try_acquire_n(1 + dice.roll(50)).map(Permit::into_owned)),
                        _ if dice.roll(2) == 0 => drop(held.pop()),
                        _ => held.extend(api.try_acquire().map(Permit::into_owned)),
                    }
                }
            };
            let take = &take;
            thread::scope(|scope| (1..=12).for_each(|seed| drop(scope.spawn(move || take(seed)))));
            others.into_inner().unwrap().clear();
            let now = api.capacity();
            assert_eq!((now.in_flight, now.available), (0, capacity));
            api.check_n(capacity).unwrap();
        }
    }
}

/// Never full, and never below half, so that the stripes stay open: what was admitted and what is left
/// is what was earned, to the token.
///
/// The threads wait for each other every few turns. A thread that stalls with a reading in hand decides by
/// that reading, and is refused if the others have moved the time by a bucket's worth meanwhile: so they
/// may not. From one wait to the next all four together take 130,000 tokens at most.
#[test]
fn open_stripes_conserve_tokens() {
    let _many = many_threads();
    for round in 0..3 * cases(1) {
        let tokens = [1_000_000_000, 999_999_937, 15_000_007][round as usize % 3];
        let terms = Terms::per_second(tokens).burst(1_000_000);
        let (_, api, time) = manual(terms.limit());
        heat(&api);
        api.check_n(200_000).unwrap();
        let (taken, in_step) = (AtomicU64::new(200_000), Barrier::new(4));
        thread::scope(|scope| {
            for seed in 4 * round + 1..=4 * round + 4 {
                let (api, time, taken, in_step) = (&api, &time, &taken, &in_step);
                scope.spawn(move || {
                    let mut dice = Dice(seed);
                    for turn in 0..turns(3_000, 60) {
                        if turn % 25 == 0 {
                            in_step.wait();
                        }
                        let mut some = 0;
                        while some < 1_000 {
                            let n = if dice.roll(4) == 0 { 1 + dice.roll(300) } else { 1 };
                            api.check_n(n).unwrap();
                            some += n;
                        }
                        taken.fetch_add(some, Ordering::Relaxed);
                        time.advance(Duration::from_nanos(terms.due(some)));
                    }
                });
            }
        });
        let earned = u128::from(time.now()) * u128::from(tokens) / u128::from(SECOND);
        let left = 1_000_000 + u64::try_from(earned).unwrap() - taken.into_inner();
        assert_eq!(api.capacity().available, left);
        assert_eq!(drain(&api), left);
    }
}

/// Stripes that are being opened, and stashes that are being taken from, beside what changes a limit:
/// once that has returned, what is admitted is the new limit's.
#[test]
fn a_change_takes_effect_at_once() {
    let _many = many_threads();
    let changes: [(Change, u64); 5] = [
        (|_, api| api.pause_for(Duration::from_secs(1)), 0),
        (|limiter, _| drop(limiter.configure("api", Limit::per_hour(10)).unwrap()), 10),
        (|limiter, _| drop(limiter.configure("api", Limit::per_hour(1_100)).unwrap()), 1_100),
        (|limiter, _| limiter.close(), 0),
        (|limiter, _| assert!(limiter.remove("api")), 0),
    ];
    for turn in 0..cases(turns(400, 30)) {
        for (change, most) in changes {
            let (limiter, api, _) = manual(Limit::per_hour(1 << 40).burst(1 << 30));
            let (over, since) = (AtomicBool::new(false), AtomicU64::new(0));
            let ready = Barrier::new(3);
            thread::scope(|scope| {
                let (over, since, ready, api) = (&over, &since, &ready, &api);
                for _ in 0..2 {
                    scope.spawn(move || {
                        ready.wait();
                        let mut left = 1_000;
                        while left > 0 {
                            let was_over = over.load(Ordering::SeqCst);
                            let is_taken = api.check().is_ok();
                            if was_over {
                                since.fetch_add(is_taken.into(), Ordering::SeqCst);
                                left -= 1;
                            }
                        }
                    });
                }
                ready.wait();
                // At about the time when the stripes are opened, or later.
                (0..turn % 40).for_each(|_| api.check().unwrap());
                change(&limiter, api);
                over.store(true, Ordering::SeqCst);
            });
            let since = since.into_inner() + drain(&api);
            assert!(since <= most, "{since} of {most}");
        }
    }
}

/// Two hundred threads, some at a time, each of which takes a few and ends.
#[test]
fn threads_that_come_and_go() {
    let _many = many_threads();
    let _watchdog = Watchdog::new();
    for capacity in [5_000, 100_000] {
        for seed in 1..=cases(turns(20, 2)) {
            let (_, api, _) = manual(Limit::per_hour(capacity));
            heat(&api);
            let mut dice = Dice(seed);
            let mut taken = 0;
            for _ in 0..20 {
                taken += thread::scope(|scope| {
                    let threads: Vec<_> = (0..10)
                        .map(|_| {
                            let (few, api) = (dice.roll(capacity / 100), &api);
                            scope.spawn(move || (0..few).filter(|_| api.check().is_ok()).count())
                        })
                        .collect();
                    let counts = threads.into_iter().map(|thread| thread.join().unwrap() as u64);
                    counts.sum::<u64>()
                });
            }
            assert_eq!(taken + drain(&api), capacity);
        }
    }
}

/// Stripes that open on the machine's time: a bucket that earns one token a day.
#[test]
fn all_that_there_is_on_the_machines_time() {
    let _many = many_threads();
    let limiter = MemoryLimiter::with_clock(Clock::system());
    let capacity = turns(20_000_000, 1_000_000);
    let limit = Limit::per_day(1).burst(capacity);
    let api = limiter.configure("api", limit).unwrap();
    let taken: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&api))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let all = taken + drain(&api);
    assert!((capacity..=capacity + 1).contains(&all), "{all} of {capacity}");
}
