//! Permits in flight: each counted once, and counted out where it was counted in.
//!
//! A permit is counted in one of three places, which it remembers ([`CountedAt`]):
//!
//! * the *common* word, which all threads share. It counts the permits of a bucket without stripes, all
//!   that were taken under a bound, and all that were forgotten;
//! * `entered` and `left` of a stripe, which only the thread that owns the stripe writes, by plain stores;
//! * `shared` of a stripe, by RMWs: permits of threads that own no stripe, and those of `entered` that
//!   end on another thread. It wraps below zero; `entered - left + shared` does not.
//!
//! # A bound
//!
//! Under a bound the only way in is a CAS on the common word, after a look at the stripes. Their
//! counts only fall meanwhile, so that a stale look overestimates them, and the sum never exceeds the
//! bound.
//!
//! Setting a bound races with threads that enter without one: a store-buffer race. The setter stores
//! the bound, marked `SETTLING`, runs the heavy barrier, and stores the bound unmarked. A thread counts
//! itself in, runs the light barrier, and loads the bound. If its count precedes the heavy barrier, every
//! look after that barrier sees the count. If it follows, so does its load, which then sees the bound:
//! it steps out again and enters by the CAS. If that fails its tokens are void, and it serves the queue,
//! because a waiter may have found it counted in. A thread that acts on a bound which is still marked
//! runs the heavy barrier itself before it looks at the counts.
//!
//! The common word has an epoch above the count, which each change of the bound increments. Otherwise a
//! CAS could succeed on a look that was made under an earlier bound.
//!
//! # Ending
//!
//! A thread counts a permit out, runs the light barrier, and loads the bound. As above, either every
//! look under a bound sees the count, or this thread sees the bound and looks for waiters. That look is
//! an RMW on the bucket's word: if it precedes the RMW by which a waiter makes the bucket exclusive,
//! that waiter sees the count; if it follows, it finds the waiter.
//!
//! # Orderings
//!
//! `entered` and `left` are stored with Release and loaded with Acquire. A new owner of the stripe reads
//! what the last one stored: thread indices are handed over under a mutex. `shared` and `left` are read
//! before `entered`: a permit that was counted out there was counted in before, so that a sum is never too
//! small.

use super::atomic::Bucket;
use super::batch::STRIPES;
use super::counter::{COUNT, CountedAt, EPOCH, SETTLING, UNBOUNDED, normalize};
use super::stripe::Stripe;
use super::word::Word;
use crate::sync::{Ordering, heavy_barrier, light_barrier, thread_index};

/// Why no permit was counted in beside a cached token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotEntered {
    /// This thread has no cache, or nothing in it, or there is a bound.
    NothingDone,
    /// A bound was set this moment, which leaves no place. The token is void, and the caller serves the
    /// queue.
    TooMany,
}

impl Bucket {
    /// Counts a permit in, unless that makes too many.
    #[inline]
    pub(crate) fn enter(&self) -> Option<CountedAt> {
        if self.is_bounded_in_flight() { self.enter_bounded() } else { self.enter_unbounded() }
    }

    /// As [`Bucket::enter`], for a caller that found no bound. After `None` it serves the queue.
    #[inline]
    pub(crate) fn enter_unbounded(&self) -> Option<CountedAt> {
        let at = self.count_in();
        light_barrier();
        if self.is_bounded_in_flight() {
            return self.enter_again(at);
        }
        Some(at)
    }

    /// Takes one token from this thread's cache and counts a permit in beside it: the fastest path.
    #[inline]
    pub(crate) fn take_and_enter(&self) -> Result<CountedAt, NotEntered> {
        let stripes = self.hot.stripes.get().filter(|_| !self.is_bounded_in_flight());
        let stripes = stripes.ok_or(NotEntered::NothingDone)?;
        let thread = thread_index();
        let stripe = stripes.owned(thread).ok_or(NotEntered::NothingDone)?;
        if !stripes.take_from_cache(stripe, thread) {
            return Err(NotEntered::NothingDone);
        }
        stripe.in_flight.enter_own();
        light_barrier();
        let at = CountedAt::owner(thread);
        if self.is_bounded_in_flight() {
            return self.enter_again(at).ok_or(NotEntered::TooMany);
        }
        Ok(at)
    }

    /// Counts a permit out that this thread's stripe counts. `None` if it does not, and nothing was done.
    /// Otherwise whether that may admit a waiter.
    #[inline]
    pub(crate) fn leave_own(&self, at: CountedAt) -> Option<bool> {
        let thread = thread_index();
        if at != CountedAt::owner(thread) {
            return None;
        }
        self.hot.stripes.get()?.owned(thread)?.in_flight.leave_own();
        Some(self.has_waiters_under_bound())
    }

    #[cold]
    fn enter_again(&self, at: CountedAt) -> Option<CountedAt> {
        self.count_out(at);
        self.enter_bounded()
    }

