//! How one configuration of a bucket gives way to the next. Pure: a bucket in a word swings to the
//! result by a CAS, a bucket under a lock stores it.

use super::rate::{Level, Rescaled, Terms};
use super::slot::{SlotConfig, SlotState};

/// What a bucket is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotChange {
    pub(crate) state: SlotState,
    pub(crate) terms: Terms,
    /// Nothing is admitted before this reading.
    pub(crate) pause_until: u64,
    /// See [`SlotConfig::until`].
    pub(crate) until: Option<u64>,
    /// Tokens to take, available or not.
    pub(crate) charge: u64,
}

impl SlotConfig {
    /// The next configuration, and the position in it: the level is settled at the old rate, clipped
    /// to the new capacity, and kept. A pause that has not ended continues.
    pub(super) fn transition(&self, position: u64, to: SlotChange, now: u64) -> (Self, u64) {
        let elapsed = self.elapsed(now);
        let accrued = self.terms.rate.accrue(elapsed, self.carry);
        let mut level = Level::at(position, accrued, self.terms.capacity);
        if elapsed >= self.terms.horizon && position >= accrued.floor {
            // Past the horizon the rate's own rounding may have reached a step of the carry.
            level.0 -= 1;
        }
        // A debt that is paid before the anchor is paid at the new rate from now on.
        let begin = now.max(self.anchor - self.delay);
        level.owe(self.terms.rate, self.anchor.saturating_sub(begin));
        let was_full = position <= accrued.floor;
        let Rescaled { position, carry, delay } = level.rescale(&self.terms, &to.terms, to.charge);
        // A full bucket carries nothing, so that whole tokens are on time again after a cut.
        let carry = if was_full { 0 } else { carry };
        // Never before the old anchor: the slot before it has counted that time.
        let anchor = begin.max(to.pause_until).saturating_add(delay);
        let paused = self.state == SlotState::Paused || to.pause_until > now || delay > 0;
        let is_paused = to.state == SlotState::Open && paused && anchor > now;
        let state = if is_paused { SlotState::Paused } else { to.state };
        (
            Self { state, terms: to.terms, anchor, delay, until: to.until, carry, origin: 0 },
            position,
        )
    }

    /// A change that changes nothing, to build on.
    pub(super) fn unchanged(&self) -> SlotChange {
        let Self { state, terms, until, .. } = *self;
        SlotChange { state, terms, pause_until: 0, until, charge: 0 }
    }

    /// The anchor moved up to `now`, by a whole number of units where the rate allows it.
    pub(super) fn reanchored(&self, position: u64, now: u64) -> (Self, u64) {
        if self.terms.period == u64::MAX || self.state != SlotState::Open {
            return self.transition(position, self.unchanged(), now);
        }
        let moved = self.elapsed(now) / self.terms.period * self.terms.period;
        let units = self.terms.rate.accrue(moved, 0).floor;
        // Full at the new anchor, not merely at `now`: a reading between the two may still be used.
        let (position, carry) =
            if position <= units { (0, 0) } else { (position - units, self.carry) };
        (Self { anchor: self.anchor + moved, carry, origin: 0, ..*self }, position)
    }
}
