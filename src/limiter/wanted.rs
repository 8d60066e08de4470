//! What a wait is for: a permit, tokens alone, or permits of several resources.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::entry::{DeniedAt, Entry, Grant};
use super::error::{AcquireAllError, AcquireError};
use super::multi::TakeList;
use super::permit::Permit;
use super::permits::Permits;
use crate::bucket::{CountedAt, Denied};
use crate::wait::{Claim, Ticket};

/// What a wait is for.
pub(super) trait Wanted: Sized {
    type Grant;
    type Granted;
    type Error: From<AcquireAllError>;
    /// A reading of its clock, `timeout` from now.
    fn deadline(&self, timeout: Duration) -> Option<u64>;
    /// Whether others wait already. Then an attempt would only find that out again, under the lock that
    /// enqueuing takes.
    fn has_waiters(&self) -> bool {
        false
    }
    fn try_acquire(&self) -> Result<Self::Grant, DeniedAt<'_>>;
    fn into_granted(self, grant: Self::Grant) -> Self::Granted;
    /// Each resource once, in the order of their ids.
    fn into_parts(self) -> Parts;
    fn granted(parts: Parts) -> Self::Granted;

    /// The attempt before a wait. `None` if there must be one.
    #[inline]
    fn attempt(&self) -> Result<Option<Self::Grant>, Self::Error> {
        if self.has_waiters() {
            return Ok(None);
        }
        match self.try_acquire() {
            Ok(grant) => Ok(Some(grant)),
            Err(DeniedAt(entry, denied @ Denied::Never(never))) => {
                entry.count_denied(&denied);
                Err(entry.error::<AcquireError>(never).into())
            }
            Err(_) => Ok(None),
        }
    }
}

#[derive(Debug)]
pub(super) struct One {
    pub(super) entry: Arc<Entry>,
    pub(super) n: u64,
}

impl Wanted for One {
    type Grant = Grant;
    type Granted = Permit<'static>;
    type Error = AcquireError;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.entry.deadline(timeout))
    }
    #[inline]
    fn has_waiters(&self) -> bool {
        self.n > 0 && self.entry.bucket.has_waiters()
    }
    #[inline]
    fn try_acquire(&self) -> Result<Grant, DeniedAt<'_>> {
        let seen = self.entry.seen();
        match self.entry.try_acquire::<Denied>(self.n) {
            Ok(counted) => Ok(Grant { n: self.n, seen, counted }),
            Err(denied) => Err(DeniedAt(&self.entry, denied)),
        }
    }
    #[inline]
    fn into_granted(self, grant: Grant) -> Permit<'static> {
        Permit::owned(self.entry, grant)
    }
    fn into_parts(self) -> Parts {
        SmallVec::from_iter([Part::new(self.entry, self.n, true)])
    }
    fn granted(mut parts: Parts) -> Permit<'static> {
        parts.remove(0).into_permit()
    }
}

#[derive(Debug)]
pub(super) struct Ready(pub(super) One);

impl Wanted for Ready {
    type Grant = ();
    type Granted = ();
    type Error = AcquireError;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        self.0.deadline(timeout)
    }
    #[inline]
    fn has_waiters(&self) -> bool {
        self.0.has_waiters()
    }
    #[inline]
    fn try_acquire(&self) -> Result<(), DeniedAt<'_>> {
        let One { entry, n } = &self.0;
        entry.check::<Denied>(*n).map_err(|denied| DeniedAt(entry, denied))
    }
    fn into_granted(self, (): ()) {}
    fn into_parts(self) -> Parts {
        SmallVec::from_iter([Part::new(self.0.entry, self.0.n, false)])
    }
    fn granted(_: Parts) {}
}

impl Wanted for TakeList {
    type Grant = Permits;
    type Granted = Permits;
    type Error = AcquireAllError;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.0.first()?.0.deadline(timeout))
    }
    fn try_acquire(&self) -> Result<Permits, DeniedAt<'_>> {
        self.to_set().try_acquire()
    }
    fn into_granted(self, permits: Permits) -> Permits {
        permits
    }
    fn into_parts(self) -> Parts {
        self.0.into_iter().map(|(entry, n)| Part::new(entry, n, true)).collect()
    }
    fn granted(parts: Parts) -> Permits {
        let mut permits = Permits::new();
        parts.into_iter().for_each(|part| permits.push(part.into_permit()));
        permits
    }
}

pub(super) type Parts = SmallVec<[Part; 1]>;

#[derive(Debug)]
pub(super) struct Part {
    pub(super) entry: Arc<Entry>,
    pub(super) grant: Grant,
    pub(super) ticket: Ticket,
    with_permit: bool,
}

impl Part {
    fn new(entry: Arc<Entry>, n: u64, with_permit: bool) -> Self {
        let grant = Grant { n, seen: entry.seen(), counted: CountedAt::COMMON };
        Self { entry, grant, ticket: 0, with_permit }
    }

    pub(super) fn claim(&self) -> Claim<'_> {
        self.entry.claim(self.grant.n, self.ticket, self.with_permit)
    }

    pub(super) fn note_grant(&self, now: u64) {
        if self.with_permit {
            self.entry.note_grant(self.grant.n, self.grant.counted, now);
        }
    }

    fn into_permit(self) -> Permit<'static> {
        Permit::owned(self.entry, self.grant)
    }
}
