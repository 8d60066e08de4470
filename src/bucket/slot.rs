//! A bucket's configuration as its takes read it: immutable while its generation is current.

use super::batch::STRIPES;
use super::rate::{Rate, Terms};
use crate::sync::{AtomicU64, Ordering};

/// What a slot admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Tokens accrue, and are admitted.
    Open,
    /// Nothing accrues and nothing is admitted before the anchor.
    Paused,
    /// Final: the limiter was closed.
    Closed,
    /// Final: the resource was removed.
    Removed,
}

/// Beside a [`SlotState`], in one field.
const OF_SHARE: u64 = 1 << 2;

/// A slot's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotConfig {
    pub(crate) state: SlotState,
    /// Whether its tokens are of a share of a swarm's quota. Others are not given back to it: see
    /// [`Bucket::refund`](super::atomic::Bucket::refund).
    pub(super) is_share: bool,
    pub(crate) terms: Terms,
    /// The reading from which accrual counts.
    pub(crate) anchor: u64,
    /// What accrues in this many nanoseconds before the anchor pays the part of a debt that the ring
    /// cannot hold.
    pub(super) delay: u64,
    /// The reading up to which earlier slots have counted: a pause that is ended early ends after it.
    pub(super) counted: u64,
    /// The reading at which the next change is due (a step of a recovery), if there is one.
    pub(crate) until: Option<u64>,
    /// What had accrued at the anchor beyond whole units, in 2^-48 of a unit.
    pub(super) carry: u64,
    pub(super) origin: u64,
}

impl SlotConfig {
    /// The slot of a new, full bucket.
    pub(super) fn open(terms: Terms, now: u64) -> Self {
        let state = SlotState::Open;
        let (is_share, until, carry, origin) = (false, None, 0, 0);
        Self { state, is_share, terms, anchor: now, delay: 0, counted: now, until, carry, origin }
    }

    /// Elapsed time since the anchor for which this slot answers. 0 sends every reader to the slow
    /// path.
    pub(super) fn horizon(&self) -> u64 {
        let until = self.until.map_or(u64::MAX, |until| until.saturating_sub(self.anchor));
        if self.state == SlotState::Open { self.terms.horizon.min(until) } else { 0 }
    }

    /// The most tokens that the fast path decides on. None at a pace, of whose end it knows nothing.
    fn fast_tokens(&self) -> u64 {
        if self.terms.is_paced() { 0 } else { self.terms.capacity_tokens }
    }

    fn kind(&self) -> u64 {
        self.state as u64 | if self.is_share { OF_SHARE } else { 0 }
    }

    fn step(&self) -> u64 {
        if self.carry == 0 { self.terms.rate.whole_units() } else { 0 }
    }

    pub(crate) fn is_past_horizon(&self, now: u64) -> bool {
        self.state == SlotState::Open && self.elapsed(now) >= self.terms.horizon
    }

    /// `now`, or the last reading before the horizon if that is earlier.
    pub(crate) fn within_horizon(&self, now: u64) -> u64 {
        now.min(self.anchor.saturating_add(self.terms.horizon).saturating_sub(1))
    }

    /// Time since the anchor; 0 for a reading from before it.
    pub(super) fn elapsed(&self, now: u64) -> u64 {
        now.saturating_sub(self.anchor)
    }
}

/// # Orderings
///
/// Every field is stored with Release and loaded with Acquire. The writer of generation g + 2 stores
/// after its own CAS to g + 1. A reader that loads one of these fields therefore sees the word beyond
/// g, so that its CAS and its second load of the generation fail. With Relaxed fields a reader could
/// mix the fields of g and g + 2 and still find the word at g.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    // The fields that the fast path reads come first, in one cache line.
    anchor: AtomicU64,
    horizon: AtomicU64,
    /// Units a nanosecond; 0 if that is no whole number, or if there is a carry.
    step: AtomicU64,
    origin: AtomicU64,
    capacity: AtomicU64,
    unit: AtomicU64,
    fast_tokens: AtomicU64,
    /// See [`Slot::kind`].
    kind: AtomicU64,
    rate_lo: AtomicU64,
    carry: AtomicU64,
    rate_hi: AtomicU64,
    /// [`SlotConfig::until`], or `u64::MAX`. Read in a pause.
    until: AtomicU64,
    batch: AtomicU64,
    /// Read at a pace.
    after_hi: AtomicU64,
    after_lo: AtomicU64,
}

