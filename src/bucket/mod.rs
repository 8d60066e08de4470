//! One token bucket, exact, in one atomic word. Time is passed in; nobody waits here.
//!
//! The [word](word) holds how much was spent, as a position; the [slot](slot) in force says what
//! accrued until now. With `acc` units accrued since the anchor and a capacity of `C`:
//!
//! * `position <= acc`: the bucket is full. Taking n moves the position to `ceil(acc) + n`: the
//!   fraction of a unit that a full bucket could not hold is lost, not lent.
//! * otherwise n are admitted iff `position + n <= acc + C`.
//!
//! So for admissions i..j in the order of their CASes, at clock readings t:
//! `sum n <= C + rate * (t_j - t_i)`, whatever the interleaving and however stale a reading is.
//!
//! A large bucket that is hot hands tokens out in prepaid batches: see [`stripes`].
//!
//! # Orderings
//!
//! Loads of the word are Acquire and its RMWs `AcqRel`: who finds a generation in the word sees the
//! slot that its writer stored before. One plain store there is, [`Bucket::unlock`]'s, to a word that
//! nobody else changes: it is Release, after an RMW of its own that acquired, so that who reads it sees
//! the slot as well. A slot's fields are Acquire and Release on top of that, for
//! the reason given on [`slot::Slot`]. Permits in flight: see [`in_flight`].

mod compact;
mod demand;
mod in_flight;
mod locked;
pub(crate) mod rate;
#[cfg(all(test, not(loom)))]
mod rate_tests;
mod reconfigure;
mod slot;
mod snapshot;
mod stripes;
mod word;

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use slot::Slot;
use stripes::Stripes;
use word::Word;

pub(crate) use compact::{CompactBucket, MAX_SWEEP_AGE, Miss, SharedRate, SweepWindow};
pub(crate) use locked::LockedBucket;
pub(crate) use rate::Terms;
pub(crate) use reconfigure::SlotChange;
pub(crate) use slot::{SlotConfig, SlotState};
pub(crate) use snapshot::{Deficit, Snapshot};
pub(crate) use stripes::Drained;

use crate::sync::{AtomicU64, Ordering, seeded, yield_now};

/// A token bucket and the count of its permits in flight.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Alone on their lines: written by every admission.
    hot: CachePadded<Hot>,
    /// Read by every admission, written by a reconfiguration.
    slots: [Slot; 2],
    most_in_flight: AtomicU64,
}

#[derive(Debug)]
struct Hot {
    word: AtomicU64,
    in_flight: AtomicU64,
    /// Since when signs of demand are counted, and how many there were.
    demand: AtomicU64,
    /// Of a bucket that was once in great demand. Here, where every take looks: while the stripes are
    /// open the line is seldom written.
    stripes: OnceLock<Box<Stripes>>,
}

/// Why a take did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too few tokens.
    Short(Deficit),
    /// There are enough, for those in line; or who holds the queue's lock decides.
    InLine,
    /// There is no room for another permit in flight.
    NoRoom,
    /// More than the bucket ever holds: its whole capacity.
    TooBig(u64),
    /// The slot in force has ended: let the owner bring it up to date.
    Stale,
    Closed,
    Removed,
}

/// The slot in force has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale;

/// What came of one everyday try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Taken,
    Short(Deficit),
    /// Somebody else was faster: try again.
    Lost,
    /// Somebody is in line, the slot has ended, the clock is behind the anchor, or the tokens are
    /// more than fit: [`Bucket::take_slowly`] decides.
    Unusual,
}

/// From where to where a take moves the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    from: Word,
    to: Word,
}

