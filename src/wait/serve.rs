//! Serving a line: who can be served is notified, and the timer is armed for who cannot yet.

use super::queue::{ArmedTimer, CALL_GRACE, TIMER_SLACK, WaitQueue, Wakes};
use super::snapshots::WindowSnapshots;
use super::{FairBucket, Queue, seeded};
use crate::bucket::{Refusal, Stale};
use crate::clock::ArmError;

impl FairBucket {
    /// Something may have changed: call those who can be served.
    pub(crate) fn serve(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, wakes| self.serve_locked(queue, now, wakes))
    }

    /// The same from the line's timer, which must be armed anew.
    pub(crate) fn on_timer(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, wakes| {
            queue.waiters.timer = None;
            self.serve_locked(queue, now, wakes)
        })
    }

    /// The buckets have another configuration: those who ask for more than they ever hold, or for
    /// anything where they are closed, arrived and hear it.
    pub(crate) fn reconfigured(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, wakes| {
            let snapshots = self.snapshots(queue, now);
            let over = matches!(snapshots.would_admit(0), Err(Refusal::Closed | Refusal::Removed));
            let capacity = if over { 0 } else { snapshots.capacity_tokens() };
            if over && seeded("close-without-call") {
                return Ok(());
            }
            queue.waiters.notify_above(capacity, now, wakes);
            self.serve_locked(queue, now, wakes)
        })
    }

    pub(super) fn serve_locked(
        &self,
        queue: &mut Queue,
        now: u64,
        wakes: &mut Wakes,
    ) -> Result<(), Stale> {
        let mut now = now;
        loop {
            queue.waiters.expire_head(now);
            queue.waiters.notify_expired(now, wakes);
            let next = if queue.waiters.is_empty() {
                self.clear_exclusive(queue);
                queue.waiters.first_deadline()
            } else {
                let snapshots = self.snapshots(queue, now);
                match snapshots.would_admit(0) {
                    Err(Refusal::Stale) => return Err(Stale),
                    // Everybody was notified when it was closed.
                    Err(Refusal::Closed | Refusal::Removed) => return Ok(()),
                    _ => {}
                }
                self.notify_ready(&mut queue.waiters, &snapshots, wakes);
                Some(next_event(&queue.waiters, &snapshots))
            };
            match self.arm(queue, next, now) {
                Ok(()) => return Ok(()),
                // The clock went past the time while it was being armed.
                Err(ArmError::Due) => {
                    let later = self.clock.now();
                    // One that does not move ends no loop; one that has stepped back needs a timer.
                    if later <= now && next.is_none_or(|at| at <= later) {
                        return Ok(());
                    }
                    now = later;
                }
                // Without a timer everybody looks for themselves, again and again.
                Err(ArmError::NoTimer) => {
                    queue.waiters.notify_above(0, now, wakes);
                    return Ok(());
                }
            }
        }
    }

    fn notify_ready(&self, line: &mut WaitQueue, snapshots: &WindowSnapshots, wakes: &mut Wakes) {
        let now = snapshots.now();
        let (tokens, room) = (snapshots.available(), self.bucket.room());
        let uncalled = line.head().filter(|head| head.notified.is_none());
        if let Some((n, left)) = uncalled.map(|head| (head.n, head.ready_until())) {
            // It has its tokens here, and is notified only to see whether it still comes.
            let is_left = left.is_some_and(|until| now < until || !line.has_followers());
            let fits = n <= tokens && room > 0 && line.head_was_notified();
            if (fits && !is_left) || n > snapshots.capacity_tokens() {
                line.notify_head(now, wakes);
            }
        }
        while let Some((sum, count)) = line.first_pending() {
            if sum > tokens || count > room {
                break;
            }
            line.notify_first_pending(now, wakes);
        }
    }

    /// Have the line's timer on_timer at `at`.
    fn arm(&self, queue: &mut Queue, at: Option<u64>, now: u64) -> Result<(), ArmError> {
        let Some(at) = at else {
            queue.waiters.timer = None;
            return Ok(());
        };
        // An earlier timer will look, and arm what is needed then.
        let most = if queue.waiters.has_threads() { 0 } else { TIMER_SLACK };
        let in_time =
            |armed: &ArmedTimer| armed.at <= at && armed.latest <= at.saturating_add(most);
        if queue.waiters.timer.as_ref().is_some_and(in_time) {
            return Ok(());
        }
        let exact = most == 0 || queue.waiters.first_deadline() == Some(at);
        let slack = if exact { 0 } else { self.snapshots(queue, now).slack(most) };
        let latest = at.saturating_add(slack);
        queue.waiters.timer = None;
        let timer = self.clock.arm(at, slack, self.timer_waker.clone())?;
        queue.waiters.timer = Some(ArmedTimer { at, latest, timer });
        Ok(())
    }
}

/// The next reading at which there is something to do for a line that is not empty.
fn next_event(line: &WaitQueue, snapshots: &WindowSnapshots) -> u64 {
    let now = snapshots.now();
    // What has accrued already is no reason to wait: such a waiter needs a claim in flight, or tokens
    // elsewhere.
    let due = |n: u64| {
        let wait = if n <= snapshots.capacity_tokens() { snapshots.wait(n) } else { 0 };
        (wait > 0).then(|| now.saturating_add(wait))
    };
    let head = line.head().and_then(|head| match (head.notified, head.ready_until()) {
        // A thread comes by itself; with nobody behind it, a task that does not arrived harms nobody.
        (Some(_), _) | (_, Some(_)) if head.is_thread || !line.has_followers() => None,
        (Some(notified), _) => Some(notified.saturating_add(CALL_GRACE)),
        (None, Some(until)) if until > now => Some(until),
        // It would have been notified to see whether it still comes: its tokens here are gone.
        (None, Some(_)) => due(head.n),
        (None, None) if line.head_was_notified() => due(head.n),
        (None, None) => None,
    });
    let next = line.first_pending().and_then(|(sum, _)| due(sum));
    let slot_ends = now.saturating_add(snapshots.remaining());
    [head, next, line.first_deadline()].into_iter().flatten().fold(slot_ends, u64::min)
}
