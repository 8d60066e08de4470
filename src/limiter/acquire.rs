//! Waiting for a permit, or for several at once: the futures, and their blocking counterparts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::{Event, EventListener, Listener};
use smallvec::SmallVec;

use super::entry::{Entry, Grant};
use super::error::AcquireError;
use super::multi::TakeList;
use super::permit::Permit;
use super::permits::Permits;
use crate::bucket::{CountedAt, Denied};
use crate::wait::{self, Claim, Claims, Step, Ticket, WaitRequest, Wake};

/// A wait for a permit: a future that yields it. It works on every executor.
///
/// # Order
///
/// First in, first out, from the first poll on. A large request keeps its place: smaller requests behind
/// it wait. A future that is woken when its tokens are there, and is not polled for 10 ms, is skipped. It
/// has its old place again when it is polled.
///
/// # Cancel safety
///
/// Dropping it at any time, in a `select!` or a timeout, takes no tokens, and serves the next waiter. A
/// permit that it has yielded is the caller's.
#[must_use = "a future does nothing until it is polled"]
pub struct Acquire(State<One>);

/// A wait for permits of several resources, all or none: a future that yields them. It works on every
/// executor.
///
/// # Order
///
/// It is in the queue of each resource from its first poll on. It is served when it is the head of all
/// of them and all tokens are there; until then it holds none. Waiters behind it wait for it, even if it
/// lacks another resource: otherwise calls for one resource would starve those for several. So give
/// it a [`timeout`](Self::timeout) if one of the resources may be out for long. A future that is not
/// polled is skipped after 60 ms.
///
/// # Cancel safety
///
/// As [`Acquire`]: it takes nothing, and serves the next waiters.
#[must_use = "a future does nothing until it is polled"]
pub struct AcquireAll(State<TakeList>);

/// What a wait is for.
trait Wanted: Sized {
    type Grant;
    type Granted;
    /// A reading of its clock, `timeout` from now.
    fn deadline(&self, timeout: Duration) -> Option<u64>;
    /// Whether others wait already. Then an attempt would only find that out again, under the lock that
    /// enqueuing takes.
    fn has_waiters(&self) -> bool {
        false
    }
    fn try_acquire(&self) -> Result<Self::Grant, Denied>;
    fn into_granted(self, grant: Self::Grant) -> Self::Granted;
    /// Each resource once, in the order of their ids.
    fn into_parts(self) -> Parts;
    fn granted(parts: Parts) -> Self::Granted;
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
        self.n > 0 && self.entry.bucket.has_waiters()
    }
    #[inline]
    fn try_acquire(&self) -> Result<Grant, Denied> {
        let seen = self.entry.incidents();
        let counted = self.entry.try_acquire::<Denied>(self.n)?;
        Ok(Grant { n: self.n, seen, counted })
    }
    #[inline]
    fn into_granted(self, grant: Grant) -> Permit<'static> {
        Permit::owned(self.entry, grant)
    }
    fn into_parts(self) -> Parts {
        SmallVec::from_iter([Part::new(self.entry, self.n)])
    }
    fn granted(mut parts: Parts) -> Permit<'static> {
        parts.remove(0).into_permit()
    }
}

impl Wanted for TakeList {
    type Grant = Permits;
    type Granted = Permits;

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.0.first()?.0.deadline(timeout))
    }
    fn try_acquire(&self) -> Result<Permits, Denied> {
        self.to_set().try_acquire()
    }
    fn into_granted(self, permits: Permits) -> Permits {
        permits
    }
    fn into_parts(self) -> Parts {
        self.0.into_iter().map(|(entry, n)| Part::new(entry, n)).collect()
    }
    fn granted(parts: Parts) -> Permits {
        let mut permits = Permits::new();
        parts.into_iter().for_each(|part| permits.push(part.into_permit()));
        permits
    }
}

type Parts = SmallVec<[Part; 1]>;

#[derive(Debug)]
struct Part {
    entry: Arc<Entry>,
    grant: Grant,
    ticket: Ticket,
}

impl Part {
    fn new(entry: Arc<Entry>, n: u64) -> Self {
        let grant = Grant { n, seen: entry.incidents(), counted: CountedAt::COMMON };
        Self { entry, grant, ticket: 0 }
    }

    fn claim(&self) -> Claim<'_> {
        self.entry.claim(self.grant.n, self.ticket)
    }

    fn into_permit(self) -> Permit<'static> {
        Permit::owned(self.entry, self.grant)
    }
}

#[derive(Debug)]
enum State<W> {
    Failed(AcquireError),
    /// `None` once it is done: granting then moves what was wanted, not the whole state.
    New {
        wanted: Option<W>,
        deadline: Option<u64>,
    },
    /// Boxed, so that a future which need not wait is small.
    Waiting(Box<Waiting>),
}

#[derive(Debug)]
struct Waiting {
    /// In the queues; empty once out of them.
    parts: Parts,
    /// Parts of 0 tokens: granted with the others, and not waited for.
    empty: Parts,
    deadline: Option<u64>,
    event: Wake,
    listener: Option<EventListener>,
}

impl Waiting {
    fn new(parts: Parts, deadline: Option<u64>) -> Self {
        let (parts, empty) = parts.into_iter().partition(|part| part.grant.n > 0);
        Self { parts, empty, deadline, event: Wake::new(Event::new()), listener: None }
    }

    /// Joins the queues, and tries once more. `None` while the wait continues.
    fn enqueue(&mut self, is_thread: bool) -> Option<Result<Parts, AcquireError>> {
        let event = Wake::clone(&self.event);
        let limits = self.parts.iter().map(|part| part.entry.wait_limits()).collect();
        let request = WaitRequest { is_thread, deadline: self.deadline, event, limits };
        self.step(|claims, now| wait::enqueue(claims, &request, now))
    }

