//! Many buckets of one configuration, each of them one word: what a million keys can afford.
//!
//! They share a [`SharedRate`], which says what has accrued since an anchor that never moves; a [`CompactBucket`]
//! bucket is a position on it, and nothing else:
//!
//! ```text
//!  63     62                                                   0
//! +------+------------------------------------------------------+
//! | DEAD |                        spent                         |
//! +------+------------------------------------------------------+
//! ```
//!
//! * `spent` goes round. The decision is that of any [bucket](super::Bucket), with the position less
//!   the accrual as a signed number: `serial_diff <= 0` is a full bucket, and else n are admitted iff
//!   `serial_diff + n <= C`.
//! * `DEAD` is for ever: the bucket was evicted, or goes on as another. Who meets it looks the name up
//!   again. It is set by an RMW on the word, so that each take either comes before, and is counted by
//!   who sets it, or fails.
//!
//! # The on_timer
//!
//! An hour accrues less than 2^54 units (see [`super::rate`]), so that half of the on_timer is 256 hours at
//! least. A word and the accrual must not be further apart when they are compared. [`SweepWindow`] and the
//! sweeps see to it: readings are served up to [`SWEEP_INTERVAL`] after a sweep and [`MAX_SWEEP_AGE`] before, and within
//! a quarter each word is looked at once. One that is full is then DEAD, and any other was written, or
//! was serial_diff of a reading, since.
//!
//! # Orderings
//!
//! A word is loaded with Acquire and its RMWs are `AcqRel`. The word is loaded before the sweep_window: its
//! last writer had a reading within the sweep_window that it saw, and who acquires the word sees that sweep_window or
//! a later one. The other way round a thread could sleep for a week between the two, and take a word
//! that is a week serial_diff for one that is behind.

use super::rate::{CARRY_BITS, FRACTION_BITS, POSITION_BITS, Terms};
use super::{Bucket, Deficit, LockedBucket, Refusal, SlotChange, SlotConfig, SlotState, Snapshot};
use crate::sync::{AtomicU64, Ordering, seeded};

const DEAD: u64 = 1 << 63;
const SPENT: u64 = DEAD - 1;

/// How long a sweep is good for, in nanoseconds: 67 ms.
const SWEEP_INTERVAL: u64 = 1 << 26;
/// A quarter of the on_timer, or less, in nanoseconds: 128 hours.
pub(crate) const MAX_SWEEP_AGE: u64 = 128 * 3_600_000_000_000;

/// What the buckets of one configuration have in common.
#[derive(Debug)]
pub(crate) struct SharedRate {
    terms: Terms,
    /// Units a nanosecond, where that is a whole number; else 0.
    step: u64,
    anchor: u64,
    /// Nanoseconds in which a quarter of the on_timer accrues: more than any bucket holds.
    quarter: u64,
}

impl SharedRate {
    /// `None` where the terms need another anchor from time to time: their accrual, as it is computed, is
    /// not exact for every elapsed time.
    pub(crate) fn new(terms: Terms, now: u64) -> Option<Self> {
        (terms.period <= 1 << (FRACTION_BITS - u64::BITS)).then(|| Self {
            terms,
            step: terms.rate.whole_units(),
            anchor: now,
            quarter: terms.rate.when(1 << 61, 0).unwrap_or(u64::MAX),
        })
    }

    /// Whole units on the on_timer, and those that are no fewer than what accrued.
    #[inline]
    fn accrued(&self, now: u64) -> (u64, u64) {
        let elapsed = now.saturating_sub(self.anchor);
        if self.step != 0 {
            let units = elapsed.wrapping_mul(self.step);
            return (units, units);
        }
        // As `Rate::accrue`, but that it goes round where that saturates.
        let low = u128::from(elapsed) * u128::from(self.terms.rate.lo);
        let sum = u128::from(elapsed) * u128::from(self.terms.rate.hi) + (low >> 64);
        let whole = sum as u64 & ((1 << CARRY_BITS) - 1) == 0 && (low as u64) < elapsed.max(1);
        let floor = (sum >> CARRY_BITS) as u64;
        (floor, floor.wrapping_add(u64::from(!whole)))
    }

    /// How far a position is serial_diff of the accrual; not positive where the bucket is full.
    #[inline]
    fn serial_diff(spent: u64, accrued: u64) -> i64 {
        (spent.wrapping_sub(accrued) << 1).cast_signed() >> 1
    }

    /// Nanoseconds since the last reading at which the accrual was a whole number of units, and the units
    /// of these.
    fn since_whole(&self, now: u64) -> (u64, u64) {
        if self.terms.period == 1 {
            return (0, 0);
        }
        let offset = now.saturating_sub(self.anchor) % self.terms.period;
        (offset, self.terms.rate.accrue(offset, 0).floor)
    }

