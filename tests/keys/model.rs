//! A key that comes and goes, and becomes whole, beside references that stay: any sequence of calls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::any::{retry_after_is_exact, set, spread, takes, terms, terms_on_a_grid};
use crate::common::{DAY, Dice, Gate, MutexBucket, SECOND, Terms, cases, turns};
use proptest::prelude::*;
use tollgate::{ManualClock, MemoryLimiter, Permit};

/// tollgate by a key of a template, which is looked at before each call, and goes whenever it may.
struct ByKey {
    clock: ManualClock,
    limiter: MemoryLimiter,
    held: Mutex<Vec<Permit<'static>>>,
}

const KEY: &str = "key";

impl ByKey {
    fn new(terms: Terms) -> Self {
        let clock = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(clock.clone());
        limiter.per_key_at_most("", terms.limit(), 1).expect("a limit");
        Self { clock, limiter, held: Mutex::default() }
    }

    /// There is room for one key alone: one that is idle goes at once for this one, which then leaves
    /// nothing but its name.
    fn look_around(&self) {
        for name in ["one", "two"] {
            let is_new = self.limiter.check(name).is_ok();
            assert_eq!(self.limiter.remove(name), is_new);
        }
    }
}

impl Gate for ByKey {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn take(&self, n: u64) -> bool {
        self.look_around();
        self.limiter.check_n(KEY, n).is_ok()
    }
    fn hold(&self, n: u64) -> bool {
        self.look_around();
        let Ok(permit) = self.limiter.try_acquire_n(KEY, n) else { return false };
        self.held.lock().unwrap().push(permit);
        true
    }
    fn refund(&self) {
        let permit = self.held.lock().unwrap().pop();
        permit.map(Permit::refund).unwrap_or_default();
    }
    fn reconfigure(&self, terms: Terms) {
        self.look_around();
        self.limiter.per_key_at_most("", terms.limit(), 1).expect("a limit");
    }
    fn pause(&self, nanos: u64) {
        self.limiter.pause_for(KEY, Duration::from_nanos(nanos));
    }
    fn cut(&self) {
        self.limiter.announce_reduced(KEY, "429");
    }
    fn observe(&self, n: u64) {
        self.limiter.observe_remaining(KEY, n);
    }
    fn peek(&self, n: u64) -> bool {
        self.look_around();
        self.limiter.peek(KEY, n).is_ok()
    }
    fn available(&self) -> u64 {
        self.look_around();
        self.limiter.capacity(KEY).expect("a template").available
    }
}

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Back(u64),
    Take(u64),
    Hold(u64),
    Refund,
    Peek(u64),
    /// Whole for this one look.
    Handle,
    Reconfigure(Terms),
    Pause(u64),
}

fn op(terms: Terms) -> impl Strategy<Value = Op> {
    let token = terms.due(1).min(20 * SECOND);
    let bucket = terms.due(terms.burst).min(20 * SECOND);
    let take = prop_oneof![3 => Just(1), 3 => 1..=terms.burst, 1 => Just(terms.burst + 1)];
    prop_oneof![
        3 => Just(Op::Advance(token)),
        3 => (1..=bucket).prop_map(Op::Advance),
        // As full as can be, and not quite.
        2 => (0..3_u64).prop_map(move |less| Op::Advance(bucket.saturating_sub(less))),
        1 => (1..=1_u64 << 52).prop_map(Op::Advance),
        8 => take.clone().prop_map(Op::Take),
        1 => take.clone().prop_map(Op::Hold),
        2 => Just(Op::Refund),
        1 => take.prop_map(Op::Peek),
        1 => Just(Op::Handle),
    ]
}

