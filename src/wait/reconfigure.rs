//! Giving the buckets of a resource another configuration, and taking them out of use.

use smallvec::SmallVec;

use super::{FairBucket, Queue, RecoveryPlan};
use crate::bucket::{Drained, Level, LockedBucket, SlotChange, SlotConfig, Snapshot};
use crate::counts::Counts;
use crate::sync::{Ordering, yield_now};

/// What one window of a resource is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowChange {
    pub(crate) to: SlotChange,
    /// The present window that it continues; `None` for a full one.
    pub(crate) from: Option<usize>,
}

impl FairBucket {
    /// Gives all buckets another configuration. Under the configuration lock, of which `current` is the
    /// proof, and under the queue's lock: a thread that looks at a bucket under it, and then takes,
    /// finds what it saw. The limit recovers to `recovers_to` tokens at once, or is not to recover if that
    /// is 0.
    pub(crate) fn reconfigure(
        &self,
        current: &mut SlotConfig,
        windows: &[WindowChange],
        recovers_to: u64,
        clock: impl Fn() -> u64,
    ) {
        let mut queue = self.queue.lock();
        queue.recovery = RecoveryPlan::up_to(recovers_to);
        let Some((first, more)) = windows.split_first() else { return };
        if queue.more.is_empty() && more.is_empty() {
            let mut is_drained = false;
            while !self.bucket.swing(current, first.to, &clock) {
                self.lock_and_drain(current);
                is_drained = true;
            }
            if is_drained {
                self.clear_exclusive(&queue);
            }
            return;
        }
        self.is_compound.store(!more.is_empty(), Ordering::Relaxed); // a hint
        // From here on no other thread takes, and the reading is later than that of any take.
        self.lock_and_drain(current);
        let now = clock();
        let first_window = std::iter::once(self.bucket.to_locked(current));
        let present: SmallVec<[LockedBucket; 4]> =
            first_window.chain(queue.more.drain(..)).collect();
        // A pause is of the resource: a new window is paused too, and may be the one that stays.
        let pauses = present.iter().map(LockedBucket::paused_until);
        let pauses_end = if first.to.resumes { 0 } else { pauses.fold(0, u64::max) };
        let next = |window: &WindowChange| {
            let from = window.from.and_then(|from| present.get(from).cloned());
            let mut next = from.unwrap_or_else(|| LockedBucket::full(window.to.terms, now));
            let pause_until = window.to.pause_until.max(pauses_end);
            next.reconfigure(SlotChange { pause_until, ..window.to }, now);
            next
        };
        self.bucket.restore(current, &next(first));
        queue.more = more.iter().map(next).collect();
        self.clear_exclusive(&queue);
    }

    /// Keeps other threads from taking, and moves all tokens to the word. Waits for a refill in flight.
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

    /// Moves the anchor of the first window up to now, or the slot's end, from which on its terms do not count; those
    /// of the others move when they are looked at.
    pub(crate) fn reanchor(&self, current: &mut SlotConfig) {
        let mut queue = self.queue.lock();
        queue.recovery.forget_steps();
        let end = current.until.unwrap_or(u64::MAX);
        self.bucket.reanchor(current, || self.clock.now().min(end));
        // Stripes that were closed in a slot that had ended.
        self.bucket.drain(|| self.clock.now());
    }

    /// Counts to another tally from now on. Open stripes are drained first: what they handed out counts where they
    /// were opened.
    pub(crate) fn count_for(&self, current: &mut SlotConfig, counts: Counts) {
        if self.bucket.counts().is_shared_with(&counts) {
            return;
        }
        let queue = self.queue.lock();
        self.lock_and_drain(current);
        self.bucket.counts().move_to(counts);
        self.clear_exclusive(&queue);
    }

    /// What the first window holds now.
    pub(crate) fn level(&self, current: &mut SlotConfig) -> Level {
        let queue = self.queue.lock();
        if self.bucket.is_striped() {
            self.lock_and_drain(current);
            self.clear_exclusive(&queue);
        }
        self.bucket.level(current, self.clock.now())
    }

    /// The most that can be charged now, in tokens, to each window.
    pub(crate) fn charge_room(&self, current: &SlotConfig) -> u64 {
        let queue = self.queue.lock();
        let now = self.clock.now();
        let first = self.bucket.charge_room(current, now);
        queue.more.iter().map(|window| window.charge_room(now)).fold(first, u64::min)
    }

    /// Continues from another bucket, which no other thread knows.
    pub(crate) fn restore(&self, current: &mut SlotConfig, from: &LockedBucket) {
        self.bucket.restore(current, from);
    }

    /// Whether all windows are full, with the stripes closed.
    fn is_full(&self, now: u64) -> bool {
        let all_full = |queue: &mut Queue| self.snapshots(queue, now).iter().all(Snapshot::is_full);
        if self.bucket.is_striped() {
            // As of `now`, whenever the stripes were closed. Draining adds nothing to a full word.
            let is_full = self.bucket.snapshot(now).word_is_full();
            return is_full && self.with_exclusive(now, |queue, _, _| all_full(queue));
        }
        all_full(&mut self.queue.lock())
    }

    /// Marks it as removed if it is full at `now`, and nothing is in flight. Under the configuration lock.
    /// `None` if it is not full.
    pub(crate) fn remove_if_full(&self, current: &mut SlotConfig, now: u64) -> Option<bool> {
        self.is_full(now).then(|| self.bucket.remove_if_full(current, now))
    }
}
