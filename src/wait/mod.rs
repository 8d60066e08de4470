//! Waiting for buckets: one line each, first arrived first served, for tasks and threads alike.
//!
//! The protocol is: try, join the line, try again, wait. A waiter is *notified* when there are tokens
//! for it and for all before it; it takes them itself, when it comes. Wakes, not tokens, are handed
//! out: tokens handed out before a stall of the runtime, plus a full bucket after it, would be
//! twice the burst. Only the head of the line takes, so that the order holds whoever comes first.
//!
//! A line has one timer, of its clock, whatever its length. It does not hang on any waiter's
//! future: a head that is notified and does not arrived (a `select!` loop that holds the future without
//! polling it) steps aside after [`queue::CALL_GRACE`], and takes its claim again when it comes.
//!
//! # The EXCLUSIVE bit
//!
//! It is set and cleared under the queue's lock, and says that only who holds that lock may take. It
//! is set while somebody is in line, while somebody takes from several gates at once, and for ever
//! where a resource has several windows: the first has the bucket in the atomic word, the others'
//! are kept under the lock.
//!
//! # No lost wake-up
//!
//! Tokens arrived from five sides, and each looks at the line:
//!
//! 1. *Time*: the line's timer is armed under the lock, for the reading at which the first waiter
//!    who was not notified can be served. One that is to serve several tasks may on_timer a little later; if
//!    a thread joins them, it is armed anew.
//! 2. *A refund* finds the EXCLUSIVE bit in the word by the CAS that gives the tokens back. The bit is
//!    set by an RMW before the waiter's last try, so that either the refund sees the bit or the
//!    try sees the refund.
//! 3. *A permit that leaves* looks by an RMW: see [`Bucket::leave`].
//! 4. *A waiter that takes, gives up or is dropped* serves those behind it under the lock.
//! 5. *A new configuration* is installed under the lock and the line served after it.
//!
//! A call that comes before the waiter listens would be lost; so a waiter listens first, and looks
//! once more before it sleeps.

mod multi;
mod queue;
mod serve;
mod snapshots;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use queue::{WaitQueue, Wakes};
use smallvec::SmallVec;
use snapshots::worse;

pub(crate) use multi::{
    Claim, Claims, TakeRequest, WaitLimits, WaitRequest, cancel, enqueue, poll, take, take_locked,
};
pub(crate) use queue::{Ticket, Wake};
pub(crate) use snapshots::WindowSnapshots;

use crate::bucket::{
    Bucket, Drained, LockedBucket, Refusal, SlotChange, SlotConfig, SlotState, Snapshot, Stale,
    Terms,
};
use crate::clock::Clock;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, seeded, yield_now};

/// Where there are tokens, for those in line, nobody need ask again before so many nanoseconds.
const MIN_RETRY: u64 = 1_000_000;

/// The buckets of a resource and the line before them.
#[derive(Debug)]
pub(crate) struct FairBucket {
    pub(crate) bucket: Bucket,
    clock: Clock,
    queue: Mutex<Queue>,
    /// Woken by the line's timer; it wakes [`FairBucket::on_timer`].
    timer_waker: Waker,
    /// Whether there are further windows. A hint: a try without the lock fails where there are.
    is_compound: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: WaitQueue,
    /// The windows beyond the first.
    more: Vec<LockedBucket>,
}

/// What the buckets of a gate are to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconfigure<'a> {
    pub(crate) kind: SlotState,
    /// Nothing is admitted before this reading.
    pub(crate) pause_until: u64,
    /// See [`SlotConfig::until`].
    pub(crate) until: Option<u64>,
    /// So many tokens are taken, whether they are there or not.
    pub(crate) charge: u64,
    pub(crate) windows: &'a [WindowChange],
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowChange {
    pub(crate) terms: Terms,
    /// Which of the present windows it goes on from; `None` for a full one.
    pub(crate) from: Option<usize>,
    /// So many tokens less than that one it holds, before any cut, of which none may be had again.
    pub(crate) lost: u64,
}