impl Slot {
    pub(super) fn new(config: &SlotConfig) -> Self {
        Self {
            anchor: AtomicU64::new(config.anchor),
            horizon: AtomicU64::new(config.horizon()),
            step: AtomicU64::new(config.step()),
            rate_hi: AtomicU64::new(config.terms.rate.hi),
            rate_lo: AtomicU64::new(config.terms.rate.lo),
            carry: AtomicU64::new(config.carry),
            origin: AtomicU64::new(config.origin),
            capacity: AtomicU64::new(config.terms.capacity),
            unit: AtomicU64::new(config.terms.unit),
            fast_tokens: AtomicU64::new(config.fast_tokens()),
            kind: AtomicU64::new(config.kind()),
            until: AtomicU64::new(config.until.unwrap_or(u64::MAX)),
            batch: AtomicU64::new(config.terms.batch),
            after_hi: AtomicU64::new(config.terms.after.hi),
            after_lo: AtomicU64::new(config.terms.after.lo),
        }
    }

    /// Under the configuration lock, into the slot that is not in force.
    pub(super) fn store(&self, config: &SlotConfig) {
        self.anchor.store(config.anchor, Ordering::Release);
        self.horizon.store(config.horizon(), Ordering::Release);
        self.step.store(config.step(), Ordering::Release);
        self.rate_hi.store(config.terms.rate.hi, Ordering::Release);
        self.rate_lo.store(config.terms.rate.lo, Ordering::Release);
        self.carry.store(config.carry, Ordering::Release);
        self.origin.store(config.origin, Ordering::Release);
        self.capacity.store(config.terms.capacity, Ordering::Release);
        self.unit.store(config.terms.unit, Ordering::Release);
        self.fast_tokens.store(config.fast_tokens(), Ordering::Release);
        self.kind.store(config.kind(), Ordering::Release);
        self.until.store(config.until.unwrap_or(u64::MAX), Ordering::Release);
        self.batch.store(config.terms.batch, Ordering::Release);
        if config.terms.is_paced() {
            self.after_hi.store(config.terms.after.hi, Ordering::Release);
            self.after_lo.store(config.terms.after.lo, Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn anchor(&self) -> u64 {
        self.anchor.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Acquire)
    }
    /// What accrued within the horizon, in units: rounded down, and rounded up.
    #[inline]
    pub(super) fn accrued(&self, elapsed: u64) -> (u64, u64) {
        let step = self.step.load(Ordering::Acquire);
        if step != 0 {
            let accrued = elapsed.wrapping_mul(step);
            return (accrued, accrued);
        }
        let accrued = self.rate().accrue(elapsed, self.carry());
        (accrued.floor, accrued.ceil)
    }
    #[inline]
    pub(super) fn rate(&self) -> Rate {
        let hi = self.rate_hi.load(Ordering::Acquire);
        Rate { hi, lo: self.rate_lo.load(Ordering::Acquire) }
    }
    #[inline]
    pub(super) fn carry(&self) -> u64 {
        self.carry.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn origin(&self) -> u64 {
        self.origin.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn unit(&self) -> u64 {
        self.unit.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn fast_tokens(&self) -> u64 {
        self.fast_tokens.load(Ordering::Acquire)
    }
    /// See [`Terms::after`].
    pub(super) fn after(&self) -> Rate {
        let hi = self.after_hi.load(Ordering::Acquire);
        Rate { hi, lo: self.after_lo.load(Ordering::Acquire) }
    }
    pub(super) fn until(&self) -> u64 {
        self.until.load(Ordering::Acquire)
    }
    /// Tokens that a stripe reserves.
    pub(super) fn batch(&self) -> u64 {
        self.batch.load(Ordering::Acquire)
    }
    /// Units that all stripes reserve.
    pub(super) fn reserved(&self) -> u64 {
        (STRIPES as u64).wrapping_mul(self.batch()).wrapping_mul(self.unit())
    }
    /// The state, and whether it is of a share.
    pub(super) fn kind(&self) -> (SlotState, bool) {
        let kind = self.kind.load(Ordering::Acquire);
        let state = match kind & !OF_SHARE {
            0 => SlotState::Open,
            1 => SlotState::Paused,
            2 => SlotState::Closed,
            _ => SlotState::Removed,
        };
        (state, kind & OF_SHARE != 0)
    }
}
