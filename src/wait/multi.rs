//! One take or wait, for one bucket or for several at once: the same steps.
//!
//! A call holds the queue locks of all its buckets, and all calls lock them in one order. While their
//! words are exclusive too, no other thread takes: what is found there stays until it is taken. So all is
//! taken or nothing is touched, and there is no roll-back.
//!
//! A wait for several resources is in the queue of each, and was put there at one moment. Of two waits
//! that meet in several queues the same one is ahead in each, so that they do not wait for each other. A
//! wait holds no tokens. Others pass the head of a queue while it lacks something elsewhere, if it will find
//! here what it wants when it has the rest; otherwise single calls would starve it.

use smallvec::SmallVec;

use super::waiter::{Ticket, Waiter, Wakes};
use super::{FairBucket, GiveUp, Queue, Step, Wake, notify};
use crate::bucket::{
    CountedAt, Deficit, Denied, Never, Refused, Retry, Transition, is_sample, worst_of,
};
use crate::counts::Count;
use crate::sync::MutexGuard;

/// Tokens that a call wants of a bucket.
pub(crate) trait TakeRequest<'a> {
    fn bucket(&self) -> &'a FairBucket;
    fn tokens(&self) -> u64;
    /// Where its permit is counted, once it is.
    fn counted(&mut self) -> &mut CountedAt;
}

/// A request with a place in the bucket's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) bucket: &'a FairBucket,
    pub(crate) n: u64,
    pub(crate) ticket: Ticket,
    /// Whether it takes a permit, and so waits for a place in flight too.
    pub(crate) with_permit: bool,
    pub(crate) counted: CountedAt,
}

impl<'a> TakeRequest<'a> for Claim<'a> {
    #[inline]
    fn bucket(&self) -> &'a FairBucket {
        self.bucket
    }
    #[inline]
    fn tokens(&self) -> u64 {
        self.n
    }
    #[inline]
    fn counted(&mut self) -> &mut CountedAt {
        &mut self.counted
    }
}

/// In the order in which all calls lock.
pub(crate) type Claims<'a> = SmallVec<[Claim<'a>; 4]>;

type Queues<'a> = SmallVec<[MutexGuard<'a, Queue>; 4]>;

/// What a waiter wants to be told.
#[derive(Clone, Debug)]
pub(crate) struct WaitRequest {
    pub(crate) is_thread: bool,
    /// A reading of the buckets' clock.
    pub(crate) deadline: Option<u64>,
    pub(crate) signal: Wake,
    /// One for each claim.
    pub(crate) limits: SmallVec<[WaitLimits; 4]>,
}

/// What keeps a wait short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitLimits {
    /// The longest that the queue may become.
    pub(crate) max_waiting: u64,
    /// Whether permits in flight may give tokens back. Then a wait may end before the rate alone would
    /// allow it.
    pub(crate) may_be_refunded: bool,
}

/// Takes all tokens or none, without waiting, with permits or without. A call that is denied for want of
/// tokens writes nothing.
///
/// This is the fast path: for n >= 1 of buckets with one window, which nobody waits for and no other
/// thread changes meanwhile. It returns `None` otherwise: then [`take_locked`] decides. If `serve` is set then,
/// a waiter may have found a permit counted in, and the queues must be served before.
#[inline]
pub(crate) fn take<'a, R: TakeRequest<'a>>(
    requests: &mut [R],
    with_permits: bool,
    now: u64,
    serve: &mut bool,
) -> Option<Result<(), (usize, Denied)>> {
    let mut prepared: SmallVec<[(&FairBucket, Transition); 4]> = SmallVec::new();
    let mut longest: Option<(usize, Deficit)> = None;
    let mut is_striped = false;
    for (index, request) in requests.iter().enumerate() {
        let (bucket, n) = (request.bucket(), request.tokens());
        if n == 0 {
            return None;
        }
        match bucket.bucket.prepare(n, now) {
            Ok(transition) => prepared.push((bucket, transition)),
            Err(Some(deficit)) => {
                if longest.is_none_or(|(_, longest)| longest.wait() < deficit.wait()) {
                    longest = Some((index, deficit));
                }
            }
            // It has enough beside its stripes, which need not be drained if another bucket denies.
            Err(None) if bucket.has_tokens_beside_stripes(n, now) => is_striped = true,
            Err(None) => return None,
        }
    }
    if let Some((index, deficit)) = longest {
        return Some(Err((index, Denied::Exhausted(deficit))));
    }
    if is_striped {
        return None;
    }
    // The last is taken by a CAS, as if alone, while all others are locked.
    let (last, transition) = prepared.pop()?;
    let queues: Queues<'_> = prepared.iter().map(|(bucket, _)| bucket.queue.lock()).collect();
    let first_changed =
        prepared.iter().position(|(bucket, transition)| !bucket.bucket.lock(transition));
    let locked = &prepared[..first_changed.unwrap_or(prepared.len())];
    let is_entered = first_changed.is_none() && (!with_permits || enter(requests).is_ok());
    let is_taken = is_entered && last.bucket.commit(&transition);
    for (bucket, transition) in locked {
        bucket.bucket.unlock(transition, is_taken);
    }
    drop(queues);
    if is_taken {
        for request in &*requests {
            request.bucket().bucket.count(Count::Taken, request.tokens());
        }
        if is_sample(now) {
            note_sample(requests, now);
        }
        return Some(Ok(()));
    }
    if is_entered && with_permits {
        for request in &mut *requests {
            // A waiter may have found the last bucket full: it is not locked here.
            *serve |= request.bucket().bucket.leave(*request.counted()) == Some(true);
        }
    }
    None
}

