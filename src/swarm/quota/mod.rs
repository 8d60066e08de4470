//! Quotas: a limit that the agents of a swarm share. The rules are in [`share`](super::share); here are its API, and the
//! task that connects a resource to the ledger and the bus.

mod feed;
mod seen;
mod task;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::DistributedLimiter;
use super::share::{BURST_UNITS, Quota, Terms};
use crate::bus::MessageBus;
use crate::ledger::{Ledger, LedgerTerms};
use crate::limiter::{ConfigError, Limit, Resource};
use crate::sync::Mutex;
use task::Task;

/// The quotas of one limiter, and what their tasks need.
pub(super) struct Quotas {
    ledger: Option<Arc<dyn Ledger>>,
    bus: Arc<dyn MessageBus>,
    runtime: Handle,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

struct Running {
    resource: Resource,
    control: Arc<Control>,
    /// Closed when the task ends, which owns the sender.
    ended: watch::Receiver<()>,
}

/// The resource of a task. When that ends, nothing will be allotted any more: calls fail, also those that wait.
struct Shared {
    resource: Resource,
    name: String,
    control: Arc<Control>,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // The name may be another resource's by now.
        if running.get(&self.name).is_some_and(|known| known.resource.is_same(&self.resource)) {
            running.remove(&self.name);
        }
        drop(running);
        let was_open = self.resource.shared_limit().is_some();
        if was_open && !self.control.orders.lock().stop {
            let resource = &self.name;
            tracing::warn!(resource, "a quota's task has ended: the resource is closed");
        }
        self.resource.end_share();
    }
}

/// What a task is told.
#[derive(Debug)]
struct Control {
    orders: Mutex<Orders>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Orders {
    limit: Quota,
    stop: bool,
}

impl Control {
    fn order(&self, act: impl FnOnce(&mut Orders)) {
        act(&mut self.orders.lock());
        self.changed.notify_one();
    }
}

impl Quotas {
    pub(super) fn new(
        ledger: Option<Arc<dyn Ledger>>,
        bus: Arc<dyn MessageBus>,
        runtime: Handle,
    ) -> Self {
        Self { ledger, bus, runtime, running: Arc::default() }
    }

    /// Ends the tasks: each tells the swarm that its agent leaves. Returns what is closed when they have ended.
    pub(super) fn stop(&self) -> Vec<watch::Receiver<()>> {
        let running = self.running.lock();
        let stop = |running: &Running| {
            running.control.order(|orders| orders.stop = true);
            running.ended.clone()
        };
        running.values().map(stop).collect()
    }

