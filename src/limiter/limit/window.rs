//! One window of a limit: how many tokens in which time, and as what bucket.

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
    /// What the bucket holds, where it is not the default.
    pub(super) burst: Option<NonZeroU64>,
    /// Never more than `capacity` in any stretch of time as long as the window.
    pub(super) is_strict: bool,
}

impl Window {
    /// What the bucket holds. A strict one by default a tenth of its capacity, at least one token.
    pub(crate) fn depth(&self) -> u64 {
        match self.burst {
            Some(burst) => burst.get(),
            None if self.is_strict => (self.capacity / 10).max(1),
            None => self.capacity,
        }
    }

    /// Tokens that this holds less than `old`, which it goes on from, and that count as spent. In a strict
    /// window what was spent stays spent: else its smaller burst would come on top of the larger one.
    /// Before any cut: what a cut took from the bucket comes back, and was perhaps spent before it.
    pub(crate) fn lost_depth(&self, old: &Self) -> u64 {
        if self.is_strict { old.depth().saturating_sub(self.depth()) } else { 0 }
    }

    /// Tokens that accrue in a window. What a strict bucket holds may be taken at once, and what
    /// accrues beside it in the window; with whole tokens, less than one more than the capacity is no
    /// more than the capacity.
    fn refill(&self) -> u64 {
        if self.is_strict {
            (self.capacity + 1).saturating_sub(self.depth())
        } else {
            self.capacity
        }
    }

    /// Tokens that accrue in a window, scaled and rounded down, but never less than one.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // at most 2^52 tokens
    pub(crate) fn per_window(&self, factor: f64) -> u64 {
        ((self.refill() as f64 * self.clip(factor)) as u64).max(1)
    }

    /// A recovery without a cap does not take a strict window beyond what it allows.
    fn clip(&self, factor: f64) -> f64 {
        if self.is_strict { factor.min(1.0) } else { factor }
    }

    /// This window as a bucket's terms, scaled.
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
        // Both ends of a strict window count: its refill takes a nanosecond longer.
        let nanos = nanos.saturating_add(u64::from(self.is_strict));
        Terms::new(self.refill(), nanos, self.depth(), Factor::new(self.clip(factor)))
            .ok_or(ConfigError::RateTooHigh)
    }
}
