//! Tokio's time, for tests that pause it.

use std::mem;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Alarm, timers};
use crate::sync::{Arc, AtomicBool, Ordering};

/// Reads the time of the runtime that it is read in.
#[derive(Clone, Debug)]
pub(super) struct TokioClock {
    start: Instant,
}

impl TokioClock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn now(&self) -> u64 {
        let elapsed = Instant::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A task of its own, because the future that waits may not be polled. `None` without a
    /// runtime.
    pub(super) fn arm(&self, at: u64, waker: Waker) -> Option<Alarm> {
        let runtime = Handle::try_current().ok()?;
        let at = self.start.checked_add(Duration::from_nanos(at));
        let disarmed = Arc::new(AtomicBool::new(false));
        let wake_once = WakeOnce { waker: Some(waker), disarmed: Arc::clone(&disarmed) };
        let task = runtime.spawn(async move {
            let wake_once = wake_once;
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            wake_once.now();
        });
        Some(Alarm::Tokio(Task { abort: task.abort_handle(), disarmed }))
    }
}

/// Rings also when its runtime ends first: whoever waits elsewhere needs another timer. Not from
/// where it is dropped, which may hold any lock.
struct WakeOnce {
    waker: Option<Waker>,
    disarmed: Arc<AtomicBool>,
}

impl WakeOnce {
    fn now(mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for WakeOnce {
    fn drop(&mut self) {
        // Acquire, with the Release of who disarmed: else a timer that is gone would wake_once.
        if let Some(waker) = self.waker.take()
            && !self.disarmed.load(Ordering::Acquire)
        {
            mem::forget(timers::in_thread(Duration::from_millis(1), waker));
        }
    }
}

/// Ends the timer's task when it drops.
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
