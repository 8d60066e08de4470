//! Several resources at once: all or nothing.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{Entry, Grant};
use super::error::TryAcquireError;
use super::permit::Permit;
use super::permits::Permits;
use crate::bucket::Refusal;
use crate::sync::seeded;
use crate::wait::{self, Places};

/// What is asked of each resource: each once, in the order of their ids, which is that of their
/// locks.
#[derive(Debug)]
pub(crate) struct Asked<'a>(SmallVec<[(&'a Arc<Entry>, u64); 4]>);

/// The same, to keep.
#[derive(Debug)]
pub(crate) struct Group(pub(super) SmallVec<[(Arc<Entry>, u64); 4]>);

impl<'a> Asked<'a> {
    /// Of resources of one limiter, in any order; what is asked of one several times is added up.
    /// `None` if there is none of one.
    #[inline]
    pub(crate) fn new(parts: impl Iterator<Item = Option<(&'a Arc<Entry>, u64)>>) -> Option<Self> {
        let mut asked = SmallVec::new();
        for part in parts {
            asked.push(part?);
        }
        // A name that was removed and configured again is two resources.
        let is_below = |pair: &[(&Arc<Entry>, u64)]| pair[0].0.id < pair[1].0.id;
        if !asked.windows(2).all(is_below) && !seeded("locks-in-any-order") {
            merge(&mut asked);
        }
        Some(Self(asked))
    }

    pub(crate) fn to_group(&self) -> Group {
        Group(self.0.iter().map(|(entry, n)| (Arc::clone(entry), *n)).collect())
    }

    pub(crate) fn check(&self) -> Result<(), TryAcquireError> {
        self.take(false)
    }

    pub(crate) fn try_acquire(&self) -> Result<Permits, TryAcquireError> {
        // Before the take: see `Entry::incidents`.
        let mut seen: SmallVec<[u64; 4]> = SmallVec::new();
        for (entry, _) in &self.0 {
            seen.push(entry.incidents());
        }
        self.take(true)?;
        let mut permits = SmallVec::new();
        for ((entry, n), seen) in self.0.iter().zip(seen) {
            permits.push(Permit::owned(Arc::clone(entry), Grant { n: *n, seen }));
        }
        Ok(Permits::new(permits))
    }

    #[inline]
    fn take(&self, permits: bool) -> Result<(), TryAcquireError> {
        let Some((first, _)) = self.0.first() else { return Ok(()) };
        let mut places = Places::new();
        for (entry, n) in &self.0 {
            if *n > 0 {
                places.push(entry.place(*n, 0));
            } else {
                // Nothing is granted to everybody, if there is anything at all.
                entry.check(0)?;
            }
        }
        match wait::take(&places, permits, first.now()) {
            Ok(()) => Ok(()),
            Err(Refusal::Stale) => self.take_anew(&places, permits),
            Err(refusal) => Err(TryAcquireError::from_refusal(refusal)),
        }
    }

    #[cold]
    fn take_anew(&self, places: &Places<'_>, permits: bool) -> Result<(), TryAcquireError> {
        loop {
            let mut now = 0;
            for (entry, _) in &self.0 {
                entry.bring_up_to_date();
                now = entry.now();
            }
            match wait::take(places, permits, now) {
                Err(Refusal::Stale) => {}
                taken => return taken.map_err(TryAcquireError::from_refusal),
            }
        }
    }
}

impl Group {
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked(self.0.iter().map(|(entry, n)| (entry, *n)).collect())
    }
}

#[cold]
fn merge(asked: &mut SmallVec<[(&Arc<Entry>, u64); 4]>) {
    asked.sort_by_key(|(entry, _)| entry.id);
    asked.dedup_by(|(later, more), (entry, n)| {
        let is_same = later.id == entry.id;
        if is_same {
            *n = n.saturating_add(*more);
        }
        is_same
    });
}
