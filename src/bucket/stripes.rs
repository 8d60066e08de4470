//! Prepaid batches: what makes a large bucket cheaper than a clock reading and a shared cache line.
//!
//! A hot bucket reserves a part of its tokens, a batch for each of a few *stripes*, as in Java's
//! `Striped64`. A thread takes from its stripe, without a clock reading, on a cache line that its core
//! owns. An empty stripe is refilled by a batch from the bucket's word.
//!
//! Each of the first threads owns a stripe, and keeps a part of its batch in a *thread cache* that no
//! other thread takes from (as in Bonwick's magazines). A take from the cache is a store: 1 ns where a
//! compare-and-swap costs 5.
//!
//! # Exactness
//!
//! With `STRIPED` set the word's capacity is `C - stripes * batch`, and no stripe holds more than a
//! batch, its cache included. So the word, the stripes and refills in flight hold at most `C`
//! together, and that sum rises by accrual alone:
//!
//! * *Opening* lowers the word's capacity by what the stripes get. The position stays.
//! * *Refilling* moves tokens from the word to a stripe, whose `REFILLING` flag the filler holds.
//! * *Draining* empties the stripes, **then** reads the clock, and moves the position by the reserved
//!   tokens that are gone. With an earlier reading, what accrued to a full word meanwhile, and was lost,
//!   would be counted beside what was taken from the stripes. The closer leaves a stripe that is
//!   being refilled to its filler, which returns what it holds and continues to drain.
//!
//! A call is denied, or waits, only after the stripes were drained: then the word alone decides. A refill
//! in flight at that moment is missing there: the filler returns it, then serves the queue. While the
//! bucket is exclusive the stripes are neither opened nor refilled.
//!
//! A drain that must be complete (before a reconfiguration or a settlement, under the queue's lock) yields
//! until a refill in flight is done. The filler takes no lock meanwhile, and has a few instructions left.
//!
//! One difference remains: a word that is full at its smaller capacity does not accrue. So a burst after
//! idleness may be short by what was taken from open stripes, at most an eighth of the capacity.
//!
//! # Draining a cache
//!
//! The closer sets the stripe's `CLOSED`, then reads the cache. The owner sets `BUSY` in the cache, then
//! reads the stripe. With a full barrier between the two on both sides, either the owner sees `CLOSED`
//! and takes nothing, or the closer sees `BUSY` and charges for a take that may happen. The owner's
//! barrier is free: see [`light_barrier`](crate::sync). If the closer already charged for a take that the owner gave
//! up, the owner keeps the token ([`Stripes::resolve_closed`]).
//!
//! A token that the owner gives back is stored in the cache first, and then the owner reads the stripe. If it
//! finds it closed, it asks which of the two counts the closer saw.
//!
//! Each opening has an *epoch*, in the stripe and in the cache, so that a cache which was drained once
//! is never taken from.
//!
//! # Orderings
//!
//! The tokens of a stripe change hands by `AcqRel` RMWs. They are stored with Release by the opener or
//! the filler, when no other thread changes them. A cache is stored with Release by its owner alone; the
//! closer reads it with Acquire after the barrier. A thread that ends hands its index, and so its
//! stripe, over under a mutex: see [`thread_index`].

use super::atomic::Bucket;
use super::batch::STRIPES;
use super::outcome::{Refused, Retry};
use super::snapshot::Snapshot;
use super::stripe::{CLOSED, COUNT, REFILLING, Stripes, is_open, max_cached};
use super::word::Word;
use crate::counts::Count;
use crate::sync::{Ordering, has_barrier, thread_index};

/// Nanoseconds before drained stripes may be opened again: draining costs microseconds.
const REOPEN_DELAY: u64 = 1_000_000;

/// What came of draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// The word has all tokens.
    Done,
    /// All but a refill in flight, whose filler drains the rest.
    RefillInFlight,
    /// The word needs a fresh anchor first.
    SlotExpired,
}

impl Bucket {
    /// Whether there are stripes, open or closed.
    #[inline]
    pub(crate) fn was_hot(&self) -> bool {
        self.hot.stripes.get().is_some()
    }

    #[inline]
    pub(crate) fn is_striped(&self) -> bool {
        self.word().is_striped()
    }

