//! The bucket in one atomic word: the CAS loops.
//!
//! The [word](super::word) holds what was spent, as a position. The [slot](super::slot) in force says
//! what has accrued. With `acc` units accrued since the anchor and a capacity of `C`:
//!
//! * `position <= acc`: the bucket is full. A take of n moves the position to `ceil(acc) + n`. The
//!   fraction of a unit that a full bucket cannot hold is lost.
//! * Otherwise n are admitted iff `position + n <= acc + C`.
//!
//! So for admissions i..j in the order of their CASes, at clock readings t:
//! `sum n <= C + rate * (t_j - t_i)`, whatever the interleaving and however stale a reading is.
//!
//! # Orderings
//!
//! The word is loaded with Acquire, and its RMWs are `AcqRel`: a thread that finds a generation in the
//! word sees the slot that was stored before it. The one plain store, in [`Bucket::unlock`], goes to a
//! word that nobody else changes. It is Release, after an acquiring RMW of the same thread, so that its
//! readers see the slot as well. The fields of a slot are Acquire and Release too, for the reason
//! given at [`Slot`]. For permits in flight see [`in_flight`](super::in_flight).

use std::cell::Cell;

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::counter;
use super::demand::{Demand, is_sample};
use super::outcome::{Deficit, Denied, Refused, Retry};
use super::rate::{Terms, admit};
use super::slot::{Slot, SlotConfig};
use super::snapshot::Snapshot;
use super::stripe::Stripes;
use super::word::Word;
use crate::counts::{Count, Counts};
use crate::sync::{AtomicU64, Ordering};

/// A token bucket, and the count of its permits in flight.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Written by every take, so on cache lines of their own.
    pub(super) hot: CachePadded<Hot>,
    /// Read by every take, written by a reconfiguration.
    pub(super) slots: [Slot; 2],
    /// See [`in_flight`](super::in_flight).
    pub(super) max_in_flight: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Hot {
    pub(super) word: AtomicU64,
    /// Permits in flight that no stripe counts: see [`in_flight`](super::in_flight).
    pub(super) in_flight: AtomicU64,
    pub(super) demand: Demand,
    /// Of a bucket that has been hot. Here, where every take looks: this line is seldom written while
    /// the stripes are open.
    pub(super) stripes: OnceLock<Box<Stripes>>,
    /// Here for the same reason.
    pub(super) counts: Counts,
}

/// Where a take moves the word, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    from: Word,
    to: Word,
}

impl Bucket {
    /// A full bucket, and the configuration that its owner keeps under the configuration lock.
    /// `max_in_flight` is `u64::MAX` for no bound.
    pub(crate) fn new(
        terms: Terms,
        max_in_flight: u64,
        counts: Counts,
        now: u64,
    ) -> (Self, SlotConfig) {
        let config = SlotConfig::open(terms, now);
        let bucket = Self {
            hot: CachePadded::new(Hot {
                word: AtomicU64::new(Word::new(0).0),
                in_flight: AtomicU64::new(0),
                demand: Demand::default(),
                stripes: OnceLock::new(),
                counts,
            }),
            slots: [Slot::new(&config), Slot::new(&config)],
            max_in_flight: AtomicU64::new(counter::normalize(max_in_flight)),
        };
        (bucket, config)
    }

    /// Takes `n >= 1` tokens at `now`: the fast path. `undecided` is called if [`Bucket::take_any`] must
    /// decide.
    #[allow(clippy::inline_always)] // as `decide`
    #[inline(always)]
    pub(crate) fn take<E>(
        &self,
        n: u64,
        now: u64,
        deny: impl FnOnce(Deficit) -> E,
        undecided: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        let admit = |transition: Transition| {
            if self.commit(&transition) {
                self.count(Count::Taken, n);
                if is_sample(now) {
                    self.note_sample(now);
                }
                return Ok(());
            }
            if self.take_contended(n, now) { Ok(()) } else { undecided() }
        };
        self.decide(n, now, admit, |deficit| Err(deny(deficit)), &undecided)
    }

    /// After a lost CAS. A denial may be due to the reading, which is old by now: `false`, to decide by a
    /// new one.
    #[cold]
    #[inline(never)]
    fn take_contended(&self, n: u64, now: u64) -> bool {
        self.note_contention(now);
        while let Ok(transition) = self.prepare(n, now) {
            if self.commit(&transition) {
                self.count(Count::Taken, n);
                return true;
            }
        }
        false
    }

    /// Where a take moves the word. `Err(None)` if [`Bucket::take_any`] must decide.
    #[inline]
    pub(crate) fn prepare(&self, n: u64, now: u64) -> Result<Transition, Option<Deficit>> {
        self.decide(n, now, Ok, |deficit| Err(Some(deficit)), || Err(None))
    }