    pub(crate) fn enter_bounded(&self) -> Option<CountedAt> {
        loop {
            // Before the bound and the stripes: see the module.
            let common = self.hot.in_flight.load(Ordering::Acquire);
            let max = self.max_in_flight();
            if (common & COUNT) + self.in_flight_in_stripes() >= max {
                return None;
            }
            let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // reloaded after a failure
            if self.hot.in_flight.compare_exchange(common, common + 1, new, old).is_ok() {
                return Some(CountedAt::COMMON);
            }
        }
    }

    #[inline]
    fn count_in(&self) -> CountedAt {
        let Some(stripes) = self.hot.stripes.get() else {
            self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
            return CountedAt::COMMON;
        };
        let index = thread_index();
        if let Some(stripe) = stripes.owned(index) {
            stripe.in_flight.enter_own();
            return CountedAt::owner(index);
        }
        let index = index % STRIPES;
        stripes.at(index).in_flight.add_shared(1);
        CountedAt::shared(index)
    }

    /// Returns `false` if the common word counts none: a name was released once too often.
    #[inline]
    fn count_out(&self, at: CountedAt) -> bool {
        let Some((index, is_own)) = at.stripe() else { return self.count_out_of_common() };
        if let Some(stripes) = self.hot.stripes.get() {
            let counter = &stripes.at(index).in_flight;
            if is_own && thread_index() == index {
                counter.leave_own();
            } else {
                counter.add_shared(1_u64.wrapping_neg());
            }
        }
        true
    }

    #[inline]
    fn count_out_of_common(&self) -> bool {
        let less = |common: u64| (common & COUNT > 0).then(|| common - 1);
        self.hot.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// Counts a permit out. `None` if it was not counted any more; otherwise whether that may admit a
    /// waiter.
    #[inline]
    pub(crate) fn leave(&self, at: CountedAt) -> Option<bool> {
        self.count_out(at).then(|| self.has_waiters_under_bound())
    }

    /// Leaves a permit in flight that no `Permit` stands for any more: the common word counts it, before
    /// its stripe does not. Returns whether the queue must be served, as a waiter may have found it
    /// counted twice.
    pub(crate) fn forget(&self, at: CountedAt) -> bool {
        if at == CountedAt::COMMON {
            return false;
        }
        self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
        self.count_out(at);
        self.has_waiters_under_bound()
    }

    #[inline]
    fn has_waiters_under_bound(&self) -> bool {
        light_barrier();
        self.is_bounded_in_flight() && self.has_waiters()
    }

    /// By an RMW: see the module.
    #[cold]
    fn has_waiters(&self) -> bool {
        Word(self.hot.word.fetch_or(0, Ordering::AcqRel)).is_exclusive()
    }

    fn each_stripe(&self) -> impl Iterator<Item = &Stripe> {
        self.hot.stripes.get().into_iter().flat_map(|stripes| stripes.each())
    }

    fn in_flight_in_stripes(&self) -> u64 {
        self.each_stripe().map(|stripe| stripe.in_flight.count()).sum()
    }

    /// Permits that stripes have counted in `entered`; wraps.
    pub(crate) fn entered_in_stripes(&self) -> u64 {
        self.each_stripe().fold(0, |sum, stripe| sum.wrapping_add(stripe.in_flight.entered()))
    }

    /// Permits in flight. A permit that is being forgotten may count twice.
    pub(crate) fn in_flight(&self) -> u64 {
        // The stripes first: `forget` adds to the common word before it takes from a stripe.
        let in_stripes = self.in_flight_in_stripes();
        in_stripes + (self.hot.in_flight.load(Ordering::Acquire) & COUNT)
    }

    /// How many more permits may be in flight.
    pub(crate) fn room(&self) -> u64 {
        let max = self.max_in_flight();
        max.saturating_sub(self.in_flight())
    }

    /// The bound, once every count that was made without it is visible.
    fn max_in_flight(&self) -> u64 {
        let max = self.max_in_flight.load(Ordering::Acquire);
        if max == UNBOUNDED || max & SETTLING == 0 {
            return max;
        }
        heavy_barrier();
        max & !SETTLING
    }

    /// Sets the bound, `u64::MAX` for none. Under the configuration lock.
    pub(crate) fn set_max_in_flight(&self, max: u64) {
        let max = normalize(max);
        let before = self.max_in_flight.load(Ordering::Relaxed); // written under the lock alone
        if before == max {
            return;
        }
        self.max_in_flight.store(max | SETTLING, Ordering::Release);
        self.hot.in_flight.fetch_add(EPOCH, Ordering::AcqRel);
        heavy_barrier();
        self.max_in_flight.store(max, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_bounded_in_flight(&self) -> bool {
        self.max_in_flight.load(Ordering::Acquire) != UNBOUNDED
    }
}
