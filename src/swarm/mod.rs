//! Limiters that share their upstream's refusals over a message bus.

mod agent;
mod announcements;
mod config;
mod guard;
mod inbound;
mod outbox;
mod parked;
mod queries;
mod quota;
mod schedule;
mod share;
mod stats;
mod task_queue;
mod trickle;
mod wire;

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::adapt::nanos;
use crate::clock::Clock;
use crate::limiter::{CapacityUpdate, Context, Local, MemoryLimiter, Observers, RateLimiter};
use agent::{Agent, FLUSH_TIMEOUT};
use inbound::Inbound;
use outbox::Outbox;
use parked::Parked;
use quota::Quotas;
use schedule::Schedule;
use stats::Counters;
use task_queue::TaskQueue;

pub use config::{DistributedConfig, SwarmError};
pub use quota::ShareError;
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
///   ([`Permit::throttled`](crate::Permit::throttled) knows), belongs to that cut's incident, whichever agent
///   made the cut.
/// * **A cut never raises a limit,** which is scaled by the lowest cut that the agent knows.
/// * **Recovery always completes,** even from one token, and on the same schedule for all agents:
///   the factor of a cut follows from its age, and agents send the age. Callbacks
///   ([`on_capacity_change`](Self::on_capacity_change)) run on time even if nobody acquires.
/// * **Shares may be unequal.** A cut is a factor of each agent's own limit. Only a Go agent's cut
///   is in tokens a window, and is applied as such. Where a permit's request was refused, each agent that is
///   cut also sets a ceiling from what it lately sent itself, which it tells nobody.
/// * **Late joiners learn** the cuts that stand within a second of joining, and of configuring a
///   resource. An agent does not send the cuts of a resource that it has just heard another one send.
/// * **Pauses are shared.** [`pause_for`](MemoryLimiter::pause_for) pauses all agents, late joiners too; see
///   [below](#pauses).
/// * **Precision.** Messages tell a cut's age at sending, so two agents' steps are apart by the
///   time that messages took between them.
///
/// # Pauses
///
/// [`pause_for`](MemoryLimiter::pause_for) pauses the resource on all agents that have it, and
/// [`pause_here_for`](MemoryLimiter::pause_here_for) on this agent alone, exactly. Of overlapping pauses the
/// later end counts. A pause that is told
///
/// * ends empty: the tokens of the first window are void, also those that permits give back meanwhile. A debt stays.
/// * ends on each agent later by a random part of a tenth of its length, and of a second at most. Agents end it
///   never earlier: see [`DistributedConfig::pause_spread`].
/// * is followed by a ceiling of what the agent lately sent, so that those that waited do not all go at once.
/// * is told by its length and age, so that clocks may differ. Its end, once heard, never moves.
/// * holds other agents for an hour at most ([`DistributedConfig::longest_pause`]), and none that do not
///   [accept pauses](DistributedConfig::accept_pauses).
///
/// [`resume`](MemoryLimiter::resume) ends pauses on this agent alone, and nobody is told: others continue to
/// wait, and the pause does not come back here. One that is told later is another pause.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use tollgate::{DistributedConfig, DistributedLimiter, Limit, MemoryBus, MessageBus};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
/// let one = DistributedLimiter::new(DistributedConfig::new(bus.clone(), "agent-1")).await?;
/// let other = DistributedLimiter::new(DistributedConfig::new(bus, "agent-2")).await?;
/// one.configure("api", Limit::per_second(10))?;
/// other.configure("api", Limit::per_second(10))?;
///
/// one.pause_for("api", Duration::from_secs(2)); // Retry-After: 2
/// # tokio::time::sleep(Duration::from_millis(100)).await;
/// assert!(other.check("api").is_err()); // a moment later
/// assert!(other.capacity("api").unwrap().paused_until > Some(Duration::from_secs(1)));
/// # Ok(())
/// # }
/// ```
///
/// # Failures
///
/// Without a bus each agent continues alone: its cuts and pauses apply at once, and are sent when the bus is
/// back if they still stand. Those that stand are repeated, at most every 5 seconds by the whole
/// swarm, which makes up for lost messages and healed partitions. What an agent keeps for the bus
/// is bounded by the number of resources.
///
/// Malformed messages are ignored, [counted](Self::stats) and logged. Everybody who can publish on
/// the bus can cut limits, to a millionth at worst, which recovery undoes. Nobody can raise a
/// limit, bring its recovery forward, or keep an agent from making its own cuts. A late joiner can
/// be sent a cut's date that is up to 10 seconds wrong, or half a recovery interval if less. Everybody who can
/// publish can pause all agents for as long as it publishes, plus the longest pause.
///
/// # The task
///
/// It runs in the tokio runtime in which the limiter was made. It ends with [`close`](Self::close),
/// or when the last clone drops. Callbacks for other agents' cuts and pauses, for recoveries, and for the end of
/// a pause that was told run on it.
#[derive(Clone)]
pub struct DistributedLimiter(Arc<Member>);

