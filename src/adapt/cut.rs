//! One cut, and the curve of its recovery: the factor by which it scales a limit at any time.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Recovery, nanos};

/// The lowest factor of a cut, the same on every agent: a millionth of the limit remains.
pub(crate) const LEAST: f64 = 1.0 / (1 << 20) as f64;
/// More steps than it takes to recover from one token, with any factor that is of use.
const MAX_WHOLE_STEPS: u64 = 1_000;

/// A cut as this agent knows it.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "swarm"), allow(dead_code))] // by which agents know it
pub(crate) struct Cut {
    pub(crate) id: u64,
    /// The factor of the limit that it left when it was made.
    pub(crate) factor: f64,
    /// `Some` if it was made by an agent that announces tokens only.
    pub(crate) plain: Option<Plain>,
    /// Its date, by this agent's clock: it may lie before the clock's start.
    pub(super) start: i128,
    pub(crate) origin: Arc<Origin>,
}

/// A cut as an agent announces it that knows neither factors nor incidents. Each limit is scaled by the
/// higher of the factor that the tokens are for it, and the floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plain {
    /// Tokens a window.
    pub(crate) tokens: u64,
    /// What one refusal leaves of the limit. Agents that were at different levels when they heard of the
    /// cut agree on the lowest.
    pub(crate) floor: f64,
}

/// The agent that made a cut, the reason, and the time by that agent's calendar clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) agent_id: String,
    pub(crate) reason: String,
    pub(crate) timestamp: SystemTime,
    pub(crate) is_ours: bool,
    /// Whether a request was refused, so that each agent cuts from what it really sends.
    pub(crate) is_measured: bool,
}

impl Cut {
    pub(crate) fn new(id: u64, factor: f64, now: u64, age: u64, origin: Arc<Origin>) -> Self {
        let start = i128::from(now) - i128::from(age);
        Self { id, factor: factor.max(LEAST), plain: None, start, origin }
    }

    pub(crate) fn age(&self, now: u64) -> u64 {
        u64::try_from(i128::from(now) - self.start).unwrap_or(0)
    }

    /// Treat it as made at `now`, as far as it has recovered by `curve`, which ends at `ceiling` from now on.
    pub(super) fn restart(&mut self, now: u64, curve: &RecoveryCurve, ceiling: f64) {
        let growth = curve.growth(self.age(now));
        if let Some(plain) = &mut self.plain {
            *plain = Plain {
                tokens: plain.recovered(now, self.start, curve),
                floor: plain.floor * growth,
            };
        }
        self.factor = self.factor_at(now, curve).min(ceiling);
        self.start = now.into();
    }

    /// Lower it so that it scales the limit by `factor` at `now`, with the same date.
    pub(super) fn lower_to(&mut self, factor: f64, now: u64, curve: &RecoveryCurve) {
        self.factor *= factor / self.factor_at(now, curve);
        self.plain = None;
    }

    /// The factor by which it scales the limit at `now`, at most the curve's ceiling.
    pub(super) fn factor_at(&self, now: u64, curve: &RecoveryCurve) -> f64 {
        (self.factor * curve.growth(self.age(now))).min(curve.ceiling)
    }

    /// The least factor by which it scales any limit at `now`: it stands while that is below 1.
    pub(super) fn least_at(&self, now: u64, curve: &RecoveryCurve) -> f64 {
        let least = self.plain.map_or(self.factor, |plain| plain.floor.max(LEAST).min(self.factor));
        (least * curve.growth(self.age(now))).min(curve.ceiling)
    }

    /// When its factor next changes.
    pub(super) fn next_step(&self, now: u64, curve: &RecoveryCurve) -> Option<u64> {
        let interval = nanos(curve.recovery?.interval);
        if self.least_at(now, curve) >= curve.ceiling {
            return None;
        }
        let steps = i128::from(self.age(now) / interval) + 1;
        u64::try_from(self.start + steps * i128::from(interval)).ok()
    }

    /// Whether this one scales no limit by more than `other` from now on, so that the other does not count.
    /// Both grow by the same factor at the same interval, but may be out of phase: what holds now and after
    /// this one's next step holds from then on.
    ///
    /// It is the same for every limit, so that agents with unequal limits keep and tell the same cuts. So a
    /// cut in tokens covers no cut by a factor, nor is covered by one.
    pub(super) fn covers(&self, other: &Self, now: u64, curve: &RecoveryCurve) -> bool {
        let below = |at: u64| {
            let (ours, theirs) = (curve.growth(self.age(at)), curve.growth(other.age(at)));
            match (self.plain, other.plain) {
                (None, None) => self.factor_at(at, curve) <= other.factor_at(at, curve),
                (Some(plain), Some(other)) => {
                    as_float(plain.tokens) * ours <= as_float(other.tokens) * theirs
                        && plain.floor * ours <= other.floor * theirs
                }
                _ => false,
            }
        };
        below(now) && self.next_step(now, curve).is_none_or(below)
    }
}

impl Plain {
    /// What is left of the announced tokens at `now`, if that agent recovers as we do, in whole numbers as it
    /// does: 1 stays 1.
    pub(super) fn recovered(&self, now: u64, start: i128, curve: &RecoveryCurve) -> u64 {
        let Some(recovery) = curve.recovery else { return self.tokens };
        let age = u64::try_from(i128::from(now) - start).unwrap_or(0);
        let mut tokens = self.tokens;
        for _ in 0..(age / nanos(recovery.interval)).min(MAX_WHOLE_STEPS) {
            #[allow(clippy::cast_sign_loss)] // a saturating cast
            let next = (as_float(tokens) * recovery.factor) as u64;
            if next == tokens {
                break;
            }
            tokens = next;
        }
        tokens
    }
}

#[allow(clippy::cast_precision_loss)] // what it is compared with is rounded too
fn as_float(tokens: u64) -> f64 {
    tokens as f64
}

impl RecoveryCurve {
    /// What a cut of this age has grown by.
    fn growth(&self, age: u64) -> f64 {
        self.recovery.map_or(1.0, |recovery| power(recovery.factor, age / nanos(recovery.interval)))
    }
}

#[allow(clippy::cast_precision_loss)] // a clock counts less than 2^53 ms
pub(super) fn power(factor: f64, steps: u64) -> f64 {
    i32::try_from(steps).map_or_else(|_| factor.powf(steps as f64), |steps| factor.powi(steps))
}

/// How every cut of a resource recovers.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoveryCurve {
    pub(super) recovery: Option<Recovery>,
    /// The factor at which recovery ends.
    pub(super) ceiling: f64,
}
