//! A look at a bucket that changes nothing, and what a refusal says of the time.

use super::rate::{Accrued, POSITION_BITS, Rate};
use super::word::Word;
use super::{Refusal, SlotState, admit};

/// What a refused take was short of; the time it stands for is worked out on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deficit {
    /// Clock reading less anchor: negative before it, `i64::MIN` for ever.
    pub(super) offset: i64,
    /// What must have accrued since the anchor.
    pub(super) need: u64,
    pub(super) rate: Rate,
    pub(super) carry: u64,
}

impl Deficit {
    /// The same, but not before `nanos` have passed.
    pub(crate) fn after(self, nanos: u64) -> Self {
        match self.rate.when(self.need, self.carry) {
            Some(elapsed) if self.wait() < nanos => {
                let offset = i128::from(elapsed) - i128::from(nanos);
                Self { offset: i64::try_from(offset).unwrap_or(i64::MAX), ..self }
            }
            _ => self,
        }
    }

    /// Nanoseconds from the reading until the take would succeed, rounded up; `u64::MAX` for never.
    #[cold]
    pub(crate) fn wait(&self) -> u64 {
        match self.rate.when(self.need, self.carry) {
            Some(_) if self.offset == i64::MIN => u64::MAX,
            Some(elapsed) if self.offset < 0 => elapsed.saturating_add(self.offset.unsigned_abs()),
            Some(elapsed) => elapsed.saturating_sub(self.offset.unsigned_abs()),
            None => u64::MAX,
        }
    }
}

/// A consistent look at a bucket at one clock reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(super) word: Word,
    pub(super) kind: SlotState,
    pub(super) origin: u64,
    pub(super) unit: u64,
    /// Less what is set apart for the stripes.
    pub(super) capacity: u64,
    pub(super) capacity_tokens: u64,
    pub(super) rate: Rate,
    pub(super) carry: u64,
    pub(super) anchor: u64,
    pub(super) horizon: u64,
    pub(super) until: u64,
    pub(super) now: u64,
    pub(super) accrued: Accrued,
}

impl Snapshot {
    /// Whether the slot still answers for this reading.
    pub(super) fn status(&self) -> Result<(), Refusal> {
        match self.kind {
            SlotState::Closed => Err(Refusal::Closed),
            SlotState::Removed => Err(Refusal::Removed),
            SlotState::Paused if self.now >= self.anchor.min(self.until) => Err(Refusal::Stale),
            SlotState::Open
                if self.now >= self.anchor && self.now - self.anchor >= self.horizon =>
            {
                Err(Refusal::Stale)
            }
            SlotState::Open | SlotState::Paused => Ok(()),
        }
    }

    /// Would `n` be admitted?
    pub(crate) fn would_admit(&self, n: u64) -> Result<(), Refusal> {
        self.status()?;
        if n > self.capacity_tokens() {
            return Err(Refusal::TooBig(self.capacity_tokens()));
        }
        let admitted = self.kind == SlotState::Open && self.admit(n).is_ok();
        // Nothing is granted to everybody, whatever the debt or the pause.
        if n > 0 && !admitted {
            return Err(Refusal::Short(self.deficit(n)));
        }
        Ok(())
    }

    pub(super) fn admit(&self, n: u64) -> Result<u64, u64> {
        let (Accrued { floor, ceil, .. }, units) = (self.accrued, n * self.unit);
        let position = self.word.position(self.origin);
        // All that a bucket holds, and more than is in the word: a part is in the stripes.
        if units > self.capacity {
            return Err(position.max(ceil).saturating_add(units - self.capacity));
        }
        admit(position, floor, ceil, self.capacity, units)
    }

