//! How a bucket's configuration gives way to the next one: pure, for one that is transition by a CAS and
//! for one that is kept under a lock.

use super::rate::{Level, Rescaled, Terms};
use super::{SlotConfig, SlotState};

/// What a bucket is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotChange {
    pub(crate) kind: SlotState,
    pub(crate) terms: Terms,
    /// Nothing is admitted before this reading.
    pub(crate) pause_until: u64,
    /// See [`SlotConfig::until`].
    pub(crate) until: Option<u64>,
    /// So many tokens are taken, whether they are there or not.
    pub(crate) charge: u64,
}

impl SlotConfig {
    /// Another configuration and the position in it: what was held is settled at the old rate, clipped
    /// to the new capacity, and counted on at the new one. A pause that has not ended goes on.
    pub(super) fn transition(&self, position: u64, to: SlotChange, now: u64) -> (Self, u64) {
        let elapsed = self.elapsed(now);
        let accrued = self.terms.rate.accrue(elapsed, self.carry);
        let mut level = Level::at(position, accrued, self.terms.capacity);
        if elapsed >= self.terms.horizon && position >= accrued.floor {
            // Past the horizon the rate's own rounding may have reached a step of the carry.
            level.0 -= 1;
        }
        // A debt that is being paid before the anchor goes on at the new rate.
        let begin = now.max(self.anchor - self.delay);
        level.owe(self.terms.rate, self.anchor.saturating_sub(begin));
        let was_full = position <= accrued.floor;
        let Rescaled { position, carry, delay } = level.rescale(&self.terms, &to.terms, to.charge);
        // A full bucket has nothing to carry: so whole tokens are on time again after a cut.
        let carry = if was_full { 0 } else { carry };
        // Never back: the time before the old anchor was counted by the slot before it.
        let anchor = begin.max(to.pause_until).saturating_add(delay);
        let paused = self.kind == SlotState::Paused || to.pause_until > now || delay > 0;
        let kind = if to.kind == SlotState::Open && paused && anchor > now {
            SlotState::Paused
        } else {
            to.kind
        };
        (Self { kind, terms: to.terms, anchor, delay, until: to.until, carry, origin: 0 }, position)
    }

    /// The same configuration, as it stands.
    pub(super) fn again(&self) -> SlotChange {
        let Self { kind, terms, until, .. } = *self;
        SlotChange { kind, terms, pause_until: 0, until, charge: 0 }
    }

    /// The anchor moved up to `now`, by a whole number of units where the rate allows it.
    pub(super) fn reanchored(&self, position: u64, now: u64) -> (Self, u64) {
        if self.terms.period == u64::MAX || self.kind != SlotState::Open {
            return self.transition(position, self.again(), now);
        }
        let moved = self.elapsed(now) / self.terms.period * self.terms.period;
        let units = self.terms.rate.accrue(moved, 0).floor;
        // Full at the new anchor, not merely now: a reading between the two may still be used.
        let (position, carry) =
            if position <= units { (0, 0) } else { (position - units, self.carry) };
        (Self { anchor: self.anchor + moved, carry, origin: 0, ..*self }, position)
    }
}
