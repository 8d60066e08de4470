//! The machine's time by its fastest counter, kept in step with the system's clock by its readers.
//!
//! There is one for the process. A reading is a [segment](super::calibration) in one of two slots,
//! by the parity of the generation. A reader past the segment's length prepares the next one.
//! Nobody waits for that: the segment continues until it is *sealed*, which says at which later
//! tick the next one begins. A reader past that tick increments the generation.
//!
//! # One function of the ticks
//!
//! A segment must not be used beyond the tick where the next one begins: their slopes differ, and
//! the reading after it could be the lower one. So a slot's `end` is one word for both sides. A
//! reader that uses a segment beyond its length first raises `end` to its tick. The sealer puts the
//! next begin there, by a compare-and-swap, if no reader has used the segment beyond that. A
//! segment is never sealed within its length. So all threads read one function of the ticks, which
//! never falls. Only the counter goes back, from core to core or by a jump.
//!
//! A counter behind a segment's begin reads the begin: it may be that of a core slightly behind
//! others. If it is behind by more than a second it has jumped, and the next segment begins at
//! once, with a sealed tick of 0.
//!
//! # Orderings
//!
//! As in a bucket's slots. The fields of generation g + 2 are stored with Release, after the
//! generation was set to g + 1. A reader that loads one of them, with Acquire, sees g + 1 in its
//! second load of the generation, and starts over. `end` is changed by `AcqRel` RMWs and loaded
//! with Acquire: a reader that finds it sealed finds the next segment in its slot. The generation
//! is incremented after that, by an `AcqRel` compare-and-swap, so a reader within the segment's
//! length sees the slot as well.

use std::sync::OnceLock;
use std::time::Instant;

use super::calibration::{Calibration, SCALE, Sample, Segment};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// An `end` with this bit is the tick at which the next segment begins. Without it, `end` is the
/// last tick at which the segment was used beyond its length, or 0.
const SEALED: u64 = 1 << 63;

/// How far ahead, in nanoseconds, the next segment begins: longer than it takes to prepare it.
const MARGIN: u64 = 50_000;
/// Samples taken, of which the narrowest is used.
const SAMPLES: u32 = 5;

/// The counter and the system's clock.
pub(super) trait Source {
    fn ticks(&self) -> u64;
    fn nanos(&self) -> u64;
}

/// The real ones.
#[derive(Debug)]
pub(super) struct Hardware {
    counter: quanta::Clock,
    start: Instant,
}

impl Source for Hardware {
    #[inline]
    fn ticks(&self) -> u64 {
        self.counter.raw()
    }
    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A pointer to the process's only steered clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct System(&'static Steered<Hardware>);

impl System {
    pub(super) fn new() -> Self {
        static HARDWARE: OnceLock<Steered<Hardware>> = OnceLock::new();
        Self(HARDWARE.get_or_init(|| {
            let counter = quanta::Clock::new();
            // 1 without a reliable counter: then the system's clock is kept in step with itself.
            let rate = counter.delta_as_nanos(0, 1 << SCALE);
            Steered::new(Hardware { counter, start: Instant::now() }, rate)
        }))
    }

    #[inline]
    pub(super) fn now(self) -> u64 {
        self.0.now()
    }
}

#[derive(Debug)]
pub(super) struct Steered<S> {
    generation: AtomicU64,
    pub(super) source: S,
    /// The tick that is 0 in an `end`: 2^62 before the first segment.
    zero: u64,
    slots: [Slot; 2],
    calibration: Mutex<Calibration>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    base: AtomicU64,
    nanos: AtomicU64,
    scale: AtomicU64,
    length: AtomicU64,
    end: AtomicU64,
}

impl Slot {
    #[inline]
    fn load(&self) -> Segment {
        Segment {
            base: self.base.load(Ordering::Acquire),
            nanos: self.nanos.load(Ordering::Acquire),
            scale: self.scale.load(Ordering::Acquire),
            length: self.length.load(Ordering::Acquire),
        }
    }

    /// Under the lock, and only into the slot that is not in use.
    fn store(&self, segment: &Segment) {
        self.base.store(segment.base, Ordering::Release);
        self.nanos.store(segment.nanos, Ordering::Release);
        self.scale.store(segment.scale, Ordering::Release);
        self.length.store(segment.length, Ordering::Release);
        self.end.swap(0, Ordering::AcqRel);
    }
}

