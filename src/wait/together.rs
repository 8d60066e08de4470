//! One wait at one gate, or at several for all of them at once: the same steps.
//!
//! Whoever looks holds the locks of all its gates, taken in one order by everybody. While the WAITERS
//! bit is set in their words too, nobody else takes, so that what is found there stays until it is
//! taken: all is taken or nothing is touched, and there is nothing to roll back.
//!
//! A wait for several stands in each line, where it joined at one moment: of two waits that meet in
//! several lines the same one is first in each, so that they cannot wait for each other. It holds no
//! tokens while it waits. Being the head of a line whose tokens are there, it keeps them from those
//! behind it until its other tokens are there too: else single calls would starve it.

use smallvec::SmallVec;

use super::line::{Calls, Ticket, Waiter};
use super::outlook::worse;
use super::{Call, Failure, Gate, Queue, Step, notify};
use crate::bucket::{Refusal, Stale};
use crate::sync::{MutexGuard, seeded};

/// What is asked of one gate, and by which ticket it is waited for there.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) n: u64,
    pub(crate) ticket: Ticket,
    /// A line of this length takes nobody else.
    pub(crate) most_waiting: u64,
    /// Whether permits in flight may give tokens back: then a wait that is hopeless by the rate
    /// alone may end in time all the same.
    pub(crate) may_be_refunded: bool,
}

/// In the order in which their locks are taken, which is the same for all.
pub(crate) type Places<'a> = SmallVec<[Place<'a>; 4]>;

type Queues<'a> = SmallVec<[MutexGuard<'a, Queue>; 4]>;

/// Who wants to wait.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) is_thread: bool,
    /// A reading of the gates' clock.
    pub(crate) deadline: Option<u64>,
    pub(crate) event: Call,
}

