//! The count of permits in flight as a data structure. The argument is in
//! [`in_flight`](super::in_flight).

use crate::sync::{AtomicU64, Ordering};

/// No bound.
pub(super) const UNBOUNDED: u64 = u64::MAX;
/// A bound that is being set.
pub(super) const SETTLING: u64 = 1 << 63;

/// The common word: an epoch above the count.
pub(super) const EPOCH: u64 = 1 << 40;
pub(super) const COUNT: u64 = EPOCH - 1;

/// A bound that no count reaches is none.
pub(super) fn normalize(max: u64) -> u64 {
    if max < COUNT { max } else { UNBOUNDED }
}

/// Where a permit is counted: [`COMMON`](Self::COMMON), or a stripe's index, with [`SHARED`](Self::SHARED)
/// if in its `shared`. One word, as the permit's other fields are: a permit is moved in words, and a load
/// that is wider than the store before it waits for that store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedAt(u64);

impl CountedAt {
    pub(crate) const COMMON: Self = Self(u64::MAX);
    const SHARED: u64 = 1 << 32;

    #[inline]
    pub(super) fn owner(stripe: usize) -> Self {
        Self(stripe as u64)
    }

    pub(super) fn shared(stripe: usize) -> Self {
        Self(stripe as u64 | Self::SHARED)
    }

    /// Whether it counts in a stripe's `entered`.
    #[inline]
    pub(crate) fn is_own(self) -> bool {
        self.0 < Self::SHARED
    }

    /// The stripe, and whether the permit is in its `own`; `None` for the common word.
    #[inline]
    pub(super) fn stripe(self) -> Option<(usize, bool)> {
        let index = (self.0 & !Self::SHARED) as usize;
        (self != Self::COMMON).then_some((index, self.0 & Self::SHARED == 0))
    }
}

/// A stripe's part of the count: `entered - left + shared`. The first two are apart, so that a call which
/// enters does not wait for the store of the one that has just left.
#[derive(Debug, Default)]
pub(super) struct InFlightCounter {
    entered: AtomicU64,
    left: AtomicU64,
    shared: AtomicU64,
}

impl InFlightCounter {
    /// By the owner alone.
    #[inline]
    pub(super) fn enter_own(&self) {
        Self::add_one(&self.entered);
    }

    /// By the owner alone.
    #[inline]
    pub(super) fn leave_own(&self) {
        Self::add_one(&self.left);
    }

    #[inline]
    fn add_one(count: &AtomicU64) {
        let before = count.load(Ordering::Relaxed); // written by this thread alone
        count.store(before.wrapping_add(1), Ordering::Release);
    }

    pub(super) fn add_shared(&self, n: u64) {
        self.shared.fetch_add(n, Ordering::AcqRel);
    }

    pub(super) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Acquire)
    }

    /// Never too small: what ended is read before what began.
    pub(super) fn count(&self) -> u64 {
        let shared = self.shared.load(Ordering::Acquire);
        let left = self.left.load(Ordering::Acquire);
        self.entered.load(Ordering::Acquire).wrapping_sub(left).wrapping_add(shared)
    }
}