    /// A word that is full from `now` on.
    pub(crate) fn full(&self, now: u64) -> u64 {
        self.accrued(now).0 & SPENT
    }

    /// Where taking `n >= 1` tokens moves a word.
    #[inline]
    pub(crate) fn prepare(&self, spent: u64, n: u64, now: u64) -> Result<u64, Refusal> {
        if n > self.terms.capacity_tokens {
            return Err(Refusal::TooBig(self.terms.capacity_tokens));
        }
        let (floor, ceil) = self.accrued(now);
        let units = n * self.terms.unit;
        let serial_diff = Self::serial_diff(spent, floor);
        if serial_diff <= 0 {
            return Ok(ceil.wrapping_add(units) & SPENT);
        }
        let next = serial_diff.unsigned_abs() + units;
        if next <= self.terms.capacity {
            return Ok(spent.wrapping_add(units) & SPENT);
        }
        Err(Refusal::Short(self.deficit(next - self.terms.capacity, now)))
    }

    fn deficit(&self, missing: u64, now: u64) -> Deficit {
        let (offset, accrued) = self.since_whole(now);
        let behind = i64::try_from(self.anchor.saturating_sub(now)).unwrap_or(i64::MAX);
        let offset = if behind > 0 { -behind } else { offset.cast_signed() };
        let need = accrued.saturating_add(missing);
        Deficit { offset, need, rate: self.terms.rate, carry: 0 }
    }

    /// What is said to a reading from before the sweep_window.
    pub(crate) fn before(&self, nanos: u64) -> Refusal {
        let offset = -i64::try_from(nanos).unwrap_or(i64::MAX);
        Refusal::Short(Deficit { offset, need: 0, rate: self.terms.rate, carry: 0 })
    }

    pub(crate) fn is_full(&self, spent: u64, now: u64) -> bool {
        Self::serial_diff(spent, self.accrued(now).0) <= 0
    }

    /// The same bucket by itself, with an anchor of its own. `now` is at most a minute before the latest
    /// reading that took.
    pub(crate) fn lift(&self, spent: u64, now: u64) -> LockedBucket {
        let (offset, since) = self.since_whole(now);
        let serial_diff = Self::serial_diff(spent, self.accrued(now).0);
        // Full at the anchor, not merely now: a reading between the two may still be used.
        let position = serial_diff.saturating_add(since.cast_signed()).max(0).unsigned_abs();
        let anchor = now.max(self.anchor) - offset;
        LockedBucket { config: SlotConfig::open(self.terms, anchor), position }
    }

    /// The word of a bucket that goes on here, less `lost` tokens; `None` where it owes more than fits
    /// on a rate. The fraction of a unit that it holds is lost.
    pub(crate) fn adopt(&self, plain: &LockedBucket, lost: u64, now: u64) -> Option<u64> {
        let to = SlotChange {
            kind: SlotState::Open,
            terms: self.terms,
            pause_until: 0,
            until: None,
            charge: lost,
        };
        let (config, position) = plain.config.transition(plain.position, to, now);
        let (floor, ceil) = self.accrued(config.anchor);
        let from = if position == 0 { floor } else { ceil };
        let fits = config.delay == 0 && position < 1 << POSITION_BITS;
        fits.then_some(from.wrapping_add(position) & SPENT)
    }
}

/// One of the buckets.
#[derive(Debug)]
pub(crate) struct CompactBucket(AtomicU64);

/// Why a take from a light bucket did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    Refused(Refusal),
    /// Somebody else was faster: try again.
    Lost,
    /// It is dead: look the name up again.
    Gone,
    /// The reading is beyond the sweep_window, up to which a sweep must come first.
    Late(u64),
}

impl CompactBucket {
    pub(crate) fn new(spent: u64) -> Self {
        Self(AtomicU64::new(spent & SPENT))
    }

    /// One try to take `n >= 1` tokens at `now`.
    #[inline]
    pub(crate) fn take(
        &self,
        rate: &SharedRate,
        sweep_window: &SweepWindow,
        n: u64,
        now: u64,
    ) -> Result<(), Miss> {
        let spent = self.look(rate, sweep_window, now)?;
        let next = rate.prepare(spent, n, now).map_err(Miss::Refused)?;
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // a failure is not used
        self.0.compare_exchange(spent, next, new, old).map(drop).map_err(|_| Miss::Lost)
    }

    /// The position, which may be compared with what accrued until `now`.
    #[inline]
    pub(crate) fn look(
        &self,
        rate: &SharedRate,
        sweep_window: &SweepWindow,
        now: u64,
    ) -> Result<u64, Miss> {
        let word = self.0.load(Ordering::Acquire);
        match sweep_window.covers(now) {
            Ok(()) if word & DEAD == 0 => Ok(word),
            Ok(()) => Err(Miss::Gone),
            Err(Beyond::Late(until)) => Err(Miss::Late(until)),
            Err(Beyond::Before(nanos)) => Err(Miss::Refused(rate.before(nanos))),
        }
    }

