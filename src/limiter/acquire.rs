//! Waiting for a permit, or for several at once: the futures, and their counterparts for threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::{Event, EventListener, Listener};
use smallvec::SmallVec;

use super::entry::{Entry, Grant};
use super::error::{AcquireError, TryAcquireError};
use super::multi::TakeList;
use super::permit::Permit;
use super::permits::Permits;
use crate::sync::seeded;
use crate::wait::{self, Claims, Step, Ticket, WaitRequest, Wake};

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
pub struct Acquire(State<One>);

/// A wait for permits of several resources, all or none; a future that yields them. It works on every
/// executor.
///
/// # Order
///
/// It stands in the line of each resource, from its first poll on, and is served when it is first in
/// all of them and all tokens are there. Until then it holds none. Those behind it wait for it, even
/// where it is another resource that it lacks: else calls for one resource would starve those for
/// several. So give it a [`timeout`](Self::timeout) where one of the resources may be out for long. A
/// future that nobody polls steps aside after 60 ms.
///
/// # Cancel safety
///
/// As [`Acquire`]: it takes nothing, and passes its places on.
#[must_use = "a future does nothing until it is polled"]
pub struct AcquireAll(State<TakeList>);

/// What is waited for.
trait Wanted: Sized {
    type Grant;
    type Granted;
    /// A reading of its clock, `timeout` from now.
    fn deadline(&self, timeout: Duration) -> Option<u64>;
    /// Whether others wait already. A try would only find that out once more under the lock that
    /// joining them takes.
    fn has_waiters(&self) -> bool {
        false
    }
    fn try_acquire(&self) -> Result<Self::Grant, TryAcquireError>;
    fn into_granted(self, grant: Self::Grant) -> Self::Granted;
    /// Each resource once, in the order of their ids.
    fn into_parts(self) -> Parts;
    fn granted(parts: Granted) -> Self::Granted;
}

#[derive(Debug)]
struct One {
    entry: Arc<Entry>,
    n: u64,
}

impl Wanted for One {
    type Grant = Grant;
    type Granted = Permit<'static>;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.entry.deadline(timeout))
    }
    #[inline]
    fn has_waiters(&self) -> bool {
        self.n > 0 && self.entry.gate.has_waiters()
    }
    #[inline]
    fn try_acquire(&self) -> Result<Grant, TryAcquireError> {
        self.entry.try_acquire(self.n)
    }
    #[inline]
    fn into_granted(self, grant: Grant) -> Permit<'static> {
        Permit::owned(self.entry, grant)
    }
    fn into_parts(self) -> Parts {
        SmallVec::from_iter([Part { entry: self.entry, n: self.n, ticket: 0 }])
    }
    fn granted(mut parts: Granted) -> Permit<'static> {
        parts.remove(0)
    }
}

impl Wanted for TakeList {
    type Grant = Permits;
    type Granted = Permits;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.0.first()?.0.deadline(timeout))
    }
    fn try_acquire(&self) -> Result<Permits, TryAcquireError> {
        self.take_set().try_acquire()
    }
    fn into_granted(self, permits: Permits) -> Permits {
        permits
    }
    fn into_parts(self) -> Parts {
        self.0.into_iter().map(|(entry, n)| Part { entry, n, ticket: 0 }).collect()
    }
    fn granted(parts: Granted) -> Permits {
        let mut permits = Permits::new();
        parts.into_iter().for_each(|permit| permits.push(permit));
        permits
    }
}

