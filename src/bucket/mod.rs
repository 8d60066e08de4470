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
//! # Orderings
//!
//! Loads of the word are Acquire and its RMWs `AcqRel`: who finds a generation in the word sees the
//! slot that its writer stored before. A slot's fields are Acquire and Release on top of that, for
//! the reason given on [`slot::Slot`]. `in_flight` is `AcqRel`: see [`Bucket::leave`].

pub(crate) mod rate;
#[cfg(all(test, not(loom)))]
mod rate_tests;
mod slot;
mod view;
mod word;

use crossbeam_utils::CachePadded;
use rate::{Level, Rescaled, Terms};
use slot::Slot;
use word::Word;

pub(crate) use slot::{Config, Kind};
pub(crate) use view::{Deficit, View};

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
}

/// Why a take did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too few tokens.
    Short(Deficit),
    /// There are enough, for those in line.
    InLine,
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

/// What a bucket is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    pub(crate) terms: Terms,
    /// Nothing is admitted before this reading.
    pub(crate) pause_until: u64,
    /// See [`Config::until`].
    pub(crate) until: Option<u64>,
}

impl Bucket {
    /// A full bucket, and the configuration that its owner keeps under the configuration lock.
    pub(crate) fn new(terms: Terms, now: u64) -> (Self, Config) {
        let config =
            Config { kind: Kind::Open, terms, anchor: now, until: None, carry: 0, origin: 0 };
        let bucket = Self {
            hot: CachePadded::new(Hot {
                word: AtomicU64::new(Word::new(0).0),
                in_flight: AtomicU64::new(0),
            }),
            slots: [Slot::new(&config), Slot::new(&config)],
            most_in_flight: AtomicU64::new(u64::MAX),
        };
        (bucket, config)
    }

