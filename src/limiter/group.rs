//! Several resources at once: all or nothing.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{Entry, Grant};
use super::error::TryAcquireError;
use super::permit::Permit;
use super::permits::Permits;
use crate::bucket::Refusal;
use crate::sync::seeded;
use crate::wait::{self, Ask, Gate, Places};

/// What is asked of each resource: each once, in the order of their ids, which is that of their
/// locks.
#[derive(Debug)]
pub(crate) struct Asked<'a>(SmallVec<[Part<'a>; 4]>);

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

impl Ask for Part<'_> {
    #[inline]
    fn gate(&self) -> &Gate {
        &self.entry.gate
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.grant.n
    }
}

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
            let (entry, n) = part?;
            asked.push(Part::new(entry, n));
        }
        // A name that was removed and configured again is two resources.
        let is_below = |pair: &[Part<'_>]| pair[0].entry.id < pair[1].entry.id;
        if !asked.windows(2).all(is_below) && !seeded("locks-in-any-order") {
            merge(&mut asked);
        }
        Some(Self(asked))
    }

    pub(crate) fn to_group(&self) -> Group {
        Group(self.0.iter().map(|part| (Arc::clone(part.entry), part.grant.n)).collect())
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
            None => self.take_in_turn(permits),
        }
    }

    #[cold]
    fn take_in_turn(&self, permits: bool) -> Result<(), TryAcquireError> {
        let mut places = Places::new();
        for Part { entry, grant } in &self.0 {
            if grant.n > 0 {
                places.push(entry.place(grant.n, 0));
            } else {
                // Nothing is granted to everybody, if there is anything at all.
                entry.check(0)?;
            }
        }
        loop {
            let now = self.0.first().map_or(0, |part| part.entry.now());
            match wait::take_in_turn(&places, permits, now) {
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

impl Group {
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked(self.0.iter().map(|(entry, n)| Part::new(entry, *n)).collect())
    }
}

#[cold]
fn merge(asked: &mut SmallVec<[Part<'_>; 4]>) {
    asked.sort_by_key(|part| part.entry.id);
    asked.dedup_by(|later, part| {
        let is_same = later.entry.id == part.entry.id;
        if is_same {
            part.grant.n = part.grant.n.saturating_add(later.grant.n);
        }
        is_same
    });
}