type Granted = SmallVec<[Permit<'static>; 1]>;
type Parts = SmallVec<[Part; 1]>;

#[derive(Debug)]
struct Part {
    entry: Arc<Entry>,
    n: u64,
    ticket: Ticket,
}

#[derive(Debug)]
enum State<W> {
    Failed(AcquireError),
    /// Nothing is wanted once it is done: so that granting moves what is wanted, and no whole state.
    New {
        wanted: Option<W>,
        deadline: Option<u64>,
    },
    /// Boxed, so that a future which need not wait is small.
    Waiting(Box<Waiting>),
}

#[derive(Debug)]
struct Waiting {
    /// Empty once it is out of the lines.
    parts: Parts,
    /// Those of which nothing is wanted: granted with the others, and not waited for.
    idle: Parts,
    deadline: Option<u64>,
    event: Wake,
    listener: Option<EventListener>,
}

impl Waiting {
    fn new(parts: Parts, deadline: Option<u64>) -> Self {
        let (parts, idle) = parts.into_iter().partition(|part| part.n > 0);
        Self { parts, idle, deadline, event: Wake::new(Event::new()), listener: None }
    }

    /// Join the lines, and try once more. `None` while the wait goes on.
    fn join(&mut self, is_thread: bool) -> Option<Result<Granted, AcquireError>> {
        let event = Wake::clone(&self.event);
        let limits = self.parts.iter().map(|part| part.entry.wait_limits()).collect();
        let request = WaitRequest { is_thread, deadline: self.deadline, event, limits };
        self.step(|places, now| wait::enqueue(places, &request, now))
    }

    /// One look. `None` while the wait goes on.
    fn look(&mut self) -> Option<Result<Granted, AcquireError>> {
        let deadline = self.deadline;
        self.step(|places, now| wait::poll(places, deadline, now))
    }

    fn step(
        &mut self,
        act: impl Fn(&mut Claims<'_>, u64) -> Step,
    ) -> Option<Result<Granted, AcquireError>> {
        let seen: SmallVec<[u64; 4]> =
            self.parts.iter().map(|part| part.entry.incidents()).collect();
        loop {
            let now = self.parts.first()?.entry.now();
            let mut places = places(&self.parts);
            let step = act(&mut places, now);
            let tickets: SmallVec<[Ticket; 4]> = places.iter().map(|place| place.ticket).collect();
            drop(places);
            for (part, ticket) in self.parts.iter_mut().zip(tickets) {
                part.ticket = ticket;
            }
            let failure = match step {
                Step::Waiting => return None,
                Step::Stale => {
                    bring_up_to_date(&self.parts);
                    continue;
                }
                Step::Taken => None,
                Step::Failed(failure) => Some(AcquireError::from_failure(failure)),
            };
            // Out of the lines.
            let parts = std::mem::take(&mut self.parts);
            let idle = std::mem::take(&mut self.idle).into_iter().map(|part| {
                let seen = part.entry.incidents();
                (part, seen)
            });
            let grant =
                |(part, seen): (Part, u64)| Permit::owned(part.entry, Grant { n: part.n, seen });
            return Some(match failure {
                None => Ok(parts.into_iter().zip(seen).chain(idle).map(grant).collect()),
                Some(error) => Err(error),
            });
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Granted, AcquireError>> {
        loop {
            if let Some(listener) = &mut self.listener {
                if Pin::new(listener).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.listener = None;
            } else {
                // Listen first: a call between the look and the listening would be lost.
                self.listener = Some(self.event.listen());
            }
            if let Some(result) = self.look() {
                return Poll::Ready(result);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(first) = self.parts.first() else { return };
        while wait::cancel(&places(&self.parts), first.entry.now()).is_err() {
            bring_up_to_date(&self.parts);
        }
    }
}

fn places(parts: &[Part]) -> Claims<'_> {
    parts.iter().map(|part| part.entry.claim(part.n, part.ticket)).collect()
}

fn bring_up_to_date(parts: &[Part]) {
    for part in parts {
        part.entry.bring_up_to_date();
    }
}

/// What came of a try, or of joining the line after it.
enum Entered<G> {
    Granted(G),
    Failed(AcquireError),
    Waiting(Box<Waiting>),
}

/// After a try that failed, or was not made: a place in line, if waiting helps.
#[cold]
#[inline(never)]
fn after<W: Wanted>(
    error: Option<TryAcquireError>,
    wanted: W,
    is_thread: bool,
    deadline: Option<u64>,
) -> Entered<W::Granted> {
    let Some(error) = error else { return stand_in_line(wanted, is_thread, deadline) };
    match AcquireError::from_refused(error) {
        None => stand_in_line(wanted, is_thread, deadline),
        Some(error) => Entered::Failed(error),
    }
}

fn stand_in_line<W: Wanted>(
    wanted: W,
    is_thread: bool,
    deadline: Option<u64>,
) -> Entered<W::Granted> {
    let mut waiting = Waiting::new(wanted.into_parts(), deadline);
    // Before the second try, which joining makes: a call that comes after it is heard.
    let early = (!seeded("listen-after-join")).then(|| waiting.event.listen());
    match waiting.join(is_thread) {
        None => {
            waiting.listener = Some(early.unwrap_or_else(|| waiting.event.listen()));
            Entered::Waiting(Box::new(waiting))
        }
        Some(Ok(granted)) => Entered::Granted(W::granted(granted)),
        Some(Err(error)) => Entered::Failed(error),
    }
}

impl<W: Wanted> State<W> {
    const DONE: Self = Self::New { wanted: None, deadline: None };

    fn timeout(&mut self, timeout: Duration) {
        if let Self::New { wanted: Some(wanted), deadline } = self {
            *deadline = wanted.deadline(timeout);
        }
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Granted, AcquireError>> {
        let Self::New { wanted: place, deadline } = self else { return self.poll_waiting(cx) };
        let Some(wanted) = &*place else { return Poll::Pending };
        let tried = if wanted.has_waiters() { None } else { Some(wanted.try_acquire()) };
        let (Some(wanted), deadline) = (place.take(), *deadline) else { return Poll::Pending };
        match tried.transpose() {
            Ok(Some(grant)) => Poll::Ready(Ok(wanted.into_granted(grant))),
            tried => {
                *self = match after(tried.err(), wanted, false, deadline) {
                    Entered::Granted(granted) => return Poll::Ready(Ok(granted)),
                    Entered::Failed(error) => Self::Failed(error),
                    Entered::Waiting(waiting) => Self::Waiting(waiting),
                };
                self.poll_waiting(cx)
            }
        }
    }

    #[inline(never)]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Granted, AcquireError>> {
        match std::mem::replace(self, Self::DONE) {
            Self::Failed(error) => Poll::Ready(Err(error)),
            Self::Waiting(mut waiting) => {
                let polled = waiting.poll(cx);
                if polled.is_pending() {
                    *self = Self::Waiting(waiting);
                }
                polled.map_ok(W::granted)
            }
            Self::New { .. } => Poll::Pending,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::New { wanted: Some(_), .. } => "new",
            Self::Waiting(_) => "waiting",
            Self::New { wanted: None, .. } => "done",
        }
    }
}

/// What both futures have.
macro_rules! wait {
    ($future:ident, $wanted:ty, $granted:ty) => {
        impl $future {
            pub(crate) fn failed(error: AcquireError) -> Self {
                Self(State::Failed(error))
            }

            /// Give up `timeout` from now, on the limiter's clock, with [`AcquireError::TimedOut`]: at
            /// once where the rate alone rules out that the wait ends before. A loop that tries again
            /// must sleep then. Has no effect after the first poll.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.0.timeout(timeout);
                self
            }
        }

        impl Future for $future {
            type Output = Result<$granted, AcquireError>;

            /// Polled again after it has yielded, it stays pending.
            #[inline]
            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                self.0.poll(cx)
            }
        }

        impl fmt::Debug for $future {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($future)).field(&self.0.name()).finish()
            }
        }
    };
}

wait!(Acquire, One, Permit<'static>);
wait!(AcquireAll, TakeList, Permits);

impl Acquire {
    pub(crate) fn new(entry: Arc<Entry>, n: u64) -> Self {
        Self(State::New { wanted: Some(One { entry, n }), deadline: None })
    }
}

impl AcquireAll {
    pub(crate) fn new(list: TakeList) -> Self {
        Self(State::New { wanted: Some(list), deadline: None })
    }
}

/// Block the calling thread until there is a permit. No runtime is needed.
pub(crate) fn blocking(
    entry: Arc<Entry>,
    n: u64,
    timeout: Option<Duration>,
) -> Result<Permit<'static>, AcquireError> {
    block(One { entry, n }, timeout)
}

pub(crate) fn blocking_all(
    list: TakeList,
    timeout: Option<Duration>,
) -> Result<Permits, AcquireError> {
    block(list, timeout)
}

fn block<W: Wanted>(wanted: W, timeout: Option<Duration>) -> Result<W::Granted, AcquireError> {
    let deadline = timeout.and_then(|timeout| wanted.deadline(timeout));
    let tried = if wanted.has_waiters() { None } else { Some(wanted.try_acquire()) };
    let error = match tried.transpose() {
        Ok(Some(grant)) => return Ok(wanted.into_granted(grant)),
        tried => tried.err(),
    };
    let mut waiting = match after(error, wanted, true, deadline) {
        Entered::Granted(granted) => return Ok(granted),
        Entered::Failed(error) => return Err(error),
        Entered::Waiting(waiting) => waiting,
    };
    loop {
        match waiting.listener.take() {
            Some(listener) => listener.wait(),
            None => waiting.listener = Some(waiting.event.listen()),
        }
        if let Some(result) = waiting.look() {
            return result.map(W::granted);
        }
    }
}