impl Bucket {
    /// A full bucket, and the configuration that its owner keeps under the configuration lock.
    pub(crate) fn new(terms: Terms, now: u64) -> (Self, SlotConfig) {
        let config = SlotConfig::open(terms, now);
        let bucket = Self {
            hot: CachePadded::new(Hot {
                word: AtomicU64::new(Word::new(0).0),
                in_flight: AtomicU64::new(0),
                demand: AtomicU64::new(0),
                stripes: OnceLock::new(),
            }),
            slots: [Slot::new(&config), Slot::new(&config)],
            most_in_flight: AtomicU64::new(u64::MAX),
        };
        (bucket, config)
    }

    /// One try to take `n >= 1` tokens at `now`, short enough to be inlined.
    #[inline]
    pub(crate) fn take(&self, n: u64, now: u64) -> Take {
        match self.prepare(n, now) {
            Ok(plan) if self.commit(&plan) => {
                if now.is_multiple_of(demand::SAMPLE) {
                    self.note_sample(now);
                }
                Take::Taken
            }
            Ok(_) => Take::Lost,
            Err(take) => take,
        }
    }

    /// Take as it was planned, if nobody was faster.
    #[inline]
    pub(crate) fn commit(&self, plan: &Transition) -> bool {
        self.swap(plan.from, plan.to)
    }

    /// Where such a try would move the word, or what comes of it.
    #[inline]
    pub(crate) fn prepare(&self, n: u64, now: u64) -> Result<Transition, Take> {
        let word = self.word();
        // A branch, where an index would do, lets the processor read the slot before the word.
        let slot = if word.parity() == 0 { &self.slots[0] } else { &self.slots[1] };
        let elapsed = now.wrapping_sub(slot.anchor());
        // One compare for a horizon that has passed, a pause, a closed bucket, and a reading from
        // before the anchor, which wraps to a huge elapsed time.
        if elapsed >= slot.horizon() || !word.has_no_flags() || n > slot.capacity_tokens() {
            return Err(Take::Unusual);
        }
        let (floor, ceil) = slot.accrued(elapsed);
        let (origin, capacity) = (slot.origin(), slot.capacity());
        // From a slot that is being rewritten these are any numbers, and may wrap.
        let units = n.wrapping_mul(slot.unit());
        let next = match admit(word.position(origin), floor, ceil, capacity, units) {
            Ok(next) => next,
            Err(need) => {
                let (offset, rate, carry) = (elapsed.cast_signed(), slot.rate(), slot.carry());
                // Second look: a slot that was rewritten meanwhile says nothing.
                if self.word().same_generation(word) || seeded("torn-denial") {
                    return Err(Take::Short(Deficit { offset, need, rate, carry }));
                }
                return Err(Take::Lost);
            }
        };
        Ok(Transition { from: word, to: word.moved(origin, next) })
    }

    /// Keep everybody from taking, if the bucket is where `plan` goes from. For who holds the queue's
    /// lock, and lets go by [`Bucket::unlock`].
    #[inline]
    pub(crate) fn lock(&self, plan: &Transition) -> bool {
        if seeded("group-without-bit") {
            return self.word() == plan.from;
        }
        let before = Word(self.hot.word.fetch_or(Word::EXCLUSIVE, Ordering::AcqRel));
        if before != plan.from && !before.is_exclusive() {
            self.set_exclusive(false);
        }
        before == plan.from
    }

    /// Transition a bucket that is held along the plan, or leave it where it was. A store will do: a word
    /// with the bit set is written by nobody else, but by an RMW that changes nothing (see
    /// [`Bucket::leave`]).
    #[inline]
    pub(crate) fn unlock(&self, plan: &Transition, is_taken: bool) {
        let word = if is_taken { plan.to } else { plan.from };
        self.hot.word.store(word.0, Ordering::Release);
    }

