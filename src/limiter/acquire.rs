//! Waiting for a permit, or for several at once: the futures, and their blocking counterparts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
#[cfg(feature = "tokio")]
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use super::entry::Entry;
use super::error::{AcquireAllError, AcquireError};
use super::multi::TakeList;
use super::permit::Permit;
use super::permits::Permits;
use super::wait_record::{WaitEnd, WaitRecord};
use super::wanted::{One, Part, Parts, Ready, Wanted};
use crate::bucket::CountedAt;
use crate::wait::{self, Claims, Parker, Step, Ticket, WaitRequest, Wake};

/// A wait for a permit: a future that yields it. It works on every executor.
///
/// # Order
///
/// First in, first out, from the first poll on. A large request keeps its place: smaller requests behind
/// it wait.
///
/// A request for more than a *cut* bucket holds keeps its place too, and waits for the recovery. Others pass
/// it until the step from which the bucket can hold it, except for tokens that would not have accrued again by
/// then; from this step on they wait behind it.
///
/// A future that is woken when its tokens are there, and is not polled for 10 ms, is skipped. It
/// has its old place again when it is polled.
///
/// So poll a wait until it is ready, or drop it. Futures that were polled once and are held, while the task
/// that holds them waits for something else, are each skipped after a grace. It becomes shorter with each of
/// them, so that hundreds cost others about 20 ms. `buffer_unordered(20)` whose consumer acquires again is
/// such a pattern: with a burst of 10 it gets the whole of 200/s, with a burst of 1 a third. A task for each
/// item is better.
///
/// With the feature `tokio` it takes part in tokio's cooperative budget. Without it, a loop of waits that
/// need not wait never yields.
///
/// # Cancel safety
///
/// Dropping it at any time, in a `select!` or a timeout, takes no tokens, and serves the next waiter. A
/// permit that it has yielded is the caller's.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Acquire(State<One>);

/// A wait for permits of several resources, all or none: a future that yields them. It works on every
/// executor.
///
/// # Order
///
/// It is in the queue of each resource from its first poll on, and holds no tokens until all are there.
///
/// * While it lacks something of another resource, others pass it in a queue if it loses nothing by that:
///   if what it wants here will have accrued again by the time at which it can have the rest. That time
///   counts those ahead of it there. It is unknown for a place in flight: then its tokens are kept for it.
///   A place in flight that it wants here is kept for it in any case.
///   So it may be served late by at most the time in which its tokens of one resource accrue, if it can
///   have the rest earlier than it seemed (a refund, a raised limit, a waiter that leaves).
/// * A wait that lacks one resource only is passed by nobody there, but for the oldest wait in the queue.
///   Those that come to lack only that are served in that order, behind older ones that lack nothing. The
///   oldest has its turn in all its queues, so that everybody is served.
/// * A part above what a cut bucket holds is lacking until the limit has recovered.
///
/// This is backfilling as in batch schedulers (EASY; Lifka, 1995). Give it a [`timeout`](Self::timeout) if
/// it may wait for a place in flight for long. A future that is not polled is skipped after 60 ms.
///
/// # Cancel safety
///
/// As [`Acquire`]: it takes nothing, and serves the next waiters.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct AcquireAll(State<TakeList>);

/// A wait for tokens without a permit: a future that yields nothing but success. It works on every
/// executor.
///
/// It waits in one queue with the calls that want a permit. Its tokens stay spent, it is not counted in
/// flight, and it does not wait for a place in flight. Its order and its cancel safety are those of
/// [`Acquire`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct UntilReady(State<Ready>);

/// Attempts in a row of a waiter that is notified again each time, before it lets others run. Where there
/// is no thread for timers it is always notified again.
const ATTEMPTS: u32 = 2;

#[derive(Debug)]
enum State<W: Wanted> {
    Failed(W::Error),
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
    signal: Wake,
    /// Once it is in the queues.
    record: Option<WaitRecord>,
}

impl Waiting {
    fn new(parts: Parts, deadline: Option<u64>) -> Self {
        let (parts, empty) = parts.into_iter().partition(|part| part.grant.n > 0);
        Self { parts, empty, deadline, signal: Wake::default(), record: None }
    }

    /// Joins the queues, and tries once more. `None` while the wait continues.
    fn enqueue(&mut self, is_thread: bool) -> Option<Result<Parts, AcquireAllError>> {
        let signal = Wake::clone(&self.signal);
        let limits = self.parts.iter().map(|part| part.entry.wait_limits()).collect();
        let request = WaitRequest { is_thread, deadline: self.deadline, signal, limits };
        self.step(|claims, now| wait::enqueue(claims, &request, now))
    }

    /// One attempt. `None` while the wait continues.
    fn attempt(&mut self) -> Option<Result<Parts, AcquireAllError>> {
        let deadline = self.deadline;
        self.step(|claims, now| wait::poll(claims, deadline, now))
    }

