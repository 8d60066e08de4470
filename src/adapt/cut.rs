//! One cut, and the way back from it: what it scales a limit by at any time.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Recovery, nanos};

/// The most that a cut takes away: a millionth stays, on every agent alike.
pub(crate) const LEAST: f64 = 1.0 / (1 << 20) as f64;
/// Of two tellings of a cut's age the older one counts, if they are no further apart: messages are
/// delayed, never early. Beyond, it would be a way to undo a cut.
const TELLING: i128 = 5_000_000_000;

/// How far a cut goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    /// To this part of the limit.
    Factor(f64),
    /// To so many tokens a window, whatever the limit: from one who knows no factors.
    Tokens(u64),
}

/// A cut as it is known here. Its date is by this clock, and may lie before the clock's start.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) id: u64,
    /// What it left of the limit when it was made.
    pub(crate) factor: f64,
    /// What it was told as, if not as a factor.
    pub(crate) tokens: Option<u64>,
    start: i128,
    /// Its start as it was first told.
    told: i128,
    pub(crate) origin: Arc<Origin>,
}

/// Who made a cut, why, and when by their calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) agent_id: String,
    pub(crate) reason: String,
    pub(crate) timestamp: SystemTime,
    pub(crate) is_ours: bool,
}

impl Cut {
    pub(crate) fn new(id: u64, factor: f64, now: u64, age: u64, origin: Arc<Origin>) -> Self {
        let start = i128::from(now) - i128::from(age);
        Self { id, factor: factor.max(LEAST), tokens: None, start, told: start, origin }
    }

    pub(crate) fn told_in(self, tokens: Option<u64>) -> Self {
        Self { tokens, ..self }
    }

    pub(crate) fn age(&self, now: u64) -> u64 {
        u64::try_from(i128::from(now) - self.start).unwrap_or(0)
    }

    /// Another telling of the same cut.
    pub(super) fn heard_again(&mut self, other: &Self) {
        self.factor = self.factor.min(other.factor);
        if self.told - other.start <= TELLING {
            self.start = self.start.min(other.start);
        }
    }

    /// Count it from `now` on as if it were made then.
    pub(super) fn restart(&mut self, factor: f64, now: u64) {
        (self.factor, self.start, self.told) = (factor, now.into(), now.into());
    }

    /// What it scales the limit by, at most `ceiling`.
    pub(super) fn factor_at(&self, now: u64, way: &Way) -> f64 {
        let Some(recovery) = way.recovery else { return self.factor };
        let steps = self.age(now) / nanos(recovery.interval);
        (self.factor * power(recovery.factor, steps)).min(way.ceiling)
    }

    /// When it is next scaled otherwise.
    pub(super) fn next_step(&self, now: u64, way: &Way) -> Option<u64> {
        let interval = nanos(way.recovery?.interval);
        if self.factor_at(now, way) >= way.ceiling {
            return None;
        }
        let steps = i128::from(self.age(now) / interval) + 1;
        u64::try_from(self.start + steps * i128::from(interval)).ok()
    }

    /// Whether who knows of this one is not noticeably above `other`: as messages are delayed, agents
    /// differ in what they know of a cut's age.
    pub(super) fn stands_for(&self, other: &Self, now: u64, way: &Way) -> bool {
        let mut delayed = self.clone();
        delayed.start += TELLING;
        self.id == other.id || delayed.factor_at(now, way) <= other.factor_at(now, way)
    }

    /// Whether this one scales by no more than `other` from now on, so that the other may be
    /// forgotten. Both grow by the same steps at the same distance, and may be out of step: what
    /// holds until after this one's next step holds ever after.
    pub(super) fn covers(&self, other: &Self, now: u64, way: &Way) -> bool {
        let below = |at: u64| self.factor_at(at, way) <= other.factor_at(at, way);
        below(now) && self.next_step(now, way).is_none_or(below)
    }
}

#[allow(clippy::cast_precision_loss)] // a clock counts less than 2^53 ms
fn power(factor: f64, steps: u64) -> f64 {
    i32::try_from(steps).map_or_else(|_| factor.powf(steps as f64), |steps| factor.powi(steps))
}

/// How every cut of a resource is undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) recovery: Option<Recovery>,
    /// Where recovery ends.
    pub(super) ceiling: f64,
}
