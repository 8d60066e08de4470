//! The in-process limiter: resources by name.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::acquire::{self, Acquire, UntilReady};
use super::capacity::{Callback, Capacity, CapacityUpdate};
use super::context::Context;
use super::error::{AcquireError, ConfigError, ConfigureAllError, TryAcquireError};
use super::limit::{Limit, OnRelease};
use super::permit::Permit;
use super::registry::Registry;
use super::resource::Resource;
use crate::clock::Clock;

/// Rate limits by name, within one process. Cheap to clone; clones share all state.
///
/// | to | call |
/// | --- | --- |
/// | take without waiting, without a permit | [`check`](Self::check) |
/// | take without waiting, and hold a permit | [`try_acquire`](Self::try_acquire) |
/// | wait in a task | [`acquire`](Self::acquire) |
/// | wait in a thread | [`blocking_acquire`](Self::blocking_acquire) |
/// | limit each user, address or key | [`per_key`](Self::per_key) once, then any call by name |
/// | avoid the name lookup | [`resource`](Self::resource), then the same methods |
///
/// # Exactness
///
/// For any run of admissions, from clock reading `t1` to `t2`, the tokens are at most
/// `burst + rate x (t2 - t1)`, plus tokens that callers gave back. This holds for every
/// interleaving: stalled threads, backward clock steps, reconfigurations and idle years only cause
/// denials.
///
/// Under high demand a bucket of 1,024 tokens or more hands them out in prepaid batches, without a
/// clock reading for each token; the reading of such an admission is any time during the call. A
/// burst after idle time may be short by what was taken from batches before it: at most an eighth
/// of the burst, and at most 2,048 tokens.
#[derive(Clone)]
pub struct MemoryLimiter(pub(super) Arc<Registry>);

impl MemoryLimiter {
    /// A limiter without resources, on the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// A limiter on another clock, such as a [`ManualClock`](crate::ManualClock) in tests.
    #[must_use]
    pub fn with_clock(clock: impl Into<Clock>) -> Self {
        Self::with_context(clock.into(), Context::default())
    }

    /// A reference that does not keep the limiter alive, for its callbacks.
    #[must_use]
    pub fn downgrade(&self) -> WeakLimiter {
        WeakLimiter(Arc::downgrade(&self.0))
    }

    pub(crate) fn with_context(clock: Clock, context: Context) -> Self {
        Self(Arc::new(Registry::new(clock, context)))
    }

    // ---- configuring --------------------------------------------------------------------------

    /// Configures `capacity` tokens per `window`, given back when their permit ends
    /// ([`OnRelease::Refund`]). For an upstream that counts requests use
    /// [`configure`](Self::configure) with a [`Limit`], whose tokens stay spent.
    ///
    /// On an error nothing changed: see [`ConfigError`].
    pub fn set_capacity(
        &self,
        resource: &str,
        capacity: u64,
        window: Duration,
    ) -> Result<(), ConfigError> {
        let limit = Limit::new(capacity, window).on_release(OnRelease::Refund);
        self.configure(resource, limit).map(|_| ())
    }

    /// Adds a resource with a full bucket, or changes the limit of an existing one. The change
    /// takes effect at once, for waiters and handles too. Time until now accrues at the old rate.
    /// Tokens are kept up to the new burst, and a debt, the factor of a cut and a pause are kept.
    ///
    /// On an error nothing changed: see [`ConfigError`].
    pub fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError> {
        self.0.configure(resource, &limit).map(Resource)
    }

    /// Configures several resources, in this order: all, or none if one of them has an invalid limit or
    /// an empty name.
    ///
    /// On an error nothing changed: it names the resource, and has the cause.
    pub fn configure_all(
        &self,
        limits: &[(&str, Limit)],
    ) -> Result<Vec<Resource>, ConfigureAllError> {
        for (resource, limit) in limits {
            let valid =
                if resource.is_empty() { Err(ConfigError::EmptyName) } else { limit.validate() };
            valid.map_err(|cause| ConfigureAllError::of(resource, cause))?;
        }
        let configure = |(resource, limit): &(&str, Limit)| {
            self.configure(resource, *limit).map_err(|cause| ConfigureAllError::of(resource, cause))
        };
        limits.iter().map(configure).collect()
    }