    /// The decision of the fast path. Each outcome calls a function of its own, inlined: were they values
    /// that the caller tells apart, a denial would be stored and loaded once more, in other widths.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn decide<R>(
        &self,
        n: u64,
        now: u64,
        admitted: impl FnOnce(Transition) -> R,
        denied: impl FnOnce(Deficit) -> R,
        undecided: impl Fn() -> R,
    ) -> R {
        let word = self.word();
        // By a branch, the processor may read the slot before the word; by an index it may not.
        let slot = if word.parity() == 0 { &self.slots[0] } else { &self.slots[1] };
        let elapsed = now.wrapping_sub(slot.anchor());
        // The first comparison covers a passed horizon, a pause, a closed bucket, and a reading from
        // before the anchor, whose elapsed time wraps to a huge one.
        if elapsed >= slot.horizon() || !word.has_no_flags() || n > slot.fast_tokens() {
            return undecided();
        }
        let (floor, ceil) = slot.accrued(elapsed);
        let (origin, capacity) = (slot.origin(), slot.capacity());
        // A slot that is being rewritten has any values here, and this may wrap.
        let units = n.wrapping_mul(slot.unit());
        match admit(word.position(origin), floor, ceil, capacity, units) {
            Ok(next) => admitted(Transition { from: word, to: word.moved(origin, next) }),
            Err(need) => {
                let (offset, rate, carry) = (elapsed.cast_signed(), slot.rate(), slot.carry());
                // A slot that was rewritten since the first load proves nothing.
                if !self.word().same_generation(word) {
                    return undecided();
                }
                denied(Deficit { offset, need, rate, carry })
            }
        }
    }

    /// Takes as prepared, unless another thread was faster. The caller counts the tokens.
    #[inline]
    pub(crate) fn commit(&self, transition: &Transition) -> bool {
        self.swap(transition.from, transition.to)
    }

    /// Makes the bucket exclusive if it still is where the transition starts. The caller holds the
    /// queue's lock, and ends this by [`Bucket::unlock`].
    #[inline]
    pub(crate) fn lock(&self, transition: &Transition) -> bool {
        let before = Word(self.hot.word.fetch_or(Word::EXCLUSIVE, Ordering::AcqRel));
        if before != transition.from && !before.is_exclusive() {
            self.set_exclusive(false);
        }
        before == transition.from
    }

    /// Takes as prepared, or leaves a locked bucket as it was. A store suffices: while the bucket is
    /// exclusive other threads apply only RMWs that change nothing (see [`Bucket::leave`]).
    #[inline]
    pub(crate) fn unlock(&self, transition: &Transition, is_taken: bool) {
        let word = if is_taken { transition.to } else { transition.from };
        self.hot.word.store(word.0, Ordering::Release);
    }

    /// Takes `n` tokens at `now` in every case that the word alone can decide, and returns how the word is
    /// then. With `is_locked` the caller holds the queue's lock, and an exclusive bucket does not stop it.
    #[cold]
    pub(crate) fn take_any(
        &self,
        n: u64,
        now: u64,
        is_locked: bool,
    ) -> (Result<(), Refused>, Snapshot) {
        loop {
            let snapshot = self.snapshot(now);
            let verdict = match snapshot.would_admit(n) {
                // The stripes may have enough: drain them before this is a denial. And its time depends on
                // those that wait.
                Err(Refused::Denied(Denied::Exhausted(_)))
                    if !snapshot.has_no_flags() && !is_locked =>
                {
                    Err(Retry::Undecided.into())
                }
                Ok(()) if snapshot.is_exclusive() && !is_locked => Err(Retry::Undecided.into()),
                verdict => verdict,
            };
            if verdict.is_err() || n == 0 {
                return (verdict, snapshot);
            }
            let Ok(next) = snapshot.admit(n) else { continue };
            let word = snapshot.word.moved(snapshot.origin, next);
            if self.swap(snapshot.word, word) {
                self.count(Count::Taken, n);
                return (Ok(()), Snapshot { word, ..snapshot });
            }
        }
    }

    /// Gives `n` tokens back; the bucket keeps no more than its capacity. `is_locked` as in
    /// [`Bucket::take_any`]. `Undecided` also if only the stripes may have room.
    ///
    /// `of_share` says what the tokens are of. A slot of another kind fails, as expired: the caller looked before
    /// the resource was shared. It may have looked long ago, so the slot tells it here: the swap that gives the
    /// tokens back succeeds in this slot alone. Open stripes are of no share, and are drained before the slot
    /// becomes one, which voids what they held.
    pub(crate) fn refund(
        &self,
        n: u64,
        now: u64,
        of_share: bool,
        is_locked: bool,
    ) -> Result<(), Retry> {
        self.settle(now, is_locked, |snapshot| {
            if snapshot.is_share != of_share {
                return Err(Retry::SlotExpired);
            }
            let may_fit_in_stripes =
                snapshot.is_striped() && snapshot.has_no_room_for(n) && !self.stripes_are_full();
            if may_fit_in_stripes && !is_locked {
                Err(Retry::Undecided)
            } else {
                Ok(snapshot.refunded(n))
            }
        })
    }

    /// The same where it is simplest: nobody waits, the stripes are closed, and the slot answers. Returns
    /// `false`, with nothing done, elsewhere.
    #[inline]
    pub(crate) fn refund_plain(&self, n: u64, now: u64, of_share: bool) -> bool {
        loop {
            let word = self.word();
            let slot = &self.slots[word.parity()];
            let elapsed = now.wrapping_sub(slot.anchor());
            // As in `decide`.
            if elapsed >= slot.horizon() || !word.has_no_flags() {
                return false;
            }
            // As in `refund`: the swap proves that this is the slot in force.
            if slot.kind().1 != of_share {
                return false;
            }
            // A slot that is being rewritten has any values here, and the swap fails.
            let ((floor, _), origin) = (slot.accrued(elapsed), slot.origin());
            let position = word.position(origin);
            let next = position.saturating_sub(n.saturating_mul(slot.unit()));
            // What is full stays as it is. If the slot was rewritten it may be another one.
            let is_full = position <= floor;
            if is_full && self.word().same_generation(word)
                || !is_full && self.swap(word, word.moved(origin, next))
            {
                return true;
            }
        }
    }

    /// Takes `n` tokens, available or not: a debt delays later takes. `is_locked` as in
    /// [`Bucket::take_any`]. `Undecided` also if the stripes may have what the word lacks;
    /// `SlotExpired` also if the debt does not fit on the ring, so that [`Bucket::swing`] must charge
    /// it. Returns the tokens that were dropped: see [`max_debt`](super::rate::max_debt).
    pub(crate) fn charge(&self, n: u64, now: u64, is_locked: bool) -> Result<u64, Retry> {
        let dropped = Cell::new(0);
        self.settle(now, is_locked, |snapshot| {
            let (next, rest) = snapshot.charged(n).ok_or(Retry::SlotExpired)?;
            dropped.set(rest);
            let may_be_in_stripes = snapshot.is_striped() && snapshot.is_debt(next);
            if may_be_in_stripes && !is_locked { Err(Retry::Undecided) } else { Ok(next) }
        })?;
        Ok(dropped.get())
    }

    /// The most that can be charged at `now`, in tokens, beyond what stripes have. Under the
    /// configuration lock.
    pub(crate) fn charge_room(&self, current: &SlotConfig, now: u64) -> u64 {
        current.charge_room(self.word().position(current.origin), now)
    }

    pub(super) fn settle(
        &self,
        now: u64,
        is_locked: bool,
        to: impl Fn(&Snapshot) -> Result<u64, Retry>,
    ) -> Result<(), Retry> {
        loop {
            let snapshot = self.snapshot(now);
            match snapshot.status() {
                Err(Refused::Retry(retry)) => return Err(retry),
                // Closed for good: nothing to settle.
                Err(Refused::Denied(_)) => return Ok(()),
                Ok(()) if snapshot.is_exclusive() && !is_locked => return Err(Retry::Undecided),
                Ok(()) => {}
            }
            let next = snapshot.word.moved(snapshot.origin, to(&snapshot)?);
            if next == snapshot.word || self.swap(snapshot.word, next) {
                return Ok(());
            }
        }
    }

    /// A consistent look at `now`.
    pub(crate) fn snapshot(&self, now: u64) -> Snapshot {
        loop {
            let word = self.word();
            let slot = &self.slots[word.parity()];
            let (anchor, rate, carry) = (slot.anchor(), slot.rate(), slot.carry());
            // A slot that is being rewritten may have anything here.
            let reserved = if word.is_striped() { slot.reserved() } else { 0 };
            let (capacity, unit) = (slot.capacity(), slot.unit());
            let (state, is_share) = slot.kind();
            let snapshot = Snapshot {
                word,
                state,
                is_share,
                origin: slot.origin(),
                unit,
                capacity_tokens: capacity / unit,
                capacity: capacity.saturating_sub(reserved),
                reserved,
                rate,
                after: if slot.fast_tokens() == 0 { slot.after() } else { rate },
                carry,
                anchor,
                horizon: slot.horizon(),
                until: slot.until(),
                now,
                accrued: rate.accrue(now.saturating_sub(anchor), carry),
            };
            if self.word().same_generation(word) {
                return snapshot;
            }
        }
    }

    /// Under the queue's lock.
    pub(crate) fn set_exclusive(&self, is_exclusive: bool) {
        if is_exclusive {
            self.hot.word.fetch_or(Word::EXCLUSIVE, Ordering::AcqRel);
        } else {
            self.hot.word.fetch_and(!Word::EXCLUSIVE, Ordering::AcqRel);
        }
    }

    /// Whether only the holder of the queue's lock may take.
    #[inline]
    pub(crate) fn is_exclusive(&self) -> bool {
        self.word().is_exclusive()
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.hot.word.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn swap(&self, from: Word, to: Word) -> bool {
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // the value of a failure is not used
        self.hot.word.compare_exchange(from.0, to.0, new, old).is_ok()
    }
}
