//! Serving a line: who can be served is called, and the timer is armed for who cannot yet.

use super::line::{Armed, Calls, Line, SLACK, TURN};
use super::outlook::Outlook;
use super::{Gate, Queue, seeded};
use crate::bucket::{Refusal, Stale};
use crate::clock::ArmError;

impl Gate {
    /// Something may have changed: call those who can be served.
    pub(crate) fn serve(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, calls| self.serve_locked(queue, now, calls))
    }

    /// The same from the line's timer, which must be armed anew.
    pub(crate) fn ring(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, calls| {
            queue.line.alarm = None;
            self.serve_locked(queue, now, calls)
        })
    }

    /// The buckets have another configuration: those who ask for more than they ever hold, or for
    /// anything where they are closed, come and hear it.
    pub(crate) fn reconfigured(&self, now: u64) -> Result<(), Stale> {
        self.with_queue(|queue, calls| {
            let outlook = self.outlook(queue, now);
            let over = matches!(outlook.would_admit(0), Err(Refusal::Closed | Refusal::Removed));
            let capacity = if over { 0 } else { outlook.capacity_tokens() };
            if over && seeded("close-without-call") {
                return Ok(());
            }
            queue.line.call_above(capacity, now, calls);
            self.serve_locked(queue, now, calls)
        })
    }

    pub(super) fn serve_locked(
        &self,
        queue: &mut Queue,
        now: u64,
        calls: &mut Calls,
    ) -> Result<(), Stale> {
        let mut now = now;
        loop {
            queue.line.lapse(now);
            queue.line.call_expired(now, calls);
            let next = if queue.line.is_empty() {
                self.unmark(queue);
                queue.line.first_deadline()
            } else {
                let outlook = self.outlook(queue, now);
                match outlook.would_admit(0) {
                    Err(Refusal::Stale) => return Err(Stale),
                    // Everybody was called when it was closed.
                    Err(Refusal::Closed | Refusal::Removed) => return Ok(()),
                    _ => {}
                }
                self.call_ready(&mut queue.line, &outlook, calls);
                Some(next_look(&queue.line, &outlook))
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
                    queue.line.call_above(0, now, calls);
                    return Ok(());
                }
            }
        }
    }

    fn call_ready(&self, line: &mut Line, outlook: &Outlook, calls: &mut Calls) {
        let now = outlook.now();
        let (tokens, room) = (outlook.available(), self.bucket.room());
        let uncalled = line.head().filter(|head| head.called.is_none());
        if let Some((n, left)) = uncalled.map(|head| (head.n, head.is_left_until())) {
            // It has its tokens here, and is called only to see whether it still comes.
            let is_left = left.is_some_and(|until| now < until || !line.others_present());
            let fits = n <= tokens && room > 0 && line.head_is_covered();
            if (fits && !is_left) || n > outlook.capacity_tokens() {
                line.call_head(now, calls);
            }
        }
        while let Some((sum, count)) = line.first_uncovered() {
            if sum > tokens || count > room {
                break;
            }
            line.call_first_uncovered(now, calls);
        }
    }

    /// Have the line's timer ring at `at`.
    fn arm(&self, queue: &mut Queue, at: Option<u64>, now: u64) -> Result<(), ArmError> {
        let Some(at) = at else {
            queue.line.alarm = None;
            return Ok(());
        };
        // An earlier alarm will look, and arm what is needed then.
        let most = if queue.line.has_threads() { 0 } else { SLACK };
        let in_time = |armed: &Armed| armed.at <= at && armed.latest <= at.saturating_add(most);
        if queue.line.alarm.as_ref().is_some_and(in_time) {
            return Ok(());
        }
        let exact = most == 0 || queue.line.first_deadline() == Some(at);
        let slack = if exact { 0 } else { self.outlook(queue, now).slack(most) };
        let latest = at.saturating_add(slack);
        queue.line.alarm = None;
        let alarm = self.clock.arm(at, slack, self.bell.clone())?;
        queue.line.alarm = Some(Armed { at, latest, alarm });
        Ok(())
    }
}

/// The next reading at which there is something to do for a line that is not empty.
fn next_look(line: &Line, outlook: &Outlook) -> u64 {
    let now = outlook.now();
    // What has accrued already is no reason to wait: such a waiter needs a place in flight, or tokens
    // elsewhere.
    let due = |n: u64| {
        let wait = if n <= outlook.capacity_tokens() { outlook.wait(n) } else { 0 };
        (wait > 0).then(|| now.saturating_add(wait))
    };
    let head = line.head().and_then(|head| match (head.called, head.is_left_until()) {
        // A thread comes by itself; with nobody behind it, a task that does not come harms nobody.
        (Some(_), _) | (_, Some(_)) if head.is_thread || !line.others_present() => None,
        (Some(called), _) => Some(called.saturating_add(TURN)),
        (None, Some(until)) if until > now => Some(until),
        // It would have been called to see whether it still comes: its tokens here are gone.
        (None, Some(_)) => due(head.n),
        (None, None) if line.head_is_covered() => due(head.n),
        (None, None) => None,
    });
    let next = line.first_uncovered().and_then(|(sum, _)| due(sum));
    let slot_ends = now.saturating_add(outlook.remaining());
    [head, next, line.first_deadline()].into_iter().flatten().fold(slot_ends, u64::min)
}
