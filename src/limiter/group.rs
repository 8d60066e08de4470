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

/// What is wanted of each resource: each once, in the order of their ids, which is that of their
/// locks.
#[derive(Debug)]
pub(crate) struct Group(SmallVec<[(Arc<Entry>, u64); 4]>);

impl Group {
    /// Resources of one limiter, in any order; what is wanted of one several times is added up.
    pub(crate) fn new(mut parts: SmallVec<[(Arc<Entry>, u64); 4]>) -> Self {
        // Two of one name, where the name was removed and configured again, have two ids.
        if !seeded("locks-in-any-order") {
            parts.sort_by_key(|(entry, _)| entry.id);
        }
        parts.dedup_by(|(later, more), (entry, n)| {
            let is_same = later.id == entry.id;
            if is_same {
                *n = n.saturating_add(*more);
            }
            is_same
        });
        Self(parts)
    }

    pub(crate) fn parts(&self) -> &[(Arc<Entry>, u64)] {
        &self.0
    }

    pub(crate) fn try_acquire(&self) -> Result<Permits, TryAcquireError> {
        let seen: SmallVec<[u64; 4]> = self.0.iter().map(|(entry, _)| entry.incidents()).collect();
        self.take()?;
        let grant = |((entry, n), seen): (&(Arc<Entry>, u64), u64)| {
            Permit::owned(Arc::clone(entry), Grant { n: *n, seen })
        };
        Ok(Permits::new(self.0.iter().zip(seen).map(grant)))
    }

    fn take(&self) -> Result<(), TryAcquireError> {
        let Some((first, _)) = self.0.first() else { return Ok(()) };
        // Nothing is granted to everybody, if there is anything at all.
        for (entry, _) in self.0.iter().filter(|(_, n)| *n == 0) {
            entry.check(0)?;
        }
        let wanted = self.0.iter().filter(|(_, n)| *n > 0);
        let places: Places<'_> = wanted.map(|(entry, n)| entry.place(*n, 0)).collect();
        loop {
            match wait::take(&places, first.now()) {
                Err(Refusal::Stale) => {
                    for (entry, _) in &self.0 {
                        entry.bring_up_to_date();
                    }
                }
                taken => return taken.map_err(TryAcquireError::from_refusal),
            }
        }
    }
}
