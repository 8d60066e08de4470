//! OutgoingKind a limiter's callers leave for its task: names and flags, so that it is bounded by the
//! resources and nobody waits.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::task::Wake;

use tokio::sync::Notify;

use crate::sync::Mutex;

/// OutgoingKind the task is left to do.
#[derive(Debug, Default)]
pub(super) struct TaskQueue {
    left: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    /// Resources with a cut of ours that was not announced.
    pub(super) to_announce: BTreeSet<String>,
    /// A resource is new here: ask what stands.
    pub(super) ask: bool,
    pub(super) stop: bool,
}

impl TaskQueue {
    pub(super) fn announce(&self, resource: &str) {
        self.left.lock().to_announce.insert(resource.to_string());
        self.arrived.notify_one();
    }

    pub(super) fn ask(&self) {
        self.left.lock().ask = true;
        self.arrived.notify_one();
    }

    pub(super) fn stop(&self) {
        self.left.lock().stop = true;
        self.arrived.notify_one();
    }

    /// Once stopped it stays so.
    pub(super) fn take(&self) -> Pending {
        let mut left = self.left.lock();
        let stop = left.stop;
        mem::replace(&mut *left, Pending { stop, ..Pending::default() })
    }

    /// Until something was left, or the timer rang.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// The timer of the next recovery rings here.
impl Wake for TaskQueue {
    fn wake(self: Arc<Self>) {
        self.arrived.notify_one();
    }
}