    /// Take `n` tokens at `now`, whatever the case; with `head` for the head of the line, whom the
    /// EXCLUSIVE bit does not hold back.
    #[cold]
    pub(crate) fn take_slowly(&self, n: u64, now: u64, head: bool) -> Result<(), Refusal> {
        loop {
            let snapshot = self.snapshot(now);
            match snapshot.would_admit(n) {
                // Not before what is in the stripes came back.
                Err(refusal @ Refusal::Short(_)) if snapshot.word.is_striped() && !head => {
                    if seeded("denial-by-a-part") {
                        yield_now(); // loom does not of itself switch here
                        return Err(if self.is_striped() { Refusal::InLine } else { refusal });
                    }
                    return Err(Refusal::InLine);
                }
                verdict => verdict?,
            }
            if snapshot.word.is_exclusive() && !head {
                return Err(Refusal::InLine);
            }
            let Ok(next) = snapshot.admit(n) else { continue };
            if self.swap(snapshot.word, snapshot.word.moved(snapshot.origin, next)) {
                return Ok(());
            }
        }
    }

    /// Give `n` tokens back; a bucket never holds more than its capacity. `is_locked` is as in
    /// [`Bucket::charge`]. `InLine` also where only the stripes may have room for them.
    pub(crate) fn refund(&self, n: u64, now: u64, is_locked: bool) -> Result<(), Refusal> {
        self.settle(now, is_locked, |snapshot| {
            let may_fit_elsewhere = snapshot.word.is_striped() && snapshot.has_no_room_for(n);
            if may_fit_elsewhere && !is_locked {
                Err(Refusal::InLine)
            } else {
                Ok(snapshot.refunded(n))
            }
        })
    }

    /// Take `n` tokens, whether they are there or not: a debt delays whoever comes next. `Stale` also
    /// where the line has no room for so deep a debt: [`Bucket::swing`] takes the charge.
    ///
    /// Where somebody is in line this is for who holds the queue's lock, `is_locked`; and where what
    /// is in the stripes has to pay, too.
    pub(crate) fn charge(&self, n: u64, now: u64, is_locked: bool) -> Result<(), Refusal> {
        self.settle(now, is_locked, |snapshot| {
            let next = snapshot.charged(n).ok_or(Refusal::Stale)?;
            let may_be_elsewhere = snapshot.word.is_striped() && snapshot.is_debt(next);
            if may_be_elsewhere && !is_locked { Err(Refusal::InLine) } else { Ok(next) }
        })
    }

    fn settle(
        &self,
        now: u64,
        is_locked: bool,
        to: impl Fn(&Snapshot) -> Result<u64, Refusal>,
    ) -> Result<(), Refusal> {
        loop {
            let snapshot = self.snapshot(now);
            match snapshot.status() {
                Err(Refusal::Stale) => return Err(Refusal::Stale),
                Err(_) => return Ok(()),
                Ok(()) if snapshot.word.is_exclusive() && !is_locked => {
                    return Err(Refusal::InLine);
                }
                Ok(()) => {}
            }
            let next = snapshot.word.moved(snapshot.origin, to(&snapshot)?);
            if seeded("refund-without-cas") {
                self.hot.word.store(next.0, Ordering::Release);
                return Ok(());
            }
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
            // From a slot that is being rewritten this may be anything.
            let reserved = if word.is_striped() { slot.reserved() } else { 0 };
            let snapshot = Snapshot {
                word,
                kind: slot.kind(),
                origin: slot.origin(),
                unit: slot.unit(),
                capacity_tokens: slot.capacity_tokens(),
                capacity: slot.capacity().saturating_sub(reserved),
                rate,
                carry,
                anchor,
                horizon: slot.horizon(),
                until: slot.until(),
                now,
                accrued: rate.accrue(now.saturating_sub(anchor), carry),
            };
            if self.word().same_generation(word) || seeded("torn-snapshot") {
                return snapshot;
            }
        }
    }

