//! Limiters that share their upstream's refusals over a message bus.

mod agent;
mod config;
mod stats;
mod task_queue;
mod trickle;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::limiter::{
    Acquire, AcquireAll, AcquireError, Callback, Capacity, CapacityUpdate, ConfigError, Context,
    Limit, MemoryLimiter, Observers, OnRelease, Permit, Permits, Resource, TryAcquireError,
    rate_limiter,
};
use agent::Agent;
use stats::Counters;
use task_queue::TaskQueue;

pub use config::{DistributedConfig, SwarmError};
pub use stats::SwarmStats;

/// A limiter in a swarm: agents that share an upstream, each with its own limits. When the upstream
/// refuses one of them ("too many requests"), all slow down and recover together. Cheap to clone.
///
/// It is a [`MemoryLimiter`] with a task that talks to a [bus](crate::MessageBus). No caller waits
/// for the bus. It speaks the same messages as agents of agentkit's `ratelimit` package (Go).
///
/// # What a swarm agrees on
///
/// * **One incident, one cut.** An overloaded upstream refuses many requests of many agents. A
///   refusal within the cooldown after a cut, or of a request that was sent before the cut
///   ([`Permit::throttled`] knows), belongs to that cut's incident, whichever agent made the cut.
/// * **A cut never raises a limit,** which is scaled by the lowest cut that the agent knows.
/// * **Recovery always completes,** even from one token, and on the same schedule for all agents:
///   the factor of a cut follows from its age, and agents send the age. Callbacks
///   ([`on_capacity_change`](Self::on_capacity_change)) run on time even if nobody acquires.
/// * **Shares may be unequal.** A cut is a factor of each agent's own limit. Only a Go agent's cut
///   is in tokens a window, and is applied as such.
/// * **Late joiners learn** the cuts that stand within a second of joining, and of configuring a
///   resource. Answers are not repeated: one agent sends all cuts of a resource, the others none.
/// * **Precision.** Messages tell a cut's age at sending, so two agents' steps are apart by the
///   time that messages took between them.
///
/// # Failures
///
/// Without a bus each agent continues alone: its cuts apply at once, and are sent when the bus is
/// back if they still stand. Cuts that stand are repeated, at most every 5 seconds by the whole
/// swarm, which makes up for lost messages and healed partitions. What an agent keeps for the bus
/// is bounded by the number of resources.
///
/// Malformed messages are ignored, [counted](Self::stats) and logged. Everybody who can publish on
/// the bus can cut limits, to a millionth at worst, which recovery undoes. Nobody can raise a
/// limit, bring its recovery forward, or keep an agent from making its own cuts. A late joiner can
/// be sent a cut's date that is up to 10 seconds wrong, or half a recovery interval if less.
///
/// # The task
///
/// It runs in the tokio runtime in which the limiter was made. It ends with [`close`](Self::close),
/// or when the last clone drops. Callbacks for other agents' cuts and for recoveries run on it.
#[derive(Clone)]
pub struct DistributedLimiter(Arc<Member>);

struct Member {
    local: MemoryLimiter,
    tasks: Arc<TaskQueue>,
    counters: Arc<Counters>,
    /// Closed when the task ends, which owns the sender.
    running: watch::Receiver<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl DistributedLimiter {
    /// Join the swarm on `config`'s bus.
    ///
    /// # Errors
    ///
    /// See [`SwarmError`].
    pub async fn new(config: DistributedConfig) -> Result<Self, SwarmError> {
        let policy = config.policy()?;
        let runtime = Handle::try_current().map_err(|_| SwarmError::NoRuntime)?;
        if !config.max_recovery {
            tracing::warn!(
                agent_id = config.agent_id,
                "max_recovery is off: after a cut limits grow past what they were configured to"
            );
        }
        let tasks = Arc::new(TaskQueue::default());
        let to_announce = Arc::clone(&tasks);
        let context = Context {
            agent_id: config.agent_id.clone(),
            policy,
            observers: Observers::default(),
            on_cut: Some(Box::new(move |resource| to_announce.announce(resource))),
        };
        let local = MemoryLimiter::with_context(config.clock, context);
        let subscriptions = agent::subscribe(&*config.bus).await.map_err(SwarmError::Bus)?;
        let counters = Arc::new(Counters::default());
        let agent = Agent::new(
            local.clone(),
            config.bus,
            config.agent_id,
            Arc::clone(&tasks),
            Arc::clone(&counters),
        );
        let (is_running, running) = watch::channel(());
        runtime.spawn(async move {
            let _is_running = is_running;
            agent.run(subscriptions).await;
        });
        Ok(Self(Arc::new(Member { local, tasks, counters, running })))
    }

    /// Close at once and for good: see [`MemoryLimiter::close`]. The future waits until pending
    /// announcements have been sent, for up to 2 seconds, and the task has ended. Cancel-safe:
    /// without it the task sends them too.
    pub fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.local.close();
        self.0.tasks.stop();
        let mut running = self.0.running.clone();
        async move {
            // No value is ever sent: this returns when the sender drops.
            let _ = running.changed().await;
        }
    }

