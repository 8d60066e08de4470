//! Waiting for buckets: one queue each, first in, first out, for tasks and threads alike.
//!
//! The protocol is that of event-listener's mutex: try, enqueue, try again, wait. A waiter is *notified*
//! when there are tokens for it and for all ahead of it. It takes them itself when it arrives. Tokens
//! are never handed out: tokens handed out before a stall of the runtime, plus a full bucket after it,
//! would be twice the burst. Only the head of the queue takes, so that the order holds whichever waiter
//! arrives first.
//!
//! A queue has one timer of its clock, whatever its length. The timer depends on no waiter's future: a
//! head that is notified and does not arrive (a `select!` loop that holds the future without polling it)
//! is skipped after a grace, and has its old place again when it arrives.
//!
//! # The EXCLUSIVE bit
//!
//! It is set and cleared under the queue's lock. While it is set only the holder of that lock may take:
//! while a task or thread waits, while a call takes from several buckets at once, and always if a
//! resource has several windows. Then the first window is the atomic word, and the lock guards the others.
//!
//! # No lost wake-up
//!
//! Tokens become available in five ways, and each leads to a look at the queue:
//!
//! 1. *Time.* The queue's timer is armed under the lock, for the reading at which the first waiter that
//!    was not notified can be served. A timer that serves several tasks may fire a little later; if a
//!    thread joins them, it is armed again.
//! 2. *A refund* finds the EXCLUSIVE bit by the CAS that gives the tokens back. The bit is set by an RMW
//!    before the waiter's last attempt. So either the refund sees the bit, or the attempt sees the refund.
//! 3. *A permit that ends* looks at the bit by an RMW: see [`Bucket::leave`].
//! 4. *A waiter that takes, gives up or is dropped* serves the queue under the lock.
//! 5. *A new configuration* is installed under the lock, and the queue is served after it.
//!
//! A notification is a sticky flag of the waiter: see [`signal`]. A waiter that finds it set tries once
//! more before it sleeps.

mod decide;
mod multi;
mod newcomer;
mod queue;
mod reconfigure;
mod recovery;
mod serve;
mod signal;
mod snapshots;
mod waiter;

use std::cell::Cell;
use std::task::Waker;

use queue::WaitQueue;
use recovery::RecoveryPlan;
use waiter::Wakes;

pub(crate) use multi::{
    Claim, Claims, TakeRequest, WaitLimits, WaitRequest, cancel, enqueue, poll, take, take_locked,
};
pub(crate) use reconfigure::WindowChange;
pub(crate) use recovery::RecoveryStep;
pub(crate) use signal::Parker;
pub(crate) use snapshots::WindowSnapshots;
pub(crate) use waiter::{Ticket, Wake};

#[cfg(feature = "metrics")]
use crate::bucket::SlotConfig;
use crate::bucket::{
    Bucket, CountedAt, Drained, LockedBucket, Never, NotEntered, Refused, Retry, Snapshot, worse,
};
use crate::clock::Clock;
use crate::counts::{Count, Counts};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, yield_now};

/// The buckets of a resource, and the queue for them.
#[derive(Debug)]
pub(crate) struct FairBucket {
    bucket: Bucket,
    clock: Clock,
    queue: Mutex<Queue>,
    /// Woken by the queue's timer; calls [`FairBucket::on_timer`].
    timer_waker: Waker,
    /// Whether there are further windows. A hint: without the lock an attempt fails if there are.
    is_compound: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: WaitQueue,
    /// The windows beyond the first.
    more: Vec<LockedBucket>,
    recovery: RecoveryPlan,
}

/// What came of a waiter's attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The tokens were taken, and a permit counted in. Out of the queue.
    Taken,
    /// In the queue; the signal says when to try again.
    Waiting,
    /// Out of the queues, because of the claim of this index.
    GaveUp(usize, GiveUp),
    /// Nothing changed: bring the buckets up to date, then try again.
    SlotExpired,
}

