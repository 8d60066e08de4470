//! Serving a queue: the waiters that can be served are notified, and the timer is armed for the next.

use super::queue::{TIMER_SLACK, WaitQueue};
use super::snapshots::WindowSnapshots;
use super::waiter::{ArmedTimer, Reserve, Waiter, Wakes};
use super::{FairBucket, Queue};
use crate::bucket::{Refused, Retry};
use crate::clock::ArmError;

impl FairBucket {
    /// Notifies the waiters that can be served, after something changed. This and the next two fail with
    /// [`Retry::SlotExpired`] alone.
    pub(crate) fn serve(&self, now: u64) -> Result<(), Retry> {
        self.with_queue(|queue, wakes| self.serve_locked(queue, now, wakes))
    }

    /// The same from the queue's timer, which must be armed again.
    pub(crate) fn on_timer(&self, now: u64) -> Result<(), Retry> {
        self.with_queue(|queue, wakes| {
            queue.waiters.timer = None;
            self.serve_locked(queue, now, wakes)
        })
    }

    /// The same after a reconfiguration. Waiters for more than the buckets hold are notified, and fail or
    /// look at the recovery; those that wanted more than they held before look again. All waiters of closed
    /// buckets are notified and fail.
    pub(crate) fn reconfigured(&self, now: u64) -> Result<(), Retry> {
        self.with_queue(|queue, wakes| {
            let snapshots = self.snapshots(queue, now);
            let is_over = matches!(snapshots.status(), Err(Refused::Denied(_)));
            let capacity = if is_over { 0 } else { snapshots.capacity_tokens() };
            queue.waiters.notify_above(capacity, now, wakes);
            self.serve_locked(queue, now, wakes)
        })
    }

    pub(super) fn serve_locked(
        &self,
        queue: &mut Queue,
        now: u64,
        wakes: &mut Wakes,
    ) -> Result<(), Retry> {
        let mut now = now;
        loop {
            queue.waiters.skip_absent_heads(now, wakes);
            queue.waiters.notify_expired(now, wakes);
            let next = if queue.waiters.is_empty() {
                self.clear_exclusive(queue);
                queue.waiters.first_deadline()
            } else {
                let snapshots = self.snapshots(queue, now);
                match snapshots.status() {
                    Err(Refused::Retry(retry)) => return Err(retry),
                    // Every waiter was notified when it was closed.
                    Err(Refused::Denied(_)) => return Ok(()),
                    Ok(()) => {}
                }
                self.notify_ready(queue, &snapshots, wakes);
                Some(next_event(&queue.waiters, &snapshots))
            };
            match self.arm(queue, next, now) {
                Ok(()) => return Ok(()),
                // The clock passed the reading while the timer was being armed.
                Err(ArmError::Due) => {
                    let later = self.clock.now();
                    // A clock that stands still ends the loop; one that stepped back needs a timer.
                    if later <= now && next.is_none_or(|at| at <= later) {
                        return Ok(());
                    }
                    now = later;
                }
                // Without a timer the waiters poll.
                Err(ArmError::NoTimer) => {
                    queue.waiters.notify_above(0, now, wakes);
                    return Ok(());
                }
            }
        }
    }

    fn notify_ready(&self, queue: &mut Queue, snapshots: &WindowSnapshots, wakes: &mut Wakes) {
        let Queue { waiters, recovery, .. } = queue;
        let now = snapshots.now();
        let (tokens, room) = (snapshots.available(), self.bucket.room());
        let lacks_nothing = |waiter: &Waiter, reserve: Option<Reserve>| {
            let has_room = !waiter.with_permit || room > Reserve::places(reserve);
            waiter.n <= tokens && has_room && leaves(snapshots, waiter.n, reserve)
        };
        let calls = |waiter: &Waiter, reserve: Option<Reserve>| {
            let is_too_large =
                waiter.n > snapshots.capacity_tokens() && !recovery.reaches(waiter.n);
            waiter.notified.is_none() && (lacks_nothing(waiter, reserve) || is_too_large)
        };
        // It has its tokens here, and is notified only to see whether it still arrives.
        let ready_until = waiters.head_ready_until();
        let is_left = ready_until.is_some_and(|until| now < until || !waiters.has_followers());
        if !is_left && waiters.blocked_head().is_some_and(|head| calls(head, None)) {
            waiters.notify_head(now, wakes);
        }
        let reserve = waiters.reserve();
        let firsts = [waiters.first_present(), waiters.first_lacking()];
        let first = firsts.into_iter().flatten().find(|waiter| calls(waiter, reserve));
        if let Some(ticket) = first.map(|waiter| waiter.ticket) {
            waiters.notify_ticket(ticket, now, wakes);
        }
        while let Some((sum, count)) = waiters.first_pending() {
            let has_room = count == 0 || count.saturating_add(Reserve::places(reserve)) <= room;
            if sum > tokens || !has_room || !leaves(snapshots, sum, reserve) {
                break;
            }
            waiters.notify_first_pending(now, wakes);
        }
    }

