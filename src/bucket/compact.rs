//! Many buckets of one configuration, each in one word: what a million keys can afford.
//!
//! They share a [`SharedRate`], which says what has accrued since an anchor that never moves. A
//! [`CompactBucket`] is a position on it, and nothing else:
//!
//! ```text
//!  63     62                                                   0
//! +------+------------------------------------------------------+
//! | DEAD |                        spent                         |
//! +------+------------------------------------------------------+
//! ```
//!
//! * `spent` is a position on a ring. The decision is that of any [bucket](super::Bucket), with the
//!   distance from the accrual as a signed number (serial-number arithmetic, RFC 1982): `distance <= 0`
//!   is a full bucket, and otherwise n are admitted iff `distance + n <= C`.
//! * `DEAD` is final: evicted or promoted. The caller repeats the lookup. An RMW on the word sets it, so
//!   that each take either precedes it, and is counted by the thread that sets it, or fails.
//!
//! # The ring
//!
//! An hour accrues less than 2^54 units (see [`super::rate`]), so that half of the ring is at least 256
//! hours. A word and the accrual must not be further apart when they are compared. [`SweepWindow`] and
//! the sweeps ensure that: compact buckets answer for readings up to [`SWEEP_INTERVAL`] after a sweep
//! and [`MAX_SWEEP_AGE`] before, and within that time each word is visited once. A word that is full
//! then is DEAD; any other was written, or ahead of a reading, since.
//!
//! # Orderings
//!
//! A word is loaded with Acquire and its RMWs are `AcqRel`. The word is loaded before the window. Its last
//! writer had a reading within the window that it saw, and a thread that acquires the word sees that
//! window or a later one. The other way round, a thread could sleep for a week between the two loads, and
//! take a word that is a week ahead for one that is behind.

use super::locked::LockedBucket;
use super::outcome::{Deficit, Denied, Never, Refused, Retry};
use super::rate::{CARRY_BITS, FRACTION_BITS, Level, Terms};
use super::reconfigure::SlotChange;
use super::slot::{SlotConfig, SlotState};
use super::standing::Standing;
use super::word::POSITION_BITS;
use crate::sync::{AtomicU64, Ordering};

const DEAD: u64 = 1 << 63;
const SPENT: u64 = DEAD - 1;

/// Nanoseconds between sweeps: 67 ms.
const SWEEP_INTERVAL: u64 = 1 << 26;
/// Nanoseconds within which each word is visited, a quarter of the ring or less: 128 hours.
pub(crate) const MAX_SWEEP_AGE: u64 = 128 * 3_600_000_000_000;
/// How far before the window a clock may step back without an effect, in nanoseconds: a minute.
const MAX_STEP_BACK: u64 = 60_000_000_000;

/// What the buckets of one configuration share.
#[derive(Debug)]
pub(crate) struct SharedRate {
    terms: Terms,
    /// Units a nanosecond; 0 if that is no whole number.
    step: u64,
    anchor: u64,
    /// Nanoseconds in which a quarter of the ring accrues: more than any bucket holds.
    quarter: u64,
}

impl SharedRate {
    /// `None` for terms that need a fresh anchor from time to time, as their computed accrual is not
    /// exact for every elapsed time.
    pub(crate) fn new(terms: Terms, now: u64) -> Option<Self> {
        (terms.period <= 1 << (FRACTION_BITS - u64::BITS)).then(|| Self {
            terms,
            step: terms.rate.whole_units(),
            anchor: now,
            quarter: terms.rate.when(1 << 61, 0).unwrap_or(u64::MAX),
        })
    }

    /// What has accrued, in units on the ring: rounded down, and rounded up.
    #[inline]
    fn accrued(&self, now: u64) -> (u64, u64) {
        let elapsed = now.saturating_sub(self.anchor);
        if self.step != 0 {
            let units = elapsed.wrapping_mul(self.step);
            return (units, units);
        }
        // `Rate::accrue`, wrapping where that saturates.
        let low = u128::from(elapsed) * u128::from(self.terms.rate.lo);
        let sum = u128::from(elapsed) * u128::from(self.terms.rate.hi) + (low >> 64);
        let whole = sum as u64 & ((1 << CARRY_BITS) - 1) == 0 && (low as u64) < elapsed.max(1);
        let floor = (sum >> CARRY_BITS) as u64;
        (floor, floor.wrapping_add(u64::from(!whole)))
    }

