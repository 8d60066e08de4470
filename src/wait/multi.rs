//! One wait at one gate, or at several for all of them at once: the same steps.
//!
//! Whoever looks holds the locks of all its gates, taken in one order by everybody. While the EXCLUSIVE
//! bit is set in their words too, nobody else takes, so that what is found there stays until it is
//! taken: all is taken or nothing is touched, and there is nothing to roll back.
//!
//! A wait for several stands in each line, where it joined at one moment: of two waits that meet in
//! several lines the same one is first in each, so that they cannot wait for each other. It holds no
//! tokens while it waits. Being the head of a line whose tokens are there, it keeps them from those
//! behind it until its other tokens are there too: else single wakes would starve it.

use smallvec::SmallVec;

use super::queue::{Ticket, Waiter, Wakes};
use super::snapshots::worse;
use super::{Failure, FairBucket, Queue, Step, Wake, notify};
use crate::bucket::{Refusal, Stale, Take, Transition};
use crate::sync::{MutexGuard, seeded};

/// What is asked of one gate, and by which ticket it is waited for there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) gate: &'a FairBucket,
    pub(crate) n: u64,
    pub(crate) ticket: Ticket,
}

/// Tokens of a gate.
pub(crate) trait TakeRequest {
    fn gate(&self) -> &FairBucket;
    fn tokens(&self) -> u64;
}

impl TakeRequest for Claim<'_> {
    #[inline]
    fn gate(&self) -> &FairBucket {
        self.gate
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.n
    }
}

/// In the order in which their locks are taken, which is the same for all.
pub(crate) type Claims<'a> = SmallVec<[Claim<'a>; 4]>;

type Queues<'a> = SmallVec<[MutexGuard<'a, Queue>; 4]>;

/// Who wants to wait.
#[derive(Clone, Debug)]
pub(crate) struct WaitRequest {
    pub(crate) is_thread: bool,
    /// A reading of the gates' clock.
    pub(crate) deadline: Option<u64>,
    pub(crate) event: Wake,
    /// Of each claim.
    pub(crate) limits: SmallVec<[WaitLimits; 4]>,
}

/// What keeps a wait short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitLimits {
    /// A line of this length takes nobody else.
    pub(crate) most_waiting: u64,
    /// Whether permits in flight may give tokens back: then a wait that is hopeless by the rate
    /// alone may end in time all the same.
    pub(crate) may_be_refunded: bool,
}