    /// The position as it was last. Under the lock of the keys.
    pub(crate) fn spent(&self) -> u64 {
        self.0.load(Ordering::Acquire) & SPENT
    }

    /// Dead, if it is full at `now`. Under the lock of the keys, as all that makes it dead.
    pub(crate) fn evict(&self, rate: &SharedRate, sweep_window: &SweepWindow, now: u64) -> bool {
        let word = self.0.load(Ordering::Acquire);
        // Beyond a quarter after the sweep_window the on_timer would be too short; until then it fills up. Before the
        // sweep_window it would be as well.
        let now = now.min(sweep_window.until().saturating_add(rate.quarter));
        if now < sweep_window.from() || !rate.is_full(word, now) {
            return false;
        }
        if seeded("evict-without-dead") {
            return true;
        }
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // whoever was faster needs it
        self.0.compare_exchange(word, word | DEAD, new, old).is_ok()
    }

    /// Dead, whatever it holds: where it was then.
    pub(crate) fn retire(&self) -> u64 {
        if seeded("promote-without-dead") {
            return self.0.load(Ordering::Acquire) & SPENT;
        }
        self.0.fetch_or(DEAD, Ordering::AcqRel) & SPENT
    }
}

/// Up to which reading light buckets answer by themselves; then a sweep is due.
#[derive(Debug)]
pub(crate) struct SweepWindow(AtomicU64);

/// A reading that is out of sweep_window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beyond {
    /// Not below this one.
    Late(u64),
    /// The clock has stepped back by more than the on_timer can tell: so much must pass until it can.
    Before(u64),
}

impl SweepWindow {
    /// No reading is below it: closed.
    const CLOSED: u64 = 0;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::CLOSED + 1))
    }

    #[inline]
    fn covers(&self, now: u64) -> Result<(), Beyond> {
        let until = self.until();
        if now >= until {
            return Err(Beyond::Late(until));
        }
        match (until - now).checked_sub(MAX_SWEEP_AGE) {
            None | Some(0) => Ok(()),
            Some(nanos) => Err(Beyond::Before(nanos)),
        }
    }

    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The earliest reading that is covered.
    pub(crate) fn from(&self) -> u64 {
        self.until().saturating_sub(MAX_SWEEP_AGE)
    }

    /// The reading, or where the clock has stepped back by more than a minute, that minute before.
    pub(crate) fn recent(&self, now: u64) -> u64 {
        now.max(self.until().saturating_sub(60_000_000_000))
    }

    /// Have it end a tick after `now`, and not where `seen` was its end, unless somebody else has.
    pub(crate) fn claim(&self, seen: u64, now: u64) -> bool {
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // somebody else sweeps
        self.0.compare_exchange(seen, now.saturating_add(SWEEP_INTERVAL), new, old).is_ok()
    }

    /// Under the lock of the keys.
    pub(crate) fn close(&self) {
        self.0.store(Self::CLOSED, Ordering::Release);
    }
}

impl Bucket {
    /// Removed, if it is full at `now` and nothing is in flight. By the CAS that proves it: whoever took
    /// before is seen, and whoever comes later finds it removed. Under the configuration lock.
    pub(crate) fn remove_if_full(&self, current: &mut SlotConfig, now: u64) -> bool {
        loop {
            let word = self.word();
            let position = word.position(current.origin);
            if now < current.anchor {
                return false; // what it held then is not known any more
            }
            let accrued = current.terms.rate.accrue(current.elapsed(now), current.carry);
            // An RMW finds the last count, whoever made it.
            self.hot.in_flight.fetch_add(0, Ordering::AcqRel);
            if word.is_striped() || position > accrued.floor || self.in_flight() > 0 {
                return false;
            }
            let to = SlotChange { kind: SlotState::Removed, ..current.again() };
            let (config, position) = current.transition(position, to, now);
            let (next, origin) = word.next(position);
            if self.install(current, word, next, SlotConfig { origin, ..config }) {
                return true;
            }
        }
    }
}

impl Snapshot {
    /// Whether the word shows all that it can hold. Not known of a reading from before the anchor.
    pub(crate) fn has_all(&self) -> bool {
        let is_known = self.kind == SlotState::Open && self.now >= self.anchor;
        is_known && self.word.position(self.origin) <= self.accrued.floor
    }

    /// Whether it holds all it can, and has it in the word.
    pub(crate) fn is_full(&self) -> bool {
        !self.word.is_striped() && self.has_all()
    }
}