/// Dropped with the task, however that ends.
struct Running {
    _sender: watch::Sender<()>,
    tasks: Arc<TaskQueue>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.tasks.is_stopped() {
            tracing::warn!("a limiter's task has ended: it continues alone, without its swarm");
        }
    }
}

struct Member {
    local: MemoryLimiter,
    tasks: Arc<TaskQueue>,
    quotas: Quotas,
    counters: Arc<Counters>,
    /// Closed when the task ends, which owns the sender.
    running: watch::Receiver<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.stop();
        drop(self.quotas.stop());
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
        // tokio has no other way to ask whether the runtime has timers.
        catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)))
            .map_err(|_| SwarmError::NoTimers)?;
        if !config.max_recovery {
            tracing::warn!(
                agent_id = config.agent_id,
                "max_recovery is off: after a cut limits grow past what they were configured to"
            );
        }
        let tasks = Arc::new(TaskQueue::default());
        let parked = Arc::new(Parked::default());
        let (to_announce, to_apply, heard) =
            (Arc::clone(&tasks), Arc::clone(&tasks), Arc::clone(&parked));
        let to_pause = Arc::clone(&tasks);
        let context = Context {
            agent_id: config.agent_id.clone(),
            policy,
            observers: Observers::default(),
            on_cut: Some(Box::new(move |resource| to_announce.announce(resource))),
            on_pause: Some(Box::new(move |resource, is_urgent| {
                to_pause.pause(resource, is_urgent);
            })),
            pause_spread: config.pause_spread,
            on_new: Some(Box::new(move |name| {
                if heard.has(name) {
                    to_apply.known(name);
                }
            })),
        };
        // A machine that was suspended must not spend what others were given meanwhile.
        let is_machine = config.ledger.is_some() && config.clock.is_of_machine();
        let clock = if is_machine { Clock::boot_time() } else { config.clock };
        let limiter = MemoryLimiter::with_context(clock, context);
        let inbound = Inbound::subscribe(Arc::clone(&config.bus)).await.map_err(SwarmError::Bus)?;
        let counters = Arc::new(Counters::default());
        let (id, bus) = (config.agent_id, config.bus);
        let quota_bus = Arc::clone(&bus);
        let agent = Agent {
            limiter: limiter.clone(),
            id: id.clone(),
            tasks: Arc::clone(&tasks),
            counters: Arc::clone(&counters),
            parked,
            outbox: Outbox::new(limiter.clone(), bus, id, Arc::clone(&counters)),
            longest_pause: nanos(config.longest_pause),
            accept_pauses: config.accept_pauses,
            cut: Schedule::new(),
            alarm: None,
        };
        let quotas = Quotas::new(config.ledger, quota_bus, runtime.clone());
        let (sender, running) = watch::channel(());
        let is_running = Running { _sender: sender, tasks: Arc::clone(&tasks) };
        runtime.spawn(async move {
            let _is_running = is_running;
            agent.run(inbound).await;
        });
        Ok(Self(Arc::new(Member { local: limiter, tasks, quotas, counters, running })))
    }

    /// Close at once and for good: see [`MemoryLimiter::close`]. The future waits until pending
    /// announcements have been sent, which the task tries for up to 2 seconds, and the task has ended; with
    /// [shared limits](Self::share) also until the swarm has taken the agent off their tables. It resolves a moment
    /// after 2 seconds at the latest, also where nobody drives the task's runtime, and on any executor.
    /// Cancel-safe: without it the tasks do the same.
    pub fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        /// For the task to end by itself.
        const GRACE: Duration = Duration::from_millis(250);

        self.0.local.close();
        self.0.tasks.stop();
        let mut tasks = self.0.quotas.stop();
        tasks.push(self.0.running.clone());
        let clock = Clock::system();
        let wait = u64::try_from((FLUSH_TIMEOUT + GRACE).as_nanos()).unwrap_or(u64::MAX);
        let end = clock.now().saturating_add(wait);
        async move {
            let mut ended = pin!(async {
                for task in &mut tasks {
                    // No value is ever sent: this returns when the sender drops.
                    let _ = task.changed().await;
                }
            });
            let mut alarm = None;
            poll_fn(|context| {
                if ended.as_mut().poll(context).is_ready() || clock.now() >= end {
                    return Poll::Ready(());
                }
                // Without a thread for timers the task's end is all that there is to wait for.
                alarm = clock.arm(end, 0, context.waker().clone()).ok();
                Poll::Pending
            })
            .await;
            drop(alarm);
        }
    }

    /// Counts of the messages to and from the bus.
    #[must_use]
    pub fn stats(&self) -> SwarmStats {
        // The sender drops with the task.
        self.0.counters.read(self.0.running.has_changed().is_ok())
    }

    /// [`stats`](Self::stats) for as long as a clone of the limiter exists, which this keeps from no end.
    #[cfg(feature = "metrics")]
    pub(crate) fn weak_stats(&self) -> impl Fn() -> Option<SwarmStats> + Send + Sync + 'static {
        let member = Arc::downgrade(&self.0);
        move || Some(Self(member.upgrade()?).stats())
    }

    /// The agents whose pauses have held this one, each with the number of pauses; by the ids that the
    /// messages claim. Of the first 256 agents; [`SwarmStats::pauses`] counts all.
    #[must_use]
    pub fn paused_by(&self) -> Vec<(String, u64)> {
        let agents = self.0.counters.paused_by.lock();
        agents.iter().map(|(agent_id, pauses)| (agent_id.clone(), *pauses)).collect()
    }

    /// Call `callback` after every change of a resource's capacity, and when a pause begins or ends, by this
    /// agent's cuts, recoveries and pauses and by other agents' cuts and pauses:
    /// [`is_ours`](CapacityUpdate::is_ours) tells them apart.
    /// See [`MemoryLimiter::on_capacity_change`].
    pub fn on_capacity_change(&self, callback: impl Fn(&CapacityUpdate) + Send + Sync + 'static) {
        self.0.local.observe(Arc::new(callback));
    }
}

