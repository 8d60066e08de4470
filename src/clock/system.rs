//! The machine's time by its fastest counter, kept in step with the system's clock by who reads it.
//!
//! One for the process. A reading is a [segment](super::course) in one of two slots, by the parity of the
//! generation; who reads beyond the segment's length looks after the next one, and nobody waits for that:
//! the segment goes on until it is *sealed*, which says at which later tick the next one begins. Whoever
//! reads beyond that tick turns the generation.
//!
//! # One function of the ticks
//!
//! A segment may not be used beyond the tick where the next one begins: their slopes differ, and the
//! reading after it could be the lower one. So a slot's `end` is one word for both: who uses a segment
//! beyond its length raises `end` to the tick first; who seals it puts the next begin there, by a
//! compare-and-swap, if nobody has used the segment beyond. Within its length a segment is never sealed. So
//! all threads read one function of the ticks, which never falls: what goes back is only the counter,
//! from core to core or by a jump.
//!
//! A counter that is behind a segment's begin reads the begin: it may be a core's that is a little behind
//! others. By a second or more it has jumped, and the next segment begins at once, at a sealed tick of 0.
//!
//! # Orderings
//!
//! As in a bucket's slots. The fields of generation g + 2 are stored with Release after the one before
//! them has transition the generation to g + 1; who loads one of them, with Acquire, finds that in
//! the second look and begins anew. `end` is read and written by RMWs that acquire and release: who
//! finds it sealed finds the next segment in its slot. The generation is transition by an `AcqRel` compare-and-swap,
//! after that, so that who finds it in length sees the slot as well.

use std::sync::OnceLock;
use std::time::Instant;

use super::course::{Course, SCALE, Sample, Segment};
use crate::sync::{AtomicU64, Mutex, Ordering, seeded};

/// A slot's `end` with this bit is the tick at which the next segment begins; without it, the last tick
/// up to which the segment was used beyond its length, or 0.
const SEALED: u64 = 1 << 63;

/// How far ahead, in nanoseconds, the next segment begins: longer than it takes to make it.
const MARGIN: u64 = 50_000;
/// So many samples are made, of which the narrowest is used.
const SAMPLES: u32 = 5;

/// The counter, and the system's clock.
pub(super) trait Source {
    fn ticks(&self) -> u64;
    fn nanos(&self) -> u64;
}

/// What this process runs by.
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

/// The process's one clock: a pointer to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct System(&'static Steered<Hardware>);