    /// The distance of a position from the accrual; not positive for a full bucket.
    #[inline]
    fn serial_diff(spent: u64, accrued: u64) -> i64 {
        (spent.wrapping_sub(accrued) << 1).cast_signed() >> 1
    }

    /// Nanoseconds since the last reading at which a whole number of units had accrued, and the units
    /// of these nanoseconds.
    fn since_whole(&self, now: u64) -> (u64, u64) {
        if self.terms.period == 1 {
            return (0, 0);
        }
        let offset = now.saturating_sub(self.anchor) % self.terms.period;
        (offset, self.terms.rate.accrue(offset, 0).floor)
    }

    /// The word of a bucket that is full from `now` on.
    pub(crate) fn full(&self, now: u64) -> u64 {
        self.accrued(now).0 & SPENT
    }

    /// Where a take of `n >= 1` tokens moves a word.
    #[inline]
    pub(crate) fn prepare(&self, spent: u64, n: u64, now: u64) -> Result<u64, Denied> {
        if n > self.terms.capacity_tokens {
            return Err(Denied::Never(Never::ExceedsCapacity(self.terms.capacity_tokens)));
        }
        let (floor, ceil) = self.accrued(now);
        let units = n * self.terms.unit;
        let distance = Self::serial_diff(spent, floor);
        if distance <= 0 {
            return Ok(ceil.wrapping_add(units) & SPENT);
        }
        let next = distance.unsigned_abs() + units;
        if next <= self.terms.capacity {
            return Ok(spent.wrapping_add(units) & SPENT);
        }
        Err(Denied::Exhausted(self.deficit(next - self.terms.capacity, now)))
    }

    fn deficit(&self, missing: u64, now: u64) -> Deficit {
        let (offset, accrued) = self.since_whole(now);
        let before = i64::try_from(self.anchor.saturating_sub(now)).unwrap_or(i64::MAX);
        let offset = if before > 0 { -before } else { offset.cast_signed() };
        let need = accrued.saturating_add(missing);
        Deficit { offset, need, rate: self.terms.rate, carry: 0 }
    }

    /// The answer to a reading from this many nanoseconds before the window.
    fn too_early(&self, nanos: u64) -> Denied {
        let offset = -i64::try_from(nanos).unwrap_or(i64::MAX);
        Denied::Exhausted(Deficit { offset, need: 0, rate: self.terms.rate, carry: 0 })
    }

    /// What a word has left.
    pub(crate) fn standing(&self, spent: u64, now: u64) -> Standing {
        self.to_locked(spent, now).snapshot(now).standing(0)
    }

    /// The same where the reading is too early to tell.
    fn unknown(&self, denied: &Denied) -> Standing {
        let until = if let Denied::Exhausted(deficit) = denied { deficit.wait() } else { 0 };
        let burst = self.terms.capacity_tokens;
        Standing { remaining: 0, burst, until_next: until, until_full: until }
    }

    pub(crate) fn is_full(&self, spent: u64, now: u64) -> bool {
        Self::serial_diff(spent, self.accrued(now).0) <= 0
    }

    /// This bucket as one with an anchor of its own. `now` is at most [`MAX_STEP_BACK`] before the
    /// latest reading of a take.
    pub(crate) fn to_locked(&self, spent: u64, now: u64) -> LockedBucket {
        let (offset, since) = self.since_whole(now);
        let distance = Self::serial_diff(spent, self.accrued(now).0);
        // Full at the anchor, not merely at `now`: a reading between the two may still be used.
        let position = distance.saturating_add(since.cast_signed()).max(0).unsigned_abs();
        let anchor = now.max(self.anchor) - offset;
        LockedBucket { config: SlotConfig::open(self.terms, anchor), position }
    }

    /// The word of a bucket that continues here, less `lost` tokens; `None` if its debt does not fit on
    /// the ring. The fraction of a unit that it holds is lost.
    pub(crate) fn adopt(&self, from: &LockedBucket, lost: u64, now: u64) -> Option<u64> {
        let to = SlotChange {
            state: SlotState::Open,
            is_share: false,
            terms: self.terms,
            pause_until: 0,
            resumes: false,
            until: None,
            charge: lost,
            level: Level::MAX,
        };
        let (config, position) = from.config.transition(from.position, to, now);
        let (floor, ceil) = self.accrued(config.anchor);
        let base = if position == 0 { floor } else { ceil };
        let fits = config.delay == 0 && position < 1 << POSITION_BITS;
        fits.then_some(base.wrapping_add(position) & SPENT)
    }
}