/// The verbs of a [`MemoryLimiter`], with these differences:
///
/// * Limits and keys are this agent's own. [`pause_for`](MemoryLimiter::pause_for) pauses [all
///   agents](DistributedLimiter#pauses).
/// * A limit that sets no recovery or no cooldown takes those of the [`DistributedConfig`];
///   [`Limit::no_recovery`](crate::Limit::no_recovery) holds here too.
/// * A remote cut or pause of a resource or a key that does not exist here creates none. It applies as soon as the
///   resource is configured or the key is used: within a moment, or a few seconds where the swarm has
///   thousands of cuts of such names.
/// * A cut is shared if its message fits into what the bus takes: any name of up to 10,000 bytes, on most buses.
///   The first 1,024 bytes of the reason are shared.
/// * [`announce_reduced`](MemoryLimiter::announce_reduced) cuts here at once, by the config's
///   `reduce_factor`, and the agent then tells the swarm. It neither waits nor fails.
impl Deref for DistributedLimiter {
    type Target = MemoryLimiter;

    #[inline]
    fn deref(&self) -> &MemoryLimiter {
        &self.0.local
    }
}

impl Local for DistributedLimiter {
    fn local(&self) -> &MemoryLimiter {
        self
    }
    fn close_now(&self) {
        drop(self.close());
    }
}

impl RateLimiter for DistributedLimiter {}

impl fmt::Debug for DistributedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedLimiter")
            .field("resources", &self.resources())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
