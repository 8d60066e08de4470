//! A waiter's notification: a flag, and the waker of the task that is to be polled for it.
//!
//! A waker may run anything: it may poll its task at once, drop it, panic, or wait for a lock that the
//! poller of another task holds. So a waker is cloned, woken and dropped outside all locks.
//!
//! The flag is sticky. A notification that comes before the task is polled again is found by that poll,
//! so no order of the two loses it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};

use event_listener::{Event, Listener};

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Signal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_notified: bool,
    waker: Option<Waker>,
}

impl Signal {
    /// Notifies the waiter. A waker that panics must not cost the caller its tokens, nor others their
    /// notifications.
    pub(super) fn notify(&self) {
        let mut state = self.0.lock();
        state.is_notified = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Whether the waiter was notified since it was told so the last time. If not, `waker` is woken when
    /// it is.
    pub(crate) fn poll(&self, waker: &Waker) -> bool {
        let mut state = self.0.lock();
        let is_notified = std::mem::take(&mut state.is_notified);
        if is_notified || state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return is_notified;
        }
        drop(state);
        let new = waker.clone();
        let mut state = self.0.lock();
        let is_notified = std::mem::take(&mut state.is_notified);
        // The waker that is not needed is dropped after the lock is released.
        let _unneeded = if is_notified { Some(new) } else { state.waker.replace(new) };
        drop(state);
        is_notified
    }
}

/// Parks a thread that waits.
#[derive(Debug)]
pub(crate) struct Parker {
    event: Arc<Unpark>,
    waker: Waker,
}

#[derive(Debug)]
struct Unpark(Event);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.notify(1);
    }
}

impl Parker {
    pub(crate) fn new() -> Self {
        let event = Arc::new(Unpark(Event::new()));
        Self { waker: Waker::from(Arc::clone(&event)), event }
    }

    /// Blocks the thread until the signal is notified. Returns whether it had to.
    pub(crate) fn wait(&self, signal: &Signal) -> bool {
        let mut has_blocked = false;
        loop {
            // Before the look: a wake-up between the two would be lost.
            let listener = self.event.0.listen();
            if signal.poll(&self.waker) {
                return has_blocked;
            }
            listener.wait();
            has_blocked = true;
        }
    }
}
