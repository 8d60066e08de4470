//! The steered clock over simulated counters.

use std::thread;

use super::super::calibration::{FIRST, LONGEST, SCALE};
use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A counter of 2.6 GHz and a system's clock, over a time that advances with each reading.
struct World {
    now: AtomicU64,
    /// The longest time that a reading takes.
    look: u64,
    /// One in this many readings of the system's clock takes 3 ms more; 0 for none.
    preempt: u64,
    /// The pace of the counter, in millionths of the right one.
    pace: u64,
    /// The offset of the counter, in ticks.
    skew: AtomicU64,
    /// How long the system's clock has stood still.
    slept: AtomicU64,
}

impl World {
    fn new(pace: u64) -> Self {
        let [now, skew, slept] = [1, 2, 0].map(|days| AtomicU64::new(days * 86_400 * SECOND));
        Self { now, look: 100, preempt: 0, pace, skew, slept }
    }

    fn pass(&self, nanos: u64) -> u64 {
        self.now.fetch_add(nanos, Ordering::AcqRel) + nanos
    }

    /// A pseudorandom number below `most`, by the time.
    fn any(&self, most: u64) -> u64 {
        let mixed = self.now.load(Ordering::Acquire).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) % most
    }

    fn time(&self) -> u64 {
        self.now.load(Ordering::Acquire) - self.slept.load(Ordering::Acquire)
    }
}

impl Source for World {
    fn ticks(&self) -> u64 {
        let now = self.pass(self.any(self.look) / 2);
        let ticks = u128::from(now) * u128::from(self.pace) * 26 / 10_000_000;
        (ticks as u64).wrapping_add(self.skew.load(Ordering::Acquire))
    }
    fn nanos(&self) -> u64 {
        if self.preempt > 0 && self.any(self.preempt) == 0 {
            self.pass(3_000_000);
        }
        let time = self.pass(self.any(self.look) / 4) - self.slept.load(Ordering::Acquire);
        if self.preempt > 0 && self.any(self.preempt) == 1 {
            self.pass(3_000_000);
        }
        time
    }
}

/// A clock calibrated for a counter of the right pace.
fn steered(world: World) -> Steered<World> {
    let rate = (10_u128 << SCALE) / 26;
    Steered::new(world, rate as u64)
}

/// Let `time` pass, with a reading at least every `every` ns. None goes back. Returns the last one.
fn run(clock: &Steered<World>, time: u64, every: u64) -> u64 {
    let world = &clock.source;
    let (until, mut last) = (world.now.load(Ordering::Acquire) + time, clock.now());
    while world.now.load(Ordering::Acquire) < until {
        world.pass(1 + world.any(every));
        let now = clock.now();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    last
}

/// How far the readings are from the system's clock, counted from its time `begin`.
fn offset(clock: &Steered<World>, begin: u64) -> u64 {
    let before = clock.source.time() - begin;
    let now = clock.now();
    let after = clock.source.time() - begin;
    before.saturating_sub(now).max(now.saturating_sub(after))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026), ..ProptestConfig::default() })]

    #[test]
    fn a_counter_that_is_off_is_kept_in_step(
        off in -400_i64..=400,
        preempt in prop_oneof![Just(0_u64), 4_u64..20],
        every in prop_oneof![Just(1_000_000_u64), Just(SECOND)],
    ) {
        let world = World::new(1_000_000_u64.checked_add_signed(off).unwrap());
        let begin = world.time();
        let mut clock = steered(world);
        clock.source.preempt = preempt;
        run(&clock, 120 * SECOND, every);
        for _ in 0..100 {
            run(&clock, SECOND, every);
            let offset = offset(&clock, begin);
            // A preempted sample is used if it is good to a millionth.
            let most = if preempt == 0 { 1_000 } else { 20_000 };
            prop_assert!(offset < most, "{offset} ns off");
        }
    }

    #[test]
    fn time_that_only_the_counter_measured_counts(asleep in SECOND..1_000_000 * SECOND, early in 0..40 * SECOND) {
        let clock = steered(World::new(1_000_050));
        let before = run(&clock, early, 10_000_000);
        clock.source.pass(asleep);
        clock.source.slept.store(asleep, Ordering::Release);
        let after = run(&clock, 1_000, 10);
        let jump = after - before;
        prop_assert!(jump > asleep - asleep / 1_000 && jump < asleep + asleep / 1_000 + SECOND);
        // From there on it keeps the system's pace.
        let (begin, time) = (run(&clock, 2 * SECOND, 10_000_000), clock.source.time());
        run(&clock, 60 * SECOND, 10_000_000);
        let (passed, read) = (clock.source.time() - time, clock.now() - begin);
        prop_assert!(read.abs_diff(passed) < passed / 2_000, "{read} of {passed}");
    }

    #[test]
    fn a_counter_that_jumps_back_is_followed(early in 0..40 * SECOND, back in 2 * SECOND..1_000_000 * SECOND) {
        let world = World::new(999_930);
        let begin = world.time();
        let clock = steered(world);
        run(&clock, early, 10_000_000);
        let skew = clock.source.skew.load(Ordering::Acquire);
        clock.source.skew.store(skew.wrapping_sub(back * 26 / 10), Ordering::Release);
        run(&clock, 2 * SECOND + LONGEST, 10_000_000);
        let offset = offset(&clock, begin);
        prop_assert!(offset < 20_000_000, "{offset} ns off");
    }
}