/// After a take from all of them, at a reading that is a sample. Only a take of one has a use for stripes.
#[cold]
#[inline(never)]
fn note_sample<'a, R: TakeRequest<'a>>(requests: &[R], now: u64) {
    for request in requests.iter().filter(|request| request.tokens() == 1) {
        request.bucket().bucket.note_sample(now);
    }
}

/// The same in every case but [`Retry::SlotExpired`], by claims that all take a permit or none.
#[cold]
pub(crate) fn take_locked(claims: &mut [Claim<'_>], now: u64) -> Result<(), (usize, Refused)> {
    // A call that is denied anyway writes nothing. It asks all buckets, as another may have the latest
    // time, or be too small for ever.
    if claims.iter().any(|claim| claim.bucket.peek_unlocked(claim.n, now).is_err()) {
        worst_of(claims.iter().map(|claim| claim.bucket.peek(claim.n, now)))?;
    }
    let drained = claims.iter().filter(|claim| claim.bucket.drain_stripes()).count();
    let now = if drained > 0 { claims[0].bucket.clock().now() } else { now };
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    let verdict = worst_of(claims.iter().zip(&mut queues).map(|(claim, queue)| {
        let wanted = (claim.n, claim.with_permit);
        let bypasses = claim.bucket.may_bypass_queue(queue, wanted, now, &mut wakes);
        claim.bucket.set_exclusive();
        bypasses.and_then(|()| claim.bucket.would_admit(queue, claim.n, now))
    }));
    let taken = verdict.and_then(|()| {
        enter_all(claims).map_err(|full| (full, Denied::TooManyInFlight.into()))?;
        take_exclusive(claims, &mut queues, now).map_err(|refused| {
            leave_all(claims);
            (0, refused)
        })
    });
    for (claim, queue) in claims.iter().zip(&mut queues) {
        claim.bucket.clear_exclusive(queue);
    }
    finish(queues, wakes);
    taken
}

/// Joins the queues, unless the tokens are there or the wait cannot succeed.
pub(crate) fn enqueue(claims: &mut [Claim<'_>], request: &WaitRequest, now: u64) -> Step {
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    let WaitRequest { is_thread, deadline, .. } = *request;
    let is_group = claims.len() > 1;
    for (claim, queue) in claims.iter_mut().zip(&mut queues) {
        let signal = Wake::clone(&request.signal);
        let mut waiter = Waiter::new(claim.n, claim.with_permit, is_thread, deadline, signal);
        waiter.is_group = is_group;
        claim.ticket = queue.waiters.push(waiter);
        // From here on every refund sees the bit.
        claim.bucket.set_exclusive();
    }
    let mut step = poll_locked(claims, &mut queues, deadline, now, &mut wakes);
    if step == Step::Waiting {
        let mut waits = queues.iter().zip(&request.limits);
        let is_full = |(queue, limits): (&MutexGuard<'_, Queue>, &WaitLimits)| {
            queue.waiters.len() as u64 > limits.max_waiting
        };
        if let Some(full) = waits.position(is_full) {
            dequeue(claims, &mut queues);
            step = Step::GaveUp(full, GiveUp::QueueFull);
        } else if cannot_succeed(claims, &mut queues, request, now) {
            dequeue(claims, &mut queues);
            step = timed_out(claims, &mut queues, now);
        }
    }
    if step == Step::SlotExpired {
        dequeue(claims, &mut queues);
    }
    finish(queues, wakes);
    step
}

/// Whether the rate alone rules out success before the deadline, even if all waiters ahead gave up. Not
/// if the rate is about to change, or permits in flight may give tokens back.
fn cannot_succeed(
    claims: &[Claim<'_>],
    queues: &mut Queues<'_>,
    request: &WaitRequest,
    now: u64,
) -> bool {
    let Some(deadline) = request.deadline else { return false };
    claims.iter().zip(queues).zip(&request.limits).any(|((claim, queue), limits)| {
        let snapshots = claim.bucket.snapshots(queue, now);
        // Beyond the bucket, the steps of the recovery are counted in.
        let wait = match claim.bucket.deficit_behind(queue, 0, claim.n, now) {
            Ok(deficit) if claim.n > snapshots.capacity_tokens() => deficit.wait(),
            _ => snapshots.wait(claim.n).min(snapshots.remaining()),
        };
        !limits.may_be_refunded && now.saturating_add(wait) > deadline
    })
}

/// A wait that has ended without success: which claim a new one would wait for longest, and how long.
fn timed_out(claims: &[Claim<'_>], queues: &mut Queues<'_>, now: u64) -> Step {
    let refusals = claims.iter().zip(queues).map(|(claim, queue)| {
        Err(claim.bucket.refusal_behind_queue(queue, claim.n, claim.with_permit, now))
    });
    match worst_of(refusals) {
        Err((index, Refused::Denied(Denied::Exhausted(deficit)))) => {
            Step::GaveUp(index, GiveUp::TimedOut(Some(deficit.wait())))
        }
        Err((index, _)) => Step::GaveUp(index, GiveUp::TimedOut(None)),
        Ok(()) => Step::GaveUp(0, GiveUp::TimedOut(None)),
    }
}

/// One attempt of a waiter.
pub(crate) fn poll(claims: &mut [Claim<'_>], deadline: Option<u64>, now: u64) -> Step {
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    let step = poll_locked(claims, &mut queues, deadline, now, &mut wakes);
    finish(queues, wakes);
    step
}

/// A waiter gives up: it was dropped. Fails with [`Retry::SlotExpired`] alone, and is out of the queues
/// by then.
pub(crate) fn cancel(claims: &[Claim<'_>], now: u64) -> Result<(), Retry> {
    let mut wakes = Wakes::new();
    let mut queues = lock(claims);
    dequeue(claims, &mut queues);
    let mut served = Ok(());
    for (claim, queue) in claims.iter().zip(&mut queues) {
        served = served.and(claim.bucket.serve_locked(queue, now, &mut wakes));
    }
    finish(queues, wakes);
    served
}

fn poll_locked(
    claims: &mut [Claim<'_>],
    queues: &mut Queues<'_>,
    deadline: Option<u64>,
    now: u64,
    wakes: &mut Wakes,
) -> Step {
    let mut looks: SmallVec<[Look; 4]> = SmallVec::new();
    let verdict = worst_of(claims.iter().zip(&mut *queues).map(|(claim, queue)| {
        let Claim { bucket, n, ticket, with_permit, .. } = *claim;
        let was_empty = queue.waiters.is_empty();
        if !queue.waiters.arrived(ticket) {
            return Err(Never::Removed.into());
        }
        if was_empty {
            bucket.set_exclusive();
        }
        queue.waiters.skip_absent_heads(now, wakes);
        let here = bucket.would_admit(queue, n, now);
        let has_room = !with_permit || bucket.bucket.room() > 0;
        let lacks_nothing = here.is_ok() && has_room;
        let is_head = queue.waiters.is_head(ticket);
        queue.waiters.note_ready(ticket, lacks_nothing && is_head, now);
        let can_take = lacks_nothing && bucket.has_turn(queue, ticket, (n, with_permit), now);
        let is_beyond = n > bucket.snapshots(queue, now).capacity_tokens();
        let holds_at = if is_beyond { queue.recovery.holds_at(n) } else { 0 };
        // Without a place in flight the time is unknown.
        let at = if can_take || !has_room || claims.len() == 1 {
            now
        } else {
            let ahead = queue.waiters.ahead(ticket);
            let deficit = bucket.deficit_behind(queue, ahead, n, now)?;
            now.saturating_add(deficit.wait())
        };
        looks.push(Look { can_take, at, holds_at });
        here
    }));
    let mut step = match verdict {
        Ok(()) if looks.iter().all(|look| look.can_take) => take_in_turn(claims, queues, now),
        Err((index, Refused::Denied(Denied::Never(never)))) => {
            Step::GaveUp(index, GiveUp::Never(never))
        }
        Err((_, Refused::Retry(_))) => return Step::SlotExpired,
        Ok(()) | Err(_) => Step::Waiting,
    };
    // Only a wait for several, or for more than a cut bucket holds, lacks something else.
    let lacks_else = claims.len() > 1 || looks.iter().any(|look| look.holds_at > 0);
    let is_placed = || lacks_else || queues[0].waiters.is_blocked(claims[0].ticket);
    if step == Step::Waiting && is_placed() {
        place(claims, queues, &looks);
    }
    let is_late = step == Step::Waiting && deadline.is_some_and(|deadline| deadline <= now);
    if step != Step::Waiting || is_late {
        dequeue(claims, queues);
    }
    if is_late {
        step = timed_out(claims, queues, now);
    }
    for (claim, queue) in claims.iter().zip(queues) {
        if step == Step::Waiting && queue.waiters.needs_no_serving(claim.ticket, now) {
            continue;
        }
        // The slot may have ended since the attempt.
        claim.bucket.serve_or_notify(queue, now, wakes);
    }
    step
}

/// What a waiter found in one of its queues.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Whether it could take here.
    can_take: bool,
    /// The earliest reading at which it may, as far as time alone is concerned.
    at: u64,
    /// The reading from which a cut bucket can hold what it wants; 0 if it can now.
    holds_at: u64,
}

/// Says in each queue whether the waiter lacks something elsewhere, or a step of the recovery here, and when
/// it can have that.
fn place(claims: &[Claim<'_>], queues: &mut Queues<'_>, looks: &[Look]) {
    let lacking = looks.iter().filter(|look| !look.can_take).count();
    for (index, (claim, queue)) in claims.iter().zip(queues).enumerate() {
        let Look { can_take, holds_at, .. } = looks[index];
        let is_beyond = holds_at > 0;
        let lacks_elsewhere = lacking > usize::from(!can_take);
        let others = looks.iter().enumerate().filter(|(other, _)| *other != index);
        let at = others.map(|(_, look)| look.at).fold(holds_at, u64::max);
        let elsewhere = (lacks_elsewhere || is_beyond).then_some(at);
        queue.waiters.place(claim.ticket, elsewhere, !can_take, is_beyond);
    }
}

/// A waiter whose turn it is in all its queues takes what is there.
fn take_in_turn(claims: &mut [Claim<'_>], queues: &mut Queues<'_>, now: u64) -> Step {
    // Another permit may have come in since `room` was read. Then the next attempt finds no room.
    if enter_all(claims).is_err() {
        return Step::Waiting;
    }
    // Nothing changes between `would_admit` and this, under the locks.
    if take_exclusive(claims, queues, now).is_err() {
        leave_all(claims);
        return Step::Waiting;
    }
    Step::Taken
}

fn take_exclusive(claims: &[Claim<'_>], queues: &mut Queues<'_>, now: u64) -> Result<(), Refused> {
    for (claim, queue) in claims.iter().zip(queues) {
        claim.bucket.take_exclusive(queue, claim.n, now)?;
    }
    Ok(())
}

/// Counts the permits in, or none; then returns the index of the bucket that is full.
#[inline]
fn enter<'a, R: TakeRequest<'a>>(requests: &mut [R]) -> Result<(), usize> {
    for i in 0..requests.len() {
        let Some(at) = requests[i].bucket().bucket.enter() else {
            leave(&mut requests[..i]);
            return Err(i);
        };
        *requests[i].counted() = at;
    }
    Ok(())
}

/// Counts permits out that were counted in a moment ago. The queues of their buckets are locked, so that no
/// waiter has found them full since.
fn leave<'a, R: TakeRequest<'a>>(requests: &mut [R]) {
    for request in requests {
        let at = *request.counted();
        request.bucket().bucket.leave(at);
    }
}

/// The same of claims, which may take no permits.
fn enter_all(claims: &mut [Claim<'_>]) -> Result<(), usize> {
    if claims.iter().any(|claim| claim.with_permit) { enter(claims) } else { Ok(()) }
}

fn leave_all(claims: &mut [Claim<'_>]) {
    if claims.iter().any(|claim| claim.with_permit) {
        leave(claims);
    }
}

fn dequeue(claims: &[Claim<'_>], queues: &mut Queues<'_>) {
    for (claim, queue) in claims.iter().zip(queues) {
        queue.waiters.remove(claim.ticket);
        claim.bucket.clear_exclusive(queue);
    }
}

fn lock<'a>(claims: &[Claim<'a>]) -> Queues<'a> {
    claims.iter().map(|claim| claim.bucket.queue.lock()).collect()
}

fn finish(queues: Queues<'_>, wakes: Wakes) {
    drop(queues);
    notify(wakes);
}
