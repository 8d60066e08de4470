//! Several resources at once: all or nothing.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{Entry, Grant};
use super::error::TryAcquireError;
use super::permit::Permit;
use super::permits::Permits;
use crate::bucket::Refusal;
use crate::sync::seeded;
use crate::wait::{self, Claims, FairBucket, TakeRequest};

/// What is take_set of each resource: each once, in the order of their ids, which is that of their
/// locks.
#[derive(Debug)]
pub(crate) struct TakeSet<'a>(SmallVec<[Part<'a>; 4]>);

#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    entry: &'a Arc<Entry>,
    grant: Grant,
}

impl<'a> Part<'a> {
    /// Before a take: see [`Entry::incidents`].
    #[inline]
    fn new(entry: &'a Arc<Entry>, n: u64) -> Self {
        Self { entry, grant: Grant { n, seen: entry.incidents() } }
    }
}

impl TakeRequest for Part<'_> {
    #[inline]
    fn gate(&self) -> &FairBucket {
        &self.entry.gate
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.grant.n
    }
}

/// The same, to keep.
#[derive(Debug)]
pub(crate) struct TakeList(pub(super) SmallVec<[(Arc<Entry>, u64); 4]>);

impl<'a> TakeSet<'a> {
    /// Of resources of one limiter, in any order; what is take_set of one several times is added up.
    /// `None` if there is none of one.
    #[inline]
    pub(crate) fn new(parts: impl Iterator<Item = Option<(&'a Arc<Entry>, u64)>>) -> Option<Self> {
        let mut take_set = SmallVec::new();
        for part in parts {
            let (entry, n) = part?;
            take_set.push(Part::new(entry, n));
        }
        // A name that was removed and configured again is two resources.
        let is_below = |pair: &[Part<'_>]| pair[0].entry.id < pair[1].entry.id;
        if !take_set.windows(2).all(is_below) && !seeded("locks-in-any-order") {
            merge(&mut take_set);
        }
        Some(Self(take_set))
    }

    pub(crate) fn to_list(&self) -> TakeList {
        TakeList(self.0.iter().map(|part| (Arc::clone(part.entry), part.grant.n)).collect())
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<(), TryAcquireError> {
        self.take(false)
    }

    #[inline]
    pub(crate) fn try_acquire(&self) -> Result<Permits, TryAcquireError> {
        self.take(true)?;
        let mut permits = Permits::new();
        for Part { entry, grant } in &self.0 {
            permits.push(Permit::owned(Arc::clone(entry), *grant));
        }
        Ok(permits)
    }

    #[inline]
    fn take(&self, permits: bool) -> Result<(), TryAcquireError> {
        let Some(first) = self.0.first() else { return Ok(()) };
        match wait::take(&self.0, permits, first.entry.now()) {
            Some(taken) => taken.map_err(TryAcquireError::from_refusal),
            None => self.take_locked(permits),
        }
    }

    #[cold]
    fn take_locked(&self, permits: bool) -> Result<(), TryAcquireError> {
        let mut places = Claims::new();
        for Part { entry, grant } in &self.0 {
            if grant.n > 0 {
                places.push(entry.claim(grant.n, 0));
            } else {
                // Nothing is granted to everybody, if there is anything at all.
                entry.check(0)?;
            }
        }
        loop {
            let now = self.0.first().map_or(0, |part| part.entry.now());
            match wait::take_locked(&places, permits, now) {
                Err(Refusal::Stale) => {
                    for part in &self.0 {
                        part.entry.bring_up_to_date();
                    }
                }
                taken => return taken.map_err(TryAcquireError::from_refusal),
            }
        }
    }
}

impl TakeList {
    pub(crate) fn take_set(&self) -> TakeSet<'_> {
        TakeSet(self.0.iter().map(|(entry, n)| Part::new(entry, *n)).collect())
    }
}

#[cold]
fn merge(take_set: &mut SmallVec<[Part<'_>; 4]>) {
    take_set.sort_by_key(|part| part.entry.id);
    take_set.dedup_by(|later, part| {
        let is_same = later.entry.id == part.entry.id;
        if is_same {
            part.grant.n = part.grant.n.saturating_add(later.grant.n);
        }
        is_same
    });
}
