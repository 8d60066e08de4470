//! How one configuration of a bucket gives way to the next. Pure: a bucket in a word swings to the
//! result by a CAS, a bucket under a lock stores it.

use super::rate::{Level, Rescaled, Terms};
use super::slot::{SlotConfig, SlotState};

/// What a bucket is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotChange {
    pub(crate) state: SlotState,
    /// See [`SlotConfig::is_share`].
    pub(crate) is_share: bool,
    pub(crate) terms: Terms,
    /// Nothing is admitted before this reading.
    pub(crate) pause_until: u64,
    /// Whether a pause ends now.
    pub(crate) resumes: bool,
    /// See [`SlotConfig::until`].
    pub(crate) until: Option<u64>,
    /// Tokens to take, available or not.
    pub(crate) charge: u64,
    /// The level that is kept at most, in the units of the slot before.
    pub(crate) level: Level,
}

impl SlotConfig {
    /// The next configuration, and the position in it: the level is settled at the old rate, clipped
    /// to the new capacity, and kept. A pause that has not ended continues.
    pub(super) fn transition(&self, position: u64, to: SlotChange, now: u64) -> (Self, u64) {
        let accrued = self.terms.rate.accrue(self.elapsed(now), self.carry);
        let level = self.level(position, now).min(to.level);
        let pause_end = self.anchor - self.delay;
        let begin = now.max(if to.resumes { self.counted.min(pause_end) } else { pause_end });
        let was_full = position <= accrued.floor;
        let Rescaled { position, carry, delay } = level.rescale(&self.terms, &to.terms, to.charge);
        // A full bucket carries nothing, so that whole tokens are on time again after a cut.
        let carry = if was_full { 0 } else { carry };
        // Never before the old anchor: the slot before it has counted that time.
        let anchor = begin.max(to.pause_until).saturating_add(delay);
        let continues = self.state == SlotState::Paused && !to.resumes;
        let paused = continues || to.pause_until > now || delay > 0;
        let is_paused = to.state == SlotState::Open && paused && anchor > now;
        let state = if is_paused { SlotState::Paused } else { to.state };
        let SlotChange { is_share, terms, until, .. } = to;
        let counted = now.max(self.counted).min(begin);
        (Self { state, is_share, terms, anchor, delay, counted, until, carry, origin: 0 }, position)
    }

    /// The level at `now`.
    pub(super) fn level(&self, position: u64, now: u64) -> Level {
        let elapsed = self.elapsed(now);
        let accrued = self.terms.rate.accrue(elapsed, self.carry);
        let mut level = Level::at(position, accrued, self.terms.capacity);
        if elapsed >= self.terms.horizon && position >= accrued.floor {
            // Past the horizon the rate's own rounding may have reached a step of the carry.
            level.0 -= 1;
        }
        // A debt that is paid before the anchor is paid at the new rate from now on.
        let unpaid = now.max(self.anchor - self.delay);
        level.owe(self.terms.rate, self.anchor.saturating_sub(unpaid));
        level
    }

    /// The most that can be charged, in tokens: see [`Terms::max_debt`].
    pub(super) fn charge_room(&self, position: u64, now: u64) -> u64 {
        self.level(position, now).plus(self.terms.max_debt()) / self.terms.unit
    }

    /// A change that changes nothing, to build on.
    pub(super) fn unchanged(&self) -> SlotChange {
        let Self { state, is_share, terms, until, .. } = *self;
        SlotChange {
            state,
            is_share,
            terms,
            pause_until: 0,
            resumes: false,
            until,
            charge: 0,
            level: Level::MAX,
        }
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
        let anchor = self.anchor + moved;
        (Self { anchor, counted: anchor, carry, origin: 0, ..*self }, position)
    }
}
