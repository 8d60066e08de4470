//! The limiter of one process: resources by name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::{self, Acquire};
use super::capacity::{Callback, Capacity, CapacityUpdate};
use super::context::Context;
use super::error::{AcquireError, ConfigError, TryAcquireError};
use super::limit::{Limit, OnRelease};
use super::permit::Permit;
use super::registry::Registry;
use super::resource::Resource;
use crate::clock::Clock;

/// Rate limits by name, within this process. Cheap to clone; clones share everything.
///
/// | you want to | call |
/// | --- | --- |
/// | know at once, and count nothing in flight | [`check`](Self::check) |
/// | know at once, and hold a permit | [`try_acquire`](Self::try_acquire) |
/// | wait in a task | [`acquire`](Self::acquire) |
/// | wait in a thread | [`blocking_acquire`](Self::blocking_acquire) |
/// | limit each user, address or key | [`per_key`](Self::per_key), once; then by name |
/// | skip the look-up of the name | [`resource`](Self::resource), then the same verbs |
///
/// # Exactness
///
/// For any run of admissions, at clock readings `t1` to `t2`: the tokens are at most
/// `burst + rate x (t2 - t1)`, plus what users gave back. Whatever the interleaving, a stalled
/// thread, a clock that steps back, a new configuration or idle years only deny.
///
/// A bucket of 1,024 tokens or more that is in great demand hands them out in prepaid batches, without
/// a clock reading for each: then the reading is any of the time of the call. A burst after a rest may
/// be short by what was taken from batches before it, an eighth of the burst and 2,048 tokens at most.
#[derive(Clone)]
pub struct MemoryLimiter(pub(super) Arc<Registry>);

impl MemoryLimiter {
    /// A limiter without resources, on the machine's time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// A limiter on another clock, a [`ManualClock`](crate::ManualClock) in tests.
    #[must_use]
    pub fn with_clock(clock: impl Into<Clock>) -> Self {
        Self::with_context(clock.into(), Context::default())
    }

    pub(crate) fn with_context(clock: Clock, context: Context) -> Self {
        Self(Arc::new(Registry::new(clock, context)))
    }

    // ---- configuring --------------------------------------------------------------------------

    /// `capacity` tokens a `window`, all of which a released permit gives back
    /// ([`OnRelease::Refund`]). For an upstream that counts requests use
    /// [`configure`](Self::configure) with a [`Limit`], whose tokens stay spent.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; nothing was changed.
    pub fn set_capacity(
        &self,
        resource: &str,
        capacity: u64,
        window: Duration,
    ) -> Result<(), ConfigError> {
        let limit = Limit::new(capacity, window).on_release(OnRelease::Refund);
        self.configure(resource, limit).map(|_| ())
    }

    /// Add a resource, with a full bucket, or give one that exists another limit: at once, for
    /// waiters and handles too. Tokens held are kept up to the new burst, a debt is kept, what
    /// accrued counts at the old rate until now; the factor of a cut and a pause go on.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; nothing was changed.
    pub fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError> {
        self.0.configure(resource, &limit).map(Resource)
    }

    /// A handle to a resource, or `None` where there is none of this name.
    #[must_use]
    pub fn resource(&self, resource: &str) -> Option<Resource> {
        self.0.entry(resource).ok().map(Resource)
    }

    /// Remove a resource; whether there was one. Its waiters and handles get `UnknownResource`.
    pub fn remove(&self, resource: &str) -> bool {
        self.0.remove(resource)
    }

    /// All resources that were configured, by name.
    #[must_use]
    pub fn resources(&self) -> Vec<Capacity> {
        self.0.capacities()
    }

    /// Close for good: every waiter, and every later call, gets `Closed`. Permits that are out may
    /// still end.
    pub fn close(&self) {
        self.0.close();
    }

    // ---- taking -------------------------------------------------------------------------------

    /// Take one token, no permit: in-flight is neither counted nor looked at.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken.
    #[inline]
    pub fn check(&self, resource: &str) -> Result<(), TryAcquireError> {
        self.check_n(resource, 1)
    }

