//! Calls that do not wait: each is a newcomer behind the queue.

use super::serve::leaves;
use super::waiter::{Reserve, Ticket, Turn, Wakes};
use super::{FairBucket, Queue};
use crate::bucket::{Deficit, Denied, Never, Refused, Retry};

/// The least `retry_after`, in nanoseconds, of a call that is denied because of the queue alone.
const MIN_RETRY: u64 = 1_000_000;

impl FairBucket {
    /// Takes `n` tokens that this thread's stripe has prepaid. `None` if the stripes are closed; `false`
    /// if the stripe has too few, so that [`FairBucket::take`] must decide.
    #[allow(clippy::inline_always)] // as `Bucket::take`
    #[inline(always)]
    pub(crate) fn take_prepaid(&self, n: u64) -> Option<bool> {
        // One look decides: a bucket that is not striped has no use for the number of this thread.
        if !self.bucket.is_striped() {
            return None;
        }
        if n == 1 && self.bucket.take_cached() {
            return Some(true);
        }
        (n > 0).then(|| self.bucket.refill_and_take(n, || self.clock.now()))
    }

    /// Takes one token of this thread's cache, which is filled if necessary. `None` if this thread has none;
    /// `false` if there is too little.
    #[inline]
    pub(crate) fn take_own(&self) -> Option<bool> {
        if !self.bucket.has_own_cache() {
            return None;
        }
        Some(self.bucket.take_cached() || self.bucket.refill_and_take(1, || self.clock.now()))
    }

    /// Takes `n` tokens at `now`, if the word can decide. `undecided` is called if
    /// [`FairBucket::take`] must.
    #[allow(clippy::inline_always)] // as `Bucket::take`
    #[inline(always)]
    pub(crate) fn take_at<E>(
        &self,
        n: u64,
        now: u64,
        deny: impl FnOnce(Deficit) -> E,
        undecided: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        if n == 0 { undecided() } else { self.bucket.take(n, now, deny, undecided) }
    }