    /// Whether the stripes are open, and this thread has a cache.
    #[inline]
    pub(crate) fn has_own_cache(&self) -> bool {
        self.is_striped() && has_barrier() && thread_index() < STRIPES
    }

    /// Takes one token from this thread's cache: the fastest path.
    #[inline]
    pub(crate) fn take_cached(&self) -> bool {
        self.hot.stripes.get().is_some_and(|stripes| stripes.take_cached())
    }

    /// Takes `n >= 1` tokens from this thread's stripe, which is refilled if necessary. If that fails
    /// the caller takes from the word, and serves the queue if it is denied there: a waiter may need
    /// the refill that was returned.
    #[inline(never)]
    pub(crate) fn refill_and_take(&self, n: u64, clock: impl Fn() -> u64) -> bool {
        let Some(stripes) = self.hot.stripes.get() else { return false };
        let (stripe, is_own) = stripes.of_thread(thread_index());
        let cached = || stripe.cache.load(Ordering::Relaxed) & COUNT; // the owner's call alone uses it
        let refills_cache = is_own && n == 1 && cached() == 0;
        if !refills_cache && stripe.try_take(n) {
            return true;
        }
        let found = stripe.tokens.load(Ordering::Acquire);
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // the value of a failure is not used
        let is_claimed = is_open(found)
            && n <= stripes.batch.load(Ordering::Acquire)
            && stripe.tokens.compare_exchange(found, found | REFILLING, new, old).is_ok();
        // Closed, too small, or another thread refills it.
        if !is_claimed {
            return false;
        }
        let (present, epoch) = (found & COUNT, found & !COUNT);
        let most = stripes.batch.load(Ordering::Acquire);
        // What its cache holds, or may hold.
        let reserved = if is_own { cached() } else { max_cached(most) };
        let (batch, is_low) = if present >= n {
            (0, false)
        } else {
            // The clock is read after the claim.
            self.take_batch(most.saturating_sub(present + reserved), clock())
        };
        let total = present + batch;
        let rest = total.checked_sub(n);
        // Less the token that is taken: if the call is denied elsewhere, it has its room here.
        let most_kept = max_cached(most).saturating_sub(1);
        let kept = if refills_cache { rest.unwrap_or(0).min(most_kept) } else { 0 };
        if kept > 0 {
            stripe.cache.store(epoch | kept, Ordering::Release);
        }
        let left = epoch | (rest.unwrap_or(total) - kept);
        if stripe.tokens.compare_exchange(found | REFILLING, left, new, old).is_err() {
            // Closed meanwhile, and `present` was drained. The batch is returned in the same way.
            if kept > 0 {
                stripe.cache.store(0, Ordering::Release);
            }
            // An RMW: a closer may be about to change it, to no effect.
            stripe.tokens.swap(epoch | CLOSED | batch, Ordering::AcqRel);
            // After the stripe has it, as below: see `Prepaid`.
            stripes.prepaid.add(batch);
            self.drain(clock);
            return false;
        }
        if batch > 0 {
            stripes.prepaid.add(batch);
        }
        if is_low {
            self.drain(clock);
        }
        rest.is_some()
    }

    /// Takes `n` tokens from the word, if nobody waits and a quarter of the capacity is there. Returns
    /// 0 otherwise, and whether the word is low.
    fn take_batch(&self, n: u64, now: u64) -> (u64, bool) {
        loop {
            let snapshot = self.snapshot(now);
            let may_refill = snapshot.is_striped() && !snapshot.is_exclusive();
            if !may_refill || snapshot.status().is_err() {
                return (0, false);
            }
            let Ok(next) = snapshot.admit(n) else { return (0, true) };
            if !snapshot.holds_part(4) {
                return (0, true);
            }
            if self.swap(snapshot.word, snapshot.word.moved(snapshot.origin, next)) {
                return (n, false);
            }
        }
    }

