//! Tokio's time, for tests that pause it.

use std::mem;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Alarm, timers};
use crate::sync::{Arc, AtomicBool, Ordering};

/// Nanoseconds since its instant, by the runtime in which it is read.
#[derive(Clone, Debug)]
pub(super) struct TokioClock(Instant);

impl TokioClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> u64 {
        let elapsed = Instant::now().saturating_duration_since(self.0);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Spawn a task that sleeps: the waiting future may not be polled. `None` outside a runtime.
    pub(super) fn arm(&self, at: u64, waker: Waker) -> Option<Alarm> {
        let runtime = Handle::try_current().ok()?;
        let at = self.0.checked_add(Duration::from_nanos(at));
        let disarmed = Arc::new(AtomicBool::new(false));
        let wake_once = WakeOnce { waker: Some(waker), disarmed: Arc::clone(&disarmed) };
        let task = runtime.spawn(async move {
            let wake_once = wake_once; // moved in here, to be dropped with the task
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            wake_once.wake();
        });
        Some(Alarm::Tokio(Task { abort: task.abort_handle(), disarmed }))
    }
}

/// Wakes also if its runtime ends before the time: a waiter elsewhere needs another timer. It does
/// not wake where it is dropped, because any lock may be held there, but from the timer thread.
struct WakeOnce {
    waker: Option<Waker>,
    disarmed: Arc<AtomicBool>,
}

impl WakeOnce {
    fn wake(mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for WakeOnce {
    fn drop(&mut self) {
        // Acquire, with the Release of `Task::drop`: otherwise a disarmed timer could still wake.
        if let Some(waker) = self.waker.take()
            && !self.disarmed.load(Ordering::Acquire)
        {
            mem::forget(timers::in_thread(Duration::from_millis(1), waker)); // dropping it disarms
        }
    }
}

/// Dropping it ends the timer's task.
#[derive(Debug)]
pub(crate) struct Task {
    abort: AbortHandle,
    disarmed: Arc<AtomicBool>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.disarmed.store(true, Ordering::Release);
        self.abort.abort();
    }
}