impl System {
    pub(super) fn new() -> Self {
        static HARDWARE: OnceLock<Steered<Hardware>> = OnceLock::new();
        Self(HARDWARE.get_or_init(|| {
            let counter = quanta::Clock::new();
            // Where there is no reliable counter this is 1: the system's clock, kept in step with itself.
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
    /// The tick that counts as 2^62 in an `end`.
    zero: u64,
    slots: [Slot; 2],
    course: Mutex<Course>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    base: AtomicU64,
    nanos: AtomicU64,
    scale: AtomicU64,
    length: AtomicU64,
    end: AtomicU64,
}

impl Slot {
    fn new(segment: &Segment) -> Self {
        Self {
            base: AtomicU64::new(segment.base),
            nanos: AtomicU64::new(segment.nanos),
            scale: AtomicU64::new(segment.scale),
            length: AtomicU64::new(segment.length),
            end: AtomicU64::new(0),
        }
    }

    #[inline]
    fn load(&self) -> Segment {
        Segment {
            base: self.base.load(Ordering::Acquire),
            nanos: self.nanos.load(Ordering::Acquire),
            scale: self.scale.load(Ordering::Acquire),
            length: self.length.load(Ordering::Acquire),
        }
    }

    /// Under the lock, and only into the slot that is not in force.
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
        let (course, segment) = Course::start(sample(&source), rate);
        Self {
            generation: AtomicU64::new(0),
            source,
            zero: segment.base.wrapping_sub(SEALED >> 1),
            slots: [Slot::new(&segment), Slot::new(&segment)],
            course: Mutex::new(course),
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        let generation = self.generation.load(Ordering::Acquire);
        // A branch, where an index would do, lets the processor read the slot before the generation.
        let slot = if generation & 1 == 0 { &self.slots[0] } else { &self.slots[1] };
        let segment = slot.load();
        let elapsed = self.source.ticks().wrapping_sub(segment.base);
        // One compare for a segment that is over and a counter from before its begin, which wraps.
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
            // After the segment: ticks of before a jump mean nothing on a segment of after it.
            let ticks = self.source.ticks();
            let reading = segment.at(ticks);
            let (is_past_end, is_lost) = (segment.is_past_end(ticks), segment.is_lost(ticks));
            let end = if is_past_end && !seeded("line-without-mark") {
                slot.end.fetch_max(self.mark(ticks), Ordering::AcqRel)
            } else {
                slot.end.load(Ordering::Acquire)
            };
            // The second look: the mark may have been put on a later segment, which does no harm.
            if self.generation.load(Ordering::Acquire) != generation {
                continue;
            }
            if end & SEALED == 0 {
                if (is_past_end || is_lost)
                    && let Some(mut course) = self.course.try_lock()
                    && self.generation.load(Ordering::Acquire) == generation
                    && slot.end.load(Ordering::Acquire) & SEALED == 0
                {
                    self.follow(generation, &mut course, is_lost);
                }
                return reading;
            }
            if self.mark(ticks) < end & !SEALED && !is_lost {
                return reading;
            }
            let next = generation.wrapping_add(1);
            // Who fails looks again, and must find it transition then.
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.generation.compare_exchange(generation, next, new, old);
        }
    }

    /// Make the next segment, and seal this one: under the lock, of which `course` is the proof.
    fn follow(&self, generation: u64, course: &mut Course, is_lost: bool) {
        let slot = &self.slots[(generation & 1) as usize];
        let next = &self.slots[(generation & 1 ^ 1) as usize];
        let segment = slot.load();
        let now = sample(&self.source);
        if !course.accepts(&now) {
            // Lost, it is tried again with the next reading; else a little later will do.
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
                // The length may have grown since this thread looked.
                let over = self.mark(segment.base.wrapping_add(segment.length));
                let latest = self.mark(self.source.ticks()).max(over).max(used);
                let begin = latest.saturating_add(course.ticks(MARGIN)).min(!SEALED);
                let base = self.zero.wrapping_add(begin);
                (base, begin, segment.at(base))
            };
            let (later, following) = course.next(&now, base, read);
            next.store(&following);
            let most = used.max(begin);
            let seal = |used: u64| (used <= most).then_some(begin | SEALED);
            if slot.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, seal).is_ok() {
                *course = later;
                return;
            }
        }
    }

    /// The last reading of a segment that was used beyond its length.
    fn used_to(&self, segment: &Segment, end: u64) -> u64 {
        if end == 0 { 0 } else { segment.at(self.zero.wrapping_add(end)) }
    }

    /// A tick as it is noted in an `end`: 2^62 on either side of the start.
    fn mark(&self, ticks: u64) -> u64 {
        ticks.wrapping_sub(self.zero) & !SEALED
    }
}

/// Both clocks. A thread that is kept from its CPU between two readings makes a wide sample.
fn sample(source: &impl Source) -> Sample {
    let one = || {
        let before = source.ticks();
        let nanos = source.nanos();
        let width = source.ticks().wrapping_sub(before);
        Sample { ticks: before.wrapping_add(width / 2), nanos, width }
    };
    (1..SAMPLES).map(|_| one()).fold(
        one(),
        |best, sample| {
            if sample.width < best.width { sample } else { best }
        },
    )
}

#[cfg(all(test, not(loom)))]
#[path = "system_tests.rs"]
mod tests;