impl<S: Source> Steered<S> {
    pub(super) fn new(source: S, rate: u64) -> Self {
        let (calibration, segment) = Calibration::start(sample(&source), rate);
        let slots = <[Slot; 2]>::default();
        slots[0].store(&segment);
        Self {
            generation: AtomicU64::new(0),
            source,
            zero: segment.base.wrapping_sub(SEALED >> 1),
            slots,
            calibration: Mutex::new(calibration),
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        let generation = self.generation.load(Ordering::Acquire);
        // A branch instead of an index: the processor can load the slot before the generation.
        let slot = if generation & 1 == 0 { &self.slots[0] } else { &self.slots[1] };
        let segment = slot.load();
        let elapsed = self.source.ticks().wrapping_sub(segment.base);
        // Also false for a counter before the segment's begin, which wraps.
        if elapsed < segment.length && self.generation.load(Ordering::Acquire) == generation {
            return segment.after(elapsed);
        }
        self.now_slowly()
    }

    #[cold]
    #[inline(never)]
    fn now_slowly(&self) -> u64 {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let slot = &self.slots[(generation & 1) as usize];
            let segment = slot.load();
            if segment.length == 0 && self.generation.load(Ordering::Acquire) == generation {
                return segment.at(self.source.nanos());
            }
            // After the load: ticks from before a jump mean nothing on a segment from after it.
            let ticks = self.source.ticks();
            let reading = segment.at(ticks);
            let (is_past_end, is_lost) = (segment.is_past_end(ticks), segment.is_lost(ticks));
            let end = if is_past_end {
                slot.end.fetch_max(self.mark(ticks), Ordering::AcqRel)
            } else {
                slot.end.load(Ordering::Acquire)
            };
            // If not, the mark may be on a later segment, where it does no harm.
            if self.generation.load(Ordering::Acquire) != generation {
                continue;
            }
            if end & SEALED == 0 {
                if (is_past_end || is_lost)
                    && let Some(mut calibration) = self.calibration.try_lock()
                    && self.generation.load(Ordering::Acquire) == generation
                    && slot.end.load(Ordering::Acquire) & SEALED == 0
                {
                    self.seal(generation, &mut calibration, is_lost);
                }
                return reading;
            }
            if self.mark(ticks) < end & !SEALED && !is_lost {
                return reading;
            }
            let next = generation.wrapping_add(1);
            // Acquire on failure: the next turn of the loop must see the generation that won.
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.generation.compare_exchange(generation, next, new, old);
        }
    }

    /// Prepare the next segment and seal this one, under the lock that guards `calibration`.
    fn seal(&self, generation: u64, calibration: &mut Calibration, is_lost: bool) {
        let slot = &self.slots[(generation & 1) as usize];
        let next = &self.slots[(generation & 1 ^ 1) as usize];
        let segment = slot.load();
        let now = sample(&self.source);
        if !calibration.accepts(&now) {
            // The next reading retries a lost segment. Others are retried an eighth later.
            if !is_lost {
                let elapsed = now.ticks.wrapping_sub(segment.base);
                slot.length.store(elapsed.saturating_add(segment.length / 8), Ordering::Release);
            }
            return;
        }
        loop {
            let used = slot.end.load(Ordering::Acquire);
            let (base, begin, read) = if is_lost {
                (now.ticks, 0, segment.nanos.max(self.used_to(&segment, used)))
            } else {
                // The length may have grown since this thread loaded it.
                let over = self.mark(segment.base.wrapping_add(segment.length));
                let latest = self.mark(self.source.ticks()).max(over).max(used);
                let begin = latest.saturating_add(calibration.ticks(MARGIN)).min(!SEALED);
                let base = self.zero.wrapping_add(begin);
                (base, begin, segment.at(base))
            };
            let (later, segment) = calibration.next(&now, base, read);
            next.store(&segment);
            let most = used.max(begin);
            let seal = |used: u64| (used <= most).then_some(begin | SEALED);
            if slot.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, seal).is_ok() {
                *calibration = later;
                return;
            }
        }
    }

    /// The last reading of a segment used beyond its length, otherwise 0.
    fn used_to(&self, segment: &Segment, end: u64) -> u64 {
        if end == 0 { 0 } else { segment.at(self.zero.wrapping_add(end)) }
    }

    /// A tick as it is stored in an `end`, with room for 2^62 ticks on either side of the start.
    fn mark(&self, ticks: u64) -> u64 {
        ticks.wrapping_sub(self.zero) & !SEALED
    }
}

/// Both clocks. A thread that is preempted between two readings makes a wide sample.
fn sample(source: &impl Source) -> Sample {
    let take = || {
        let before = source.ticks();
        let nanos = source.nanos();
        let width = source.ticks().wrapping_sub(before);
        Sample { ticks: before.wrapping_add(width / 2), nanos, width }
    };
    (0..SAMPLES).map(|_| take()).min_by_key(|sample| sample.width).unwrap_or_else(take)
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
