//! What a resource looks like from outside, and who is told when it changes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::sync::Mutex;

/// A resource at one moment. Its `Display` is one line, in which the second figure is the burst:
/// `openai-api: 5/5 available, 0 in-flight, window=1s`, and `; 9995/10000, window=86400s` for each
/// further window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capacity {
    /// The resource's name.
    pub resource: String,
    /// Promoted tokens that could be taken now, from all windows at once; 0 during a pause. While threads
    /// take from prepaid batches it may be off by what those hold, 2,048 at most.
    pub available: u64,
    /// Promoted tokens that the first window's bucket holds at present: the burst, less after a cut.
    pub total: u64,
    /// Tokens that accrue in the first window at present, rounded down.
    pub per_window: u64,
    /// The limit's first window.
    pub window: Duration,
    /// Permits that have not ended.
    pub in_flight: u64,
    /// Calls that wait.
    pub waiting: u64,
    /// The first window's burst before any cut.
    pub limit: u64,
    /// Each window by itself, the first one first.
    pub windows: Vec<WindowCapacity>,
}

/// One window of a resource at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCapacity {
    /// Promoted tokens that could be taken now from this window; 0 during a pause.
    pub available: u64,
    /// Promoted tokens that its bucket holds at present: the burst, less after a cut.
    pub total: u64,
    /// Tokens that accrue in it at present, rounded down.
    pub per_window: u64,
    /// How long it is.
    pub window: Duration,
    /// Its burst before any cut.
    pub limit: u64,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, in_flight, .. } = self;
        for (index, WindowCapacity { available, total, window, .. }) in
            self.windows.iter().enumerate()
        {
            if index == 0 {
                write!(f, "{resource}: {available}/{total} available, {in_flight} in-flight")?;
            } else {
                write!(f, "; {available}/{total}")?;
            }
            write!(f, ", window={window:?}")?;
        }
        Ok(())
    }
}

/// A resource's capacity changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityUpdate {
    /// The resource's name.
    pub resource: String,
    /// Who changed it: `local`, or this agent's own id, where it was this limiter.
    pub agent_id: String,
    /// Whether it was this limiter and not a neighbour, whatever ids they use.
    pub is_ours: bool,
    /// What the first window's bucket holds now, in whole tokens.
    pub new_capacity: u64,
    /// Tokens that accrue in the first window now, rounded down: the rate.
    pub per_window: u64,
    /// In words, as it was given.
    pub reason: String,
    /// When.
    pub timestamp: SystemTime,
    /// What kind of change.
    pub kind: UpdateKind,
}

/// What changed a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpdateKind {
    /// It was reduced after an upstream's refusal.
    Cut,
    /// It came back, a step or all the way.
    Recovery,
    /// It was configured anew.
    Config,
}

pub(crate) type Callback = Arc<dyn Fn(&CapacityUpdate) + Send + Sync>;

/// Who wants to hear of changes. Told outside all locks, so that a callback may call the limiter.
#[derive(Default)]
pub(crate) struct Observers(Mutex<Vec<Callback>>);

impl Observers {
    pub(crate) fn add(&self, callback: Callback) {
        self.0.lock().push(callback);
    }

    /// A callback that panics is its owner's bug: the others are told all the same, and whoever
    /// caused the change goes on.
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
