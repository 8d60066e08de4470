//! A handle: a resource without the look-up of its name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::{self, Acquire};
use super::capacity::Capacity;
use super::entry::{Entry, Grant};
use super::error::{AcquireError, TryAcquireError};
use super::permit::Permit;

/// A handle to one resource, for hot paths: no look-up, no allocation. Cheap to clone.
///
/// It sees every later configuration. Once the resource was removed each call fails with
/// `UnknownResource`; configuring the name again does not revive it.
#[derive(Clone)]
pub struct Resource(pub(super) Arc<Entry>);

impl Resource {
    /// Take one token, no permit: in-flight is neither counted nor looked at. The fastest call.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken.
    #[inline]
    pub fn check(&self) -> Result<(), TryAcquireError> {
        self.0.check(1)
    }

    /// Take `n` tokens, all or none; 0 is granted and takes nothing.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    #[inline]
    pub fn check_n(&self, n: u64) -> Result<(), TryAcquireError> {
        self.0.check(n)
    }

    /// Would `n` tokens be admitted now? Takes nothing. The error's
    /// [`retry_after`](TryAcquireError::retry_after) says when.
    ///
    /// # Errors
    ///
    /// What [`check_n`](Self::check_n) would say.
    pub fn peek(&self, n: u64) -> Result<(), TryAcquireError> {
        Ok(self.0.peek(n)?)
    }

    /// Take one token and a permit, or fail at once.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        self.try_acquire_n(1)
    }

    /// Take `n` tokens and one permit for them, or fail at once.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_n(&self, n: u64) -> Result<Permit<'_>, TryAcquireError> {
        let seen = self.0.incidents();
        let counted = self.0.try_acquire::<TryAcquireError>(n)?;
        Ok(Permit::borrowed(&self.0, Grant { n, seen, counted }))
    }

    /// Wait for one token and a permit: see [`Acquire`].
    pub fn acquire(&self) -> Acquire {
        self.acquire_n(1)
    }

    /// Wait for `n` tokens and one permit for them.
    pub fn acquire_n(&self, n: u64) -> Acquire {
        Acquire::of(Arc::clone(&self.0), n)
    }

    /// Block this thread until there is a token and a permit. Needs no runtime; inside one, use
    /// [`acquire`](Self::acquire), which does not hold up the other tasks.
    ///
    /// # Errors
    ///
    /// See [`AcquireError`]; nothing was taken.
    pub fn blocking_acquire(&self) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(1, None)
    }

    /// The same, but for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(1, Some(timeout))
    }

    /// The same for `n` tokens, with or without a timeout.
    ///
    /// # Errors
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_n(
        &self,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        acquire::blocking(Arc::clone(&self.0), n, timeout)
    }

    /// End one forgotten permit of one token, by the limit's policy. Without a permit in flight
    /// this does nothing.
    pub fn release(&self) {
        self.release_n(1);
    }

    /// End one forgotten permit of `n` tokens.
    pub fn release_n(&self, n: u64) {
        self.0.release(n);
    }

    /// An upstream refused: see [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced).
    pub fn announce_reduced(&self, reason: &str) {
        self.0.refused(None, reason);
    }

    /// Admit nothing for `how_long`: see [`MemoryLimiter::pause_for`](crate::MemoryLimiter::pause_for).
    pub fn pause_for(&self, how_long: Duration) {
        self.0.pause_for(how_long);
    }

    /// The resource at this moment.
    pub fn capacity(&self) -> Capacity {
        self.0.capacity()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resource").field(&self.0.capacity()).finish()
    }
}