impl Reconfigure<'_> {
    fn change(&self, shape: &WindowChange) -> SlotChange {
        let Self { kind, pause_until, until, charge, .. } = *self;
        let charge = charge.saturating_add(shape.lost);
        SlotChange { kind, terms: shape.terms, pause_until, until, charge }
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The tokens were taken, and a permit counted in; the waiter is out of the line.
    Taken,
    /// In line; the event says when to look again.
    Waiting,
    /// Out of the line.
    Failed(Failure),
    /// Nothing changed: a bucket's slot has ended, bring it up to date and look again.
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
        let queue = Mutex::new(Queue { waiters: WaitQueue::default(), more });
        Self { bucket, clock, queue, timer_waker, is_compound: AtomicBool::new(is_compound) }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    pub(crate) fn is_compound(&self) -> bool {
        self.is_compound.load(Ordering::Relaxed) // a hint, and publishes nothing
    }

    /// Whether somebody is in line, as far as the word shows. That of a gate with further windows shows
    /// it always, and is not believed.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.bucket.is_exclusive() && !self.is_compound()
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.queue.lock().waiters.len() as u64
    }

    // ---- without waiting ----------------------------------------------------------------------

    /// Take `n` as a newcomer whom the EXCLUSIVE bit kept from taking without the lock.
    pub(crate) fn take_locked(&self, n: u64, now: u64) -> Result<(), Refusal> {
        self.alone(now, |queue, now, wakes| {
            self.may_bypass_queue(queue, n, now, wakes)?;
            self.take_exclusive(queue, n, now)
        })
    }

    /// Would `n` be admitted now?
    pub(crate) fn peek(&self, n: u64, now: u64) -> Result<(), Refusal> {
        match self.bucket.snapshot(now) {
            snapshot if n == 0 => snapshot.would_admit(0),
            snapshot if snapshot.has_no_flags() => snapshot.would_admit(n),
            snapshot if !snapshot.is_exclusive() && snapshot.would_admit(n).is_ok() => Ok(()),
            _ => self.alone(now, |queue, now, wakes| {
                self.may_bypass_queue(queue, n, now, wakes)?;
                self.check_locked(queue, n, now)
            }),
        }
    }

    /// Whether there are open stripes, and `n` tokens beside them.
    fn holds_striped(&self, n: u64, now: u64) -> bool {
        self.bucket.is_striped() && {
            let snapshot = self.bucket.snapshot(now);
            snapshot.is_striped() && !snapshot.is_exclusive() && snapshot.would_admit(n).is_ok()
        }
    }

    /// The same without the lock, where that can tell that it would not.
    fn glance(&self, n: u64, now: u64) -> Result<(), Refusal> {
        let snapshot = self.bucket.snapshot(now);
        if snapshot.has_no_flags() { snapshot.would_admit(n) } else { Ok(()) }
    }

    /// Keep everybody from taking without the queue's lock, which the caller holds. What is in the
    /// stripes comes back to the word: whether there was any.
    fn set_exclusive(&self) -> bool {
        self.bucket.set_exclusive(true);
        !seeded("wait-beside-stripes") && self.drain_stripes()
    }

    /// Have what is in the stripes arrived back to the word. Whether there was any: then who goes by an
    /// earlier reading of the clock finds less there than was.
    fn drain_stripes(&self) -> bool {
        let is_striped = self.bucket.is_striped();
        if is_striped {
            self.bucket.drain(|| self.clock.now());
        }
        is_striped
    }

    /// Act while nobody takes, at `now` or, if that was before stripes were closed, later.
    fn alone<R>(&self, now: u64, act: impl FnOnce(&mut Queue, u64, &mut Wakes) -> R) -> R {
        self.with_queue(|queue, wakes| {
            let is_late = queue.more.is_empty() && self.set_exclusive();
            let result = act(queue, if is_late { self.clock.now() } else { now }, wakes);
            self.clear_exclusive(queue);
            result
        })
    }

    /// Whether a newcomer may take: nobody is in line. A head that does not arrived steps aside.
    fn may_bypass_queue(
        &self,
        queue: &mut Queue,
        n: u64,
        now: u64,
        wakes: &mut Wakes,
    ) -> Result<(), Refusal> {
        if !queue.waiters.is_empty() {
            self.serve_locked(queue, now, wakes).map_err(|Stale| Refusal::Stale)?;
        }
        if queue.waiters.is_empty() {
            return Ok(());
        }
        // A newcomer is somebody behind it, too.
        queue.waiters.notify_stale_head(now, wakes);
        match self.check_locked(queue, n, now) {
            Ok(()) | Err(Refusal::Short(_)) => {}
            Err(refusal) => return Err(refusal),
        }
        let all = queue.waiters.sum().saturating_add(n);
        match self.snapshots(queue, now).deficit(all) {
            // They have their tokens, and wait for a claim in flight.
            Some(deficit) if deficit.wait() == 0 && self.bucket.room() == 0 => Err(Refusal::NoRoom),
            // They have their tokens and have not arrived yet, or wait for others elsewhere.
            Some(deficit) => Err(Refusal::Short(deficit.after(MIN_RETRY))),
            None => Err(Refusal::InLine),
        }
    }

    // ---- all windows, under the lock ----------------------------------------------------------

    /// What each window shows.
    pub(crate) fn window_snapshots(&self, now: u64) -> WindowSnapshots {
        self.snapshots(&mut self.queue.lock(), now)
    }

    /// Whole tokens that could be taken now from a window, those in the stripes as well.
    pub(crate) fn available(&self, snapshot: &Snapshot) -> u64 {
        let in_stripes = if snapshot.is_striped() { self.bucket.tokens_in_stripes() } else { 0 };
        (snapshot.available() + in_stripes).min(snapshot.capacity_tokens())
    }

    fn snapshots(&self, queue: &mut Queue, now: u64) -> WindowSnapshots {
        let first = self.bucket.snapshot(now);
        // A change that is due at an earlier time comes first, or a fresh anchor would leave no time
        // before it to be counted.
        let is_due = first.would_admit(0) == Err(Refusal::Stale);
        let mut views = SmallVec::new();
        views.push(first);
        views.extend(queue.more.iter_mut().map(|plain| {
            if !is_due {
                plain.mend(now);
            }
            plain.snapshot(now)
        }));
        WindowSnapshots(views)
    }

    fn check_locked(&self, queue: &mut Queue, n: u64, now: u64) -> Result<(), Refusal> {
        let first = self.bucket.snapshot(now).would_admit(n);
        if matches!(first, Err(Refusal::Stale | Refusal::Closed | Refusal::Removed)) {
            return first;
        }
        queue.more.iter_mut().fold(first, |verdict, plain| {
            plain.mend(now);
            worse(verdict, plain.snapshot(now).would_admit(n))
        })
    }

    /// Take `n` from each window or from none, while nobody else takes.
    fn take_exclusive(&self, queue: &mut Queue, n: u64, now: u64) -> Result<(), Refusal> {
        if !queue.more.is_empty() {
            self.check_locked(queue, n, now)?;
        }
        self.bucket.take_slowly(n, now, true)?;
        for plain in &mut queue.more {
            plain.take(n, now);
        }
        Ok(())
    }

    /// Give `n` tokens back. Says whether somebody may be in line, who must then be looked after.
    pub(crate) fn give_back(&self, n: u64, now: u64) -> Result<bool, Stale> {
        let first = |is_locked| self.bucket.refund(n, now, is_locked);
        self.settle(now, first, |plain| plain.refund(n, now))
    }

    /// Take `n` tokens, whether they are there or not. `Stale` also where the debt is too deep for
    /// the line: [`FairBucket::reconfigure`] takes it.
    pub(crate) fn charge(&self, n: u64, now: u64) -> Result<(), Stale> {
        let first =
            |is_locked| self.bucket.charge(n, now, is_locked || seeded("charge-without-lock"));
        self.settle(now, first, |plain| plain.charge(n, now)).map(drop)
    }

    /// In all windows: without the lock where the first is the only one and nobody is in line. Says
    /// whether somebody may be.
    fn settle(
        &self,
        now: u64,
        first: impl Fn(bool) -> Result<(), Refusal>,
        further: impl Fn(&mut LockedBucket),
    ) -> Result<bool, Stale> {
        match first(false) {
            Ok(()) => return Ok(false),
            Err(Refusal::InLine) => {}
            Err(_) => return Err(Stale),
        }
        let mut queue = self.queue.lock();
        while self.bucket.is_striped() {
            self.bucket.set_exclusive(true);
            match self.bucket.drain(|| self.clock.now()) {
                Drained::Done => {}
                Drained::RefillInFlight => yield_now(),
                Drained::SlotExpired => {
                    self.clear_exclusive(&queue);
                    return Err(Stale);
                }
            }
        }
        first(true).map_err(|_| Stale)?;
        self.clear_exclusive(&queue);
        for plain in &mut queue.more {
            plain.mend(now);
            further(plain);
        }
        Ok(true)
    }

    /// Let others take without the lock again, unless somebody is in line or there are further windows.
    fn clear_exclusive(&self, queue: &Queue) {
        if queue.waiters.is_empty() && queue.more.is_empty() {
            self.bucket.set_exclusive(false);
        }
    }

    // ---- configuring --------------------------------------------------------------------------

    /// Turn all buckets to another configuration, under the configuration lock, of which `current`
    /// is the proof. Under the queue's lock, too: who has looked at a bucket under it, and will take
    /// there, finds what was seen.
    pub(crate) fn reconfigure(
        &self,
        current: &mut SlotConfig,
        to: &Reconfigure<'_>,
        clock: impl Fn() -> u64,
    ) {
        let mut queue = self.queue.lock();
        let Some((first, more)) = to.windows.split_first() else { return };
        if queue.more.is_empty() && more.is_empty() {
            if seeded("swing-without-lock") {
                drop(queue);
                while !self.bucket.swing(current, to.change(first), &clock) {}
                return;
            }
            let mut is_marked = false;
            while !self.bucket.swing(current, to.change(first), &clock) {
                self.lock_and_drain(current);
                is_marked = true;
            }
            if is_marked {
                self.clear_exclusive(&queue);
            }
            return;
        }
        self.is_compound.store(!more.is_empty(), Ordering::Relaxed);
        // From here on nobody takes, and the reading is of a later time than any that took.
        if !seeded("reconfigure-without-bit") {
            self.lock_and_drain(current);
        }
        let now = clock();
        let present: SmallVec<[LockedBucket; 4]> =
            std::iter::once(self.bucket.lift(current)).chain(queue.more.drain(..)).collect();
        // A pause is the resource's: a window that is added is paused, too, and may be the one that stays.
        let paused = present.iter().map(LockedBucket::paused_until).fold(to.pause_until, u64::max);
        let to = Reconfigure { pause_until: paused, ..*to };
        let transition = |shape: &WindowChange| {
            let from = shape.from.and_then(|from| present.get(from).cloned());
            let mut plain = from.unwrap_or_else(|| LockedBucket::full(shape.terms, now));
            plain.turn(to.change(shape), now);
            plain
        };
        self.bucket.put(current, &transition(first));
        queue.more = more.iter().map(transition).collect();
        self.clear_exclusive(&queue);
    }

    /// Keep everybody from taking, and have all in the word: who is filling a stripe is waited for.
    fn lock_and_drain(&self, current: &mut SlotConfig) {
        self.bucket.set_exclusive(true);
        loop {
            match self.bucket.drain(|| self.clock.now()) {
                Drained::Done => return,
                Drained::RefillInFlight => yield_now(),
                Drained::SlotExpired => self.bucket.reanchor(current, || self.clock.now()),
            }
        }
    }

    /// Transition the first bucket's anchor up to now; the others' are moved where they are looked at.
    pub(crate) fn reanchor(&self, current: &mut SlotConfig) {
        let _queue = self.queue.lock();
        self.bucket.reanchor(current, || self.clock.now());
        // Stripes that were closed in a slot that had ended.
        self.bucket.drain(|| self.clock.now());
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

/// Wake those who were notified, without the lock: a waker may run anything, the dropping of another
/// waiter of this line included. One that panics must not take the caller's tokens along. (One that drops
/// its own future within `wake` would wait for ever for the event, which wakes under a lock of its own.)
fn notify(wakes: Wakes) {
    for event in wakes {
        let _ = catch_unwind(AssertUnwindSafe(|| event.notify(1)));
    }
}