/// Take all, or nothing, without waiting; with permits, or only the tokens. Who is refused for want of
/// tokens writes nothing. This is the everyday case, of one token or more of buckets of one window,
/// with nobody in line and nobody in between. `None` where it is not: see [`take_locked`].
#[inline]
pub(crate) fn take(
    requests: &[impl TakeRequest],
    permits: bool,
    now: u64,
) -> Option<Result<(), Refusal>> {
    if requests.iter().any(|ask| ask.tokens() == 0) || seeded("take-and-roll-back") {
        return None;
    }
    let mut plans: SmallVec<[Transition; 4]> = SmallVec::new();
    let mut verdict = Ok(());
    let mut is_striped = false;
    for ask in requests {
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
    let ((last, firsts), plan) = (requests.split_last()?, plans.pop()?);
    let _queues = lock(firsts);
    let mut planned = firsts.iter().zip(&plans);
    let held = planned.position(|(ask, plan)| !ask.gate().bucket.lock(plan));
    let held = &firsts[..held.unwrap_or(firsts.len())];
    let is_entered = held.len() == firsts.len() && (!permits || enter(requests).is_ok());
    let is_taken = is_entered && last.gate().bucket.commit(&plan);
    for (ask, plan) in held.iter().zip(&plans) {
        ask.gate().bucket.unlock(plan, is_taken);
    }
    if is_entered && permits && !is_taken {
        leave_flight(requests);
    }
    is_taken.then_some(Ok(()))
}

/// The same in every case.
#[cold]
pub(crate) fn take_locked(claims: &[Claim<'_>], permits: bool, now: u64) -> Result<(), Refusal> {
    #[cfg(loom)]
    if seeded("take-and-roll-back") {
        return take_and_roll_back(claims, now);
    }
    // Who is refused anyway writes nothing. Where one refuses all are asked: what can never be, and the
    // latest time, may be another's.
    if claims.iter().any(|claim| claim.gate.glance(claim.n, now).is_err()) {
        let peeks = claims.iter().map(|claim| claim.gate.peek(claim.n, now));
        peeks.reduce(worse).unwrap_or(Ok(()))?;
    }
    let taken_back = claims.iter().filter(|claim| claim.gate.drain_stripes()).count();
    let now = if taken_back > 0 { claims[0].gate.clock().now() } else { now };
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    let mut verdict = Ok(());
    for (claim, queue) in claims.iter().zip(&mut queues) {
        let turn = claim.gate.may_bypass_queue(queue, claim.n, now, &mut wakes);
        if !seeded("group-without-bit") {
            claim.gate.set_exclusive();
        }
        verdict = worse(verdict, turn.and_then(|()| claim.gate.check_locked(queue, claim.n, now)));
    }
    let entering = if permits { claims } else { &[] };
    let taken =
        verdict.and_then(|()| enter(entering).map_err(|_| Refusal::NoRoom)).and_then(|()| {
            take_exclusive(claims, &mut queues, now).inspect_err(|_| leave_flight(entering))
        });
    for (claim, queue) in claims.iter().zip(&mut queues) {
        claim.gate.clear_exclusive(queue);
    }
    finish(queues, wakes);
    taken
}

/// The fault that the locks are held against: take one by one, and give back after a refusal. What
/// was taken from a bucket that has refilled meanwhile, or has shrunk, comes on top of a full one.
#[cfg(loom)]
fn take_and_roll_back(claims: &[Claim<'_>], now: u64) -> Result<(), Refusal> {
    for (taken, claim) in claims.iter().enumerate() {
        if let Err(refusal) = claim.gate.take_locked(claim.n, now) {
            for claim in &claims[..taken] {
                let _ = claim.gate.give_back(claim.n, claim.gate.clock().now());
            }
            return Err(refusal);
        }
        claim.gate.bucket.enter();
    }
    Ok(())
}

/// Join the lines, unless the tokens are there or the wait is hopeless.
pub(crate) fn enqueue(claims: &mut [Claim<'_>], request: &WaitRequest, now: u64) -> Step {
    let mut wakes = Wakes::new();
    let mut queues: Queues<'_> = claims.iter().map(|claim| claim.gate.queue.lock()).collect();
    let WaitRequest { is_thread, deadline, .. } = *request;
    for (claim, queue) in claims.iter_mut().zip(&mut queues) {
        let event = Wake::clone(&request.event);
        claim.ticket = queue.waiters.push(Waiter::new(claim.n, is_thread, deadline, event));
        // From here on every refund sees that somebody is in line.
        if !seeded("join-without-bit") {
            claim.gate.set_exclusive();
        }
    }
    let mut step = poll_locked(claims, &mut queues, deadline, now, &mut wakes);
    if step == Step::Waiting {
        let mut lines = queues.iter().zip(&request.limits);
        if lines.any(|(queue, limits)| queue.waiters.len() as u64 > limits.most_waiting) {
            step = Step::Failed(Failure::QueueFull);
        } else if cannot_succeed(claims, &mut queues, request, now) {
            step = Step::Failed(Failure::TimedOut);
        }
        if step != Step::Waiting {
            dequeue(claims, &mut queues);
        }
    }
    if step == Step::Stale {
        dequeue(claims, &mut queues);
    }
    finish(queues, wakes);
    step
}

/// By the rate, even if everybody else gave up. Where the rate is about to change, or permits in
/// flight may give tokens back, nothing is certain.
fn cannot_succeed(
    claims: &[Claim<'_>],
    queues: &mut Queues<'_>,
    request: &WaitRequest,
    now: u64,
) -> bool {
    let Some(deadline) = request.deadline else { return false };
    claims.iter().zip(queues).zip(&request.limits).any(|((claim, queue), limits)| {
        let snapshots = claim.gate.snapshots(queue, now);
        let wait = snapshots.wait(claim.n).min(snapshots.remaining());
        !limits.may_be_refunded && now.saturating_add(wait) > deadline
    })
}

/// A waiter looks: it was notified, or wants to be sure.
pub(crate) fn poll(claims: &[Claim<'_>], deadline: Option<u64>, now: u64) -> Step {
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    let step = poll_locked(claims, &mut queues, deadline, now, &mut wakes);
    finish(queues, wakes);
    step
}

/// A waiter gives up: it was dropped.
pub(crate) fn cancel(claims: &[Claim<'_>], now: u64) -> Result<(), Stale> {
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    dequeue(claims, &mut queues);
    let mut served = Ok(());
    if !seeded("cancel-keeps-turn") {
        for (claim, queue) in claims.iter().zip(&mut queues) {
            served = served.and(claim.gate.serve_locked(queue, now, &mut wakes));
        }
    }
    finish(queues, wakes);
    served
}

fn poll_locked(
    claims: &[Claim<'_>],
    queues: &mut Queues<'_>,
    deadline: Option<u64>,
    now: u64,
    wakes: &mut Wakes,
) -> Step {
    let mut verdict = Ok(());
    let mut is_first = true;
    for (claim, queue) in claims.iter().zip(&mut *queues) {
        let Claim { gate, n, ticket, .. } = *claim;
        let alone = queue.waiters.is_empty();
        if !queue.waiters.arrived(ticket) {
            return Step::Failed(Failure::Removed);
        }
        if alone {
            gate.set_exclusive();
        }
        queue.waiters.expire_head(now);
        let here = gate.check_locked(queue, n, now);
        let is_head = queue.waiters.is_head(ticket);
        let is_ready = here.is_ok() && is_head && gate.bucket.room() > 0;
        queue.waiters.note_ready(ticket, is_ready || seeded("ready-without-look"), now);
        verdict = worse(verdict, here);
        is_first &= is_head;
    }
    let taken = match verdict {
        Ok(()) if is_first => match enter(claims) {
            Ok(()) => take_exclusive(claims, queues, now).inspect_err(|_| leave_flight(claims)),
            Err(full) => {
                // Somebody came in since the look. Whoever leaves there wakes this one again; the other
                // gates need not.
                let is_ready = seeded("ready-though-full");
                queues[full].waiters.note_ready(claims[full].ticket, is_ready, now);
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
        dequeue(claims, queues);
    }
    for (claim, queue) in claims.iter().zip(queues) {
        if step == Step::Waiting && queue.waiters.needs_no_serving(claim.ticket, now) {
            continue;
        }
        if claim.gate.serve_locked(queue, now, wakes).is_err() {
            // The slot ended between the two looks: whoever comes finds that, and mends it.
            queue.waiters.notify_above(0, now, wakes);
        }
    }
    step
}

/// Take what is there everywhere.
fn take_exclusive(claims: &[Claim<'_>], queues: &mut Queues<'_>, now: u64) -> Result<(), Refusal> {
    for (claim, queue) in claims.iter().zip(queues) {
        // Nobody takes between a look and this: it fails only where a model sees to it that somebody
        // does. What was taken so far would be void.
        claim.gate.take_exclusive(queue, claim.n, now)?;
    }
    Ok(())
}

/// Count the permits in, and out again if there is no room for all: then says where there is none.
#[inline]
fn enter(requests: &[impl TakeRequest]) -> Result<(), usize> {
    let full = requests.iter().position(|ask| !ask.gate().bucket.enter());
    leave_flight(&requests[..full.unwrap_or(0)]);
    full.map_or(Ok(()), Err)
}

fn leave_flight(requests: &[impl TakeRequest]) {
    for ask in requests {
        ask.gate().bucket.leave();
    }
}

fn dequeue(claims: &[Claim<'_>], queues: &mut Queues<'_>) {
    for (claim, queue) in claims.iter().zip(queues) {
        queue.waiters.remove(claim.ticket);
        claim.gate.clear_exclusive(queue);
    }
}

#[inline]
fn lock(requests: &[impl TakeRequest]) -> Queues<'_> {
    let mut queues = Queues::new();
    for ask in requests {
        queues.push(ask.gate().queue.lock());
    }
    queues
}

fn finish(queues: Queues<'_>, wakes: Wakes) {
    drop(queues);
    notify(wakes);
}