    /// Counts of the messages to and from the bus.
    #[must_use]
    pub fn stats(&self) -> SwarmStats {
        self.0.counters.read()
    }

    /// See [`MemoryLimiter::set_capacity`].
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

    /// See [`MemoryLimiter::configure`]. The limit is this agent's own. A recovery or cooldown that
    /// it does not set is that of the [`DistributedConfig`]. For a resource that is new here, the
    /// agent asks the swarm which cuts stand.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; nothing was changed.
    pub fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError> {
        let is_new = !self.0.local.knows(resource);
        let configured = self.0.local.configure(resource, limit)?;
        if is_new {
            self.0.tasks.query();
        }
        Ok(configured)
    }

    /// Call `callback` after every change of a resource's capacity, by this agent's cuts and
    /// recoveries and by other agents' cuts: [`is_ours`](CapacityUpdate::is_ours) tells them apart.
    /// See [`MemoryLimiter::on_capacity_change`].
    pub fn on_capacity_change(&self, callback: impl Fn(&CapacityUpdate) + Send + Sync + 'static) {
        self.observe(Arc::new(callback));
    }

    pub(crate) fn observe(&self, callback: Callback) {
        self.0.local.observe(callback);
    }
}

/// OutgoingKind is the local limiter's, by the same name.
macro_rules! local {
    ($($(#[$attribute:meta])* fn $name:ident(&self $(, $arg:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        #[allow(clippy::missing_errors_doc)] // each is documented where it is named
        impl DistributedLimiter {
            $(
                #[doc = concat!("See [`MemoryLimiter::", stringify!($name), "`].\n")]
                $(#[$attribute])*
                pub fn $name(&self $(, $arg: $type)*) $(-> $result)? {
                    self.0.local.$name($($arg),*)
                }
            )*
        }
    };
}

local! {
    /// The limit is this agent's own, for each key. Keys are cut together with others' of the same name
    /// while they are there; a cut that is heard of makes none.
    fn per_key(&self, prefix: &str, limit: Limit) -> Result<(), ConfigError>;
    fn per_key_at_most(&self, prefix: &str, limit: Limit, most_keys: u64) -> Result<(), ConfigError>;
    fn remove_per_key(&self, prefix: &str) -> bool;
    fn resource(&self, resource: &str) -> Option<Resource>;
    fn remove(&self, resource: &str) -> bool;
    fn resources(&self) -> Vec<Capacity>;
    #[inline]
    fn check(&self, resource: &str) -> Result<(), TryAcquireError>;
    #[inline]
    fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError>;
    fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError>;
    #[inline]
    fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError>;
    fn try_acquire_n(&self, resource: &str, n: u64) -> Result<Permit<'static>, TryAcquireError>;
    fn acquire(&self, resource: &str) -> Acquire;
    fn acquire_n(&self, resource: &str, n: u64) -> Acquire;
    fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError>;
    fn blocking_acquire_timeout(&self, resource: &str, timeout: Duration) -> Result<Permit<'static>, AcquireError>;
    fn blocking_acquire_n(&self, resource: &str, n: u64, timeout: Option<Duration>) -> Result<Permit<'static>, AcquireError>;
    fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), TryAcquireError>;
    fn check_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<(), TryAcquireError>;
    fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, TryAcquireError>;
    fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll;
    fn blocking_acquire_all(&self, wanted: &[(&str, u64)], timeout: Option<Duration>) -> Result<Permits, AcquireError>;
    fn try_acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<Permits, TryAcquireError>;
    fn acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> AcquireAll;
    fn release(&self, resource: &str);
    fn release_n(&self, resource: &str, n: u64);
    /// The cut applies here at once, by the configuration's `reduce_factor`, and is told to the
    /// swarm. This neither waits nor fails.
    fn announce_reduced(&self, resource: &str, reason: &str);
    /// A pause is this agent's own.
    fn pause_for(&self, resource: &str, how_long: Duration);
    fn capacity(&self, resource: &str) -> Option<Capacity>;
}

rate_limiter!(DistributedLimiter, |limiter: &DistributedLimiter| drop(limiter.close()));

impl fmt::Debug for DistributedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedLimiter")
            .field("resources", &self.resources())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
