//! Tokio's time, for tests that pause it.

use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Alarm;

/// Reads the time of the runtime that it was created in, from any thread.
#[derive(Clone, Debug)]
pub(super) struct TokioClock {
    runtime: Option<Handle>,
    start: Instant,
}

impl TokioClock {
    pub(super) fn new() -> Self {
        Self { runtime: Handle::try_current().ok(), start: Instant::now() }
    }

    pub(super) fn now(&self) -> u64 {
        let _inside = self.runtime.as_ref().map(Handle::enter);
        let elapsed = Instant::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A task of its own, because the future that waits may not be polled. `None` without a
    /// runtime.
    pub(super) fn arm(&self, at: u64, waker: Waker) -> Option<Alarm> {
        let runtime = self.runtime.clone().or_else(|| Handle::try_current().ok())?;
        let at = self.start.checked_add(Duration::from_nanos(at));
        let task = runtime.spawn(async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            waker.wake();
        });
        Some(Alarm::Tokio(Task(task.abort_handle())))
    }
}

/// Ends the timer's task when it drops.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
