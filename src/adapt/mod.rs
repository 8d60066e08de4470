//! What a resource does after its upstream said "too many requests": cuts, and the way back.
//! Pure state; time is passed in.

use std::time::Duration;

/// How a limit that was cut recovers.
///
/// Every `interval` after a cut the limit is multiplied by `factor`, on the exact factor and not on
/// the whole tokens that are shown, so that it always arrives at the original: from 1 as well.
/// Recovery is lazy: a step takes effect, at the time it was due, when somebody next uses or asks
/// after the resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// Time between two steps, and from a cut to the first.
    pub interval: Duration,
    /// What each step multiplies the limit by: above 1, and finite.
    pub factor: f64,
    /// Stop at the original limit. **Without a cap the limit grows past what was configured**, a
    /// step at a time, up to 1,024 times of it.
    pub cap: bool,
}

impl Default for Recovery {
    /// 10 % every 30 seconds, up to the original.
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), factor: 1.1, cap: true }
    }
}

impl Recovery {
    pub(crate) fn is_valid(&self) -> bool {
        self.factor.is_finite() && self.factor > 1.0 && !self.interval.is_zero()
    }
}

/// Where a recovery without a cap ends.
const CEILING: f64 = 1024.0;
/// So many steps that were due are taken one by one; the rest, after a long rest, at once.
const STEPS: u32 = 1_000;

/// What a resource's limit is scaled by at present, and when that changes.
#[derive(Clone, Debug)]
pub(crate) struct Adapt {
    factor: f64,
    recovery: Option<Recovery>,
    due: Option<u64>,
    overdue: u32,
}

impl Adapt {
    pub(crate) fn new(recovery: Option<Recovery>) -> Self {
        Self { factor: 1.0, recovery, due: None, overdue: 0 }
    }

    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// When the next step of the recovery takes effect.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Multiply by `by`, but not below `least`. Recovery starts over. Says whether that changed
    /// anything.
    pub(crate) fn cut(&mut self, by: f64, least: f64, now: u64) -> bool {
        let before = self.factor;
        self.factor = (before * by).max(least.min(before));
        self.due = self.first_step(now);
        self.factor < before
    }

    /// Another way to recover, from now on; the factor stays.
    pub(crate) fn recover_by(&mut self, recovery: Option<Recovery>, now: u64) {
        if self.recovery != recovery {
            self.recovery = recovery;
            self.due = self.first_step(now);
        }
    }

    fn first_step(&self, now: u64) -> Option<u64> {
        let recovery = self.recovery.filter(|recovery| !self.is_recovered(recovery))?;
        now.checked_add(nanos(recovery.interval))
    }

    /// Take the step that was due, `now` being the present. After `STEPS` in a row the rest is
    /// taken as one, at the time of the last.
    pub(crate) fn step(&mut self, now: u64) {
        let (Some(recovery), Some(due)) = (self.recovery, self.due) else { return };
        let interval = nanos(recovery.interval);
        self.overdue += 1;
        let more = if self.overdue < STEPS { 0 } else { now.saturating_sub(due) / interval };
        let steps = i32::try_from(more.saturating_add(1)).unwrap_or(i32::MAX);
        self.factor *= recovery.factor.powi(steps);
        self.due =
            due.checked_add(more.saturating_mul(interval)).and_then(|d| d.checked_add(interval));
        if self.is_recovered(&recovery) {
            self.factor = if recovery.cap { 1.0 } else { CEILING };
            self.due = None;
        }
        if self.due.is_none_or(|due| due > now) {
            self.overdue = 0;
        }
    }

    /// The limit has no room for so large a factor: only one without a cap is.
    pub(crate) fn halve(&mut self) {
        self.factor = (self.factor / 2.0).max(1.0);
        self.due = None;
    }

    fn is_recovered(&self, recovery: &Recovery) -> bool {
        self.factor >= if recovery.cap { 1.0 } else { CEILING }
    }
}

/// A duration in whole nanoseconds, saturating after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps_to_recover(mut adapt: Adapt) -> u32 {
        let mut steps = 0;
        while let Some(due) = adapt.due() {
            adapt.step(due);
            steps += 1;
        }
        assert!((adapt.factor() - 1.0).abs() < f64::EPSILON);
        steps
    }

    #[test]
    fn recovers_from_the_least_too() {
        let mut adapt = Adapt::new(Some(Recovery::default()));
        assert!(adapt.cut(0.5, 0.1, 0));
        for _ in 0..10 {
            adapt.cut(0.5, 0.1, 0);
        }
        assert!((adapt.factor() - 0.1).abs() < f64::EPSILON);
        assert!(!adapt.cut(0.5, 0.1, 0));
        // 0.1 * 1.1^25 > 1
        assert_eq!(steps_to_recover(adapt), 25);
    }

    #[test]
    fn steps_that_were_slept_through_are_all_taken() {
        let slow = Recovery { interval: Duration::from_nanos(10), factor: 1.000_001, cap: true };
        let mut adapt = Adapt::new(Some(slow));
        adapt.cut(0.5, 0.1, 0);
        let mut looks = 0;
        while adapt.due().is_some_and(|due| due <= 1_000_000_000) {
            adapt.step(1_000_000_000);
            looks += 1;
        }
        assert!((adapt.factor() - 1.0).abs() < f64::EPSILON);
        assert_eq!(looks, STEPS);
    }

    #[test]
    fn without_a_cap_it_passes_the_original_and_ends() {
        let mut adapt = Adapt::new(Some(Recovery { cap: false, ..Recovery::default() }));
        adapt.cut(0.5, 0.1, 0);
        while let Some(due) = adapt.due() {
            adapt.step(due);
        }
        assert!((adapt.factor() - CEILING).abs() < f64::EPSILON);
    }

    #[test]
    fn without_recovery_a_cut_stays() {
        let mut adapt = Adapt::new(None);
        adapt.cut(0.75, 0.1, 7);
        assert_eq!(adapt.due(), None);
    }
}
