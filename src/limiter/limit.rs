//! What a resource may do, and what of it is refused.

use std::time::Duration;

use super::error::ConfigError;
use crate::adapt::{Policy, Recovery, nanos};
use crate::bucket::rate::{Factor, MAX_TOKENS, Terms};

/// What the end of a permit does to its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRelease {
    /// The tokens stay spent; only the permit's place in flight is freed. For upstreams that count
    /// requests: a *rate* limit.
    #[default]
    Spend,
    /// The tokens go back into the bucket at once. This bounds how many are at work at a time, and
    /// admits more than the rate when work is short: a *concurrency* limit with a refill.
    Refund,
}

/// What a resource may do: `capacity` tokens a `window`, in a bucket that holds as many, unless
/// [`burst`](Self::burst) says otherwise.
///
/// Any value can be built; [`MemoryLimiter::configure`](crate::MemoryLimiter::configure) tells what
/// is wrong with it.
///
/// # Which burst
///
/// The bound is strict: what a full bucket cannot hold is lost, and never caught up. Waiters are
/// woken a little late (about 0.1 ms by the timer thread here, 1 to 2 ms by a busy runtime), so a
/// bucket that fills up within that time delivers less than its rate. For the whole rate take
/// `burst >= rate x 10 ms`, which is 10 at 1,000/s and 200 at 20,000/s. With a burst of 1 each
/// token's lateness is lost: at 100/s that is about 1 %, at 1,000/s about 10 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    capacity: u64,
    window: Duration,
    burst: Option<u64>,
    on_release: OnRelease,
    max_in_flight: Option<u64>,
    max_waiting: Option<u64>,
    recovery: Option<Recovery>,
    cooldown: Option<Duration>,
}

impl Limit {
    /// `capacity` tokens every `window`, refilled evenly: 5 a second is one every 200 ms.
    #[must_use]
    pub const fn new(capacity: u64, window: Duration) -> Self {
        Self {
            capacity,
            window,
            burst: None,
            on_release: OnRelease::Spend,
            max_in_flight: None,
            max_waiting: None,
            recovery: None,
            cooldown: None,
        }
    }

    /// `n` tokens a second.
    #[must_use]
    pub const fn per_second(n: u64) -> Self {
        Self::new(n, Duration::from_secs(1))
    }

    /// `n` tokens a minute.
    #[must_use]
    pub const fn per_minute(n: u64) -> Self {
        Self::new(n, Duration::from_mins(1))
    }

    /// `n` tokens an hour.
    #[must_use]
    pub const fn per_hour(n: u64) -> Self {
        Self::new(n, Duration::from_hours(1))
    }

    /// `n` tokens a day of 24 hours.
    #[must_use]
    pub const fn per_day(n: u64) -> Self {
        Self::new(n, Duration::from_hours(24))
    }

    /// The bucket holds `n` tokens: so many are admitted at once after a rest. See
    /// [which burst](Self#which-burst).
    #[must_use]
    pub const fn burst(mut self, n: u64) -> Self {
        self.burst = Some(n);
        self
    }

    /// What the end of a permit does to its tokens. Default: [`OnRelease::Spend`].
    #[must_use]
    pub const fn on_release(mut self, policy: OnRelease) -> Self {
        self.on_release = policy;
        self
    }

    /// At most `n` permits at a time, whatever the tokens. `check` takes no permit.
    #[must_use]
    pub const fn max_in_flight(mut self, n: u64) -> Self {
        self.max_in_flight = Some(n);
        self
    }

    /// At most `n` wait at a time; the next fails with
    /// [`QueueFull`](crate::AcquireError::QueueFull). 0: nobody waits.
    #[must_use]
    pub const fn max_waiting(mut self, n: u64) -> Self {
        self.max_waiting = Some(n);
        self
    }

    /// How the limit recovers after a cut. Default: not by itself; on a `DistributedLimiter`, as it
    /// was configured.
    #[must_use]
    pub const fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = Some(recovery);
        self
    }

    /// How long after a cut refusals belong to its incident, and cut no further: see
    /// [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced). Default: 5
    /// seconds; on a `DistributedLimiter`, as it was configured. 0: each announcement cuts.
    ///
    /// Keep it shorter than a recovery takes to undo a cut. Otherwise the limit is back before it may
    /// be cut again, and never gets down to what an upstream allows that allows much less.
    #[must_use]
    pub const fn cooldown(mut self, how_long: Duration) -> Self {
        self.cooldown = Some(how_long);
        self
    }

    /// Tokens that accrue in a window, scaled and rounded down, but never less than one.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // at most 2^52 tokens
    pub(crate) fn per_window(&self, factor: f64) -> u64 {
        ((self.capacity as f64 * factor) as u64).max(1)
    }

    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    pub(crate) fn depth(&self) -> u64 {
        self.burst.unwrap_or(self.capacity)
    }

    /// Whether a permit's end gives its tokens back: 1 or 0.
    pub(crate) fn refunds(&self) -> u64 {
        u64::from(self.on_release == OnRelease::Refund)
    }

    pub(crate) fn most_in_flight(&self) -> u64 {
        self.max_in_flight.unwrap_or(u64::MAX)
    }

    pub(crate) fn most_waiting(&self) -> u64 {
        self.max_waiting.unwrap_or(u64::MAX)
    }

    /// How this limit reacts to a refusal, where its limiter reacts by `policy`.
    pub(crate) fn policy(&self, policy: Policy) -> Policy {
        Policy {
            recovery: self.recovery.or(policy.recovery),
            cooldown: self.cooldown.unwrap_or(policy.cooldown),
            ..policy
        }
    }

    /// The factor at which one token a window is left: no cut goes below.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    pub(crate) fn least_factor(&self) -> f64 {
        1.0 / self.capacity as f64
    }

    /// What part of this limit `tokens` a window are.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    pub(crate) fn factor_of(&self, tokens: u64) -> f64 {
        tokens.min(MAX_TOKENS) as f64 / self.capacity as f64
    }

    /// This limit as a bucket's terms, scaled.
    pub(crate) fn terms(&self, factor: f64) -> Result<Terms, ConfigError> {
        let window = nanos(self.window);
        if self.window.is_zero() || Duration::from_nanos(window) != self.window {
            return Err(ConfigError::InvalidWindow);
        }
        if !(1..=MAX_TOKENS).contains(&self.capacity) {
            return Err(ConfigError::InvalidCapacity);
        }
        if !(1..=MAX_TOKENS).contains(&self.depth()) {
            return Err(ConfigError::InvalidBurst);
        }
        if self.max_in_flight == Some(0) {
            return Err(ConfigError::InvalidInFlight);
        }
        if self.recovery.is_some_and(|recovery| !recovery.is_valid()) {
            return Err(ConfigError::InvalidRecovery);
        }
        Terms::new(self.capacity, window, self.depth(), Factor::new(factor))
            .ok_or(ConfigError::RateTooHigh)
    }
}
