//! What a limiter's callers leave for its task: names and flags, so that it is bounded by the
//! number of resources and no caller waits.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::task::Wake;

use tokio::sync::Notify;

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct TaskQueue {
    pending: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    /// Resources with a cut of our own to announce.
    pub(super) to_announce: BTreeSet<String>,
    /// Resources with a change of their pauses by this limiter, and whether to announce it at once.
    pub(super) paused: BTreeMap<String, bool>,
    /// Resources and keys that are new here, and were heard of before.
    pub(super) known: BTreeSet<String>,
    pub(super) stop: bool,
}

impl TaskQueue {
    pub(super) fn announce(&self, resource: &str) {
        self.pending.lock().to_announce.insert(resource.to_string());
        self.arrived.notify_one();
    }

    pub(super) fn pause(&self, resource: &str, is_urgent: bool) {
        *self.pending.lock().paused.entry(resource.to_string()).or_default() |= is_urgent;
        self.arrived.notify_one();
    }

    pub(super) fn known(&self, name: &str) {
        self.pending.lock().known.insert(name.to_string());
        self.arrived.notify_one();
    }

    pub(super) fn stop(&self) {
        self.pending.lock().stop = true;
        self.arrived.notify_one();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.pending.lock().stop
    }

    /// All that is pending. `stop` stays set.
    pub(super) fn take(&self) -> Pending {
        let mut pending = self.pending.lock();
        let stop = pending.stop;
        mem::replace(&mut *pending, Pending { stop, ..Pending::default() })
    }

    /// Wait until something is pending, or the timer has fired.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// The waker of the timer of the next recovery step.
impl Wake for TaskQueue {
    fn wake(self: Arc<Self>) {
        self.arrived.notify_one();
    }
}