    /// One try to take `n >= 1` tokens at `now`, short enough to be inlined.
    #[inline]
    pub(crate) fn take(&self, n: u64, now: u64) -> Take {
        let word = self.word();
        // A branch, where an index would do, lets the processor read the slot before the word.
        let slot = if word.parity() == 0 { &self.slots[0] } else { &self.slots[1] };
        let elapsed = now.wrapping_sub(slot.anchor());
        // One compare for a horizon that has passed, a pause, a closed bucket, and a reading from
        // before the anchor, which wraps to a huge elapsed time.
        if elapsed >= slot.horizon() || word.has_waiters() || n > slot.whole() {
            return Take::Unusual;
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
                    return Take::Short(Deficit { offset, need, rate, carry });
                }
                return Take::Lost;
            }
        };
        if self.swap(word, word.moved(origin, next)) { Take::Taken } else { Take::Lost }
    }

    /// Take `n` tokens at `now`, whatever the case; with `head` for the head of the line, whom the
    /// WAITERS bit does not hold back.
    #[cold]
    pub(crate) fn take_slowly(&self, n: u64, now: u64, head: bool) -> Result<(), Refusal> {
        loop {
            let view = self.view(now);
            view.check(n)?;
            if view.word.has_waiters() && !head {
                return Err(Refusal::InLine);
            }
            let Ok(next) = view.admit(n) else { continue };
            if self.swap(view.word, view.word.moved(view.origin, next)) {
                return Ok(());
            }
        }
    }

    /// Give `n` tokens back; a bucket never holds more than its capacity. Says whether somebody is
    /// in line, who must then be looked after.
    pub(crate) fn refund(&self, n: u64, now: u64) -> Result<bool, Stale> {
        loop {
            let view = self.view(now);
            match view.status() {
                Err(Refusal::Closed | Refusal::Removed) => return Ok(false),
                Err(Refusal::Stale) => return Err(Stale),
                _ => {}
            }
            let position = view.word.position(view.origin);
            if position <= view.accrued.floor {
                return Ok(view.word.has_waiters());
            }
            let units = n.saturating_mul(view.unit);
            // Short of the accrual means full, whatever the distance: see `admit`.
            let next = view.word.moved(view.origin, position.saturating_sub(units));
            let done = if seeded("refund-without-cas") {
                self.hot.word.store(next.0, Ordering::Release);
                true
            } else {
                self.swap(view.word, next)
            };
            if done {
                return Ok(view.word.has_waiters());
            }
        }
    }

    /// A consistent look at `now`.
    pub(crate) fn view(&self, now: u64) -> View {
        loop {
            let word = self.word();
            let slot = &self.slots[word.parity()];
            let (anchor, rate, carry) = (slot.anchor(), slot.rate(), slot.carry());
            let view = View {
                word,
                kind: slot.kind(),
                origin: slot.origin(),
                unit: slot.unit(),
                whole: slot.whole(),
                capacity: slot.capacity(),
                rate,
                carry,
                anchor,
                horizon: slot.horizon(),
                now,
                accrued: rate.accrue(now.saturating_sub(anchor), carry),
            };
            if self.word().same_generation(word) || seeded("torn-view") {
                return view;
            }
        }
    }

    /// Turn to another configuration in one CAS: what was held is settled at the old rate, clipped
    /// to the new capacity, and counted on at the new one. A pause that has not ended goes on.
    ///
    /// Under the configuration lock, of which `current` is the proof. `clock` is read after the
    /// word: a reading from before could be older than that of an admission which the word already
    /// counts, and the time between the two, which was earned at the old rate, would be earned once
    /// more at a faster new one.
    pub(crate) fn swing(&self, current: &mut Config, to: Change, clock: impl Fn() -> u64) {
        loop {
            let early = seeded("clock-before-word").then(|| {
                let early = clock();
                yield_now(); // loom does not of itself switch between two loads
                early
            });
            let word = self.word();
            let now = early.unwrap_or_else(&clock);
            let elapsed = current.elapsed(now);
            let accrued = current.terms.rate.accrue(elapsed, current.carry);
            let position = word.position(current.origin);
            let mut level = Level::at(position, accrued, current.terms.capacity);
            if elapsed >= current.terms.horizon && position >= accrued.floor {
                // Past the horizon the rate's own rounding may have reached a step of the carry.
                level.0 -= 1;
            }
            let was_full = position <= accrued.floor;
            let Rescaled { position, carry, delay } = level.rescale(&current.terms, &to.terms);
            // A full bucket has nothing to carry: so whole tokens are on time again after a cut.
            let carry = if was_full { 0 } else { carry };
            // Never back: the time before the old anchor was counted by the slot before it.
            let anchor = now.max(current.anchor).saturating_add(delay).max(to.pause_until);
            let paused = current.kind == Kind::Paused || to.pause_until > now || delay > 0;
            let kind = if to.kind == Kind::Open && paused && anchor > now {
                Kind::Paused
            } else {
                to.kind
            };
            let (next, origin) = word.next(position);
            let config = Config { kind, terms: to.terms, anchor, until: to.until, carry, origin };
            if self.install(current, word, next, config) {
                return;
            }
        }
    }

    /// Move the anchor up to `now`, by a whole number of units where the rate allows it.
    pub(crate) fn reanchor(&self, current: &mut Config, clock: impl Fn() -> u64) {
        let (terms, until) = (current.terms, current.until);
        if terms.period == u64::MAX || current.kind != Kind::Open {
            let kind = current.kind;
            return self.swing(current, Change { kind, terms, pause_until: 0, until }, clock);
        }
        loop {
            let word = self.word();
            let elapsed = current.elapsed(clock());
            let moved = elapsed / terms.period * terms.period;
            let units = terms.rate.accrue(moved, 0).floor;
            // Full at the new anchor, not merely now: a reading between the two may still be used.
            let position = word.position(current.origin);
            let (position, carry) =
                if position <= units { (0, 0) } else { (position - units, current.carry) };
            let (next, origin) = word.next(position);
            let anchor = current.anchor + moved;
            let config = Config { kind: Kind::Open, terms, anchor, until, carry, origin };
            if self.install(current, word, next, config) {
                return;
            }
        }
    }

    fn install(&self, current: &mut Config, word: Word, next: Word, config: Config) -> bool {
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
    pub(crate) fn set_waiters(&self, waiting: bool) {
        if waiting {
            self.hot.word.fetch_or(Word::WAITERS, Ordering::AcqRel);
        } else {
            self.hot.word.fetch_and(!Word::WAITERS, Ordering::AcqRel);
        }
    }

    /// Count one permit in, unless that makes too many.
    #[inline]
    pub(crate) fn enter(&self) -> bool {
        let most = self.most_in_flight.load(Ordering::Acquire);
        if most == u64::MAX {
            self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
            return true;
        }
        if seeded("in-flight-check-then-add") {
            let room = self.in_flight() < most;
            if room {
                self.hot.in_flight.fetch_add(1, Ordering::AcqRel);
            }
            return room;
        }
        let more = |count: u64| (count < most).then_some(count + 1);
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
        let less = |count: u64| count.checked_sub(1);
        self.hot.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok()?;
        if self.most_in_flight.load(Ordering::Acquire) == u64::MAX {
            return Some(false);
        }
        if seeded("leave-without-look") {
            return Some(false);
        }
        Some(Word(self.hot.word.fetch_or(0, Ordering::AcqRel)).has_waiters())
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.hot.in_flight.load(Ordering::Acquire)
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
        self.hot.in_flight.fetch_add(0, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn is_bounded_in_flight(&self) -> bool {
        self.most_in_flight.load(Ordering::Acquire) != u64::MAX
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
