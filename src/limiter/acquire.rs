//! Waiting for a permit: the future, and its counterpart for threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::{Event, EventListener, Listener};

use super::entry::{Entry, Grant};
use super::error::{AcquireError, TryAcquireError};
use super::permit::Permit;
use crate::sync::seeded;
use crate::wait::{Call, Step, Ticket};

/// A wait for a permit; a future that yields it. It works on every executor.
///
/// # Order
///
/// First come, first served, by the first poll. A large request is served in its turn: those who
/// come later and ask for less wait behind it. A future that is called when its tokens are there
/// and is not polled for 10 ms steps aside for those behind it, and has its place again when it is.
///
/// # Cancel safety
///
/// Dropping it at any time, in a `select!` or a timeout, takes no tokens and passes its place on.
/// A permit that it has yielded is the caller's.
#[must_use = "a future does nothing until it is polled"]
pub struct Acquire(State);

enum State {
    Failed(AcquireError),
    New { entry: Arc<Entry>, n: u64, deadline: Option<u64> },
    Waiting(Waiting),
    Done,
}

struct Waiting {
    /// `None` once it is out of the line.
    entry: Option<Arc<Entry>>,
    n: u64,
    ticket: Ticket,
    event: Call,
    listener: Option<EventListener>,
}

impl Waiting {
    /// One look; `None` while the wait goes on.
    fn look(&mut self) -> Option<Result<Permit<'static>, AcquireError>> {
        let entry = self.entry.as_ref()?;
        let seen = entry.incidents();
        let failed = match entry.look(self.ticket) {
            Step::Waiting(_) | Step::Stale => return None,
            Step::Taken => None,
            Step::Failed(failure) => Some(AcquireError::from_failure(failure)),
        };
        let entry = self.entry.take()?;
        let grant = Grant { n: self.n, seen };
        Some(failed.map_or_else(|| Ok(Permit::owned(entry, grant)), Err))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.give_up(self.ticket);
        }
    }
}

/// The first try, and the place in line where it fails.
enum Entered {
    Granted(Permit<'static>),
    Failed(AcquireError),
    Waiting(Waiting),
}

fn enter(entry: Arc<Entry>, n: u64, is_thread: bool, deadline: Option<u64>) -> Entered {
    match entry.try_acquire(n) {
        Ok(grant) => return Entered::Granted(Permit::owned(entry, grant)),
        Err(TryAcquireError::Exhausted { .. } | TryAcquireError::TooManyInFlight) => {}
        Err(TryAcquireError::ExceedsCapacity { capacity }) => {
            return Entered::Failed(AcquireError::ExceedsCapacity { capacity });
        }
        Err(TryAcquireError::UnknownResource) => {
            return Entered::Failed(AcquireError::UnknownResource);
        }
        Err(TryAcquireError::Closed) => return Entered::Failed(AcquireError::Closed),
    }
    let event = Call::new(Event::new());
    // Before the second try, which joining makes: a call that comes after it is heard.
    let early = (!seeded("listen-after-join")).then(|| event.listen());
    let grant = Grant { n, seen: entry.incidents() };
    match entry.join(n, is_thread, deadline, &event) {
        Step::Waiting(ticket) => {
            let listener = Some(early.unwrap_or_else(|| event.listen()));
            Entered::Waiting(Waiting { entry: Some(entry), n, ticket, event, listener })
        }
        Step::Failed(failure) => Entered::Failed(AcquireError::from_failure(failure)),
        Step::Taken | Step::Stale => Entered::Granted(Permit::owned(entry, grant)),
    }
}

impl Acquire {
    pub(crate) fn new(entry: Arc<Entry>, n: u64) -> Self {
        Self(State::New { entry, n, deadline: None })
    }

    pub(crate) fn failed(error: AcquireError) -> Self {
        Self(State::Failed(error))
    }

    /// Give up `timeout` from now, on the limiter's clock, with [`AcquireError::TimedOut`]: at once
    /// where the rate alone rules out that the wait ends before. Has no effect after the first
    /// poll.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if let State::New { entry, deadline, .. } = &mut self.0 {
            *deadline = Some(entry.deadline(timeout));
        }
        self
    }
}

impl Future for Acquire {
    type Output = Result<Permit<'static>, AcquireError>;

    /// Polled again after it has yielded, it stays pending.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = match std::mem::replace(&mut self.0, State::Done) {
            State::Failed(error) => return Poll::Ready(Err(error)),
            State::Done => return Poll::Pending,
            State::Waiting(waiting) => waiting,
            State::New { entry, n, deadline } => match enter(entry, n, false, deadline) {
                Entered::Granted(permit) => return Poll::Ready(Ok(permit)),
                Entered::Failed(error) => return Poll::Ready(Err(error)),
                Entered::Waiting(waiting) => waiting,
            },
        };
        loop {
            if let Some(listener) = &mut waiting.listener {
                if Pin::new(listener).poll(cx).is_pending() {
                    self.0 = State::Waiting(waiting);
                    return Poll::Pending;
                }
                waiting.listener = None;
            } else {
                // Listen first: a call between the look and the listening would be lost.
                waiting.listener = Some(waiting.event.listen());
            }
            if let Some(result) = waiting.look() {
                return Poll::Ready(result);
            }
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Failed(_) => "failed",
            State::New { .. } => "new",
            State::Waiting(_) => "waiting",
            State::Done => "done",
        };
        f.debug_tuple("Acquire").field(&state).finish()
    }
}

/// Block the calling thread until there is a permit. No runtime is needed.
pub(crate) fn blocking(
    entry: Arc<Entry>,
    n: u64,
    timeout: Option<Duration>,
) -> Result<Permit<'static>, AcquireError> {
    let deadline = timeout.map(|timeout| entry.deadline(timeout));
    let mut waiting = match enter(entry, n, true, deadline) {
        Entered::Granted(permit) => return Ok(permit),
        Entered::Failed(error) => return Err(error),
        Entered::Waiting(waiting) => waiting,
    };
    loop {
        match waiting.listener.take() {
            Some(listener) => listener.wait(),
            None => waiting.listener = Some(waiting.event.listen()),
        }
        if let Some(result) = waiting.look() {
            return result;
        }
    }
}
