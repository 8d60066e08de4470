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

/// Where a permit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedAt {
    Common,
    /// In `own` of this stripe.
    Owner(u8),
    /// In `shared` of this stripe.
    Shared(u8),
}

/// A stripe's part of the count.
#[derive(Debug, Default)]
pub(super) struct InFlightCounter {
    own: AtomicU64,
    shared: AtomicU64,
}

impl InFlightCounter {
    #[inline]
    pub(super) fn add_own(&self, n: u64) {
        let own = self.own.load(Ordering::Relaxed); // written by this thread alone
        self.own.store(own.wrapping_add(n), Ordering::Release);
    }

    pub(super) fn add_shared(&self, n: u64) {
        self.shared.fetch_add(n, Ordering::AcqRel);
    }

    pub(super) fn count(&self) -> u64 {
        let shared = self.shared.load(Ordering::Acquire);
        self.own.load(Ordering::Acquire).wrapping_add(shared)
    }
}