/// Take all, or nothing, without waiting.
pub(crate) fn take(places: &[Place<'_>], now: u64) -> Result<(), Refusal> {
    // Who is refused anyway writes nothing. Where one refuses all are asked: what can never be, and the
    // latest time, may be another's.
    if places.iter().any(|place| place.gate.glance(place.n, now).is_err()) {
        let peeks = places.iter().map(|place| place.gate.peek(place.n, now));
        peeks.reduce(worse).unwrap_or(Ok(()))?;
    }
    let mut calls = Calls::new();
    let mut queues = lock(places);
    let mut verdict = Ok(());
    for (place, queue) in places.iter().zip(&mut queues) {
        let turn = place.gate.turn(queue, place.n, now, &mut calls);
        if !seeded("group-without-bit") {
            place.gate.bucket.set_waiters(true);
        }
        verdict = worse(verdict, turn.and_then(|()| place.gate.check_locked(queue, place.n, now)));
    }
    let taken = verdict.and_then(|()| take_locked(places, &mut queues, now));
    for (place, queue) in places.iter().zip(&mut queues) {
        place.gate.unmark(queue);
    }
    finish(queues, calls);
    taken
}

/// Join the lines, unless the tokens are there or the wait is hopeless.
pub(crate) fn join(places: &mut [Place<'_>], request: &Request, now: u64) -> Step {
    let mut calls = Calls::new();
    let mut queues = lock(places);
    let Request { is_thread, deadline, .. } = *request;
    for (place, queue) in places.iter_mut().zip(&mut queues) {
        let event = Call::clone(&request.event);
        place.ticket = queue.line.join(Waiter::new(place.n, is_thread, deadline, event));
        // From here on every refund sees that somebody is in line.
        if !seeded("join-without-bit") {
            place.gate.bucket.set_waiters(true);
        }
    }
    let mut step = look_locked(places, &mut queues, deadline, now, &mut calls);
    if step == Step::Waiting {
        let is_full = |(place, queue): (&Place<'_>, &MutexGuard<'_, Queue>)| {
            queue.line.len() as u64 > place.most_waiting
        };
        if places.iter().zip(&queues).any(is_full) {
            step = Step::Failed(Failure::QueueFull);
        } else if is_hopeless(places, &mut queues, deadline, now) {
            step = Step::Failed(Failure::TimedOut);
        }
        if step != Step::Waiting {
            drop_out(places, &mut queues);
        }
    }
    if step == Step::Stale {
        drop_out(places, &mut queues);
    }
    finish(queues, calls);
    step
}

/// By the rate, even if everybody else gave up. Where the rate is about to change, or permits in
/// flight may give tokens back, nothing is certain.
fn is_hopeless(
    places: &[Place<'_>],
    queues: &mut Queues<'_>,
    deadline: Option<u64>,
    now: u64,
) -> bool {
    let Some(deadline) = deadline else { return false };
    places.iter().zip(queues).any(|(place, queue)| {
        let outlook = place.gate.outlook(queue, now);
        let wait = outlook.wait(place.n).min(outlook.remaining());
        !place.may_be_refunded && now.saturating_add(wait) > deadline
    })
}

/// A waiter looks: it was called, or wants to be sure.
pub(crate) fn look(places: &[Place<'_>], deadline: Option<u64>, now: u64) -> Step {
    let mut calls = Calls::new();
    let mut queues = lock(places);
    let step = look_locked(places, &mut queues, deadline, now, &mut calls);
    finish(queues, calls);
    step
}

/// A waiter gives up: it was dropped.
pub(crate) fn leave(places: &[Place<'_>], now: u64) -> Result<(), Stale> {
    let mut calls = Calls::new();
    let mut queues = lock(places);
    drop_out(places, &mut queues);
    let mut served = Ok(());
    if !seeded("cancel-keeps-turn") {
        for (place, queue) in places.iter().zip(&mut queues) {
            served = served.and(place.gate.serve_locked(queue, now, &mut calls));
        }
    }
    finish(queues, calls);
    served
}

fn look_locked(
    places: &[Place<'_>],
    queues: &mut Queues<'_>,
    deadline: Option<u64>,
    now: u64,
    calls: &mut Calls,
) -> Step {
    let mut verdict = Ok(());
    let mut is_first = true;
    for (place, queue) in places.iter().zip(&mut *queues) {
        let Place { gate, n, ticket, .. } = *place;
        let alone = queue.line.is_empty();
        if !queue.line.come(ticket) {
            return Step::Failed(Failure::Removed);
        }
        if alone {
            gate.bucket.set_waiters(true);
        }
        queue.line.lapse(now);
        let here = gate.check_locked(queue, n, now);
        let is_head = queue.line.is_head(ticket);
        queue.line.note_ready(ticket, here.is_ok() && is_head && gate.bucket.room() > 0, now);
        verdict = worse(verdict, here);
        is_first &= is_head;
    }
    let taken = match verdict {
        Ok(()) if is_first => take_locked(places, queues, now),
        Ok(()) => Err(Refusal::InLine),
        Err(refusal) => Err(refusal),
    };
    let step = match taken {
        Ok(()) => Step::Taken,
        Err(Refusal::Stale) => return Step::Stale,
        Err(Refusal::TooBig(most)) => Step::Failed(Failure::TooBig(most)),
        Err(Refusal::Closed) => Step::Failed(Failure::Closed),
        Err(Refusal::Removed) => Step::Failed(Failure::Removed),
        Err(_) if deadline.is_some_and(|deadline| deadline <= now) => {
            Step::Failed(Failure::TimedOut)
        }
        Err(_) => Step::Waiting,
    };
    if step != Step::Waiting {
        drop_out(places, queues);
    }
    for (place, queue) in places.iter().zip(queues) {
        if place.gate.serve_locked(queue, now, calls).is_err() {
            // The slot ended between the two looks: whoever comes finds that, and mends it.
            queue.line.call_above(0, now, calls);
        }
    }
    step
}

/// Take what is there everywhere. The permits are counted in first, and out again if there is no
/// room for all.
fn take_locked(places: &[Place<'_>], queues: &mut Queues<'_>, now: u64) -> Result<(), Refusal> {
    for (entered, place) in places.iter().enumerate() {
        if !place.gate.bucket.enter() {
            for place in &places[..entered] {
                place.gate.bucket.leave();
            }
            return Err(Refusal::NoRoom);
        }
    }
    for (place, queue) in places.iter().zip(queues) {
        if let Err(refusal) = place.gate.take_locked(queue, place.n, now) {
            // Nobody takes between a look and this, so that it does not happen. If it did, what was
            // taken so far would be void.
            debug_assert!(seeded("group-without-bit"), "tokens went away under the lock");
            for place in places {
                place.gate.bucket.leave();
            }
            return Err(refusal);
        }
    }
    Ok(())
}

fn drop_out(places: &[Place<'_>], queues: &mut Queues<'_>) {
    for (place, queue) in places.iter().zip(queues) {
        queue.line.remove(place.ticket);
        place.gate.unmark(queue);
    }
}

fn lock<'a>(places: &[Place<'a>]) -> Queues<'a> {
    places.iter().map(|place| place.gate.queue.lock()).collect()
}

fn finish(queues: Queues<'_>, calls: Calls) {
    drop(queues);
    notify(calls);
}
