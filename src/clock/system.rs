//! The machine's time by its fastest counter, as quanta calibrates it.
//!
//! A reading is the number of ticks since `origin`, scaled to nanoseconds. There is one clock for the
//! process, so that all limiters read the same time.
//!
//! Most counters only advance. That of another core may be slightly behind, and that of a suspended or
//! migrated machine may restart. `seen` tells the two apart: it is a number of ticks that was read, and a
//! reader that is a [`SPAN`] ahead of it raises it. A counter behind `seen` by up to a second reads `seen`.
//! A counter further behind has restarted: the reader moves `origin`, so that the time continues from the
//! latest reading that can have been made. Without that, every bucket would deny until the counter is
//! where it was.
//!
//! # Orderings
//!
//! `origin` is moved by a compare-and-swap against the value that the reader used. So of two readers that
//! find the counter restarted one moves it, and the other starts over. `seen` only rises, by `fetch_max`.
//! A reader loads `origin`, then the counter, then `seen`:
//!
//! 1. The new `origin` and an older `seen`: the reading is a span beyond it, so the reader raises `seen`.
//! 2. The old `origin` and a newer `seen`: after a restart the reading is far behind it, so the reader starts
//!    over. It loads the new `origin` then: `seen` was raised by an `AcqRel` operation of a thread that had
//!    loaded or moved `origin`, and is loaded with Acquire.

use std::sync::OnceLock;

use crate::sync::{AtomicU64, Ordering};

/// Binary places of a scale. Leaves room for ticks of up to 256 ns.
const SCALE: u32 = 56;
/// How old `seen` may be, in nanoseconds.
const SPAN: u64 = 100_000_000;
/// A counter this many nanoseconds behind `seen` has restarted.
const RESTARTED: u64 = 1_000_000_000;

/// A counter of ticks.
pub(super) trait Counter {
    fn ticks(&self) -> u64;
}

impl Counter for quanta::Clock {
    #[inline]
    fn ticks(&self) -> u64 {
        self.raw()
    }
}

/// A pointer to the process's only clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct System(&'static Scaled<quanta::Clock>);

impl System {
    pub(super) fn new() -> Self {
        static CLOCK: OnceLock<Scaled<quanta::Clock>> = OnceLock::new();
        Self(CLOCK.get_or_init(|| {
            let counter = quanta::Clock::new();
            // Without a reliable counter, quanta counts the system's nanoseconds.
            let scale = counter.delta_as_nanos(0, 1 << SCALE);
            Scaled::new(counter, scale)
        }))
    }

    #[inline]
    pub(super) fn now(self) -> u64 {
        self.0.now()
    }
}

/// A counter, read in nanoseconds since the start.
#[derive(Debug)]
pub(super) struct Scaled<C> {
    pub(super) counter: C,
    /// Nanoseconds a tick, in units of 2^-[`SCALE`].
    scale: u64,
    /// [`SPAN`] in ticks.
    span: u64,
    /// The tick at which the reading is 0. Counters may wrap.
    origin: AtomicU64,
    /// A number of ticks since `origin` that was read.
    seen: AtomicU64,
}

impl<C: Counter> Scaled<C> {
    pub(super) fn new(counter: C, scale: u64) -> Self {
        let origin = AtomicU64::new(counter.ticks());
        let span = ticks(SPAN, scale);
        Self { counter, scale, span, origin, seen: AtomicU64::new(0) }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        let origin = self.origin.load(Ordering::Acquire);
        let elapsed = self.counter.ticks().wrapping_sub(origin);
        // Also false for a counter behind `seen`, which wraps.
        if elapsed.wrapping_sub(self.seen.load(Ordering::Acquire)) < self.span {
            return self.nanos(elapsed);
        }
        self.now_slow()
    }

    #[cold]
    #[inline(never)]
    fn now_slow(&self) -> u64 {
        loop {
            // Before the ticks: those from before a restart mean nothing by an origin from after it.
            let origin = self.origin.load(Ordering::Acquire);
            let now = self.counter.ticks();
            let elapsed = now.wrapping_sub(origin);
            let seen = self.seen.load(Ordering::Acquire);
            let ahead = elapsed.wrapping_sub(seen).cast_signed();
            if ahead >= 0 {
                self.seen.fetch_max(elapsed, Ordering::AcqRel);
                return self.nanos(elapsed);
            }
            if ahead.unsigned_abs() < ticks(RESTARTED, self.scale) {
                return self.nanos(seen);
            }
            let latest = seen.wrapping_add(self.span);
            let moved = now.wrapping_sub(latest);
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.origin.compare_exchange(origin, moved, new, old);
        }
    }

    #[inline]
    fn nanos(&self, elapsed: u64) -> u64 {
        ((u128::from(elapsed) * u128::from(self.scale)) >> SCALE) as u64
    }
}

fn ticks(nanos: u64, scale: u64) -> u64 {
    let ticks = (u128::from(nanos) << SCALE) / u128::from(scale.max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
