//! Waiting for a bucket: one line, first come first served, for tasks and threads alike.
//!
//! The protocol is: try, join the line, try again, wait. A waiter is *called* when there are tokens
//! for it and for all before it; it takes them itself, when it comes. Calls, not tokens, are handed
//! out: tokens handed out before a stall of the runtime, plus a full bucket after it, would be
//! twice the burst. Only the head of the line takes, so that the order holds whoever comes first.
//!
//! A line has one timer, of its clock, whatever its length. It does not hang on any waiter's
//! future: a head that is called and does not come (a `select!` loop that holds the future without
//! polling it) steps aside after [`line::TURN`], and takes its place again when it comes.
//!
//! # No lost wake-up
//!
//! Tokens come from five sides, and each looks at the line:
//!
//! 1. *Time*: the line's timer is armed under the lock, for the reading at which the first waiter
//!    who was not called can be served.
//! 2. *A refund* finds the WAITERS bit in the word by the CAS that gives the tokens back. The bit is
//!    set by an RMW before the waiter's last try, so that either the refund sees the bit or the
//!    try sees the refund.
//! 3. *A permit that leaves* looks by an RMW: see [`Bucket::leave`].
//! 4. *A waiter that takes, gives up or is dropped* serves those behind it under the lock.
//! 5. *A new configuration* is installed first and the line served after it; who joins under the
//!    lock later than that already finds the new slot.
//!
//! A call that comes before the waiter listens would be lost; so a waiter listens first, and looks
//! once more before it sleeps.

mod line;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use line::{Calls, Line, TURN, Waiter};

pub(crate) use line::{Call, Ticket};

use crate::bucket::{Bucket, Deficit, Refusal, Stale, View};
use crate::clock::{Clock, Unarmed};
use crate::sync::{Mutex, MutexGuard, seeded};

/// The most that a timer is delayed so that it serves several at once, in nanoseconds.
const SLACK: u64 = 1_000_000;

/// A bucket and the line before it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) bucket: Bucket,
    clock: Clock,
    line: Mutex<Line>,
    /// Woken by the line's timer; it calls [`Gate::ring`].
    bell: Waker,
}

/// Who wants to wait, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) n: u64,
    pub(crate) is_thread: bool,
    /// A reading of the gate's clock.
    pub(crate) deadline: Option<u64>,
    /// A line of this length takes nobody else.
    pub(crate) most_waiting: u64,
    /// Whether permits in flight may give tokens back: then a wait that is hopeless by the rate
    /// alone may end in time all the same.
    pub(crate) may_be_refunded: bool,
    pub(crate) event: Call,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The tokens were taken, and a permit counted in; the waiter is out of the line.
    Taken,
    /// In line; the event says when to look again.
    Waiting(Ticket),
    /// Out of the line.
    Failed(Failure),
    /// Nothing changed: the bucket's slot has ended, bring it up to date and look again.
    Stale,
}

/// Why a wait ended without tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    TimedOut,
    QueueFull,
    TooBig(u64),
    Closed,
    Removed,
}

