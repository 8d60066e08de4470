//! One cut, and the curve back from it: what it scales a limit by at any time.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Recovery, nanos};

/// The most that a cut takes away: a millionth stays, on every agent alike.
pub(crate) const LEAST: f64 = 1.0 / (1 << 20) as f64;
/// Agents differ by so much at most in what they know of a cut's date, because messages are delayed
/// and passed on; and by half the interval of the recovery, if that is less.
const TELLING: i128 = 10_000_000_000;
/// If two agents' steps of a recovery are no further apart, they need not talk about it.
const NOTICEABLE: i128 = 1_000_000_000;

/// How far a cut goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CutTarget {
    /// To this part of the limit.
    Factor(f64),
    /// To so many tokens a window, whatever the limit: from one who knows neither factors nor
    /// incidents.
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
    /// It is heard no lower than this.
    floor: f64,
    pub(super) start: i128,
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
        Self { id, factor: factor.max(LEAST), tokens: None, floor: 0.0, start, origin }
    }

    pub(crate) fn told_in(self, tokens: Option<u64>) -> Self {
        Self { tokens, ..self }
    }

    pub(crate) fn age(&self, now: u64) -> u64 {
        u64::try_from(i128::from(now) - self.start).unwrap_or(0)
    }

    /// Heard no lower than `floor`, now and whenever it is told again. What was told in tokens is passed
    /// on in tokens, as many as that.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // nothing turns on the last token
    pub(super) fn no_lower_than(self, floor: f64) -> Self {
        let rise = (floor / self.factor).max(1.0);
        let tokens = self.tokens.map(|tokens| (tokens as f64 * rise).ceil() as u64);
        Self { floor, factor: self.factor * rise, tokens, ..self }
    }

    /// With what another telling of it adds, if anything: it may be lower, and younger by more than
    /// a message takes. So nobody can bring its recovery forward, and what is told again and again
    /// does not get younger by the delay of each telling.
    pub(super) fn amended(&self, other: &Self, curve: &RecoveryCurve) -> Option<Self> {
        let mut amended = self.clone();
        if other.factor.max(self.floor) < self.factor {
            amended = Self { factor: other.factor, tokens: other.tokens, ..amended };
            amended = amended.no_lower_than(self.floor);
        }
        if other.start > self.start + curve.tolerance() {
            amended.start = other.start;
        }
        let is_news = amended.factor < self.factor || amended.start > self.start;
        is_news.then_some(amended)
    }

    /// Count it from `now` on as if it were made then.
    pub(super) fn restart(&mut self, factor: f64, now: u64) {
        (self.factor, self.start) = (factor, now.into());
    }

    /// Scale the limit by `factor` at `now`, and go on from there.
    pub(super) fn lower_to(&mut self, factor: f64, now: u64, curve: &RecoveryCurve) {
        self.factor *= factor / self.factor_at(now, curve);
        self.tokens = None;
    }

    /// What it scales the limit by, at most `ceiling`.
    pub(super) fn factor_at(&self, now: u64, curve: &RecoveryCurve) -> f64 {
        let Some(recovery) = curve.recovery else { return self.factor };
        let steps = self.age(now) / nanos(recovery.interval);
        (self.factor * power(recovery.factor, steps)).min(curve.ceiling)
    }

    /// When it is next scaled otherwise.
    pub(super) fn next_step(&self, now: u64, curve: &RecoveryCurve) -> Option<u64> {
        let interval = nanos(curve.recovery?.interval);
        if self.factor_at(now, curve) >= curve.ceiling {
            return None;
        }
        let steps = i128::from(self.age(now) / interval) + 1;
        u64::try_from(self.start + steps * i128::from(interval)).ok()
    }

    /// Whether who tells of this one is not noticeably above `other`, now or later.
    pub(super) fn stands_for(&self, other: &Self, now: u64, curve: &RecoveryCurve) -> bool {
        if self.id == other.id {
            self.factor <= other.factor && self.start + curve.tolerance() >= other.start
        } else {
            let start = self.start + NOTICEABLE.min(curve.tolerance());
            Self { start, ..self.clone() }.covers(other, now, curve)
        }
    }

    /// Whether this one scales by no more than `other` from now on, so that the other does not
    /// count. Both grow by the same steps at the same distance, and may be out of step: what holds
    /// until after this one's next step holds ever after.
    pub(super) fn covers(&self, other: &Self, now: u64, curve: &RecoveryCurve) -> bool {
        let below = |at: u64| self.factor_at(at, curve) <= other.factor_at(at, curve);
        below(now) && self.next_step(now, curve).is_none_or(below)
    }
}

#[allow(clippy::cast_precision_loss)] // a clock counts less than 2^53 ms
fn power(factor: f64, steps: u64) -> f64 {
    i32::try_from(steps).map_or_else(|_| factor.powf(steps as f64), |steps| factor.powi(steps))
}

/// How every cut of a resource is undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoveryCurve {
    pub(super) recovery: Option<Recovery>,
    /// Where recovery ends.
    pub(super) ceiling: f64,
}

impl RecoveryCurve {
    /// Two dates of a cut that are no further apart are taken for the same.
    fn tolerance(&self) -> i128 {
        let half = self.recovery.map(|recovery| i128::from(nanos(recovery.interval)) / 2);
        half.map_or(TELLING, |half| half.min(TELLING))
    }
}