    /// Take `n` tokens, all or none; 0 is granted and takes nothing.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    #[inline]
    pub fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        self.0.check(resource, n)
    }

    /// Would `n` tokens be admitted now? Takes nothing. The error's
    /// [`retry_after`](TryAcquireError::retry_after) says when.
    ///
    /// # Errors
    ///
    /// What [`check_n`](Self::check_n) would say.
    pub fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        match self.0.configured(resource) {
            Some(entry) => Ok(entry.peek(n)?),
            None => self.0.peek(resource, n),
        }
    }

    /// Take one token and a permit, or fail at once. Never overtakes those who wait.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken.
    #[inline]
    pub fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError> {
        self.try_acquire_n(resource, 1)
    }

    /// Take `n` tokens and one permit for them, or fail at once.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_n(
        &self,
        resource: &str,
        n: u64,
    ) -> Result<Permit<'static>, TryAcquireError> {
        self.0.try_acquire(resource, n)
    }

    /// Wait for one token and a permit: see [`Acquire`] for order, timeout and cancelling.
    pub fn acquire(&self, resource: &str) -> Acquire {
        self.acquire_n(resource, 1)
    }

    /// Wait for `n` tokens and one permit for them.
    pub fn acquire_n(&self, resource: &str, n: u64) -> Acquire {
        match self.0.entry(resource) {
            Ok(entry) => Acquire::of(entry, n),
            Err(missing) => Acquire::failed(missing),
        }
    }

    /// Block this thread until there is a token and a permit. Needs no runtime; inside one, use
    /// [`acquire`](Self::acquire), which does not hold up the other tasks.
    ///
    /// # Errors
    ///
    /// See [`AcquireError`]; nothing was taken.
    pub fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, None)
    }

    /// The same, but for at most `timeout`, on the limiter's clock.
    ///
    /// # Errors
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_timeout(
        &self,
        resource: &str,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, Some(timeout))
    }

    /// The same for `n` tokens, with or without a timeout.
    ///
    /// # Errors
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        acquire::blocking(self.0.entry(resource)?, n, timeout)
    }

    // ---- ending -------------------------------------------------------------------------------

    /// End one forgotten permit of one token, by the limit's policy: only after
    /// [`forget`](Permit::forget), or it ends the place of a permit that is still held. Without a permit
    /// in flight, or a resource of this name, this does nothing.
    pub fn release(&self, resource: &str) {
        self.release_n(resource, 1);
    }

    /// End one forgotten permit of `n` tokens.
    pub fn release_n(&self, resource: &str, n: u64) {
        if let Some(entry) = self.0.promoted(resource) {
            entry.release(n);
        }
    }

    // ---- adapting -----------------------------------------------------------------------------

    /// The upstream said "too many requests": cut rate and burst to three quarters, exactly, but not
    /// below one token a window, nor a millionth of the limit. What is shown is rounded down. The limit
    /// comes back as its [`recovery`](Limit::recovery) says, which by default is: not.
    ///
    /// Refusals come in storms, one for each request on its way. Within 5 seconds of a cut they
    /// belong to its incident, and cut no further; [`Permit::throttled`] knows better, for it knows
    /// when its request was sent.
    pub fn announce_reduced(&self, resource: &str, reason: &str) {
        self.with(resource, |handle| handle.announce_reduced(reason));
    }

    /// Admit nothing for `how_long`: what a `Retry-After` asks for. Tokens held are kept, none
    /// accrue. Of overlapping pauses the later end counts.
    pub fn pause_for(&self, resource: &str, how_long: Duration) {
        self.with(resource, |handle| handle.pause_for(how_long));
    }

    /// The resource at this moment, or `None` where there is none of this name.
    #[must_use]
    pub fn capacity(&self, resource: &str) -> Option<Capacity> {
        self.0.view(resource).ok().map(|entry| entry.capacity())
    }

    /// Wake `callback` after every change of a resource's capacity, in the whole tokens of its bucket
    /// or of a window, on the thread that
    /// changed or noticed it, outside all locks: it may call this limiter. That may be the thread
    /// that serves everybody's timers, so it should return soon, and not wait. Callbacks add up. One
    /// that panics is not heard; the others are called all the same.
    pub fn on_capacity_change(&self, callback: impl Fn(&CapacityUpdate) + Send + Sync + 'static) {
        self.observe(Arc::new(callback));
    }

    pub(crate) fn observe(&self, callback: Callback) {
        self.0.context().observers.add(callback);
    }

    // ---- looking up ---------------------------------------------------------------------------

    fn with(&self, resource: &str, act: impl FnOnce(&Resource)) {
        if let Some(handle) = self.resource(resource) {
            act(&handle);
        }
    }
}

impl Default for MemoryLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryLimiter").field(&self.resources()).finish()
    }
}