    /// Reserves a batch for each stripe, if the bucket is large, at least half full, and nobody waits.
    pub(crate) fn open_stripes(&self, now: u64) {
        // Not while a step of a recovery is due at a given reading: takes that read no clock would
        // count as from before it.
        let may_open = |snapshot: &Snapshot| {
            snapshot.has_no_flags() && snapshot.until == u64::MAX && snapshot.holds_part(2)
        };
        let batch = |word: Word| self.slots[word.parity()].batch();
        if batch(self.word()) == 0 || !may_open(&self.snapshot(now)) {
            return;
        }
        let stripes = self.hot.stripes.get_or_init(|| Box::new(Stripes::new()));
        let Some(mut control) = stripes.control.try_lock() else { return };
        if now < control.reopen_at {
            return;
        }
        loop {
            let snapshot = self.snapshot(now);
            let batch = batch(snapshot.word);
            if batch == 0 || !may_open(&snapshot) {
                return;
            }
            if self.swap(snapshot.word, snapshot.word.with_striped(true)) {
                let epoch = control.begin_epoch(batch);
                stripes.batch.store(batch, Ordering::Release);
                // Nobody else changes closed stripes.
                for stripe in stripes.each() {
                    stripe.tokens.store(epoch | batch, Ordering::Release);
                }
                stripes.prepaid.add(STRIPES as u64 * batch);
                return;
            }
        }
    }

    /// Closes the stripes and returns their tokens to the word. The filler drains a stripe that is being
    /// refilled; until then the bucket stays striped, and the word has less.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(&self, clock: impl Fn() -> u64) -> Drained {
        let Some(stripes) = self.hot.stripes.get() else { return Drained::Done };
        let mut control = stripes.control.lock();
        if !self.is_striped() {
            return Drained::Done;
        }
        stripes.prepaid.begin_close();
        let was_closed = control.is_drained();
        if !stripes.close(&mut control) {
            return Drained::RefillInFlight;
        }
        if !was_closed {
            // Once, however often the slot has ended by then.
            self.count(Count::Taken, stripes.prepaid.end_close(control.drained));
        }
        // After the stripes were closed.
        let now = clock();
        control.reopen_at = now.saturating_add(REOPEN_DELAY);
        let used = control.reserve.saturating_sub(control.drained);
        loop {
            let snapshot = self.snapshot(now);
            if snapshot.status() == Err(Refused::Retry(Retry::SlotExpired)) {
                return Drained::SlotExpired;
            }
            let next = snapshot.word.moved(snapshot.origin, snapshot.after_drain(used));
            if self.swap(snapshot.word, next.with_striped(false)) {
                return Drained::Done;
            }
        }
    }

    /// Gives one token back to this thread's cache, if that has room.
    #[inline]
    pub(crate) fn give_cached(&self) -> bool {
        self.hot.stripes.get().is_some_and(|stripes| self.give_cached_to(stripes))
    }

    #[inline]
    fn give_cached_to(&self, stripes: &Stripes) -> bool {
        let is_given = stripes.give_cached();
        if is_given {
            self.count(Count::GivenBack, 1);
        }
        is_given
    }

    /// Gives `n` tokens back to this thread's cache or stripe, or to another stripe, if there is room for
    /// them.
    #[inline]
    pub(crate) fn refund_to_stripe(&self, n: u64) -> bool {
        let stripes = self.hot.stripes.get().filter(|_| self.is_striped());
        stripes.is_some_and(|stripes| {
            if n == 1 && self.give_cached_to(stripes) {
                return true;
            }
            let is_given = stripes.give(n);
            if is_given {
                self.count(Count::GivenBack, n);
            }
            is_given
        })
    }

    /// Whether each stripe was seen to hold all that it may. Where a cache of another thread has some of it,
    /// that is unknown, hence `false`.
    pub(super) fn stripes_are_full(&self) -> bool {
        self.hot.stripes.get().is_some_and(|stripes| stripes.are_full())
    }

    /// What the stripes hold. A cache counts as its owner last stored it.
    pub(crate) fn tokens_in_stripes(&self) -> u64 {
        self.hot.stripes.get().map_or(0, |stripes| stripes.held())
    }

    /// Notes an uncontended take at a reading that is a sample.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_sample(&self, now: u64) {
        if self.hot.demand.note_sample(now) {
            self.open_stripes(now);
        }
    }

    /// Notes a take that lost a CAS.
    pub(super) fn note_contention(&self, now: u64) {
        if self.hot.demand.note(now) {
            self.open_stripes(now);
        }
    }
}