    /// Takes `n` tokens in every case but [`Retry::SlotExpired`]. `read` is a clock reading that the call
    /// has made. A single window needs a new one: the other may precede the take that it lost a CAS to.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&self, n: u64, read: Option<u64>) -> Result<(), Refused> {
        // The first of several windows knows neither the latest time nor the least capacity.
        if n > 0 && self.is_compound() {
            return self.take_queued(n, read.unwrap_or_else(|| self.clock.now()));
        }
        let now = self.clock.now();
        if n == 0 {
            return self.peek(n, now);
        }
        match self.bucket.take_any(n, now, false).0 {
            Err(Refused::Retry(Retry::Undecided)) => self.take_queued(n, now),
            Err(Refused::Denied(Denied::Never(Never::ExceedsCapacity(_)))) if self.will_hold(n) => {
                self.take_queued(n, now)
            }
            taken => taken,
        }
    }

    /// Takes `n` tokens as a newcomer behind the queue.
    fn take_queued(&self, n: u64, now: u64) -> Result<(), Refused> {
        self.with_exclusive(now, |queue, now, wakes| {
            self.may_bypass_queue(queue, (n, false), now, wakes)?;
            self.take_exclusive(queue, n, now)
        })
    }

    /// Whether a newcomer would be admitted now.
    pub(crate) fn peek(&self, n: u64, now: u64) -> Result<(), Refused> {
        match self.bucket.snapshot(now) {
            snapshot if n == 0 => snapshot.would_admit(0),
            snapshot if snapshot.has_no_flags() && n <= snapshot.capacity_tokens() => {
                snapshot.would_admit(n)
            }
            snapshot if !snapshot.is_exclusive() && snapshot.would_admit(n).is_ok() => Ok(()),
            _ => self.with_exclusive(now, |queue, now, wakes| {
                self.may_bypass_queue(queue, (n, false), now, wakes)?;
                self.would_admit(queue, n, now)
            }),
        }
    }

    /// The same without the lock, if that suffices for a denial.
    pub(super) fn peek_unlocked(&self, n: u64, now: u64) -> Result<(), Refused> {
        let snapshot = self.bucket.snapshot(now);
        if snapshot.has_no_flags() { snapshot.would_admit(n) } else { Ok(()) }
    }

    /// Whether a newcomer may take: if nobody waits, or a blocked head loses nothing by it. A head that does
    /// not arrive is skipped.
    pub(super) fn may_bypass_queue(
        &self,
        queue: &mut Queue,
        (n, with_permit): (u64, bool),
        now: u64,
        wakes: &mut Wakes,
    ) -> Result<(), Refused> {
        if queue.waiters.is_empty() {
            return Ok(());
        }
        // Serving changes nothing that matters to a call for which there are too few tokens anyway.
        if self.would_admit(queue, n, now).is_ok() {
            self.serve_locked(queue, now, wakes)?;
            if self.has_turn(queue, Ticket::MAX, (n, with_permit), now) {
                return Ok(());
            }
        }
        // A newcomer is behind the head, too.
        queue.waiters.notify_stale_head(now, wakes);
        Err(self.refusal_behind_queue(queue, n, true, now))
    }

    /// Whether a waiter, or a newcomer with [`Ticket::MAX`], may take `n` tokens before others that wait.
    /// The head keeps its place in flight, if it wants one.
    pub(super) fn has_turn(
        &self,
        queue: &mut Queue,
        ticket: Ticket,
        (n, with_permit): (u64, bool),
        now: u64,
    ) -> bool {
        match queue.waiters.turn(ticket) {
            Turn::Now => true,
            Turn::Behind => false,
            Turn::Past(reserve) => {
                let places = Reserve::places(Some(reserve));
                let has_room = !with_permit || self.bucket.room() > places;
                has_room && leaves(&self.snapshots(queue, now), n, Some(reserve))
            }
        }
    }

    /// Whether a permit that was just counted in leaves the head the place in flight that it waits for. A
    /// waiter that joins at the same moment may be missed: then this call came before it.
    pub(crate) fn leaves_a_place(&self) -> bool {
        !self.bucket.is_exclusive() || {
            let queue = self.queue.lock();
            self.bucket.room() >= Reserve::places(queue.waiters.reserve())
        }
    }

    /// The most that a newcomer could take of `most` tokens now.
    pub(super) fn newcomer_share(&self, queue: &mut Queue, most: u64, now: u64) -> u64 {
        match queue.waiters.turn(Ticket::MAX) {
            Turn::Now => most,
            Turn::Behind => 0,
            Turn::Past(reserve) => {
                let snapshots = self.snapshots(queue, now);
                let (mut fits, mut beyond) = (0, most.saturating_add(1));
                while beyond - fits > 1 {
                    let n = fits + (beyond - fits) / 2;
                    if leaves(&snapshots, n, Some(reserve)) { fits = n } else { beyond = n }
                }
                fits
            }
        }
    }

    /// Why a newcomer behind those who wait is refused.
    pub(super) fn refusal_behind_queue(
        &self,
        queue: &mut Queue,
        n: u64,
        with_permit: bool,
        now: u64,
    ) -> Refused {
        match self.would_admit(queue, n, now) {
            Ok(()) | Err(Refused::Denied(Denied::Exhausted(_))) => {}
            Err(refused) => return refused,
        }
        let snapshots = self.snapshots(queue, now);
        let ahead = match queue.waiters.turn(Ticket::MAX) {
            Turn::Past(reserve) if leaves(&snapshots, n, Some(reserve)) => 0,
            Turn::Past(reserve) => reserve.n,
            _ => queue.waiters.sum(),
        };
        let deficit = match self.deficit_behind(queue, ahead, n, now) {
            Ok(deficit) => deficit,
            Err(retry) => return retry.into(),
        };
        // The waiters have their tokens, and wait for a permit in flight.
        if with_permit && deficit.wait() == 0 && self.bucket.room() == 0 {
            return Denied::TooManyInFlight.into();
        }
        // Or they have not arrived yet, or wait for another resource.
        Denied::Exhausted(deficit.at_least(MIN_RETRY)).into()
    }
}
