//! A consistent, read-only look at a bucket.

use super::outcome::{Deficit, Denied, Never, Refused, Retry};
use super::rate::{Accrued, Rate, admit, max_debt};
use super::slot::SlotState;
use super::word::{POSITION_BITS, Word};

/// A bucket at one clock reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(super) word: Word,
    pub(super) state: SlotState,
    pub(super) is_share: bool,
    pub(super) origin: u64,
    pub(super) unit: u64,
    /// In units, less what the stripes reserve.
    pub(super) capacity: u64,
    /// What the stripes reserve, in units.
    pub(super) reserved: u64,
    pub(super) capacity_tokens: u64,
    pub(super) rate: Rate,
    pub(super) after: Rate,
    pub(super) carry: u64,
    pub(super) anchor: u64,
    pub(super) horizon: u64,
    pub(super) until: u64,
    pub(super) now: u64,
    pub(super) accrued: Accrued,
}

impl Snapshot {
    /// Whether the slot answers for this reading.
    pub(crate) fn status(&self) -> Result<(), Refused> {
        let is_expired = match self.state {
            SlotState::Closed => return Err(Never::Closed.into()),
            SlotState::Removed => return Err(Never::Removed.into()),
            SlotState::Paused => self.now >= self.anchor.min(self.until),
            SlotState::Open => self.now >= self.anchor && self.now - self.anchor >= self.horizon,
        };
        if is_expired { Err(Retry::SlotExpired.into()) } else { Ok(()) }
    }

    pub(crate) fn would_admit(&self, n: u64) -> Result<(), Refused> {
        self.status()?;
        if n > self.capacity_tokens {
            return Err(Never::ExceedsCapacity(self.capacity_tokens).into());
        }
        let is_admitted = self.state == SlotState::Open && self.admit(n).is_ok();
        // A take of 0 succeeds whatever the debt or the pause.
        if n > 0 && !is_admitted {
            return Err(Denied::Exhausted(self.deficit(n)).into());
        }
        Ok(())
    }

    pub(super) fn admit(&self, n: u64) -> Result<u64, u64> {
        let (Accrued { floor, ceil, .. }, units) = (self.accrued, n * self.unit);
        let position = self.word.position(self.origin);
        // More than the word may hold: the stripes have the rest.
        if units > self.capacity {
            return Err(position.max(ceil).saturating_add(units - self.capacity));
        }
        admit(position, floor, ceil, self.capacity, units)
    }

    /// What `n` tokens are short of now; `n` may exceed the capacity.
    pub(crate) fn deficit(&self, n: u64) -> Deficit {
        let units = n.saturating_mul(self.unit);
        // What a full bucket cannot hold does not count.
        let position = self.word.position(self.origin).max(self.accrued.floor);
        self.deficit_of(position.saturating_add(units).saturating_sub(self.capacity))
    }

    /// What is short until `need` units have accrued since the anchor.
    pub(super) fn deficit_of(&self, need: u64) -> Deficit {
        let offset = match self.now.checked_sub(self.anchor) {
            Some(elapsed) => i64::try_from(elapsed).unwrap_or(i64::MAX),
            None => i64::try_from(self.anchor - self.now).map_or(i64::MIN, |before| -before),
        };
        let deficit = Deficit { offset, need, rate: self.rate, carry: self.carry };
        let left = self.until.saturating_sub(self.now);
        if self.rate == self.after || deficit.wait() <= left {
            return deficit;
        }
        // The pace ends first.
        let accrued = self.rate.accrue(self.until.saturating_sub(self.anchor), self.carry).floor;
        let offset = i64::try_from(left).map_or(i64::MIN, |left| -left);
        Deficit { offset, need: need.saturating_sub(accrued), rate: self.after, carry: 0 }
    }

    /// Whole tokens that could be taken now.
    pub(crate) fn available(&self) -> u64 {
        if self.state != SlotState::Open {
            return 0;
        }
        let position = self.word.position(self.origin);
        let spent = position.saturating_sub(self.accrued.floor);
        self.capacity.saturating_sub(spent) / self.unit
    }

    /// The position after a refund of `n` tokens. A position short of the accrual means full,
    /// whatever the distance: see [`admit`].
    pub(super) fn refunded(&self, n: u64) -> u64 {
        let position = self.word.position(self.origin);
        if position <= self.accrued.floor {
            return position;
        }
        position.saturating_sub(n.saturating_mul(self.unit))
    }

