//! The in-process limiter: resources by name.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::capacity::{Callback, Capacity, CapacityUpdate};
use super::context::Context;
use super::error::{ConfigError, ConfigureAllError};
use super::limit::{Limit, OnRelease};
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
/// # Forks
///
/// A forked process shares nothing with its parent: its buckets are copies, as full as they were, so both
/// admit what is left. Its waits work, by a timer thread of its own. Those that waited in other threads of
/// the parent do not exist in it, and are skipped. As with any lock, one that another thread held at the
/// fork stays locked in the child.
///
/// # Signal handlers
///
/// Do not call a limiter from a signal handler: it may interrupt a take of the same thread, which would then
/// count one token for two.
///
/// # Hot buckets
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
    ///
    /// ```
    /// # let limiter = tollgate::MemoryLimiter::new();
    /// limiter.set_capacity("pool", 5, std::time::Duration::from_secs(1))?;
    /// let permit = limiter.try_acquire("pool")?;
    /// drop(permit); // its token is back
    /// assert_eq!(limiter.capacity("pool").unwrap().available, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// let api = limiter.configure("api", Limit::per_minute(600).burst(10))?;
    /// api.check()?; // by the handle
    /// limiter.check("api")?; // by name
    /// limiter.configure("api", Limit::per_minute(300).burst(5))?; // takes effect at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError> {
        self.0.configure(resource, &limit).map(Resource)
    }

    /// Configures several resources, in this order: all, or none if one of them has an invalid limit or
    /// an empty name.
    ///
    /// On an error nothing changed: it names the resource, and has the cause.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// let limits = [("requests", Limit::per_minute(500)), ("tokens", Limit::per_minute(0))];
    /// let error = limiter.configure_all(&limits).unwrap_err();
    /// assert_eq!(&*error.resource, "tokens");
    /// assert!(limiter.resource("requests").is_none());
    /// ```
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
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// let api = limiter.resource("api").unwrap();
    /// let worker = std::thread::spawn(move || api.check().is_ok());
    /// assert!(worker.join().unwrap());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn resource(&self, resource: &str) -> Option<Resource> {
        self.0.entry(resource).ok().map(Resource)
    }

    /// Removes a resource and returns whether it existed. Its waiters and handles fail with
    /// `UnknownResource`.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// assert!(limiter.remove("api"));
    /// assert!(limiter.check("api").is_err());
    /// assert!(api.check().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&self, resource: &str) -> bool {
        self.0.remove(resource)
    }

    /// All configured resources, sorted by name. Keys of templates are not included.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// for capacity in limiter.resources() {
    ///     println!("{capacity}"); // api: 5/5 available, 0 in-flight, window=1s
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn resources(&self) -> Vec<Capacity> {
        self.0.capacities()
    }

    /// Closes the limiter for good: waiters and later calls fail with `Closed`. Outstanding permits
    /// may still end.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.close();
    /// assert_eq!(api.check().unwrap_err().to_string(), "the limiter is closed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.0.close();
    }

    // ---- adapting -----------------------------------------------------------------------------

    /// Reports that the upstream said "too many requests": cuts rate and burst to exactly three
    /// quarters, or in a `DistributedLimiter` by its `reduce_factor`, but not below its
    /// [`min_rate`](Limit::min_rate): by default one token per window, or a millionth of the limit. Displayed
    /// figures are rounded down. The limit returns by its [`recovery`](Limit::recovery), by default 10 % every
    /// 30 seconds, unless it has [none](Limit::no_recovery).
    ///
    /// Refusals come in storms, one for each request in transit. Within the
    /// [`cooldown`](Limit::cooldown), by default 5 seconds after a cut, they belong to its incident
    /// and cut no further. Prefer [`Permit::throttled`](crate::Permit::throttled): only the permit knows when
    /// its request was sent. This one keeps the tokens up to the smaller burst.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("api", Limit::per_second(100))?;
    /// limiter.announce_reduced("api", "received 429");
    /// assert_eq!(limiter.capacity("api").unwrap().burst, 75);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce_reduced(&self, resource: &str, reason: &str) {
        self.with(resource, |handle| handle.announce_reduced(reason));
    }

    /// Admits nothing for `how_long`, as a `Retry-After` header asks. Tokens are kept, none accrue.
    /// Of overlapping pauses the later end counts. The length has no bound: [`resume`](Self::resume)
    /// ends a pause, and [`configure`](Self::configure) does not. A `DistributedLimiter` tells other agents
    /// of the pause, which then ends empty; [`pause_here_for`](Self::pause_here_for) tells nobody.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.pause_for("api", std::time::Duration::from_secs(2)); // Retry-After: 2
    /// assert!(limiter.check("api").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pause_for(&self, resource: &str, how_long: Duration) {
        self.with(resource, |handle| handle.pause_for(how_long));
    }

    /// [`pause_for`](Self::pause_for) for this limiter alone. Only in a `DistributedLimiter`, which tells other
    /// agents of its pauses, is there a difference: this one ends on time, and keeps tokens.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.pause_here_for("api", Duration::from_secs(2));
    /// assert!(limiter.capacity("api").unwrap().paused_until > Some(Duration::from_secs(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pause_here_for(&self, resource: &str, how_long: Duration) {
        self.with(resource, |handle| handle.pause_here_for(how_long));
    }

    /// Ends a pause, and what [`observe_remaining_until`](Self::observe_remaining_until) has set: tokens accrue,
    /// and are admitted, from now on. In a swarm it ends here alone.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.pause_for("api", std::time::Duration::from_secs(1_767_225_600)); // a date, not a delay
    /// limiter.resume("api");
    /// assert!(limiter.check("api").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self, resource: &str) {
        self.with(resource, Resource::resume);
    }

    /// Keeps at most `left` tokens, which the upstream says are left (`x-ratelimit-remaining`), in the
    /// first window. Never adds tokens: where fewer are here, and above the burst, it has no effect, and
    /// a debt stays. So reports may come late, twice, and in any order. Tokens accrue from then on as
    /// before.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("api", Limit::per_hour(100))?;
    /// limiter.observe_remaining("api", 60);
    /// limiter.observe_remaining("api", 60); // another answer says the same
    /// assert_eq!(limiter.capacity("api").unwrap().available, 60);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe_remaining(&self, resource: &str, left: u64) {
        self.with(resource, |handle| handle.observe_remaining(left));
    }

    /// Admits at most `left` tokens, which the upstream says are left until its window ends, for the time of
    /// `until` from now (`x-ratelimit-reset`), and spreads them over it. The bucket keeps at most `left`; what it
    /// holds less than that accrues evenly until then, never faster than the limit. Then the limit's rate counts
    /// again. Tokens that permits give back come on top.
    ///
    /// * Of reports for the same end, to the second, the lowest counts, and none raises the rate.
    /// * One for a later end replaces what was reported before; one for an earlier end has no effect.
    /// * `left` of 0 is a pause of the resource, as [`pause_for`](Self::pause_for); a time of 0 is
    ///   [`observe_remaining`](Self::observe_remaining).
    /// * A time of more than 24 hours counts as 24 hours.
    ///
    /// It is about the first window. A cut, a step of a recovery and [`configure`](Self::configure) leave it in
    /// force, and the lower of the two rates counts; [`resume`](Self::resume) ends it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Limit, ManualClock, MemoryLimiter};
    /// # let time = ManualClock::new();
    /// # let limiter = MemoryLimiter::with_clock(time.clone());
    /// limiter.configure("api", Limit::per_second(10))?;
    /// limiter.check_n("api", 10)?;
    /// limiter.observe_remaining_until("api", 5, Duration::from_secs(10)); // one every 2 s
    /// let error = limiter.check("api").unwrap_err();
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe_remaining_until(&self, resource: &str, left: u64, until: Duration) {
        self.with(resource, |handle| handle.observe_remaining_until(left, until));
    }

    /// A snapshot of the resource; `None` if there is none of this name.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// let capacity = limiter.capacity("api").unwrap();
    /// assert_eq!((capacity.available, capacity.burst), (5, 5));
    /// assert_eq!(capacity.to_string(), "api: 5/5 available, 0 in-flight, window=1s");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn capacity(&self, resource: &str) -> Option<Capacity> {
        self.0.view(resource).ok().map(|entry| entry.capacity())
    }

    /// Calls `callback` after every change of a resource's windows, or of its burst or rate in
    /// whole tokens, and when a pause begins or ends, on the thread that made or noticed the change:
    /// [`kind`](CapacityUpdate::kind) says which. It runs outside all locks and
    /// may call this limiter. The thread may be the one that serves all timers, so the callback
    /// should return quickly and must not block. Callbacks add up. A panic in one is ignored; the
    /// others still run.
    ///
    /// The limiter owns its callbacks. One that captures a clone of the limiter, or a handle or a
    /// permit of it, keeps it alive for ever: capture a [`WeakLimiter`](crate::WeakLimiter).
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("api", Limit::per_second(100))?;
    /// limiter.on_capacity_change(|update| {
    ///     println!("{}: {} ({})", update.resource, update.new_capacity, update.reason);
    /// });
    /// limiter.announce_reduced("api", "received 429"); // api: 75 (received 429)
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