    /// A handle to a resource; `None` if there is none of this name.
    #[must_use]
    pub fn resource(&self, resource: &str) -> Option<Resource> {
        self.0.entry(resource).ok().map(Resource)
    }

    /// Removes a resource and returns whether it existed. Its waiters and handles fail with
    /// `UnknownResource`.
    pub fn remove(&self, resource: &str) -> bool {
        self.0.remove(resource)
    }

    /// All configured resources, sorted by name. Keys of templates are not included.
    #[must_use]
    pub fn resources(&self) -> Vec<Capacity> {
        self.0.capacities()
    }

    /// Closes the limiter for good: waiters and later calls fail with `Closed`. Outstanding permits
    /// may still end.
    pub fn close(&self) {
        self.0.close();
    }

    // ---- taking -------------------------------------------------------------------------------

    /// Takes one token without a permit: not counted as in flight nor limited by `max_in_flight`.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    #[inline]
    pub fn check(&self, resource: &str) -> Result<(), TryAcquireError> {
        self.check_n(resource, 1)
    }

    /// Takes `n` tokens, all or none; 0 is granted and takes nothing.
    ///
    /// Fails as [`check`](Self::check).
    #[inline]
    pub fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        self.0.check(resource, n)
    }

    /// Whether `n` tokens would be admitted now. Takes nothing. The error's
    /// [`retry_after`](TryAcquireError::retry_after) says when they would.
    ///
    /// Fails as [`check_n`](Self::check_n) would.
    pub fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        match self.0.configured(resource) {
            Some(entry) => Ok(entry.peek(n)?),
            None => self.0.peek(resource, n),
        }
    }

    /// Takes one token with a permit, or fails at once. Never overtakes waiters.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    #[inline]
    pub fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError> {
        self.try_acquire_n(resource, 1)
    }

    /// Takes `n` tokens with one permit, or fails at once.
    ///
    /// Fails as [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_n(
        &self,
        resource: &str,
        n: u64,
    ) -> Result<Permit<'static>, TryAcquireError> {
        self.0.try_acquire(resource, n)
    }

    /// Waits for one token with a permit: see [`Acquire`] for order, timeout and cancel safety.
    pub fn acquire(&self, resource: &str) -> Acquire {
        self.acquire_n(resource, 1)
    }

    /// Waits for `n` tokens with one permit.
    pub fn acquire_n(&self, resource: &str, n: u64) -> Acquire {
        match self.0.entry(resource) {
            Ok(entry) => Acquire::of(entry, n),
            Err(missing) => Acquire::failed(missing.into()),
        }
    }

    /// Waits for one token without a permit: a [`check`](Self::check) that waits. The token stays
    /// spent, whatever the limit's policy. See [`UntilReady`] for order, timeout and cancel safety.
    pub fn until_ready(&self, resource: &str) -> UntilReady {
        self.until_ready_n(resource, 1)
    }

    /// Waits for `n` tokens without a permit.
    pub fn until_ready_n(&self, resource: &str, n: u64) -> UntilReady {
        match self.0.entry(resource) {
            Ok(entry) => UntilReady::of(entry, n),
            Err(missing) => UntilReady::failed(missing.into()),
        }
    }

    /// Blocks this thread until it has one token with a permit. Needs no runtime; inside one, use
    /// [`acquire`](Self::acquire), which does not block other tasks.
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    pub fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, None)
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for at most `timeout`, on the limiter's clock.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_timeout(
        &self,
        resource: &str,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, Some(timeout))
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        acquire::blocking(self.0.entry(resource)?, n, timeout)
    }

    /// [`until_ready`](Self::until_ready) for threads: blocks until one token was taken.
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    pub fn blocking_until_ready(&self, resource: &str) -> Result<(), AcquireError> {
        self.blocking_until_ready_n(resource, 1, None)
    }

    /// [`blocking_until_ready`](Self::blocking_until_ready) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_until_ready`](Self::blocking_until_ready), and [`AcquireError::TimedOut`].
    pub fn blocking_until_ready_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<(), AcquireError> {
        acquire::blocking_until_ready(self.0.entry(resource)?, n, timeout)
    }

    // ---- ending -------------------------------------------------------------------------------

    /// Ends one forgotten permit of one token by the limit's policy. Call it only after
    /// [`forget`](Permit::forget): otherwise a permit that is still held stops counting as in
    /// flight. Does nothing if no permit is in flight or the resource does not exist.
    pub fn release(&self, resource: &str) {
        self.release_n(resource, 1);
    }

    /// Ends one forgotten permit of `n` tokens: see [`release`](Self::release).
    pub fn release_n(&self, resource: &str, n: u64) {
        if let Some(entry) = self.0.promoted(resource) {
            entry.release(n);
        }
    }

    // ---- adapting -----------------------------------------------------------------------------

    /// Reports that the upstream said "too many requests": cuts rate and burst to exactly three
    /// quarters, but not below one token per window or a millionth of the limit. Displayed figures
    /// are rounded down. The limit returns by its [`recovery`](Limit::recovery); by default it does
    /// not.
    ///
    /// Refusals come in storms, one for each request in transit. Within the
    /// [`cooldown`](Limit::cooldown), by default 5 seconds after a cut, they belong to its incident
    /// and cut no further. Prefer [`Permit::throttled`]: only the permit knows when its request was
    /// sent.
    pub fn announce_reduced(&self, resource: &str, reason: &str) {
        self.with(resource, |handle| handle.announce_reduced(reason));
    }

    /// Admits nothing for `how_long`, as a `Retry-After` header asks. Tokens are kept, none accrue.
    /// Of overlapping pauses the later end counts.
    pub fn pause_for(&self, resource: &str, how_long: Duration) {
        self.with(resource, |handle| handle.pause_for(how_long));
    }

    /// A snapshot of the resource; `None` if there is none of this name.
    #[must_use]
    pub fn capacity(&self, resource: &str) -> Option<Capacity> {
        self.0.view(resource).ok().map(|entry| entry.capacity())
    }

    /// Calls `callback` after every change of a resource's windows, or of its burst or rate in
    /// whole tokens, on the thread that made or noticed the change. It runs outside all locks and
    /// may call this limiter. The thread may be the one that serves all timers, so the callback
    /// should return quickly and must not block. Callbacks add up. A panic in one is ignored; the
    /// others still run.
    ///
    /// The limiter owns its callbacks. One that captures a clone of the limiter, or a handle or a
    /// permit of it, keeps it alive for ever: capture a [`WeakLimiter`](crate::WeakLimiter).
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

/// A [`MemoryLimiter`] that may be gone: see [`MemoryLimiter::downgrade`].
///
/// ```
/// use tollgate::{Limit, MemoryLimiter};
///
/// let limiter = MemoryLimiter::new();
/// let weak = limiter.downgrade();
/// limiter.on_capacity_change(move |update| {
///     if let Some(limiter) = weak.upgrade() {
///         println!("{:?}", limiter.capacity(&update.resource));
///     }
/// });
/// ```
#[derive(Clone)]
pub struct WeakLimiter(Weak<Registry>);

impl WeakLimiter {
    /// The limiter; `None` once its last clone was dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<MemoryLimiter> {
        self.0.upgrade().map(MemoryLimiter)
    }
}

impl fmt::Debug for WeakLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakLimiter").finish_non_exhaustive()
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