    /// The position after a charge of `n` tokens, available or not, and the tokens that are dropped: see
    /// [`max_debt`]. `None` beyond the ring's end, and in a pause, which may be paying a debt.
    pub(super) fn charged(&self, n: u64) -> Option<(u64, u64)> {
        if self.state != SlotState::Open {
            return None;
        }
        let (spent, units) = (self.spent(), n.saturating_mul(self.unit));
        let most = max_debt(self.rate, self.after, self.capacity).saturating_add(self.capacity);
        let charged = units.min(self.accrued.floor.saturating_add(most).saturating_sub(spent));
        let next = spent.checked_add(charged)?;
        (next < 1 << POSITION_BITS).then_some((next, n - charged.div_ceil(self.unit).min(n)))
    }

    /// The position with at most `n` tokens left, in the word and the stripes together: never below the
    /// present one. `None` if that would be in the middle of a unit, as the level is.
    pub(super) fn lowered(&self, n: u64) -> Option<u64> {
        let position = self.word.position(self.origin);
        let full = self.capacity.saturating_add(self.reserved);
        let Some(spent @ 1..) = full.checked_sub(n.saturating_mul(self.unit)) else {
            return Some(position);
        };
        let Accrued { floor, ceil, .. } = self.accrued;
        let next = ceil.saturating_add(spent);
        if position >= next { Some(position) } else { (floor == ceil).then_some(next) }
    }

    /// The position, or for a full bucket the accrual: from there a take counts.
    fn spent(&self) -> u64 {
        let position = self.word.position(self.origin);
        if position <= self.accrued.floor { self.accrued.ceil } else { position }
    }

    /// Whether a position exceeds what can be taken.
    pub(super) fn is_debt(&self, position: u64) -> bool {
        position > self.accrued.floor.saturating_add(self.capacity)
    }

    /// The position after the stripes were drained, with `used` of their tokens taken. With none
    /// taken a full bucket stays full, to the fraction of a unit.
    pub(super) fn after_drain(&self, used: u64) -> u64 {
        if used == 0 {
            return self.word.position(self.origin);
        }
        let next = self.spent().saturating_add(used.saturating_mul(self.unit));
        next.min((1 << POSITION_BITS) - 1)
    }

    /// Whether the word holds at least `1 / parts` of the capacity.
    pub(super) fn holds_part(&self, parts: u64) -> bool {
        self.status().is_ok() && self.available() >= self.capacity_tokens / parts
    }

    /// Whether the word is too full for a refund of `n` tokens.
    pub(super) fn has_no_room_for(&self, n: u64) -> bool {
        let position = self.word.position(self.origin);
        position.saturating_sub(self.accrued.floor) < n.saturating_mul(self.unit)
    }

    /// Whether the word is full, and the stripes are closed. Unknown, hence `false`, for a reading
    /// from before the anchor.
    pub(crate) fn is_full(&self) -> bool {
        !self.word.is_striped() && self.word_is_full()
    }

    /// Whether the word holds all that it may, with the stripes open or closed.
    pub(crate) fn word_is_full(&self) -> bool {
        let is_known = self.state == SlotState::Open && self.now >= self.anchor;
        is_known && self.word.position(self.origin) <= self.accrued.floor
    }

    /// Units by which the word has moved since some time, and the units of a token. It wraps at [`POSITION_BITS`]
    /// bits. Takes move it, by more than they take where the bucket was full.
    #[cfg(feature = "swarm")]
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.word.position(0), self.unit)
    }

    pub(crate) fn is_striped(&self) -> bool {
        self.word.is_striped()
    }

    /// Whole tokens in a full bucket.
    pub(crate) fn capacity_tokens(&self) -> u64 {
        self.capacity_tokens
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// How late a timer may fire before a full bucket loses a token: the time in which an eighth of
    /// the capacity accrues, 0 if that is less than a token; at most `most` nanoseconds.
    pub(crate) fn slack(&self, most: u64) -> u64 {
        if self.capacity_tokens < 8 {
            return 0;
        }
        self.rate.when(self.capacity / 8, 0).map_or(most, |eighth| eighth.min(most))
    }

    /// Nobody waits, and the stripes are closed.
    pub(crate) fn has_no_flags(&self) -> bool {
        self.word.has_no_flags()
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.word.is_exclusive()
    }

    /// Nanoseconds until this slot ends.
    pub(crate) fn remaining(&self) -> u64 {
        let end = match self.state {
            SlotState::Open => self.anchor.saturating_add(self.horizon),
            _ => self.anchor.min(self.until),
        };
        end.saturating_sub(self.now)
    }
}