    /// What `n` tokens are short of now, be they more than fit in at a time.
    pub(crate) fn deficit(&self, n: u64) -> Deficit {
        let units = n.saturating_mul(self.unit);
        let offset = match self.now.checked_sub(self.anchor) {
            Some(elapsed) => i64::try_from(elapsed).unwrap_or(i64::MAX),
            None => i64::try_from(self.anchor - self.now).map_or(i64::MIN, |ahead| -ahead),
        };
        let position = self.word.position(self.origin);
        let need = position.saturating_add(units).saturating_sub(self.capacity);
        Deficit { offset, need, rate: self.rate, carry: self.carry }
    }

    /// Whole tokens that could be taken now.
    pub(crate) fn available(&self) -> u64 {
        if self.kind != SlotState::Open {
            return 0;
        }
        let position = self.word.position(self.origin);
        let spent = position.saturating_sub(self.accrued.floor);
        self.capacity.saturating_sub(spent) / self.unit
    }

    /// The position once `n` tokens were given back. Short of the accrual means full, whatever the
    /// distance: see [`admit`].
    pub(super) fn refunded(&self, n: u64) -> u64 {
        let position = self.word.position(self.origin);
        if position <= self.accrued.floor {
            return position;
        }
        position.saturating_sub(n.saturating_mul(self.unit))
    }

    /// The position once `n` tokens were taken, be they there or not; `None` beyond the line's end.
    pub(super) fn charged(&self, n: u64) -> Option<u64> {
        let position = self.word.position(self.origin);
        let spent = if position <= self.accrued.floor { self.accrued.ceil } else { position };
        let next = spent.checked_add(n.checked_mul(self.unit)?)?;
        (next < 1 << POSITION_BITS).then_some(next)
    }

    /// Whether a position is more than what is there to be taken.
    pub(super) fn is_debt(&self, position: u64) -> bool {
        position > self.accrued.floor.saturating_add(self.capacity)
    }

    /// The position once the stripes were closed, from which `used` tokens are gone. Where none is, a
    /// full bucket is full, to the fraction of a unit.
    pub(super) fn after_drain(&self, used: u64) -> u64 {
        let position = self.word.position(self.origin);
        if used == 0 {
            return position;
        }
        let spent = if position <= self.accrued.floor { self.accrued.ceil } else { position };
        spent.saturating_add(used.saturating_mul(self.unit)).min((1 << POSITION_BITS) - 1)
    }

    /// Whether at least so much of all tokens, one part of `parts`, is in the word.
    pub(super) fn holds_part(&self, parts: u64) -> bool {
        self.status().is_ok() && self.available() >= self.capacity_tokens / parts
    }

    /// Whether giving `n` tokens back would be in vain, for as many as are too many.
    pub(super) fn has_no_room_for(&self, n: u64) -> bool {
        let position = self.word.position(self.origin);
        position.saturating_sub(self.accrued.floor) < n.saturating_mul(self.unit)
    }

    /// Whether a part of the bucket is in its stripes.
    pub(crate) fn is_striped(&self) -> bool {
        self.word.is_striped()
    }

    /// Whole tokens in a full bucket.
    pub(crate) fn capacity_tokens(&self) -> u64 {
        self.capacity_tokens
    }

    /// The reading that this look was made at.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// How late a timer may be without a token being lost to a full bucket: the time of an eighth
    /// of the capacity, none where that is less than a token; at most `most` nanoseconds.
    pub(crate) fn slack(&self, most: u64) -> u64 {
        if self.capacity_tokens() < 8 {
            return 0;
        }
        self.rate.when(self.capacity / 8, 0).map_or(most, |eighth| eighth.min(most))
    }

    /// Nobody is in line, and all that there is is in the word.
    pub(crate) fn has_no_flags(&self) -> bool {
        self.word.has_no_flags()
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.word.is_exclusive()
    }

    /// Nanoseconds until this slot stops answering for itself.
    pub(crate) fn remaining(&self) -> u64 {
        let end = match self.kind {
            SlotState::Open => self.anchor.saturating_add(self.horizon),
            _ => self.anchor.min(self.until),
        };
        end.saturating_sub(self.now)
    }
}
