//! A clock that stands still until it is told otherwise.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::timers::Shared;
use super::{Alarm, Unarmed};
use crate::sync::{AtomicU64, Ordering};

/// A clock for tests: it starts at 0 and moves when it is told to. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{ManualClock, MemoryLimiter};
///
/// let time = ManualClock::new();
/// let limiter = MemoryLimiter::with_clock(time.clone());
/// limiter.set_capacity("api", 1, Duration::from_secs(1))?;
/// assert!(limiter.check("api").is_ok());
/// assert!(limiter.check("api").is_err());
/// time.advance(Duration::from_secs(1));
/// assert!(limiter.check("api").is_ok());
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    now: AtomicU64,
    timers: Arc<Shared>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { now: AtomicU64::new(0), timers: Arc::default() }
    }
}

impl ManualClock {
    /// A clock that reads 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nanoseconds since the start.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        // Acquire, with the Release of `advance`: who reads the new time sees what was done before.
        self.0.now.load(Ordering::Acquire)
    }

    /// Move on by `by`, and wake whoever is due: tasks and blocked threads. They run when they are
    /// scheduled; this does not wait for them.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let on = |now: u64| Some(now.saturating_add(by));
        let before = self.0.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, on);
        self.0.timers.wake_due(before.map_or(0, |now| now.saturating_add(by)));
    }

    /// Read `nanos` from now on, which may be a step back, and wake whoever is due.
    pub fn set(&self, nanos: u64) {
        self.0.now.store(nanos, Ordering::Release);
        self.0.timers.wake_due(nanos);
    }

    pub(super) fn arm(&self, at: u64, waker: Waker) -> Result<Alarm, Unarmed> {
        let alarm = self.0.timers.arm(at, waker);
        // Whoever moved the time past `at` before the timer was in has looked in vain.
        if self.now() >= at { Err(Unarmed::Due) } else { Ok(alarm) }
    }
}