    /// One attempt. `None` while the wait continues.
    fn attempt(&mut self) -> Option<Result<Parts, AcquireError>> {
        let deadline = self.deadline;
        self.step(|claims, now| wait::poll(claims, deadline, now))
    }

    fn step(
        &mut self,
        act: impl Fn(&mut Claims<'_>, u64) -> Step,
    ) -> Option<Result<Parts, AcquireError>> {
        for part in self.parts.iter_mut().chain(&mut self.empty) {
            part.grant.seen = part.entry.incidents();
        }
        let step = loop {
            let now = self.parts.first()?.entry.now();
            let mut claims: Claims<'_> = self.parts.iter().map(Part::claim).collect();
            let step = act(&mut claims, now);
            let found: SmallVec<[(Ticket, CountedAt); 4]> =
                claims.iter().map(|claim| (claim.ticket, claim.counted)).collect();
            drop(claims);
            for (part, (ticket, counted)) in self.parts.iter_mut().zip(found) {
                (part.ticket, part.grant.counted) = (ticket, counted);
            }
            if step != Step::SlotExpired {
                break step;
            }
            bring_up_to_date(&self.parts);
        };
        let error = match step {
            Step::Waiting | Step::SlotExpired => return None,
            Step::Taken => None,
            Step::TimedOut => Some(AcquireError::TimedOut),
            Step::QueueFull => Some(AcquireError::QueueFull),
            Step::Failed(never) => Some(never.into()),
        };
        // Out of the queues, and nothing to cancel.
        let mut parts = std::mem::take(&mut self.parts);
        parts.append(&mut self.empty);
        Some(error.map_or(Ok(parts), Err))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, AcquireError>> {
        loop {
            if let Some(listener) = &mut self.listener {
                if Pin::new(listener).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.listener = None;
            } else {
                // Before the attempt: a notification between the two would be lost.
                self.listener = Some(self.event.listen());
            }
            if let Some(result) = self.attempt() {
                return Poll::Ready(result);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(first) = self.parts.first() else { return };
        let claims: Claims<'_> = self.parts.iter().map(Part::claim).collect();
        while wait::cancel(&claims, first.entry.now()).is_err() {
            bring_up_to_date(&self.parts);
        }
    }
}

fn bring_up_to_date(parts: &[Part]) {
    for part in parts {
        part.entry.bring_up_to_date();
    }
}

/// After an attempt that was denied, or not made: a place in the queues, if waiting helps. It may be
/// granted at once.
#[cold]
#[inline(never)]
fn start<W: Wanted>(
    denied: Option<Denied>,
    wanted: W,
    is_thread: bool,
    deadline: Option<u64>,
) -> Result<Result<W::Granted, Box<Waiting>>, AcquireError> {
    if let Some(Denied::Never(never)) = denied {
        return Err(never.into());
    }
    let mut waiting = Waiting::new(wanted.into_parts(), deadline);
    // Before `enqueue`, which tries again: a notification after that is heard.
    let listener = waiting.event.listen();
    match waiting.enqueue(is_thread) {
        None => {
            waiting.listener = Some(listener);
            Ok(Err(Box::new(waiting)))
        }
        Some(granted) => granted.map(|parts| Ok(W::granted(parts))),
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
        let Self::New { wanted: slot, deadline } = self else { return self.poll_waiting(cx) };
        let Some(wanted) = &*slot else { return Poll::Pending };
        let tried = if wanted.has_waiters() { None } else { Some(wanted.try_acquire()) };
        let (Some(wanted), deadline) = (slot.take(), *deadline) else { return Poll::Pending };
        match tried.transpose() {
            Ok(Some(grant)) => Poll::Ready(Ok(wanted.into_granted(grant))),
            tried => {
                *self = match start(tried.err(), wanted, false, deadline) {
                    Ok(Ok(granted)) => return Poll::Ready(Ok(granted)),
                    Ok(Err(waiting)) => Self::Waiting(waiting),
                    Err(error) => Self::Failed(error),
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
            fn new(wanted: $wanted) -> Self {
                Self(State::New { wanted: Some(wanted), deadline: None })
            }

            pub(crate) fn failed<E: Into<AcquireError>>(error: E) -> Self {
                Self(State::Failed(error.into()))
            }

            /// Gives up `timeout` from now, on the limiter's clock, with [`AcquireError::TimedOut`]: at
            /// once if the rate alone rules out success before then, so that a loop which retries
            /// must sleep. Has no effect after the first poll.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.0.timeout(timeout);
                self
            }
        }

        impl Future for $future {
            type Output = Result<$granted, AcquireError>;

            /// Stays pending if it is polled again after it has yielded.
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
    pub(crate) fn of(entry: Arc<Entry>, n: u64) -> Self {
        Self::new(One { entry, n })
    }
}

impl AcquireAll {
    pub(crate) fn of(list: TakeList) -> Self {
        Self::new(list)
    }
}

/// Blocks the calling thread until there is a permit. No runtime is needed.
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
    let denied = match tried.transpose() {
        Ok(Some(grant)) => return Ok(wanted.into_granted(grant)),
        tried => tried.err(),
    };
    let mut waiting = match start(denied, wanted, true, deadline)? {
        Ok(granted) => return Ok(granted),
        Err(waiting) => waiting,
    };
    loop {
        match waiting.listener.take() {
            Some(listener) => listener.wait(),
            None => waiting.listener = Some(waiting.event.listen()),
        }
        if let Some(result) = waiting.attempt() {
            return result.map(W::granted);
        }
    }
}