    /// The same where nobody can bring the buckets up to date: whichever waiter arrives finds that, and does.
    pub(super) fn serve_or_notify(&self, queue: &mut Queue, now: u64, wakes: &mut Wakes) {
        if self.serve_locked(queue, now, wakes).is_err() {
            queue.waiters.notify_above(0, now, wakes);
        }
    }

    /// Arms the queue's timer for `at`.
    fn arm(&self, queue: &mut Queue, at: Option<u64>, now: u64) -> Result<(), ArmError> {
        let Some(at) = at else {
            queue.waiters.timer = None;
            return Ok(());
        };
        // An earlier timer serves the queue, and is armed again then.
        let most = if queue.waiters.has_threads() { 0 } else { TIMER_SLACK };
        let in_time = |armed: &ArmedTimer| {
            armed.at <= at && armed.latest <= at.saturating_add(most) && armed.alarm.is_live()
        };
        if queue.waiters.timer.as_ref().is_some_and(in_time) {
            return Ok(());
        }
        let is_exact = most == 0 || queue.waiters.first_deadline() == Some(at);
        let slack = if is_exact { 0 } else { self.snapshots(queue, now).slack(most) };
        let latest = at.saturating_add(slack);
        queue.waiters.timer = None;
        let alarm = self.clock.arm(at, slack, self.timer_waker.clone())?;
        queue.waiters.timer = Some(ArmedTimer { at, latest, alarm });
        Ok(())
    }
}

/// The next reading at which a queue that is not empty must be served.
fn next_event(waiters: &WaitQueue, snapshots: &WindowSnapshots) -> u64 {
    let now = snapshots.now();
    // A waiter whose tokens are there lacks a permit in flight, or tokens of another resource: time
    // alone does not help it.
    let due = |n: u64, reserve: Option<Reserve>| {
        let wait = if n <= snapshots.capacity_tokens() { snapshots.wait(n) } else { 0 };
        let wait = match reserve {
            Some(reserve) if !leaves(snapshots, n, Some(reserve)) => {
                let both = n.saturating_add(reserve.n);
                // Both are never there at once: only the head can change that.
                if both > snapshots.capacity_tokens() {
                    return None;
                }
                wait.max(snapshots.wait(both))
            }
            _ => wait,
        };
        (wait > 0).then(|| now.saturating_add(wait))
    };
    // A thread arrives by itself. A task that does not arrive delays nobody if nobody follows.
    let arrives = |waiter: &Waiter| waiter.always_arrives() || !waiters.has_followers();
    let called = |waiter: &Waiter, reserve| match waiter.notified {
        Some(_) if arrives(waiter) => None,
        Some(notified) => Some(notified.saturating_add(waiters.call_grace())),
        None => due(waiter.n, reserve),
    };
    let ready_until = waiters.head_ready_until();
    let head = waiters.blocked_head().and_then(|head| match ready_until {
        Some(_) if arrives(head) => None,
        Some(until) if head.notified.is_none() && until > now => Some(until),
        // Otherwise its grace is over, and its tokens here are gone.
        _ => called(head, None),
    });
    let reserve = waiters.reserve();
    let first = waiters.first_present().and_then(|waiter| called(waiter, reserve));
    let lacking = waiters.first_lacking().and_then(|waiter| called(waiter, reserve));
    let next = waiters.first_pending().and_then(|(sum, _)| due(sum, reserve));
    let slot_ends = now.saturating_add(snapshots.remaining());
    let events = [head, first, lacking, next, waiters.first_deadline()];
    events.into_iter().flatten().fold(slot_ends, u64::min)
}

/// Whether the head finds what is reserved for it, after another has taken `n` tokens now: in every
/// window, by what accrues until then.
pub(super) fn leaves(snapshots: &WindowSnapshots, n: u64, reserve: Option<Reserve>) -> bool {
    reserve.is_none_or(|Reserve { n: reserved, at, .. }| {
        snapshots.wait(n.saturating_add(reserved)) <= at.saturating_sub(snapshots.now())
    })
}
