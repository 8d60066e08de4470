//! A clock that stands still until it is told otherwise.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::timers::{TimerKey, Timers};
use super::{Alarm, ArmError};
use crate::sync::{AtomicU64, Mutex, Ordering, seeded};

/// A clock for tests: it starts at 0 and moves when it is told to. Clones share the time, which ends
/// after 438 years, at 3 x 2^62 ns.
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
///
/// While it stands still no number of takes is a flood, so that a single thread's test never meets
/// [prepaid batches](crate::MemoryLimiter#exactness). Threads that contend for a bucket of 1,024 tokens or
/// more may, and then find it a few tokens short of its whole burst after a rest.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Inner>);

/// Readings leave free as much of their range as a bucket's longest horizon, so that one from before
/// an anchor, which wraps, is told from one after it.
const END: u64 = 3 << 62;

#[derive(Debug)]
struct Inner {
    now: AtomicU64,
    timers: Mutex<Timers>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { now: AtomicU64::new(0), timers: Mutex::new(Timers::default()) }
    }
}

/// A timer of a manual clock; it disarms when it drops.
#[derive(Debug)]
pub(crate) struct ManualTimer {
    clock: ManualClock,
    key: TimerKey,
}

impl Drop for ManualTimer {
    fn drop(&mut self) {
        let waker = self.clock.0.timers.lock().remove(self.key);
        drop(waker);
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

    /// Transition on by `by`, and wake whoever is due: tasks and blocked threads. They run when they are
    /// scheduled; this does not wait for them.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let on = |now: u64| now.saturating_add(by).min(END);
        let step = |now: u64| Some(on(now));
        let before = self.0.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        self.wake_due(before.map_or(0, on));
    }

    /// Read `nanos` from now on, which may be a step back, and wake whoever is due.
    pub fn set(&self, nanos: u64) {
        let nanos = nanos.min(END);
        self.0.now.store(nanos, Ordering::Release);
        self.wake_due(nanos);
    }

    fn wake_due(&self, now: u64) {
        let due = self.0.timers.lock().take_due(now);
        due.into_iter().for_each(Waker::wake);
    }

    pub(super) fn arm(&self, at: u64, waker: Waker) -> Result<Alarm, ArmError> {
        let key = self.0.timers.lock().add(at, waker);
        let timer = ManualTimer { clock: self.clone(), key };
        // Whoever moved the time past `at` before the timer was in has looked in vain: but then
        // the time is to be seen here, since it looked under the lock.
        let due = self.now() >= at && !seeded("arm-without-look");
        if due { Err(ArmError::Due) } else { Ok(Alarm::Manual(timer)) }
    }
}