    fn share(
        &self,
        limiter: &DistributedLimiter,
        name: &str,
        limit: &Limit,
    ) -> Result<Resource, ShareError> {
        let ledger = self.ledger.as_ref().ok_or(ShareError::NoLedger)?;
        let terms = terms(ledger.terms()).ok_or(ShareError::InvalidTerms)?;
        quota(limit)?;
        let label = task::random().ok_or(ShareError::NoRandomNumbers)?;
        let resource = limiter.share_resource(name, limit, terms.period())?;
        let mut running = self.running.lock();
        // Removed meanwhile: another call may share the name already.
        let Some(limit) = resource.shared_limit() else { return Ok(resource) };
        // Of two calls at once, the resource has the later limit.
        let quota = quota(&limit)?;
        if let Some(known) = running.get(name)
            && known.resource.is_same(&resource)
        {
            known.control.order(|orders| orders.limit = quota);
            return Ok(resource);
        }
        let orders = Mutex::new(Orders { limit: quota, stop: false });
        let control = Arc::new(Control { orders, changed: Notify::new() });
        let (running_task, ended) = watch::channel(());
        let known = Running { resource: resource.clone(), control: Arc::clone(&control), ended };
        running.insert(name.to_string(), known);
        drop(running); // the drop of a `Shared` takes the lock: a runtime that shuts down drops the task at once
        let shared = Shared {
            resource: resource.clone(),
            name: name.to_string(),
            control,
            running: Arc::clone(&self.running),
        };
        let task = Task::new(
            shared,
            label,
            (terms, quota),
            (Arc::clone(ledger), Arc::clone(&self.bus)),
            limiter.clock().clone(),
        );
        self.runtime.spawn(async move {
            let _running_task = running_task;
            task.run().await;
        });
        Ok(resource)
    }
}

/// In nanoseconds and parts of a million; `None` if they are not valid.
#[allow(clippy::cast_sign_loss)] // checked
fn terms(terms: LedgerTerms) -> Option<Terms> {
    let term = u64::try_from(terms.term.as_nanos()).ok()?;
    terms.is_valid().then(|| Terms { term, drift: (terms.drift * 1e6).ceil() as u32 })
}

/// A limit as a quota.
fn quota(limit: &Limit) -> Result<Quota, ShareError> {
    limit.validate()?;
    let mut windows = limit.get_windows();
    let window = windows.next().filter(|_| windows.next().is_none()).ok_or(ShareError::Windows)?;
    if window.is_strict {
        return Err(ShareError::Strict);
    }
    if limit.refunds() {
        return Err(ShareError::Refunds);
    }
    if limit.get_max_in_flight().is_some() {
        return Err(ShareError::InFlight);
    }
    if limit.get_adaptive().is_some() {
        return Err(ShareError::Adaptive);
    }
    let scale = 1_000_000_000_000_000_000_u128;
    let rate = u128::from(window.capacity) * scale / window.window.as_nanos().max(1);
    let rate = u64::try_from(rate).ok().filter(|rate| *rate > 0).ok_or(ShareError::TooLarge)?;
    let burst =
        window.burst.checked_mul(BURST_UNITS.into()).and_then(|burst| burst.try_into().ok());
    Ok(Quota { rate, burst: burst.ok_or(ShareError::TooLarge)? })
}

impl DistributedLimiter {
    /// Shares `limit` with all agents of the swarm that share the resource: what they admit together stays within
    /// it, whatever crashes, pauses or is cut off. Calls of the resource do no I/O.
    ///
    /// Each agent has a share of the rate and of the burst, by what its callers want; see
    /// [`Capacity::share`](crate::Capacity::share). There is none at first: a new agent has its part after about a term
    /// of the [ledger](crate::Ledger), 3 seconds by default. Meanwhile calls are denied, or wait. A share ends a term
    /// after the last news from the ledger: without the ledger nothing is admitted.
    ///
    /// The limit is the whole swarm's, and all agents should have the same: of different ones the lowest counts.
    /// Called again, it changes the limit. Cuts and pauses of the swarm act on top of it. Agents of agentkit's Go
    /// package take no part: what they send counts as well.
    ///
    /// A call for more than the agent's share of the burst, but not more than the whole, waits until the swarm
    /// gives it a turn. What [`Permit::refund`](crate::Permit::refund) and
    /// [`settle`](crate::Permit::settle) give back is void if the share has changed since.
    ///
    /// Keep the limiter as long as the resource is used. When its last clone is dropped, the agent leaves the swarm, and
    /// calls by handles that are left fail as after [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// See [`ShareError`]. Nothing was changed.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use tollgate::{DistributedConfig, DistributedLimiter, Limit, MemoryBus, MemoryLedger, MessageBus};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    /// let mut config = DistributedConfig::new(bus, "agent-1");
    /// config.ledger = Some(Arc::new(MemoryLedger::new()));
    /// let limiter = DistributedLimiter::new(config).await?;
    ///
    /// let api = limiter.share("api", Limit::per_second(200).burst(20))?;
    /// let permit = api.acquire().timeout(Duration::from_secs(5)).await?;
    /// // ... send the request, before `permit.valid_until()` is over ...
    /// drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    pub fn share(&self, resource: &str, limit: Limit) -> Result<Resource, ShareError> {
        self.0.quotas.share(self, resource, &limit)
    }
}

/// Why a limit cannot be shared. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareError {
    /// The agents of a quota need a ledger in common: set
    /// [`DistributedConfig::ledger`](crate::DistributedConfig::ledger).
    NoLedger,
    /// The ledger's term must be 100 ms to an hour, and its drift 0 to 0.1.
    InvalidTerms,
    /// A quota has one window: what is left of several cannot be divided by one share.
    Windows,
    /// A strict window cannot be divided: use a limit with a burst.
    Strict,
    /// Tokens that come back later may belong to another agent by then: use
    /// [`OnRelease::Spend`](crate::OnRelease::Spend).
    Refunds,
    /// Permits in flight are not counted across a swarm: leave `max_in_flight` out.
    InFlight,
    /// A quota is divided by its limit, which must be known.
    Adaptive,
    /// The operating system's generator of random numbers has failed. Without it, agents could take each other's part.
    NoRandomNumbers,
    /// A quota has a burst of at most 67,108,863 tokens, and a rate of at most 1.8e10 tokens a second, at least one in
    /// 30 years.
    TooLarge,
    /// The limit is not valid, or the limiter is closed. The resource alone is closed if its task has ended, with the
    /// runtime that the limiter was made in or by a panic: then [`remove`](crate::MemoryLimiter::remove) it first.
    Config(ConfigError),
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLedger => "a shared limit needs a ledger: set `DistributedConfig::ledger`",
            Self::InvalidTerms => "the ledger's term must be 100 ms to an hour, its drift 0 to 0.1",
            Self::Windows => "a shared limit has one window",
            Self::Strict => "a strict limit cannot be shared: use one with a burst",
            Self::Refunds => "a shared limit cannot refund on release: use `OnRelease::Spend`",
            Self::InFlight => "permits in flight are not counted across a swarm: leave `max_in_flight` out",
            Self::Adaptive => "an adaptive limit cannot be shared",
            Self::NoRandomNumbers => "the operating system has no random numbers, which a shared limit needs",
            Self::TooLarge => {
                "a shared limit has a burst of at most 67,108,863 tokens, and at most 1.8e10 tokens a second"
            }
            Self::Config(error) => return error.fmt(f),
        })
    }
}

impl Error for ShareError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Config(error) = self { Some(error) } else { None }
    }
}

impl From<ConfigError> for ShareError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

#[cfg(test)]
mod tests;
