//! Names that are made on first use, by a template, and go by themselves.
//!
//! A key is *light* until it needs more than tokens: one word, and a reference to its template. It
//! becomes *whole*, an entry like any that was configured, when somebody wants a permit, a handle or a
//! place in rate of it, or cuts or pauses it, and goes on from where the word was. A key that is as new
//! is evicted, whole or light; when it is used again it is new.
//!
//! # One lock
//!
//! Keys are made, transition and evicted under the lock of [`Keys`](sweep::Keys), one for a limiter, which
//! who takes from a key that is there does not touch. Who finds a light key dead, or a whole one leaving,
//! waits for that lock: when it is free the map has what is to be found.
//!
//! # What eviction must not lose
//!
//! 1. *A take from a light key.* The word is transition to DEAD by the CAS that proves it full, so that the
//!    take fails, or the eviction does.
//! 2. *A use of a whole key.* It is used through a clone of its `Arc`, and only if the key is seen not to
//!    be leaving after it was cloned. Who evicts says first that it leaves, and then looks whether its
//!    own `Arc` is the only one. Both look by an RMW on the same flag: if the user's comes first, its
//!    clone is seen; if it comes after, it sees that the key leaves. What a user did who has dropped its
//!    clone is seen, too: the bucket is removed by the CAS that proves it full.
//! 3. *Time.* A key was full at the latest reading at which one was evicted. A thread with an older
//!    reading, or a clock that has stepped back, would find it full before that: so a key that is made
//!    is full from that reading on, and holds less before.
//!
//! # Orderings
//!
//! Those of a light key are [`bucket::shared`](crate::bucket)'s. `leaving` is changed and looked at by
//! `AcqRel` RMWs alone, so that all of them have one order, and the later of two sees what came before
//! the earlier. `Arc::strong_count` is Relaxed: an Acquire fence after it pairs with the Release by which
//! a clone is dropped. The counts of keys are changed under the lock, and Relaxed.

mod lookup;
mod map;
pub(super) mod name;
mod promote;
mod sweep;
mod template;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::Arc;

use super::entry::Entry;
use super::limit::Limit;
use crate::bucket::{CompactBucket, Miss, SharedRate, SweepWindow};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence, seeded};

pub(super) use map::{Map, configured, new_map};
pub(super) use promote::Ids;
pub(super) use sweep::Keys;

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Registration {
    /// It was configured.
    Configured(Arc<Entry>),
    Promoted(Promoted),
    CompactBucket(CompactKey),
}

impl Registration {
    /// The entry of a resource that was configured.
    pub(super) fn configured(&self) -> Option<Arc<Entry>> {
        match self {
            Self::Configured(entry) => Some(Arc::clone(entry)),
            Self::Promoted(_) | Self::CompactBucket(_) => None,
        }
    }

    /// The entry, where there is one.
    pub(super) fn entry(&self) -> Option<Arc<Entry>> {
        match self {
            Self::Configured(entry) | Self::Promoted(Promoted { entry, .. }) => {
                Some(Arc::clone(entry))
            }
            Self::CompactBucket(_) => None,
        }
    }
}

/// What the keys of a prefix have in common, until it is configured anew.
#[derive(Debug)]
pub(super) struct Template {
    prefix: Arc<str>,
    limit: Limit,
    /// None where keys are whole from the start.
    rate: Option<SharedRate>,
    most: u64,
    /// Its keys; the same as that of the template before it. Under the lock of the keys.
    count: Arc<AtomicU64>,
}

impl Template {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed) // under the lock
    }

    fn gain(&self) {
        self.count.fetch_add(1, Ordering::Relaxed); // under the lock
    }

    fn lose(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed); // under the lock
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// A light key.
#[derive(Debug)]
pub(super) struct CompactKey {
    bucket: CompactBucket,
    template: Arc<Template>,
}

impl CompactKey {
    /// One try to take `n >= 1` tokens.
    #[inline]
    fn take(&self, sweep_window: &SweepWindow, n: u64, now: u64) -> Result<(), Miss> {
        match &self.template.rate {
            Some(rate) => self.bucket.take(rate, sweep_window, n, now),
            None => Err(Miss::Gone),
        }
    }
}

/// A whole key.
#[derive(Debug)]
pub(super) struct Promoted {
    entry: Arc<Entry>,
    leaving: AtomicBool,
}

impl Promoted {
    fn new(entry: Arc<Entry>) -> Self {
        Self { entry, leaving: AtomicBool::new(false) }
    }

    /// To be used, unless it leaves. `AcqRel`: see the module.
    fn hold(&self) -> Option<Arc<Entry>> {
        let entry = Arc::clone(&self.entry);
        if seeded("use-without-look") {
            return Some(entry);
        }
        (!self.leaving.fetch_or(false, Ordering::AcqRel)).then_some(entry)
    }

    /// Out of the map for good, if nobody uses it and `is_idle` says so. Under the lock of the keys.
    fn evict(&self, is_idle: impl FnOnce(&Arc<Entry>) -> bool) -> bool {
        self.leaving.fetch_or(true, Ordering::AcqRel);
        let is_alone = Arc::strong_count(&self.entry) == 1 || seeded("evict-without-look");
        // With the Release by which the last user's clone was dropped: what it did is seen.
        fence(Ordering::Acquire);
        let leaves = is_alone && is_idle(&self.entry);
        if !leaves {
            // An RMW as all others, so that they have one order.
            self.leaving.fetch_and(false, Ordering::AcqRel);
        }
        leaves
    }
}
