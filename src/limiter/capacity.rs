//! Capacity snapshots, and the observers of capacity changes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::sync::Mutex;

/// A snapshot of a resource. `Display` writes one line; the second figure is the burst:
/// `openai-api: 5/5 available, 0 in-flight, window=1s`. Where the rate is another, the tokens of a
/// window follow: `, rate=600`. Each further window adds `; 9995/10000, window=86400s`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capacity {
    /// The resource's name.
    pub resource: String,
    /// Whole tokens that a new call could take now, from all windows at once; 0 during a pause, and
    /// while others wait. While threads take from prepaid batches it may be off by what those hold, at
    /// most 2,048.
    pub available: u64,
    /// The first window's burst at present, in whole tokens: lower after a cut, and of an adaptive limit what
    /// it has found.
    pub burst: u64,
    /// The first window's rate at present, in tokens per window, rounded down.
    pub per_window: u64,
    /// Length of the first window.
    pub window: Duration,
    /// Permits that have not ended, forgotten ones included.
    pub in_flight: u64,
    /// Waiting calls.
    pub waiting: u64,
    /// The first window's burst before any cut.
    pub configured_burst: u64,
    /// Tokens that [`settle`](crate::Permit::settle) dropped, because the debt would have been too large.
    pub dropped_charges: u64,
    /// How long nothing is admitted from now on, because of a pause. `None` if there is none.
    pub paused_until: Option<Duration>,
    /// This agent's share of a swarm's quota at present; `None` for a resource that is not shared. `burst` and
    /// `per_window` are the share's then, and `configured_burst` is that of the whole quota.
    pub share: Option<Share>,
    /// Every window, the first one included.
    pub windows: Vec<WindowCapacity>,
}

/// What an agent may spend at present of a quota that its swarm shares. Both are 0 while it has no share: at first,
/// without a connection to the ledger, and while it is other agents' turn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Share {
    /// Tokens a second.
    pub rate: f64,
    /// Tokens.
    pub burst: f64,
}

/// A snapshot of one window of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCapacity {
    /// Whole tokens that a new call could take now from this window; 0 during a pause, and while others
    /// wait.
    pub available: u64,
    /// The burst at present, in whole tokens: lower after a cut.
    pub burst: u64,
    /// The rate at present, in tokens per window, rounded down.
    pub per_window: u64,
    /// Length of the window.
    pub window: Duration,
    /// The burst before any cut.
    pub configured_burst: u64,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, in_flight, .. } = self;
        for (index, of_window) in self.windows.iter().enumerate() {
            let WindowCapacity { available, burst, per_window, window, .. } = of_window;
            if index == 0 {
                write!(f, "{resource}: {available}/{burst} available, {in_flight} in-flight")?;
            } else {
                write!(f, "; {available}/{burst}")?;
            }
            write!(f, ", window={window:?}")?;
            if per_window != burst {
                write!(f, ", rate={per_window}")?;
            }
        }
        Ok(())
    }
}

/// A change of a resource's capacity, or a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityUpdate {
    /// The resource's name.
    pub resource: String,
    /// The agent that made the change. For this limiter: `local`, or its agent id in a swarm.
    pub agent_id: String,
    /// Whether this limiter made the change. Reliable also where peers share an `agent_id`.
    pub is_ours: bool,
    /// The first window's burst now, in whole tokens.
    pub new_capacity: u64,
    /// The first window's rate now, in tokens per window, rounded down.
    pub per_window: u64,
    /// The reason given by that agent.
    pub reason: String,
    /// The time of the change, by the calendar of the agent that made it.
    pub timestamp: SystemTime,
    /// The kind of change.
    pub kind: UpdateKind,
}

/// The cause of a capacity change, or what else has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpdateKind {
    /// Reduced because the upstream refused a request.
    Cut,
    /// A step of recovery, the return to the full limit, or the growth of an adaptive limit.
    Recovery,
    /// Reconfigured.
    Config,
    /// The share of a swarm's quota is another.
    Share,
    /// A pause has begun: nothing is admitted, and the capacity is as before. A pause that becomes longer is
    /// still the same. [`Capacity::paused_until`] says how long it will take.
    Pause,
    /// The pause has ended, by [`resume`](crate::MemoryLimiter::resume) or by time. The latter is told when
    /// the resource is next used or queried; of a pause that the agents of a swarm tell each other, on time.
    Resume,
}

pub(crate) type Callback = Arc<dyn Fn(&CapacityUpdate) + Send + Sync>;

/// Callbacks for capacity changes. Called outside all locks, so a callback may call the limiter.
#[derive(Default)]
pub(crate) struct Observers(Mutex<Vec<Callback>>);

impl Observers {
    pub(crate) fn add(&self, callback: Callback) {
        self.0.lock().push(callback);
    }

    /// A panic of one callback neither keeps the others from running nor reaches the caller that
    /// made the change.
    pub(crate) fn tell(&self, update: &CapacityUpdate) {
        let callbacks = self.0.lock().clone();
        for callback in callbacks {
            let _ = catch_unwind(AssertUnwindSafe(|| callback(update)));
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.lock().len()).finish()
    }
}
