//! One wait at one gate, or at several for all of them at once: the same steps.
//!
//! Whoever looks holds the locks of all its gates, taken in one order by everybody. While the EXCLUSIVE
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
use crate::bucket::{Refusal, Stale, Take, Transition};
use crate::sync::{MutexGuard, seeded};

/// What is asked of one gate, and by which ticket it is waited for there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) n: u64,
    pub(crate) ticket: Ticket,
}

/// Tokens of a gate.
pub(crate) trait Ask {
    fn gate(&self) -> &Gate;
    fn tokens(&self) -> u64;
}

impl Ask for Place<'_> {
    #[inline]
    fn gate(&self) -> &Gate {
        self.gate
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.n
    }
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
    /// Of each place.
    pub(crate) bounds: SmallVec<[Bound; 4]>,
}

/// What keeps a wait short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// A line of this length takes nobody else.
    pub(crate) most_waiting: u64,
    /// Whether permits in flight may give tokens back: then a wait that is hopeless by the rate
    /// alone may end in time all the same.
    pub(crate) may_be_refunded: bool,
}

/// Take all, or nothing, without waiting; with permits, or only the tokens. Who is refused for want of
/// tokens writes nothing. This is the everyday case, of one token or more of buckets of one window,
/// with nobody in line and nobody in between. `None` where it is not: see [`take_in_turn`].
#[inline]
pub(crate) fn take(asks: &[impl Ask], permits: bool, now: u64) -> Option<Result<(), Refusal>> {
    if asks.iter().any(|ask| ask.tokens() == 0) || seeded("take-and-roll-back") {
        return None;
    }
    let mut plans: SmallVec<[Transition; 4]> = SmallVec::new();
    let mut verdict = Ok(());
    let mut is_striped = false;
    for ask in asks {
        match ask.gate().bucket.prepare(ask.tokens(), now) {
            Ok(plan) => plans.push(plan),
            Err(Take::Short(deficit)) => verdict = worse(verdict, Err(Refusal::Short(deficit))),
            // It has enough, part of it in stripes, which need not be closed if another one refuses.
            Err(Take::Unusual) if ask.gate().holds_striped(ask.tokens(), now) => is_striped = true,
            _ => return None,
        }
    }
    if verdict.is_err() {
        return Some(verdict);
    }
    if is_striped {
        return None;
    }
    // The last is taken by a compare-and-swap, as if alone, and all others are held meanwhile.
    let ((last, firsts), plan) = (asks.split_last()?, plans.pop()?);
    let _queues = lock(firsts);
    let mut planned = firsts.iter().zip(&plans);
    let held = planned.position(|(ask, plan)| !ask.gate().bucket.lock(plan));
    let held = &firsts[..held.unwrap_or(firsts.len())];
    let is_entered = held.len() == firsts.len() && (!permits || enter(asks).is_ok());
    let is_taken = is_entered && last.gate().bucket.commit(&plan);
    for (ask, plan) in held.iter().zip(&plans) {
        ask.gate().bucket.unlock(plan, is_taken);
    }
    if is_entered && permits && !is_taken {
        leave_flight(asks);
    }
    is_taken.then_some(Ok(()))
}

