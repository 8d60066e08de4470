//! Several resources at once: all or none.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{DeniedAt, Entry, Grant};
use super::permit::Permit;
use super::permits::Permits;
use super::prepaid::Prepaid;
use super::refusal::Refusal;
use crate::bucket::{CountedAt, Denied, Refused};
use crate::wait::{self, Claims, FairBucket, TakeRequest};

/// What is wanted of each resource: each once, in the order of their ids, which is that of their locks.
#[derive(Debug)]
pub(crate) struct TakeSet<'a>(SmallVec<[Part<'a>; 4]>);

#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    entry: &'a Arc<Entry>,
    grant: Grant,
}

impl<'a> Part<'a> {
    /// Before a take: see [`Entry::seen`].
    #[inline]
    fn new(entry: &'a Arc<Entry>, n: u64) -> Self {
        Self { entry, grant: Grant { n, seen: entry.seen(), counted: CountedAt::COMMON } }
    }

    #[inline]
    fn note_grant(&self, now: u64) {
        self.entry.note_grant(self.grant.n, self.grant.counted, now);
    }
}

impl<'a> TakeRequest<'a> for Part<'a> {
    #[inline]
    fn bucket(&self) -> &'a FairBucket {
        &self.entry.bucket
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.grant.n
    }
    #[inline]
    fn counted(&mut self) -> &mut CountedAt {
        &mut self.grant.counted
    }
}

/// The same, owned.
#[derive(Debug, Default)]
pub(crate) struct TakeList(pub(super) SmallVec<[(Arc<Entry>, u64); 4]>);

impl<'a> TakeSet<'a> {
    /// Acts on what is wanted of resources of one limiter, in any order; what is wanted of one several
    /// times is added up. Fails if one of them is missing. A set stays where it is built: a move of it,
    /// right after the stores, costs a third of a decision.
    #[inline]
    pub(crate) fn with<R, X>(
        parts: impl Iterator<Item = Result<(&'a Arc<Entry>, u64), X>>,
        act: impl FnOnce(&mut Self) -> R,
    ) -> Result<R, X> {
        let mut set = Self(SmallVec::new());
        for part in parts {
            let (entry, n) = part?;
            set.0.push(Part::new(entry, n));
        }
        // A name that was removed and configured again is two resources.
        if !set.0.is_sorted_by(|a, b| a.entry.id < b.entry.id) {
            merge(&mut set.0);
        }
        Ok(act(&mut set))
    }

    pub(crate) fn to_list(&self) -> TakeList {
        TakeList(self.0.iter().map(|part| (Arc::clone(part.entry), part.grant.n)).collect())
    }

    #[inline]
    pub(crate) fn check<E: Refusal<DeniedAt<'a>>>(&mut self) -> Result<(), E> {
        self.take(false).map_err(DeniedAt::refuse)
    }

    #[inline]
    pub(crate) fn try_acquire<E: Refusal<DeniedAt<'a>>>(&mut self) -> Result<Permits, E> {
        self.take(true).map_err(DeniedAt::refuse)?;
        let mut permits = Permits::new();
        for Part { entry, grant } in &self.0 {
            permits.push(Permit::owned(Arc::clone(entry), *grant));
        }
        Ok(permits)
    }

    /// Tokens that this thread's caches have prepaid are taken first, one by one and without a lock. The
    /// rest is decided together. If it is denied, they go back to their caches, which nothing else can
    /// fill meanwhile: no waker runs before that.
    #[inline]
    fn take(&mut self, with_permits: bool) -> Result<(), DeniedAt<'a>> {
        let mut prepaid = 0;
        for i in 0..self.0.len() {
            let part = &mut self.0[i];
            if part.grant.n != 1 {
                continue;
            }
            match part.entry.take_prepaid(with_permits) {
                Prepaid::Taken(counted) => {
                    part.grant.counted = counted;
                    if prepaid < i {
                        // The rest stays in the order of its ids.
                        self.0[prepaid..=i].rotate_right(1);
                    }
                    prepaid += 1;
                }
                Prepaid::Nothing => {}
                Prepaid::ToServe => return self.take_locked(prepaid, with_permits, true),
            }
        }
        let rest = &mut self.0[prepaid..];
        let Some(first) = rest.first() else { return Ok(()) };
        let now = first.entry.now();
        let mut serve = false;
        match wait::take(rest, with_permits, now, &mut serve) {
            Some(Ok(())) => {
                rest.iter().filter(|_| with_permits).for_each(|part| part.note_grant(now));
                Ok(())
            }
            Some(Err((index, denied))) => {
                let denied = DeniedAt(rest[index].entry, denied);
                self.undo(prepaid, with_permits);
                Err(denied)
            }
            None => self.take_locked(prepaid, with_permits, serve),
        }
    }

    /// Gives back what was prepaid.
    #[inline]
    fn undo(&self, prepaid: usize, with_permits: bool) {
        let prepaid = &self.0[..prepaid];
        for part in prepaid {
            part.entry.undo_prepaid();
        }
        for part in prepaid.iter().filter(|_| with_permits) {
            part.entry.forget_grant();
            part.entry.end_by(1, part.grant.counted, None);
        }
    }

    /// Decides under the locks of all, after what was prepaid has gone back. With `serve` the queues of those
    /// that were looked at must be served first.
    #[cold]
    fn take_locked(
        &mut self,
        prepaid: usize,
        with_permits: bool,
        serve: bool,
    ) -> Result<(), DeniedAt<'a>> {
        self.undo(prepaid, with_permits);
        if prepaid > 0 {
            self.0.sort_by_key(|part| part.entry.id);
        }
        if serve {
            self.0.iter().for_each(|part| part.entry.serve());
        }
        for part in self.0.iter().filter(|part| part.grant.n == 0) {
            // A take of 0 succeeds if the resource exists.
            part.entry.check::<Denied>(0).map_err(|denied| DeniedAt(part.entry, denied))?;
        }
        let mut parts: SmallVec<[&mut Part<'_>; 4]> =
            self.0.iter_mut().filter(|part| part.grant.n > 0).collect();
        let mut claims: Claims<'_> =
            parts.iter().map(|part| part.entry.claim(part.grant.n, 0, with_permits)).collect();
        loop {
            let Some(first) = parts.first() else { return Ok(()) };
            match wait::take_locked(&mut claims, first.entry.now()) {
                Ok(()) => break,
                Err((index, Refused::Denied(denied))) => {
                    return Err(DeniedAt(parts[index].entry, denied));
                }
                Err((_, Refused::Retry(_))) => {
                    parts.iter().for_each(|part| part.entry.bring_up_to_date());
                }
            }
        }
        for (part, claim) in parts.iter_mut().zip(claims) {
            part.grant.counted = claim.counted;
        }
        if with_permits {
            parts.iter().for_each(|part| part.note_grant(part.entry.now()));
        }
        Ok(())
    }
}

impl TakeList {
    pub(crate) fn to_set(&self) -> TakeSet<'_> {
        TakeSet(self.0.iter().map(|(entry, n)| Part::new(entry, *n)).collect())
    }
}

#[cold]
fn merge(set: &mut SmallVec<[Part<'_>; 4]>) {
    set.sort_by_key(|part| part.entry.id);
    set.dedup_by(|later, part| {
        let is_same = later.entry.id == part.entry.id;
        if is_same {
            part.grant.n = part.grant.n.saturating_add(later.grant.n);
        }
        is_same
    });
}