#[test]
fn a_wrong_calibration_is_corrected() {
    for pace in [700_000, 950_000, 1_060_000, 1_400_000] {
        let clock = steered(World::new(pace));
        run(&clock, 3 * SECOND, 1_000_000);
        let (begin, time) = (clock.now(), clock.source.time());
        run(&clock, 60 * SECOND, 1_000_000);
        let (passed, read) = (clock.source.time() - time, clock.now() - begin);
        assert!(read.abs_diff(passed) < passed / 2_000, "{read} of {passed} at {pace}");
    }
}

#[test]
fn a_counter_that_differs_from_core_to_core_is_given_up() {
    let clock = steered(World::new(1_000_000));
    let other = |i: u64| {
        let skew = if i.is_multiple_of(2) { 0 } else { 10 * SECOND };
        clock.source.skew.store(skew, Ordering::Release);
    };
    // The cores' readings are 4 seconds apart, until they are the system's.
    for i in 0..4_000 {
        other(i);
        clock.source.pass(SECOND / 50);
        clock.now();
    }
    let (mut last, time) = (clock.now(), clock.source.time());
    let begin = last;
    for i in 0..100 {
        other(i);
        clock.source.pass(SECOND / 50);
        let now = clock.now();
        assert!(now >= last);
        last = now;
    }
    let (passed, read) = (clock.source.time() - time, last - begin);
    assert!(read.abs_diff(passed) < 10_000, "{read} of {passed}");
}

#[test]
fn two_idle_days_are_one_segment() {
    let world = World::new(1_000_100);
    let begin = world.time();
    let clock = steered(world);
    run(&clock, 60 * SECOND, 1_000_000);
    let before = clock.now();
    clock.source.pass(2 * 86_400 * SECOND);
    let after = clock.now();
    assert!(after.abs_diff(before + 2 * 86_400 * SECOND) < SECOND / 10);
    run(&clock, 300 * SECOND, 1_000_000);
    assert!(offset(&clock, begin) < 1_000);
}

#[test]
fn no_thread_reads_less_than_another_has_read() {
    let clock = steered(World { look: 10, ..World::new(1_000_200) });
    let most = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..60_000 {
                    // The first segments end after a few hundred readings.
                    clock.source.pass(FIRST / 1_000);
                    let before = most.load(Ordering::Acquire);
                    let now = clock.now();
                    assert!(now >= before, "{now} after {before}");
                    most.fetch_max(now, Ordering::AcqRel);
                }
            });
        }
    });
    assert!(clock.generation.load(Ordering::Acquire) > 5);
}
