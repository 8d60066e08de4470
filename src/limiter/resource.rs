//! Handles: resources without a name lookup.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::{self, Acquire, UntilReady};
use super::capacity::Capacity;
use super::decision::Decision;
use super::entry::{Entry, Grant};
use super::error::{AcquireError, TryAcquireError};
use super::permit::Permit;

/// A handle to one resource, for hot paths: no name lookup, no allocation. Cheap to clone.
///
/// Later configurations apply to it. Once the resource is removed every call fails with
/// `UnknownResource`; configuring the name again does not revive the handle.
#[derive(Clone)]
pub struct Resource(pub(super) Arc<Entry>);

impl Resource {
    /// Takes one token without a permit: not counted as in flight nor limited by `max_in_flight`.
    /// The fastest call.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    #[inline]
    pub fn check(&self) -> Result<(), TryAcquireError> {
        self.0.check(1)
    }

    /// Takes `n` tokens, all or none; 0 is granted and takes nothing.
    ///
    /// Fails as [`check`](Self::check).
    #[inline]
    pub fn check_n(&self, n: u64) -> Result<(), TryAcquireError> {
        self.0.check(n)
    }

    /// Whether `n` tokens would be admitted now. Takes nothing. The error's
    /// [`retry_after`](TryAcquireError::retry_after) says when they would.
    ///
    /// Fails as [`check_n`](Self::check_n) would.
    pub fn peek(&self, n: u64) -> Result<(), TryAcquireError> {
        Ok(self.0.peek(n)?)
    }

    /// [`check_n`](Self::check_n), and what is left after it, from the same look: see
    /// [`MemoryLimiter::decide`](crate::MemoryLimiter::decide).
    #[must_use]
    pub fn decide(&self, n: u64) -> Decision {
        self.0.decide(n)
    }

    /// [`try_acquire_n`](Self::try_acquire_n), and what is left after it: see
    /// [`MemoryLimiter::admit`](crate::MemoryLimiter::admit).
    ///
    /// Fails as [`try_acquire`](Self::try_acquire), by the decision's `outcome`.
    pub fn admit(&self, n: u64) -> Result<(Permit<'_>, Decision), Decision> {
        let seen = self.0.seen();
        let (counted, decision) = self.0.admit(n)?;
        Ok((Permit::borrowed(&self.0, Grant { n, seen, counted }), decision))
    }

    /// Takes one token with a permit, or fails at once. Never overtakes waiters.
    ///
    /// The permit borrows the handle, which saves a reference count. Where it must outlive the handle,
    /// in a spawned task or a struct (`borrowed data escapes`, `does not live long enough`, `lifetime may
    /// not live long enough`), call [`into_owned`](Permit::into_owned) on it, and write `Permit<'static>`.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        self.try_acquire_n(1)
    }

    /// Takes `n` tokens with one permit, or fails at once.
    ///
    /// Fails as [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_n(&self, n: u64) -> Result<Permit<'_>, TryAcquireError> {
        let seen = self.0.seen();
        let counted = self.0.try_acquire::<TryAcquireError>(n)?;
        Ok(Permit::borrowed(&self.0, Grant { n, seen, counted }))
    }

    /// Waits for one token with a permit: see [`Acquire`] for order, timeout and cancel safety.
    pub fn acquire(&self) -> Acquire {
        self.acquire_n(1)
    }

    /// Waits for `n` tokens with one permit.
    pub fn acquire_n(&self, n: u64) -> Acquire {
        Acquire::of(Arc::clone(&self.0), n)
    }

    /// Waits for one token without a permit: a [`check`](Self::check) that waits. The token stays
    /// spent, whatever the limit's policy. See [`UntilReady`] for order, timeout and cancel safety.
    pub fn until_ready(&self) -> UntilReady {
        self.until_ready_n(1)
    }

    /// Waits for `n` tokens without a permit.
    pub fn until_ready_n(&self, n: u64) -> UntilReady {
        UntilReady::of(Arc::clone(&self.0), n)
    }

    /// Blocks this thread until it has one token with a permit. Needs no runtime; inside one, use
    /// [`acquire`](Self::acquire), which does not block other tasks.
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    pub fn blocking_acquire(&self) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(1, None)
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for at most `timeout`, on the limiter's clock.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(1, Some(timeout))
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_n(
        &self,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        acquire::blocking(Arc::clone(&self.0), n, timeout)
    }

    /// Blocks until one token was taken: see
    /// [`MemoryLimiter::blocking_until_ready`](crate::MemoryLimiter::blocking_until_ready).
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    pub fn blocking_until_ready(&self) -> Result<(), AcquireError> {
        self.blocking_until_ready_n(1, None)
    }

    /// [`blocking_until_ready`](Self::blocking_until_ready) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_until_ready`](Self::blocking_until_ready), and [`AcquireError::TimedOut`].
    pub fn blocking_until_ready_n(
        &self,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<(), AcquireError> {
        acquire::blocking_until_ready(Arc::clone(&self.0), n, timeout)
    }

    /// Ends one forgotten permit of one token by the limit's policy: see
    /// [`MemoryLimiter::release`](crate::MemoryLimiter::release).
    pub fn release(&self) {
        self.release_n(1);
    }

    /// Ends one forgotten permit of `n` tokens.
    pub fn release_n(&self, n: u64) {
        self.0.release(n);
    }

    /// Reports a refusal by the upstream: see
    /// [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced).
    pub fn announce_reduced(&self, reason: &str) {
        self.0.refused(None, reason);
    }

    /// Admits nothing for `how_long`: see
    /// [`MemoryLimiter::pause_for`](crate::MemoryLimiter::pause_for).
    pub fn pause_for(&self, how_long: Duration) {
        self.0.pause_for(how_long);
    }

    /// [`pause_for`](Self::pause_for) for this limiter alone: see
    /// [`MemoryLimiter::pause_here_for`](crate::MemoryLimiter::pause_here_for).
    pub fn pause_here_for(&self, how_long: Duration) {
        self.0.pause_here_for(how_long);
    }

    /// Ends a pause: see [`MemoryLimiter::resume`](crate::MemoryLimiter::resume).
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Keeps at most `left` tokens, which the upstream says are left: see
    /// [`MemoryLimiter::observe_remaining`](crate::MemoryLimiter::observe_remaining).
    pub fn observe_remaining(&self, left: u64) {
        self.0.observe_remaining(left);
    }

    /// Admits at most `left` tokens for the time of `until`: see
    /// [`MemoryLimiter::observe_remaining_until`](crate::MemoryLimiter::observe_remaining_until).
    pub fn observe_remaining_until(&self, left: u64, until: Duration) {
        self.0.observe_remaining_until(left, until);
    }

    #[cfg(feature = "tower")]
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// A reading of the limiter's clock, in nanoseconds.
    #[cfg(feature = "tower")]
    pub(crate) fn now(&self) -> u64 {
        self.0.now()
    }

    /// A snapshot of the resource.
    pub fn capacity(&self) -> Capacity {
        self.0.capacity()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resource").field(&self.0.capacity()).finish()
    }
}