/// The same in every case.
#[cold]
pub(crate) fn take_in_turn(places: &[Place<'_>], permits: bool, now: u64) -> Result<(), Refusal> {
    #[cfg(loom)]
    if seeded("take-and-roll-back") {
        return take_and_roll_back(places, now);
    }
    // Who is refused anyway writes nothing. Where one refuses all are asked: what can never be, and the
    // latest time, may be another's.
    if places.iter().any(|place| place.gate.glance(place.n, now).is_err()) {
        let peeks = places.iter().map(|place| place.gate.peek(place.n, now));
        peeks.reduce(worse).unwrap_or(Ok(()))?;
    }
    let taken_back = places.iter().filter(|place| place.gate.take_back()).count();
    let now = if taken_back > 0 { places[0].gate.clock().now() } else { now };
    let mut calls = Calls::new();
    let mut queues = lock(places);
    let mut verdict = Ok(());
    for (place, queue) in places.iter().zip(&mut queues) {
        let turn = place.gate.turn(queue, place.n, now, &mut calls);
        if !seeded("group-without-bit") {
            place.gate.mark();
        }
        verdict = worse(verdict, turn.and_then(|()| place.gate.check_locked(queue, place.n, now)));
    }
    let entering = if permits { places } else { &[] };
    let taken =
        verdict.and_then(|()| enter(entering).map_err(|_| Refusal::NoRoom)).and_then(|()| {
            take_locked(places, &mut queues, now).inspect_err(|_| leave_flight(entering))
        });
    for (place, queue) in places.iter().zip(&mut queues) {
        place.gate.unmark(queue);
    }
    finish(queues, calls);
    taken
}

/// The fault that the locks are held against: take one by one, and give back after a refusal. What
/// was taken from a bucket that has refilled meanwhile, or has shrunk, comes on top of a full one.
#[cfg(loom)]
fn take_and_roll_back(places: &[Place<'_>], now: u64) -> Result<(), Refusal> {
    for (taken, place) in places.iter().enumerate() {
        if let Err(refusal) = place.gate.take_in_turn(place.n, now) {
            for place in &places[..taken] {
                let _ = place.gate.give_back(place.n, place.gate.clock().now());
            }
            return Err(refusal);
        }
        place.gate.bucket.enter();
    }
    Ok(())
}

/// Join the lines, unless the tokens are there or the wait is hopeless.
pub(crate) fn join(places: &mut [Place<'_>], request: &Request, now: u64) -> Step {
    let mut calls = Calls::new();
    let mut queues: Queues<'_> = places.iter().map(|place| place.gate.queue.lock()).collect();
    let Request { is_thread, deadline, .. } = *request;
    for (place, queue) in places.iter_mut().zip(&mut queues) {
        let event = Call::clone(&request.event);
        place.ticket = queue.line.join(Waiter::new(place.n, is_thread, deadline, event));
        // From here on every refund sees that somebody is in line.
        if !seeded("join-without-bit") {
            place.gate.mark();
        }
    }
    let mut step = look_locked(places, &mut queues, deadline, now, &mut calls);
    if step == Step::Waiting {
        let mut lines = queues.iter().zip(&request.bounds);
        if lines.any(|(queue, bound)| queue.line.len() as u64 > bound.most_waiting) {
            step = Step::Failed(Failure::QueueFull);
        } else if is_hopeless(places, &mut queues, request, now) {
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
fn is_hopeless(places: &[Place<'_>], queues: &mut Queues<'_>, request: &Request, now: u64) -> bool {
    let Some(deadline) = request.deadline else { return false };
    places.iter().zip(queues).zip(&request.bounds).any(|((place, queue), bound)| {
        let outlook = place.gate.outlook(queue, now);
        let wait = outlook.wait(place.n).min(outlook.remaining());
        !bound.may_be_refunded && now.saturating_add(wait) > deadline
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
            gate.mark();
        }
        queue.line.lapse(now);
        let here = gate.check_locked(queue, n, now);
        let is_head = queue.line.is_head(ticket);
        let is_ready = here.is_ok() && is_head && gate.bucket.room() > 0;
        queue.line.note_ready(ticket, is_ready || seeded("ready-without-look"), now);
        verdict = worse(verdict, here);
        is_first &= is_head;
    }
    let taken = match verdict {
        Ok(()) if is_first => match enter(places) {
            Ok(()) => take_locked(places, queues, now).inspect_err(|_| leave_flight(places)),
            Err(full) => {
                // Somebody came in since the look. Whoever leaves there calls this one again; the other
                // gates need not.
                let is_ready = seeded("ready-though-full");
                queues[full].line.note_ready(places[full].ticket, is_ready, now);
                Err(Refusal::NoRoom)
            }
        },
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
        if step == Step::Waiting && queue.line.is_settled(place.ticket, now) {
            continue;
        }
        if place.gate.serve_locked(queue, now, calls).is_err() {
            // The slot ended between the two looks: whoever comes finds that, and mends it.
            queue.line.call_above(0, now, calls);
        }
    }
    step
}

/// Take what is there everywhere.
fn take_locked(places: &[Place<'_>], queues: &mut Queues<'_>, now: u64) -> Result<(), Refusal> {
    for (place, queue) in places.iter().zip(queues) {
        // Nobody takes between a look and this: it fails only where a model sees to it that somebody
        // does. What was taken so far would be void.
        place.gate.take_locked(queue, place.n, now)?;
    }
    Ok(())
}

/// Count the permits in, and out again if there is no room for all: then says where there is none.
#[inline]
fn enter(asks: &[impl Ask]) -> Result<(), usize> {
    let full = asks.iter().position(|ask| !ask.gate().bucket.enter());
    leave_flight(&asks[..full.unwrap_or(0)]);
    full.map_or(Ok(()), Err)
}

fn leave_flight(asks: &[impl Ask]) {
    for ask in asks {
        ask.gate().bucket.leave();
    }
}

fn drop_out(places: &[Place<'_>], queues: &mut Queues<'_>) {
    for (place, queue) in places.iter().zip(queues) {
        queue.line.remove(place.ticket);
        place.gate.unmark(queue);
    }
}

#[inline]
fn lock(asks: &[impl Ask]) -> Queues<'_> {
    let mut queues = Queues::new();
    for ask in asks {
        queues.push(ask.gate().queue.lock());
    }
    queues
}

fn finish(queues: Queues<'_>, calls: Calls) {
    drop(queues);
    notify(calls);
}