    /// Turn to another configuration in one CAS: see [`SlotConfig::transition`].
    ///
    /// Under the configuration lock, of which `current` is the proof. `clock` is read after the
    /// word: a reading from before could be older than that of an admission which the word already
    /// counts, and the time between the two, which was earned at the old rate, would be earned once
    /// more at a faster new one.
    ///
    /// Whether it did: not where stripes are open, which must be closed first.
    #[must_use]
    pub(crate) fn swing(
        &self,
        current: &mut SlotConfig,
        to: SlotChange,
        clock: impl Fn() -> u64,
    ) -> bool {
        let early = seeded("clock-before-word").then(|| {
            let early = clock();
            yield_now(); // loom does not of itself switch between two loads
            early
        });
        let has_no_flags = |word: Word| !word.is_striped() || seeded("swing-beside-stripes");
        self.reconfigure(current, has_no_flags, |current, position| {
            current.transition(position, to, early.unwrap_or_else(&clock))
        })
    }

    /// Transition the anchor up to `now`. The same terms go on, and open stripes with them.
    pub(crate) fn reanchor(&self, current: &mut SlotConfig, clock: impl Fn() -> u64) {
        let anew = |current: &SlotConfig, position| current.reanchored(position, clock());
        self.reconfigure(current, |_| true, anew);
    }

    /// This bucket as one that is kept under a lock, to be put back in another shape while nobody
    /// takes.
    pub(crate) fn lift(&self, current: &SlotConfig) -> LockedBucket {
        LockedBucket { config: *current, position: self.word().position(current.origin) }
    }

    pub(crate) fn put(&self, current: &mut SlotConfig, plain: &LockedBucket) {
        self.reconfigure(current, |_| true, |_, _| (plain.config, plain.position));
    }

    fn reconfigure(
        &self,
        current: &mut SlotConfig,
        can: impl Fn(Word) -> bool,
        to: impl Fn(&SlotConfig, u64) -> (SlotConfig, u64),
    ) -> bool {
        loop {
            let word = self.word();
            if !can(word) {
                return false;
            }
            let (config, position) = to(current, word.position(current.origin));
            let (next, origin) = word.next(position);
            if self.install(current, word, next, SlotConfig { origin, ..config }) {
                return true;
            }
        }
    }

    fn install(
        &self,
        current: &mut SlotConfig,
        word: Word,
        next: Word,
        config: SlotConfig,
    ) -> bool {
        if seeded("swing-before-slot") {
            let done = self.swap(word, next);
            self.slots[next.parity()].store(&config);
            *current = if done { config } else { *current };
            return done;
        }
        self.slots[next.parity()].store(&config);
        let done = self.swap(word, next);
        if done {
            *current = config;
        }
        done
    }

    /// Say that somebody is in line, or nobody any more. Under the queue's lock.
    pub(crate) fn set_exclusive(&self, waiting: bool) {
        if waiting {
            self.hot.word.fetch_or(Word::EXCLUSIVE, Ordering::AcqRel);
        } else {
            self.hot.word.fetch_and(!Word::EXCLUSIVE, Ordering::AcqRel);
        }
    }

    /// Whether only who holds the queue's lock may take.
    #[inline]
    pub(crate) fn is_exclusive(&self) -> bool {
        self.word().is_exclusive()
    }

    #[inline]
    fn word(&self) -> Word {
        Word(self.hot.word.load(Ordering::Acquire))
    }

    #[inline]
    fn swap(&self, from: Word, to: Word) -> bool {
        if seeded("take-without-cas") {
            self.hot.word.store(to.0, Ordering::Release);
            return true;
        }
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // a failure is not used
        self.hot.word.compare_exchange(from.0, to.0, new, old).is_ok()
    }
}

/// The decision: where the position moves when `units` are taken, or what must have accrued first.
/// Wraps only on a slot that is being rewritten, and then the CAS fails.
#[inline]
fn admit(position: u64, floor: u64, ceil: u64, capacity: u64, units: u64) -> Result<u64, u64> {
    if position <= floor {
        return Ok(ceil.wrapping_add(units));
    }
    let next = position.wrapping_add(units);
    if next <= floor.saturating_add(capacity) { Ok(next) } else { Err(next.wrapping_sub(capacity)) }
}