/// Why a wait ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// With the nanoseconds after which a new call may succeed, if time alone helps it.
    TimedOut(Option<u64>),
    QueueFull,
    Never(Never),
}

impl FairBucket {
    pub(crate) fn new(
        bucket: Bucket,
        more: Vec<LockedBucket>,
        clock: Clock,
        timer_waker: Waker,
    ) -> Self {
        let is_compound = !more.is_empty();
        if is_compound {
            bucket.set_exclusive(true);
        }
        let queue = Mutex::new(Queue { more, ..Queue::default() });
        Self { bucket, clock, queue, timer_waker, is_compound: AtomicBool::new(is_compound) }
    }

    #[inline]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    fn is_compound(&self) -> bool {
        self.is_compound.load(Ordering::Relaxed) // a hint, and publishes nothing
    }

    /// Whether the queue is occupied, as far as the word shows. A resource with further windows is
    /// always exclusive, and answers `false`.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.bucket.is_exclusive() && !self.is_compound()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn was_hot(&self) -> bool {
        self.bucket.was_hot()
    }

    /// The same of a bucket that has stripes.
    pub(crate) fn has_waiters_beside_stripes(&self) -> bool {
        self.bucket.was_hot() && self.has_waiters()
    }

    /// Tokens that calls wait for, and the most that one of them does.
    #[cfg(feature = "swarm")]
    pub(crate) fn wanted(&self) -> (u64, u64) {
        let queue = self.queue.lock();
        (queue.waiters.sum(), queue.waiters.largest())
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.queue.lock().waiters.len() as u64
    }

    /// Whether the stripes are open, and the word has `n` tokens beside them.
    fn has_tokens_beside_stripes(&self, n: u64, now: u64) -> bool {
        self.bucket.is_striped() && {
            let snapshot = self.bucket.snapshot(now);
            snapshot.is_striped() && !snapshot.is_exclusive() && snapshot.would_admit(n).is_ok()
        }
    }

    /// Keeps other threads from taking without the queue's lock, which the caller holds, and drains the
    /// stripes. Returns whether they were open.
    fn set_exclusive(&self) -> bool {
        self.bucket.set_exclusive(true);
        self.drain_stripes()
    }

    /// Drains open stripes, and returns whether they were open. Then an earlier reading of the clock
    /// finds less than there is.
    fn drain_stripes(&self) -> bool {
        let is_striped = self.bucket.is_striped();
        if is_striped {
            self.bucket.drain(|| self.clock.now());
        }
        is_striped
    }

    /// Lets other threads take again, unless one waits or there are further windows.
    fn clear_exclusive(&self, queue: &Queue) {
        if queue.waiters.is_empty() && queue.more.is_empty() {
            self.bucket.set_exclusive(false);
        }
    }

    /// Acts while no other thread takes, at `now`, or later if stripes were drained first.
    fn with_exclusive<R>(&self, now: u64, act: impl FnOnce(&mut Queue, u64, &mut Wakes) -> R) -> R {
        self.with_queue(|queue, wakes| {
            let was_striped = queue.more.is_empty() && self.set_exclusive();
            let result = act(queue, if was_striped { self.clock.now() } else { now }, wakes);
            self.clear_exclusive(queue);
            result
        })
    }

    #[inline]
    pub(crate) fn counts(&self) -> &Counts {
        self.bucket.counts()
    }

    /// See [`Bucket::handed_out`].
    #[cfg(any(feature = "metrics", loom))]
    pub(crate) fn handed_out(&self) -> u64 {
        self.bucket.handed_out()
    }

    /// See [`Bucket::balance`].
    #[cfg(feature = "metrics")]
    pub(crate) fn balance(&self, current: &SlotConfig, now: u64) -> (u64, u64) {
        self.bucket.balance(current, now)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.bucket.is_paused()
    }

    // ---- permits in flight --------------------------------------------------------------------

    #[inline]
    pub(crate) fn is_bounded_in_flight(&self) -> bool {
        self.bucket.is_bounded_in_flight()
    }

    /// Counts a permit in, for a caller that found no bound: see [`Bucket::enter_unbounded`].
    #[inline]
    pub(crate) fn enter_unbounded(&self) -> Option<CountedAt> {
        self.bucket.enter_unbounded()
    }

    /// See [`Bucket::take_and_enter`].
    #[inline]
    pub(crate) fn take_and_enter(&self) -> Result<CountedAt, NotEntered> {
        self.bucket.take_and_enter()
    }

    /// See [`Bucket::leave_own`].
    #[inline]
    pub(crate) fn leave_own(&self, at: CountedAt) -> Option<bool> {
        self.bucket.leave_own(at)
    }

    /// See [`Bucket::give_cached`].
    #[inline]
    pub(crate) fn give_cached(&self) -> bool {
        self.bucket.give_cached()
    }

    pub(crate) fn enter_bounded(&self) -> Option<CountedAt> {
        self.bucket.enter_bounded()
    }

    /// See [`Bucket::leave`].
    #[inline]
    pub(crate) fn leave(&self, at: CountedAt) -> Option<bool> {
        self.bucket.leave(at)
    }

    /// See [`Bucket::forget`].
    pub(crate) fn forget(&self, at: CountedAt) -> bool {
        self.bucket.forget(at)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.bucket.in_flight()
    }

    /// The permits that stripes have counted as they entered, ended ones included.
    pub(crate) fn grants_counted(&self) -> u64 {
        self.bucket.entered_in_stripes()
    }

    /// Under the configuration lock; `u64::MAX` for no bound.
    pub(crate) fn set_max_in_flight(&self, max: u64) {
        self.bucket.set_max_in_flight(max);
    }

    // ---- all windows, under the lock ----------------------------------------------------------

    pub(crate) fn window_snapshots(&self, now: u64) -> WindowSnapshots {
        self.snapshots(&mut self.queue.lock(), now)
    }

    /// The most that a new call could take of `most` tokens now, for those that wait.
    pub(crate) fn share(&self, most: u64, now: u64) -> u64 {
        self.newcomer_share(&mut self.queue.lock(), most, now)
    }

    /// Whole tokens in a window now, those in the stripes included.
    pub(crate) fn tokens_in(&self, snapshot: &Snapshot) -> u64 {
        let in_stripes = if snapshot.is_striped() { self.bucket.tokens_in_stripes() } else { 0 };
        (snapshot.available() + in_stripes).min(snapshot.capacity_tokens())
    }

    fn snapshots(&self, queue: &mut Queue, now: u64) -> WindowSnapshots {
        let first = self.bucket.snapshot(now);
        // A change that was due earlier comes first: a fresh anchor leaves no time before it to count.
        let is_due = matches!(first.status(), Err(Refused::Retry(_)));
        let more = queue.more.iter_mut().map(|window| {
            if !is_due {
                window.catch_up(now);
            }
            window.snapshot(now)
        });
        WindowSnapshots(std::iter::once(first).chain(more).collect())
    }

    fn would_admit(&self, queue: &mut Queue, n: u64, now: u64) -> Result<(), Refused> {
        let first = self.bucket.snapshot(now);
        first.status()?;
        let verdict = queue.more.iter_mut().fold(first.would_admit(n), |verdict, window| {
            window.catch_up(now);
            worse(verdict, window.snapshot(now).would_admit(n))
        });
        self.or_recovers(queue, n, now, verdict)
    }

    /// Takes `n` tokens from each window or from none, while no other thread takes.
    fn take_exclusive(&self, queue: &mut Queue, n: u64, now: u64) -> Result<(), Refused> {
        if !queue.more.is_empty() {
            self.would_admit(queue, n, now)?;
        }
        let (taken, _) = self.bucket.take_any(n, now, true);
        self.or_recovers(queue, n, now, taken)?;
        for window in &mut queue.more {
            window.take(n, now);
        }
        Ok(())
    }

    /// Gives `n` tokens back, of a share or not. Returns whether the queue must be served. Fails with
    /// [`Retry::SlotExpired`] alone, also if the resource is shared and they are not of a share.
    pub(crate) fn refund(&self, n: u64, of_share: bool) -> Result<bool, Retry> {
        // Nobody waits where one of these succeeds. The first needs no reading of the clock.
        if self.bucket.refund_to_stripe(n) {
            return Ok(false);
        }
        let now = self.clock.now();
        if self.bucket.refund_plain(n, now, of_share) {
            self.bucket.count(Count::Refunded, n);
            return Ok(false);
        }
        let first = |is_locked| self.bucket.refund(n, now, of_share, is_locked);
        let served = self.settle(now, first, |window| window.refund(n, now))?;
        self.bucket.count(Count::Refunded, n);
        Ok(served)
    }

    /// Takes `n` tokens, available or not. Fails with [`Retry::SlotExpired`] alone, also if the debt does
    /// not fit on the ring: then [`FairBucket::reconfigure`] charges it.
    /// Returns the tokens that were dropped from the first window.
    pub(crate) fn charge(&self, n: u64) -> Result<u64, Retry> {
        let now = self.clock.now();
        let dropped = Cell::new(0);
        let first = |is_locked| self.bucket.charge(n, now, is_locked).map(|rest| dropped.set(rest));
        self.settle(now, first, |window| window.charge(n, now))?;
        Ok(dropped.get())
    }

    /// Leaves at most `n` tokens in the first window. Fails if [`FairBucket::reconfigure`] must do it.
    pub(crate) fn lower(&self, n: u64) -> Result<(), Retry> {
        let now = self.clock.now();
        self.settle(now, |is_locked| self.bucket.lower(n, now, is_locked), |_| ()).map(drop)
    }

    /// Settles all windows: without the lock if there is one window and nobody waits. Returns whether
    /// the queue must be served.
    fn settle(
        &self,
        now: u64,
        first: impl Fn(bool) -> Result<(), Retry>,
        further: impl Fn(&mut LockedBucket),
    ) -> Result<bool, Retry> {
        match first(false) {
            Ok(()) => return Ok(false),
            Err(Retry::Undecided) => {}
            Err(retry) => return Err(retry),
        }
        let mut queue = self.queue.lock();
        while self.bucket.is_striped() {
            self.bucket.set_exclusive(true);
            match self.bucket.drain(|| self.clock.now()) {
                Drained::Done => {}
                Drained::RefillInFlight => yield_now(),
                Drained::SlotExpired => {
                    self.clear_exclusive(&queue);
                    return Err(Retry::SlotExpired);
                }
            }
        }
        let settled = first(true);
        self.clear_exclusive(&queue);
        settled?;
        for window in &mut queue.more {
            window.catch_up(now);
            further(window);
        }
        Ok(true)
    }

    /// Opens the stripes, if the bucket is large enough and half full.
    #[cfg(any(test, loom))]
    pub(crate) fn open_stripes(&self) {
        self.bucket.open_stripes(self.clock.now());
    }

    /// While the queue is locked.
    #[cfg(all(test, feature = "metrics"))]
    pub(crate) fn with_queue_locked<R>(&self, act: impl FnOnce() -> R) -> R {
        let _queue = self.queue.lock();
        act()
    }

    #[cfg(test)]
    pub(crate) fn is_striped(&self) -> bool {
        self.bucket.is_striped()
    }

    fn with_queue<R>(&self, act: impl FnOnce(&mut Queue, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::new();
        let mut queue: MutexGuard<'_, Queue> = self.queue.lock();
        let result = act(&mut queue, &mut wakes);
        drop(queue);
        notify(wakes);
        result
    }
}

/// Notifies waiters, without the lock: a waker may do anything, for example drop another waiter of this queue.
fn notify(wakes: Wakes) {
    for signal in wakes {
        signal.notify();
    }
}