    fn step(
        &mut self,
        act: impl Fn(&mut Claims<'_>, u64) -> Step,
    ) -> Option<Result<Parts, AcquireAllError>> {
        for part in self.parts.iter_mut().chain(&mut self.empty) {
            part.grant.seen = part.entry.seen();
        }
        let (step, now) = loop {
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
                break (step, now);
            }
            bring_up_to_date(&self.parts);
        };
        let error = match step {
            Step::Waiting | Step::SlotExpired => {
                self.record.get_or_insert_with(|| WaitRecord::begin(&self.parts, now));
                return None;
            }
            Step::Taken => {
                self.parts.iter().for_each(|part| part.note_grant(now));
                if let Some(record) = self.record.take() {
                    record.end(&self.parts, WaitEnd::Granted, now);
                }
                None
            }
            Step::GaveUp(index, why) => {
                match self.record.take() {
                    Some(record) => record.end(&self.parts, why.into(), now),
                    None => WaitRecord::not_begun(&self.parts, index, why),
                }
                Some(self.parts[index].entry.error(why))
            }
        };
        // Out of the queues, and nothing to cancel.
        let mut parts = std::mem::take(&mut self.parts);
        parts.append(&mut self.empty);
        Some(error.map_or(Ok(parts), Err))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, AcquireAllError>> {
        for _ in 0..ATTEMPTS {
            if !self.signal.poll(cx.waker()) {
                return Poll::Pending;
            }
            if let Some(result) = self.attempt() {
                return Poll::Ready(result);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(first) = self.parts.first() else { return };
        if let Some(record) = self.record.take() {
            record.end(&self.parts, WaitEnd::Cancelled, first.entry.now());
        }
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

/// After an attempt that was denied, or not made: a place in the queues. It may be granted at once.
#[cold]
#[inline(never)]
fn start<W: Wanted>(
    wanted: W,
    is_thread: bool,
    deadline: Option<u64>,
) -> Result<Result<W::Granted, Box<Waiting>>, W::Error> {
    let mut waiting = Waiting::new(wanted.into_parts(), deadline);
    match waiting.enqueue(is_thread) {
        None => Ok(Err(Box::new(waiting))),
        Some(granted) => Ok(Ok(W::granted(granted?))),
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
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Granted, W::Error>> {
        let Self::New { wanted: slot, deadline } = self else { return self.poll_waiting(cx) };
        let Some(wanted) = &*slot else { return Poll::Pending };
        if !has_budget(cx) {
            return Poll::Pending;
        }
        let attempt = wanted.attempt();
        let (Some(wanted), deadline) = (slot.take(), *deadline) else { return Poll::Pending };
        match attempt {
            Ok(Some(grant)) => Poll::Ready(Ok(wanted.into_granted(grant))),
            Err(error) => Poll::Ready(Err(error)),
            Ok(None) => {
                *self = match start(wanted, false, deadline) {
                    Ok(Ok(granted)) => return Poll::Ready(Ok(granted)),
                    Ok(Err(waiting)) => Self::Waiting(waiting),
                    Err(error) => Self::Failed(error),
                };
                self.poll_waiting(cx)
            }
        }
    }

    #[inline(never)]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Granted, W::Error>> {
        match std::mem::replace(self, Self::DONE) {
            Self::Failed(error) => Poll::Ready(Err(error)),
            Self::Waiting(mut waiting) => {
                let polled = waiting.poll(cx);
                if polled.is_pending() {
                    *self = Self::Waiting(waiting);
                }
                polled.map_ok(W::granted).map_err(W::Error::from)
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

/// Whether a task of tokio may go on. Otherwise it is woken at once, after others: a loop of waits that need
/// not wait would starve a `timeout` around it. Other executors have no such budget.
#[cfg(feature = "tokio")]
#[inline]
fn has_budget(cx: &mut Context<'_>) -> bool {
    crate::sync::IS_MODEL || pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready()
}

#[cfg(not(feature = "tokio"))]
#[inline]
fn has_budget(_: &mut Context<'_>) -> bool {
    true
}

/// What all futures have.
macro_rules! wait {
    ($future:ident, $wanted:ty, $granted:ty, $error:ty) => {
        impl $future {
            fn new(wanted: $wanted) -> Self {
                Self(State::New { wanted: Some(wanted), deadline: None })
            }

            pub(crate) fn failed(error: $error) -> Self {
                Self(State::Failed(error))
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
            type Output = Result<$granted, $error>;

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

wait!(Acquire, One, Permit<'static>, AcquireError);
wait!(UntilReady, Ready, (), AcquireError);
wait!(AcquireAll, TakeList, Permits, AcquireAllError);

impl Acquire {
    pub(crate) fn of(entry: Arc<Entry>, n: u64) -> Self {
        Self::new(One { entry, n })
    }
}

impl UntilReady {
    pub(crate) fn of(entry: Arc<Entry>, n: u64) -> Self {
        Self::new(Ready(One { entry, n }))
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

pub(crate) fn blocking_until_ready(
    entry: Arc<Entry>,
    n: u64,
    timeout: Option<Duration>,
) -> Result<(), AcquireError> {
    block(Ready(One { entry, n }), timeout)
}

pub(crate) fn blocking_all(
    list: TakeList,
    timeout: Option<Duration>,
) -> Result<Permits, AcquireAllError> {
    block(list, timeout)
}

fn block<W: Wanted>(wanted: W, timeout: Option<Duration>) -> Result<W::Granted, W::Error> {
    let deadline = timeout.and_then(|timeout| wanted.deadline(timeout));
    if let Some(grant) = wanted.attempt()? {
        return Ok(wanted.into_granted(grant));
    }
    let mut waiting = match start(wanted, true, deadline)? {
        Ok(granted) => return Ok(granted),
        Err(waiting) => waiting,
    };
    let parker = Parker::new();
    let mut attempts = 0;
    loop {
        attempts = if parker.wait(&waiting.signal) { 0 } else { attempts + 1 };
        if attempts > ATTEMPTS {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(result) = waiting.attempt() {
            return Ok(W::granted(result?));
        }
    }
}