/// One of the buckets.
#[derive(Debug)]
pub(crate) struct CompactBucket(AtomicU64);

impl CompactBucket {
    pub(crate) fn new(spent: u64) -> Self {
        Self(AtomicU64::new(spent & SPENT))
    }

    /// One attempt to take `n >= 1` tokens at `now`.
    #[inline]
    pub(crate) fn take(
        &self,
        rate: &SharedRate,
        window: &SweepWindow,
        n: u64,
        now: u64,
    ) -> Result<(), Refused> {
        let spent = self.position(rate, window, now)?;
        let next = rate.prepare(spent, n, now)?;
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // the value of a failure is not used
        let swapped = self.0.compare_exchange(spent, next, new, old);
        swapped.map(drop).map_err(|_| Retry::Contended.into())
    }

    /// The same for any `n`, and what is left then. Fails with [`Retry`] alone.
    pub(crate) fn decide(
        &self,
        rate: &SharedRate,
        window: &SweepWindow,
        n: u64,
        now: u64,
    ) -> Result<(Result<(), Denied>, Standing), Refused> {
        let spent = match self.position(rate, window, now) {
            Err(Refused::Denied(denied)) => return Ok((Err(denied), rate.unknown(&denied))),
            position => position?,
        };
        let next = if n > 0 { rate.prepare(spent, n, now) } else { Ok(spent) };
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // the value of a failure is not used
        match next {
            Ok(next) if self.0.compare_exchange(spent, next, new, old).is_err() => {
                Err(Retry::Contended.into())
            }
            Ok(next) => Ok((Ok(()), rate.standing(next, now))),
            Err(denied) => Ok((Err(denied), rate.standing(spent, now))),
        }
    }

    /// The position, if it may be compared with what accrued until `now`.
    #[inline]
    pub(crate) fn position(
        &self,
        rate: &SharedRate,
        window: &SweepWindow,
        now: u64,
    ) -> Result<u64, Refused> {
        let word = self.0.load(Ordering::Acquire);
        let end = window.end();
        if now >= end {
            return Err(Retry::SweepDue(end).into());
        }
        if end - now > MAX_SWEEP_AGE {
            return Err(rate.too_early(end - now - MAX_SWEEP_AGE).into());
        }
        if word & DEAD == 0 { Ok(word) } else { Err(Retry::Evicted.into()) }
    }

    /// The last position. Under the lock of the keys.
    pub(crate) fn last_position(&self) -> u64 {
        self.0.load(Ordering::Acquire) & SPENT
    }

    /// Kills the bucket if it is full at `now`. Under the lock of the keys.
    pub(crate) fn evict(&self, rate: &SharedRate, window: &SweepWindow, now: u64) -> bool {
        let word = self.0.load(Ordering::Acquire);
        // More than a quarter after the window the ring would be too short; by then the bucket is
        // full. Before the window it would be too short as well.
        let now = now.min(window.end().saturating_add(rate.quarter));
        if now < window.start() || !rate.is_full(word, now) {
            return false;
        }
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // a take was faster: it is in use
        self.0.compare_exchange(word, word | DEAD, new, old).is_ok()
    }

    /// Kills the bucket, whatever it holds, and returns its last position.
    pub(crate) fn retire(&self) -> u64 {
        self.0.fetch_or(DEAD, Ordering::AcqRel) & SPENT
    }
}

/// Clock reading until which compact buckets need no sweep.
#[derive(Debug)]
pub(crate) struct SweepWindow(AtomicU64);

impl SweepWindow {
    /// No reading is below it.
    const CLOSED: u64 = 0;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::CLOSED + 1))
    }

    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The earliest reading in the window.
    pub(crate) fn start(&self) -> u64 {
        self.end().saturating_sub(MAX_SWEEP_AGE)
    }

    /// `now`, but at most [`MAX_STEP_BACK`] before the end of the window.
    pub(crate) fn recent(&self, now: u64) -> u64 {
        now.max(self.end().saturating_sub(MAX_STEP_BACK))
    }

    /// Moves the end to a [`SWEEP_INTERVAL`] after `now`, if it is still `seen`.
    pub(crate) fn extend(&self, seen: u64, now: u64) -> bool {
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // another thread sweeps
        self.0.compare_exchange(seen, now.saturating_add(SWEEP_INTERVAL), new, old).is_ok()
    }

    /// Under the lock of the keys.
    pub(crate) fn close(&self) {
        self.0.store(Self::CLOSED, Ordering::Release);
    }
}
