//! One window of a limit: tokens per time, and the bucket that enforces it.

use std::num::NonZeroU64;
use std::time::Duration;

use super::super::error::ConfigError;
use crate::adapt::nanos;
use crate::bucket::Terms;
use crate::bucket::rate::{Factor, MAX_TOKENS};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) capacity: u64,
    pub(crate) length: Duration,
    /// `None`: the default of [`depth`](Self::depth).
    pub(super) burst: Option<NonZeroU64>,
    /// At most `capacity` tokens in any interval of the window's length.
    pub(super) is_strict: bool,
}

impl Window {
    /// Tokens that the bucket holds. The default is the capacity; for a strict window a tenth of
    /// it, at least one token.
    pub(crate) fn depth(&self) -> u64 {
        match self.burst {
            Some(burst) => burst.get(),
            None if self.is_strict => (self.capacity / 10).max(1),
            None => self.capacity,
        }
    }

    /// Tokens to count as spent when this window replaces `old`: the difference of the bursts of a
    /// strict window. Otherwise its smaller burst would come on top of tokens taken from the larger
    /// one. The bursts are those before any cut: what a cut removed may have been spent before it.
    pub(crate) fn lost_depth(&self, old: &Self) -> u64 {
        if self.is_strict { old.depth().saturating_sub(self.depth()) } else { 0 }
    }

    /// Tokens that accrue in a window. From a strict bucket a window admits the burst and what
    /// accrues, together less than capacity + 1; tokens are whole, so at most the capacity.
    fn refill(&self) -> u64 {
        if self.is_strict {
            (self.capacity + 1).saturating_sub(self.depth())
        } else {
            self.capacity
        }
    }

    /// The same with `capacity` tokens, and a burst in proportion.
    pub(super) fn raised_to(&self, capacity: u64) -> Self {
        let raise = |burst: NonZeroU64| {
            let raised =
                u128::from(burst.get()) * u128::from(capacity) / u128::from(self.capacity.max(1));
            NonZeroU64::new(u64::try_from(raised).unwrap_or(u64::MAX))
        };
        Self { capacity, burst: self.burst.and_then(raise), ..*self }
    }

    /// Tokens that accrue in a second.
    #[allow(clippy::cast_precision_loss)] // a rate
    pub(crate) fn rate(&self) -> f64 {
        self.refill() as f64 / self.length.as_secs_f64()
    }

    /// Tokens that accrue in a window, scaled by `factor` and rounded down, at least one.
    pub(crate) fn per_window(&self, factor: f64) -> u64 {
        Factor::new(self.clip(factor)).tokens(self.refill()).max(1)
    }

    /// An uncapped recovery does not raise a strict window above its capacity.
    fn clip(&self, factor: f64) -> f64 {
        if self.is_strict { factor.min(1.0) } else { factor }
    }

    /// The terms of this window's bucket, scaled by `factor`.
    pub(crate) fn terms(&self, factor: f64) -> Result<Terms, ConfigError> {
        let nanos = nanos(self.length);
        if self.length.is_zero() || Duration::from_nanos(nanos) != self.length {
            return Err(ConfigError::InvalidWindow);
        }
        if !(1..=MAX_TOKENS).contains(&self.capacity) {
            return Err(ConfigError::InvalidCapacity);
        }
        let most = if self.is_strict { self.capacity } else { MAX_TOKENS };
        if !(1..=most).contains(&self.depth()) {
            return Err(ConfigError::InvalidBurst);
        }
        // Both ends of a strict window count, so its refill takes a nanosecond longer.
        let nanos = nanos.saturating_add(u64::from(self.is_strict));
        Terms::new(self.refill(), nanos, self.depth(), Factor::new(self.clip(factor)))
            .ok_or(ConfigError::RateTooHigh)
    }
}
