//! What was set of a limit, and whether it is valid.

use std::num::NonZeroU64;
use std::time::Duration;

use super::super::error::ConfigError;
use super::{Limit, OnRelease, Recovers};
use crate::adapt::Recovery;

/// One window of a [`Limit`], as it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitWindow {
    /// Tokens a window.
    pub capacity: u64,
    /// The length of the window.
    pub window: Duration,
    /// Tokens that the bucket holds.
    pub burst: u64,
    /// Whether the window is strict: see [`Limit::at_most`].
    pub is_strict: bool,
}

impl Limit {
    /// Whether `configure` would accept the limit: the error says what is wrong with it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.full_terms().map(drop)
    }

    /// Its windows, in the order in which they were added.
    pub fn get_windows(&self) -> impl Iterator<Item = LimitWindow> {
        self.windows().map(|window| LimitWindow {
            capacity: window.capacity,
            window: window.length,
            burst: window.depth(),
            is_strict: window.is_strict,
        })
    }

    /// What [`on_release`](Self::on_release) was set to, or the default.
    #[must_use]
    pub fn get_on_release(&self) -> OnRelease {
        self.on_release.unwrap_or_default()
    }

    /// What [`max_in_flight`](Self::max_in_flight) was set to; `None` for no bound.
    #[must_use]
    pub fn get_max_in_flight(&self) -> Option<u64> {
        self.max_in_flight
    }

    /// What [`max_waiting`](Self::max_waiting) was set to; `None` for no bound.
    #[must_use]
    pub fn get_max_waiting(&self) -> Option<u64> {
        self.max_waiting
    }

    /// What [`recovery`](Self::recovery) was set to; `None` for the limiter's own, or none.
    #[must_use]
    pub fn get_recovery(&self) -> Option<Recovery> {
        match self.recovery {
            Some(Recovers::By(recovery)) => Some(recovery),
            Some(Recovers::Never) | None => None,
        }
    }

    /// Whether [`no_recovery`](Self::no_recovery) was set.
    #[must_use]
    pub fn get_no_recovery(&self) -> bool {
        self.recovery == Some(Recovers::Never)
    }

    /// What [`min_rate`](Self::min_rate) was set to; `None` for the default.
    #[must_use]
    pub fn get_min_rate(&self) -> Option<u64> {
        self.min_rate.map(NonZeroU64::get)
    }

    /// What [`cooldown`](Self::cooldown) was set to; `None` for the limiter's own.
    #[must_use]
    pub fn get_cooldown(&self) -> Option<Duration> {
        self.cooldown
    }
}
