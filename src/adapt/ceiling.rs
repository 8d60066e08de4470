//! A local ceiling: what a refusal says of the rate that was really sent.
//!
//! A cut is a part of the limit, whatever was sent: an agent that sends a fifth of its limit goes on as before.
//! So a refusal also sets a ceiling, a part of the rate that was lately admitted. It is this agent's own and is
//! told to nobody. AWS' client rate limiter starts from the measured rate for the same reason.
//!
//! A ceiling grows by the factor of the recovery up to the rate that it was cut from. Beyond that nothing is
//! known of the room there, and the gain doubles with each step: 1.1, 1.2, 1.4, 1.8, then 2.

use super::cut::{RecoveryCurve, power};
use super::nanos;

/// The largest gain of a step beyond the rate that a ceiling was cut from, unless the recovery's is larger.
const MOST_GAIN: f64 = 1.0;

/// As factors of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ceiling {
    /// When it was set.
    level: f64,
    /// What was sent before.
    from: f64,
    start: u64,
    /// Steps from the one to the other.
    steps_back: u64,
}

impl Ceiling {
    /// `None` if the limit does not recover: a ceiling that stays would be worse than none.
    pub(super) fn new(level: f64, from: f64, now: u64, curve: &RecoveryCurve) -> Option<Self> {
        let factor = curve.recovery?.factor;
        #[allow(clippy::cast_sign_loss)] // a saturating cast
        let steps_back = ((from / level).ln() / factor.ln()).max(0.0).ceil() as u64;
        Some(Self { level, from, start: now, steps_back })
    }

    /// The same from now on, where it has recovered to `level`, by another curve.
    pub(super) fn restarted(self, level: f64, now: u64, curve: &RecoveryCurve) -> Option<Self> {
        Self::new(level, self.from.max(level), now, curve)
    }

    fn steps(&self, now: u64, curve: &RecoveryCurve) -> Option<(u64, u64)> {
        let interval = nanos(curve.recovery?.interval);
        Some((now.saturating_sub(self.start) / interval, interval))
    }

    /// At `now`; infinite once it is above `most`.
    pub(super) fn level_at(&self, now: u64, most: f64, curve: &RecoveryCurve) -> f64 {
        let (Some(recovery), Some((steps, _))) = (curve.recovery, self.steps(now, curve)) else {
            return f64::INFINITY;
        };
        if steps < self.steps_back {
            return (self.level * power(recovery.factor, steps)).min(self.from);
        }
        let (mut level, mut gain) = (self.from, recovery.factor - 1.0);
        for _ in self.steps_back..steps {
            if level >= most {
                return f64::INFINITY;
            }
            level *= 1.0 + gain;
            gain = (gain * 2.0).min(MOST_GAIN.max(recovery.factor - 1.0));
        }
        if level < most { level } else { f64::INFINITY }
    }

    pub(super) fn next_step(&self, now: u64, curve: &RecoveryCurve) -> Option<u64> {
        let (steps, interval) = self.steps(now, curve)?;
        self.start.checked_add((steps + 1).checked_mul(interval)?)
    }

    /// The same rate as a factor of another limit, which is `ratio` of the present one.
    pub(super) fn rebase(&mut self, ratio: f64) {
        self.level /= ratio;
        self.from /= ratio;
    }
}
