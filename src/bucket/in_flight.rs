//! Permits in flight: counted in one place where there is a bound, else by each thread in its own.
//!
//! The count that all share is on the word's line. A bucket that has stripes counts there only under a
//! bound; else a permit counts in on the stripe of the thread that it begins on and out on that of the
//! thread that it ends on, or, where none is in on that one, wherever there is one. So the count of
//! each place is never below zero, and their sum is what is in flight.
//!
//! # Orderings
//!
//! Counting out is an `AcqRel` RMW, for the reason that is given at [`Bucket::leave`]. On its own
//! stripe a thread counts in by a store: nobody else writes there, and nobody decides by that count.

use super::stripes::Stripe;
use super::word::Word;
use super::{Bucket, Hot};
use crate::sync::{Ordering, seeded, thread_index};

/// A place where permits are counted.
trait Place {
    /// Count one out, if there is one.
    fn leave(&self) -> bool;
    fn count(&self) -> u64;
    /// An RMW that changes nothing: see [`Bucket::set_most_in_flight`].
    fn touch(&self);
}

impl Place for Hot {
    #[inline]
    fn leave(&self) -> bool {
        let less = |count: u64| count.checked_sub(1);
        self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
    fn count(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }
    fn touch(&self) {
        self.in_flight.fetch_add(0, Ordering::AcqRel);
    }
}

/// `entered` only rises, so that a sum with an old one is at most too small.
impl Place for Stripe {
    #[inline]
    fn leave(&self) -> bool {
        let entered = self.entered.load(Ordering::Acquire);
        let less = |others: u64| {
            let count = entered.wrapping_add(others).cast_signed();
            (count > 0).then(|| others.wrapping_sub(1))
        };
        if seeded("leave-without-cas") {
            let less = less(self.others.load(Ordering::Acquire));
            less.inspect(|others| self.others.store(*others, Ordering::Release));
            return less.is_some();
        }
        self.others.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
    fn count(&self) -> u64 {
        // In this order: who left had entered before.
        let others = self.others.load(Ordering::Acquire);
        self.entered.load(Ordering::Acquire).wrapping_add(others)
    }
    fn touch(&self) {
        self.others.fetch_add(0, Ordering::AcqRel);
    }
}

impl Bucket {
    /// Count one permit in, unless that makes too many.
    #[inline]
    pub(crate) fn enter(&self) -> bool {
        let most = self.most_in_flight.load(Ordering::Acquire);
        if most != u64::MAX {
            return self.enter_bounded(most);
        }
        let Some(stripes) = self.hot.stripes.get() else {
            self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
            return true;
        };
        let (stripe, is_own) = stripes.of_thread(thread_index());
        if is_own {
            let entered = stripe.entered.load(Ordering::Relaxed); // this thread's
            stripe.entered.store(entered + 1, Ordering::Release);
        } else {
            stripe.others.fetch_add(1, Ordering::AcqRel);
        }
        true
    }

    #[inline]
    fn enter_bounded(&self, most: u64) -> bool {
        if seeded("in-flight-check-then-add") {
            let room = self.in_flight() < most;
            if room {
                self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
            }
            return room;
        }
        // Those that began before there was a bound are counted where they were, and become fewer.
        let more = |count: u64| {
            (count.saturating_add(self.in_flight_in_stripes()) < most).then_some(count + 1)
        };
        self.hot.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Count one permit out; `None` where none was in, else whether somebody is in line whom that
    /// may let in.
    ///
    /// The count and the bit are two words, so "count out, then look for waiters" and "announce a
    /// waiter, then look at the count" could each miss the other. Looking by an RMW closes this:
    /// either it comes before the waiter's own RMW on the word, which then sees the count (their
    /// `AcqRel` pair), or after, and sees the bit.
    #[inline]
    pub(crate) fn leave(&self) -> Option<bool> {
        let left = match self.hot.stripes.get() {
            Some(stripes) => stripes.of_thread(thread_index()).0.leave(),
            None => self.hot.leave(),
        };
        if !left && !self.leave_elsewhere() {
            return None;
        }
        if self.most_in_flight.load(Ordering::Acquire) == u64::MAX {
            return Some(false);
        }
        if seeded("leave-without-look") {
            return Some(false);
        }
        Some(Word(self.hot.word.fetch_or(0, Ordering::AcqRel)).is_exclusive())
    }

    /// A permit that began elsewhere ends. Others may move while this looks: as long as there are
    /// any, one is its own.
    #[cold]
    fn leave_elsewhere(&self) -> bool {
        while self.in_flight() > 0 {
            if self.hot.leave() || self.each_stripe().any(Place::leave) {
                return true;
            }
        }
        false
    }

    fn each_stripe(&self) -> impl Iterator<Item = &Stripe> {
        self.hot.stripes.get().into_iter().flat_map(|stripes| stripes.each())
    }

    fn in_flight_in_stripes(&self) -> u64 {
        self.each_stripe().map(Place::count).sum()
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.hot.count() + self.in_flight_in_stripes()
    }

    /// How many more permits may be in flight.
    pub(crate) fn room(&self) -> u64 {
        self.most_in_flight.load(Ordering::Acquire).saturating_sub(self.in_flight())
    }

    /// `u64::MAX`: no limit.
    pub(crate) fn set_most_in_flight(&self, most: u64) {
        self.most_in_flight.store(most, Ordering::Release);
        // A permit that leaves counts itself out, then reads the bound. By an RMW on the count either
        // it finds this bound, and looks at the line, or who waits for it finds the count.
        self.hot.touch();
        self.each_stripe().for_each(Place::touch);
    }

    #[inline]
    pub(crate) fn is_bounded_in_flight(&self) -> bool {
        self.most_in_flight.load(Ordering::Acquire) != u64::MAX
    }
}
