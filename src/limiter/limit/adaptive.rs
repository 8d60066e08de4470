//! Limits that find themselves.

use std::time::Duration;

use super::super::error::ConfigError;
use super::{Limit, Window};
use crate::adapt::{Range, nanos};
use crate::bucket::rate::MAX_TOKENS;

/// The time that an adaptive limit takes to be back where it was refused.
pub(super) const BACK_IN: Duration = Duration::from_secs(20);

/// Tokens a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) back_in: Duration,
}

impl Limit {
    /// Finds the upstream's limit by itself, between `min` and `max` tokens a window. Use it where that limit is
    /// unknown, or changes.
    ///
    /// It begins with this limit's own rate, and grows each second until a permit's request is
    /// [refused](crate::Permit::throttled): under full demand tenfold in about 9 seconds. A refusal leaves 0.7
    /// of the rate that got through. From there it grows as CUBIC does (RFC 9438): it is back at that rate after
    /// 20 seconds (see [`back_in`](Self::back_in)), lingers, and then looks for more. The burst is scaled with
    /// the rate.
    ///
    /// It grows only while at least half of it is in use, and to no more than twice what was admitted over the
    /// last 5 seconds: an idle caller learns nothing. What is in use is counted by permits; `check` and
    /// `until_ready` take none. Refusals within 2 seconds of a cut belong to it, unless
    /// [`cooldown`](Self::cooldown) is set. In a swarm agents tell each other of refusals, and each grows on its
    /// own.
    ///
    /// Every admission is exact under the rate of its moment. A call for more than the burst of its moment fails
    /// with [`ExceedsCapacity`](crate::TryAcquireError::ExceedsCapacity). A [`recovery`](Self::recovery) has no
    /// effect. Neither a strict limit nor several windows can be adaptive, and `min` may not be above the limit
    /// nor `max` below it: [`ConfigError::InvalidAdaptive`].
    ///
    /// ```
    /// use tollgate::{Limit, MemoryLimiter};
    ///
    /// let limiter = MemoryLimiter::new();
    /// let api = limiter.configure("api", Limit::per_second(10).adaptive(1, 20_000))?;
    /// let permit = api.try_acquire()?;
    /// // ... the upstream answers 429 ...
    /// permit.throttled("received 429");
    /// assert_eq!(api.capacity().burst, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn adaptive(mut self, min: u64, max: u64) -> Self {
        self.adaptive = Some(Bounds { min, max, back_in: BACK_IN });
        self
    }

    /// How long an [adaptive](Self::adaptive) limit takes after a cut to be back at the rate at which it was
    /// refused. The default is 20 seconds; it must be positive. Call it after `adaptive`; it has no effect on
    /// other limits.
    #[must_use]
    pub const fn back_in(mut self, time: Duration) -> Self {
        if let Some(bounds) = &mut self.adaptive {
            bounds.back_in = time;
        }
        self
    }

    /// What [`adaptive`](Self::adaptive) was given: the least and the most tokens a window.
    #[must_use]
    pub fn get_adaptive(&self) -> Option<(u64, u64)> {
        self.adaptive.map(|bounds| (bounds.min, bounds.max))
    }

    pub(super) fn validate_adaptive(&self) -> Result<(), ConfigError> {
        let Some(Bounds { min, max, back_in }) = self.adaptive else { return Ok(()) };
        let capacity = self.first().capacity;
        let is_ordered = (1..=capacity).contains(&min) && (capacity..=MAX_TOKENS).contains(&max);
        let is_plain = self.windows().count() == 1 && !self.first().is_strict;
        if !is_ordered || !is_plain || back_in.is_zero() {
            return Err(ConfigError::InvalidAdaptive);
        }
        // What it may become must fit as well.
        self.first().raised_to(max).terms(1.0).map(drop)
    }

    /// The range of an adaptive limit, as factors of it.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    pub(crate) fn range(&self) -> Option<Range> {
        let factor = |tokens: u64| tokens as f64 / self.first().capacity as f64;
        self.adaptive.map(|bounds| Range {
            min: factor(bounds.min),
            max: factor(bounds.max),
            back_in: nanos(bounds.back_in),
        })
    }

    /// The window that a factor scales, and the factor: an adaptive limit is scaled down from its most, as it may
    /// become thousands of times what it began with.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    pub(super) fn scaled_from(&self, window: &Window, factor: f64) -> (Window, f64) {
        let Some(Bounds { max, .. }) = self.adaptive else { return (*window, factor) };
        (window.raised_to(max), factor * window.capacity as f64 / max as f64)
    }
}