fn any_op(terms: Terms) -> impl Strategy<Value = Op> {
    let bucket = terms.due(terms.burst).min(20 * SECOND);
    prop_oneof![
        12 => op(terms),
        2 => crate::common::any::terms().prop_map(Op::Reconfigure),
        1 => Just(Op::Reconfigure(terms)),
        1 => (1..=bucket).prop_map(Op::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(turns(4_000, 1_000)) as u32,
        failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        max_shrink_iters: 1_000,
        ..ProptestConfig::default()
    })]

    /// Where nothing needs rounding each decision is that of a bucket which stays.
    #[test]
    fn decides_as_one_that_stays(
        (terms, ops) in terms_on_a_grid().prop_flat_map(|terms| {
            (Just(terms), prop::collection::vec(op(terms), 1..100))
        }),
    ) {
        let (gate, exact) = (ByKey::new(terms), MutexBucket::new(terms));
        for op in ops {
            match op {
                Op::Advance(by) => set(&[&gate, &exact], gate.now() + by),
                Op::Take(n) => prop_assert_eq!(gate.take(n), exact.take(n), "take {}", n),
                Op::Hold(n) => prop_assert_eq!(gate.hold(n), exact.hold(n), "hold {}", n),
                Op::Refund => {
                    gate.refund();
                    exact.refund();
                }
                Op::Peek(n) => prop_assert_eq!(gate.peek(n), exact.peek(n), "peek {}", n),
                Op::Handle => drop(gate.limiter.resource(KEY)),
                Op::Reconfigure(_) | Op::Pause(_) | Op::Back(_) => unreachable!("not drawn here"),
            }
            prop_assert_eq!(gate.available(), exact.available());
        }
    }

    /// Whatever is done to the limit: never a take that the reference denies, and never a denial where
    /// the reference has more than a sliver to spare.
    #[test]
    fn never_early_and_at_most_a_sliver_late(
        (terms, ops) in terms().prop_flat_map(|first| {
            (Just(first), prop::collection::vec(any_op(first), 1..80))
        }),
    ) {
        let (gate, exact) = (ByKey::new(terms), MutexBucket::new(terms));
        let mut sliver = terms.sliver();
        let (mut moves, mut burst) = (3.0, terms.burst);
        for op in ops {
            match op {
                Op::Advance(by) => set(&[&gate, &exact], gate.now() + by),
                Op::Take(n) | Op::Hold(n) | Op::Peek(n) => {
                    let on = |gate: &dyn Gate| match op {
                        Op::Take(_) => gate.take(n),
                        Op::Hold(_) => gate.hold(n),
                        _ => gate.peek(n),
                    };
                    if on(&gate) {
                        prop_assert!(on(&exact), "{:?} early", op);
                    } else if !exact.is_paused() {
                        let (exact, now) = exact.look();
                        let short = exact.short_of(n, now);
                        prop_assert!(short > -moves * sliver, "{op:?} late by {:e} tokens", -short);
                    }
                }
                Op::Refund => {
                    gate.refund();
                    exact.refund();
                }
                Op::Handle => drop(gate.limiter.resource(KEY)),
                Op::Reconfigure(to) => {
                    // A key that is not there begins full, one that stays would have to fill up.
                    burst = burst.min(to.burst);
                    let to = to.burst(burst);
                    sliver = sliver.max(to.sliver());
                    // A fraction of a unit each time.
                    moves += 2.0;
                    gate.reconfigure(to);
                    exact.reconfigure(to);
                }
                Op::Pause(nanos) => {
                    gate.pause(nanos);
                    exact.pause(nanos);
                }
                Op::Back(_) => unreachable!("not drawn here"),
            }
            prop_assert!(gate.available() <= exact.available());
        }
    }

    /// A clock that steps back, by little or by years, admits nothing that a bucket which stays would not.
    #[test]
    fn a_step_back_only_denies(
        (terms, ops) in terms().prop_flat_map(|terms| {
            let back = prop_oneof![
                (1..=terms.due(terms.burst).min(DAY)).prop_map(Op::Back),
                spread(1 << 55).prop_map(Op::Back),
            ];
            (Just(terms), prop::collection::vec(prop_oneof![6 => op(terms), 1 => back], 1..100))
        }),
    ) {
        let (gate, exact) = (ByKey::new(terms), MutexBucket::new(terms));
        for op in ops {
            match op {
                Op::Advance(by) => set(&[&gate, &exact], gate.now() + by),
                Op::Back(by) => set(&[&gate, &exact], gate.now().saturating_sub(by)),
                Op::Take(n) | Op::Peek(n) if gate.limiter.check_n(KEY, n).is_ok() => {
                    prop_assert!(exact.take(n), "{:?} early", op);
                }
                // Have it looked at, where a clock that is behind lets another one in.
                Op::Refund => {
                    let _ = gate.limiter.check("another");
                    gate.limiter.remove("another");
                }
                // A key that becomes whole goes on from the latest time that it has seen.
                _ => {}
            }
        }
    }

    /// `retry_after` of a key is the first nanosecond at which the same take succeeds.
    #[test]
    fn retry_after_is_the_first_nanosecond(case in takes()) {
        let gate = ByKey::new(case.0);
        let check = |n| gate.limiter.check_n(KEY, n).map_err(|error| error.retry_after());
        let peek = |n| gate.limiter.peek(KEY, n).map_err(|error| error.retry_after());
        retry_after_is_exact(&gate, case, check, peek, || gate.look_around())?;
    }
}