impl Gate {
    pub(crate) fn new(bucket: Bucket, clock: Clock, bell: Waker) -> Self {
        Self { bucket, clock, line: Mutex::new(Line::default()), bell }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What `n` tokens are short of if all who are in line have theirs first.
    pub(crate) fn deficit_in_line(&self, n: u64, now: u64) -> Deficit {
        let ahead = self.line.lock().sum();
        self.bucket.view(now).deficit(ahead.saturating_add(n))
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.line.lock().len() as u64
    }

    /// Join the line, unless the tokens are there or the wait is hopeless.
    pub(crate) fn join(&self, request: Request, now: u64) -> Step {
        let mut calls = Calls::new();
        let mut line = self.line.lock();
        let n = request.n;
        let (deadline, most, may_be_refunded) =
            (request.deadline, request.most_waiting, request.may_be_refunded);
        let ticket = line.join(Waiter {
            n,
            is_thread: request.is_thread,
            deadline,
            called: None,
            event: request.event,
        });
        // From here on every refund sees that somebody is in line.
        if !seeded("join-without-bit") {
            self.bucket.set_waiters(true);
        }
        let mut step = self.look_locked(&mut line, ticket, now, &mut calls);
        if let Step::Waiting(_) = step {
            let too_long = line.len() as u64 > most;
            if too_long || self.is_hopeless(n, deadline, may_be_refunded, now) {
                self.drop_out(&mut line, ticket);
                step = Step::Failed(if too_long { Failure::QueueFull } else { Failure::TimedOut });
            }
        }
        if step == Step::Stale {
            self.drop_out(&mut line, ticket);
        }
        finish(line, calls);
        step
    }

    /// By the rate, even if everybody else gave up. Where the rate is about to change, or permits
    /// in flight may give tokens back, nothing is certain.
    fn is_hopeless(&self, n: u64, deadline: Option<u64>, refunds: bool, now: u64) -> bool {
        let Some(deadline) = deadline.filter(|_| !refunds) else { return false };
        let view = self.bucket.view(now);
        let wait = view.deficit(n).wait().min(view.remaining());
        now.saturating_add(wait) > deadline
    }

    /// A waiter looks: it was called, or wants to be sure.
    pub(crate) fn look(&self, ticket: Ticket, now: u64) -> Step {
        let mut calls = Calls::new();
        let mut line = self.line.lock();
        let step = self.look_locked(&mut line, ticket, now, &mut calls);
        finish(line, calls);
        step
    }

    fn look_locked(&self, line: &mut Line, ticket: Ticket, now: u64, calls: &mut Calls) -> Step {
        let alone = line.is_empty();
        let Some(waiter) = line.come(ticket) else { return Step::Failed(Failure::Removed) };
        let (n, deadline) = (waiter.n, waiter.deadline);
        if alone {
            self.bucket.set_waiters(true);
        }
        line.lapse(now);
        let view = self.bucket.view(now);
        let refusal = match view.check(n) {
            Ok(()) if line.is_head(ticket) => self.take(n, now).err(),
            Ok(()) => Some(Blocked::Behind),
            Err(refusal) => Some(Blocked::By(refusal)),
        };
        let step = match refusal {
            None => Step::Taken,
            Some(Blocked::By(Refusal::Stale)) => return Step::Stale,
            Some(Blocked::By(Refusal::TooBig(most))) => Step::Failed(Failure::TooBig(most)),
            Some(Blocked::By(Refusal::Closed)) => Step::Failed(Failure::Closed),
            Some(Blocked::By(Refusal::Removed)) => Step::Failed(Failure::Removed),
            Some(_) if deadline.is_some_and(|deadline| deadline <= now) => {
                Step::Failed(Failure::TimedOut)
            }
            Some(_) => Step::Waiting(ticket),
        };
        if !matches!(step, Step::Waiting(_)) {
            self.drop_out(line, ticket);
        }
        if self.serve_locked(line, now, calls).is_err() {
            // The slot ended between the two looks: whoever comes finds that, and mends it.
            line.call_above(0, now, calls);
        }
        step
    }

    /// The head's take: the permit is counted in first, and out again if there are no tokens.
    /// Nobody else is admitted meanwhile, since the WAITERS bit is set.
    fn take(&self, n: u64, now: u64) -> Result<(), Blocked> {
        if !self.bucket.enter() {
            return Err(Blocked::ByInFlight);
        }
        self.bucket.take_slowly(n, now, true).map_err(|refusal| {
            self.bucket.leave();
            Blocked::By(refusal)
        })
    }

    /// A waiter gives up: it was dropped.
    pub(crate) fn leave(&self, ticket: Ticket, now: u64) -> Result<(), Stale> {
        let mut calls = Calls::new();
        let mut line = self.line.lock();
        self.drop_out(&mut line, ticket);
        let served = if seeded("cancel-keeps-turn") {
            Ok(())
        } else {
            self.serve_locked(&mut line, now, &mut calls)
        };
        finish(line, calls);
        served
    }

    fn drop_out(&self, line: &mut Line, ticket: Ticket) {
        line.remove(ticket);
        if line.is_empty() {
            self.bucket.set_waiters(false);
        }
    }

    /// Something may have changed: call those who can be served.
    pub(crate) fn serve(&self, now: u64) -> Result<(), Stale> {
        self.with_line(|line, calls| self.serve_locked(line, now, calls))
    }

    /// The same from the line's timer, which must be armed anew.
    pub(crate) fn ring(&self, now: u64) -> Result<(), Stale> {
        self.with_line(|line, calls| {
            line.alarm = None;
            self.serve_locked(line, now, calls)
        })
    }

    /// The bucket has another configuration: those who ask for more than it ever holds, or for
    /// anything where it is closed, come and hear it.
    pub(crate) fn reconfigured(&self, now: u64) -> Result<(), Stale> {
        let view = self.bucket.view(now);
        let over = matches!(view.check(0), Err(Refusal::Closed | Refusal::Removed));
        let capacity = if over { 0 } else { view.whole_capacity() };
        if over && seeded("close-without-call") {
            return Ok(());
        }
        self.with_line(|line, calls| {
            line.call_above(capacity, now, calls);
            self.serve_locked(line, now, calls)
        })
    }

    /// Somebody was refused although there are tokens: if the line's head does not come, those
    /// behind it and newcomers need not wait. Never blocks: who holds the lock is serving.
    pub(crate) fn nudge(&self, now: u64) -> Result<(), Stale> {
        let Some(mut line) = self.line.try_lock() else { return Ok(()) };
        let mut calls = Calls::new();
        let served = self.serve_locked(&mut line, now, &mut calls);
        finish(line, calls);
        served
    }

    fn with_line<R>(&self, act: impl FnOnce(&mut Line, &mut Calls) -> R) -> R {
        let mut calls = Calls::new();
        let mut line = self.line.lock();
        let result = act(&mut line, &mut calls);
        finish(line, calls);
        result
    }

    fn serve_locked(&self, line: &mut Line, now: u64, calls: &mut Calls) -> Result<(), Stale> {
        let mut now = now;
        loop {
            line.lapse(now);
            line.call_expired(now, calls);
            let next = if line.is_empty() {
                self.bucket.set_waiters(false);
                line.first_deadline()
            } else {
                let view = self.bucket.view(now);
                match view.check(0) {
                    Err(Refusal::Stale) => return Err(Stale),
                    // Everybody was called when it was closed.
                    Err(Refusal::Closed | Refusal::Removed) => return Ok(()),
                    _ => {}
                }
                self.call_ready(line, &view, calls);
                Some(next_look(line, &view))
            };
            match self.arm(line, next, now) {
                Ok(()) => return Ok(()),
                // The clock went past the time while it was being armed.
                Err(Unarmed::Due) => match self.clock.now() {
                    later if later > now => now = later,
                    _ => return Ok(()),
                },
                // Without a timer everybody looks for themselves, again and again.
                Err(Unarmed::NoTimer) => {
                    line.call_above(0, now, calls);
                    return Ok(());
                }
            }
        }
    }

    fn call_ready(&self, line: &mut Line, view: &View, calls: &mut Calls) {
        let (now, tokens, room) = (view.now(), view.available(), self.bucket.room());
        let uncalled = line.head().filter(|head| head.called.is_none()).map(|head| head.n);
        if let Some(n) = uncalled {
            let fits = n <= tokens && room > 0 && line.head_is_covered();
            if fits || n > view.whole_capacity() {
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
    fn arm(&self, line: &mut Line, at: Option<u64>, now: u64) -> Result<(), Unarmed> {
        let Some(at) = at else {
            line.alarm = None;
            return Ok(());
        };
        // An earlier alarm will look, and arm what is needed then.
        if line.alarm.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return Ok(());
        }
        let exact = line.first_deadline() == Some(at);
        let slack = if exact { 0 } else { self.bucket.view(now).slack(SLACK) };
        line.alarm = None;
        line.alarm = Some((at, self.clock.arm(at, slack, self.bell.clone())?));
        Ok(())
    }
}

/// The next reading at which there is something to do for a line that is not empty.
fn next_look(line: &Line, view: &View) -> u64 {
    let now = view.now();
    // What has accrued already is no reason to wait: such a waiter needs a place in flight.
    let due = |n: u64| {
        let wait = if n <= view.whole_capacity() { view.deficit(n).wait() } else { 0 };
        (wait > 0).then(|| now.saturating_add(wait))
    };
    let head = line.head().and_then(|head| match head.called {
        // A thread comes by itself; with nobody behind it, a task that does not come harms nobody.
        Some(_) if head.is_thread || !line.others_present() => None,
        Some(called) => Some(called.saturating_add(TURN)),
        None if line.head_is_covered() => due(head.n),
        None => None,
    });
    let next = line.first_uncovered().and_then(|(sum, _)| due(sum));
    let slot_ends = now.saturating_add(view.remaining());
    [head, next, line.first_deadline()].into_iter().flatten().fold(slot_ends, u64::min)
}

#[derive(Clone, Copy, Debug)]
enum Blocked {
    Behind,
    ByInFlight,
    By(Refusal),
}

/// Wake those who were called, without the lock: a waker may run anything, the dropping of another
/// waiter of this line included. One that panics must not take the caller's tokens along.
fn finish(line: MutexGuard<'_, Line>, calls: Calls) {
    drop(line);
    for event in calls {
        let _ = catch_unwind(AssertUnwindSafe(|| event.notify(1)));
    }
}
