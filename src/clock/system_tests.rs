//! The scaled clock over simulated counters.

use std::thread;

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A counter of nanoseconds that a test sets.
struct Simulated(AtomicU64);

impl Counter for Simulated {
    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

fn clock_at(ticks: u64) -> Scaled<Simulated> {
    Scaled::new(Simulated(AtomicU64::new(ticks)), 1 << SCALE)
}

impl Scaled<Simulated> {
    fn set(&self, ticks: u64) {
        self.counter.0.store(ticks, Ordering::Release);
    }
    fn pass(&self, nanos: u64) {
        self.counter.0.fetch_add(nanos, Ordering::AcqRel);
    }
}

#[test]
fn ticks_are_scaled_to_nanoseconds() {
    // 2.6 GHz, and a counter that wraps.
    let clock = Scaled::new(Simulated(AtomicU64::new(u64::MAX - 5)), (10 << SCALE) / 26);
    for seconds in [0_u64, 1, 3, 86_400, 86_400 * 365] {
        clock.set((seconds * 2_600_000_000).wrapping_sub(6));
        assert!(clock.now().abs_diff(seconds * SECOND) <= seconds / 1_000 + 1);
    }
}

#[test]
fn a_counter_slightly_behind_reads_what_was_seen() {
    let clock = clock_at(7);
    clock.pass(10 * SECOND);
    let seen = clock.now();
    clock.set(7 + 10 * SECOND - 300);
    assert_eq!(clock.now(), seen);
    clock.set(7 + 10 * SECOND + 300);
    assert_eq!(clock.now(), seen + 300);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026), ..ProptestConfig::default() })]

    /// A counter that restarts neither stops the time nor sets it back; the time leaps by at most a span.
    #[test]
    fn a_counter_may_restart(
        start in any::<u64>(),
        steps in prop::collection::vec((0..3 * SECOND, prop::option::of(2 * SECOND..u64::MAX / 2)), 1..40),
    ) {
        let clock = clock_at(start);
        let mut last = clock.now();
        for (pass, fall) in steps {
            if let Some(fall) = fall {
                clock.set(clock.counter.ticks().wrapping_sub(fall));
                let now = clock.now();
                prop_assert!(now >= last && now <= last + SPAN, "{now} after {last}");
                last = now;
            }
            clock.pass(pass);
            let now = clock.now();
            prop_assert_eq!(now, last + pass);
            last = now;
        }
    }
}

#[test]
fn no_thread_reads_less_than_another_has_read() {
    let clock = clock_at(90 * 86_400 * SECOND);
    let most = AtomicU64::new(0);
    let restarts = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..60_000 {
                    clock.pass(SPAN / 100);
                    let before = most.load(Ordering::Acquire);
                    let now = clock.now();
                    assert!(now >= before, "{now} after {before}");
                    most.fetch_max(now, Ordering::AcqRel);
                    if i % 10_000 == 9_999 {
                        // Far enough apart to be told from a core that is behind.
                        clock.counter.0.fetch_sub(2 * SECOND, Ordering::AcqRel);
                        restarts.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    assert_eq!(restarts.load(Ordering::Acquire), 18);
}