/// Threads on a few keys that come and go all the time: none ever admits more than a full bucket and
/// what accrued.
#[test]
fn threads_never_over_admit() {
    hammer(|_, _| ());
}

/// The same while their limit changes to a slower one and back, and the template of some comes and goes.
#[test]
fn threads_never_over_admit_beside_other_limits() {
    hammer(|limiter, round| {
        let limit = Terms::new(if round % 2 == 0 { 500 } else { 1_000 }, SECOND, 2).limit();
        match round % 5 {
            0 => limiter.per_key("1", limit).unwrap(),
            1 => drop(limiter.remove_per_key("1")),
            2 => drop(limiter.configure("2", limit)),
            3 => drop(limiter.capacity("2")),
            _ => limiter.per_key("", limit).unwrap(),
        }
    });
}

fn hammer(beside: impl Fn(&MemoryLimiter, u64) + Sync) {
    const KEYS: u64 = 3;
    let rounds = cases(turns(20_000, 3_000));
    // A millisecond each, so that keys are full, and go, between the rounds of some.
    let terms = Terms::new(1_000, SECOND, 2);
    let clock = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(clock.clone());
    limiter.per_key_at_most("", terms.limit(), KEYS).unwrap();
    let admitted: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for seed in 1..=3 {
            let (limiter, clock, admitted, beside) = (&limiter, &clock, &admitted, &beside);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                for round in 0..rounds {
                    let key = dice.roll(KEYS);
                    let name = format!("{key}");
                    let taken = match dice.roll(4) {
                        // Whole, and light again when it has gone.
                        0 => limiter.try_acquire(&name).is_ok(),
                        1 => limiter.resource(&name).is_some_and(|key| key.check().is_ok()),
                        _ => limiter.check(&name).is_ok(),
                    };
                    admitted[key as usize].fetch_add(u64::from(taken), Ordering::Relaxed);
                    if round % 7 == seed {
                        clock.advance(Duration::from_micros(dice.roll(900)));
                    }
                    // Have keys looked at.
                    let other = format!("other {seed}");
                    let _ = limiter.check(&other);
                    limiter.remove(&other);
                    if seed == 1 && round % 11 == 0 {
                        beside(limiter, round / 11);
                    }
                }
            });
        }
    });
    let earned = clock.now() / 1_000_000;
    for admitted in admitted {
        let admitted = admitted.into_inner();
        assert!(admitted <= terms.burst + earned, "{admitted} > {earned}");
        assert!(admitted > earned / 4, "{admitted} of {earned}");
    }
}

/// Many windows of one key, each drained by threads at once: exactly a bucket a window.
#[test]
fn each_bucket_is_drained_exactly_once() {
    let rounds = cases(turns(3_000, 500));
    let terms = Terms::new(5, SECOND, 5);
    let clock = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(clock.clone());
    limiter.per_key("", terms.limit()).unwrap();
    for round in 0..rounds {
        let drain = |verb: u64| {
            let count = |_: &u64| match verb {
                0 => limiter.try_acquire(KEY).is_ok(),
                1 => limiter.check_all(&[(KEY, 1)]).is_ok(),
                _ => limiter.check(KEY).is_ok(),
            };
            (0..6).filter(count).count() as u64
        };
        let taken = thread::scope(|scope| {
            let threads = [2, round % 3].map(|verb| scope.spawn(move || drain(verb)));
            // It is full when they come, and may go at any moment of that.
            limiter.check("another").unwrap();
            limiter.remove("another");
            threads.map(|thread| thread.join().unwrap()).iter().sum::<u64>()
        });
        assert_eq!(taken, terms.burst, "in round {round}");
        // Idle for so long that it goes when another one is made.
        clock.advance(Duration::from_secs(12));
    }
}
