//! A clock that moves only when a test moves it.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::timers::{TimerKey, Timers};
use super::{Alarm, ArmError};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// A clock for tests: it starts at 0 and moves only by [`advance`](Self::advance) and
/// [`set`](Self::set). Clones share the time, which ends after 438 years, at 3 x 2^62 ns.
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
/// While the clock stands still no number of takes makes a bucket hot, so a test with a single
/// thread never meets [prepaid batches](crate::MemoryLimiter#hot-buckets). Threads that contend for a
/// bucket of 1,024 tokens or more may meet them, and then find the bucket a few tokens short of its
/// full burst after a rest.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Inner>);

/// The last reading. The rest of the range is as long as a bucket's longest horizon: the elapsed
/// time of a reading from before an anchor wraps into it, and is told from that of a later reading.
const END: u64 = 3 << 62;

#[derive(Debug, Default)]
struct Inner {
    now: AtomicU64,
    timers: Mutex<Timers>,
}

/// A timer of a manual clock. Dropping it disarms it.
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
        // Acquire, with the Release of `advance` and `set`: a thread that reads the new time sees
        // what was done before it.
        self.0.now.load(Ordering::Acquire)
    }

    /// Advance the time by `by`, and wake the tasks and blocked threads that are due. They run when
    /// they are scheduled; this does not wait for them.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let later = |now: u64| now.saturating_add(by).min(END);
        let step = |now: u64| Some(later(now));
        let before = self.0.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        self.wake_due(before.map_or(0, later));
    }

    /// Set the time to `nanos` nanoseconds, which may be a step back, and wake the tasks and
    /// blocked threads that are due.
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
        // A thread that moved the time past `at` may have searched before this timer was added. It
        // stored the time first and searched under the lock, so the new time is visible here.
        if self.now() >= at { Err(ArmError::Due) } else { Ok(Alarm::Manual(timer)) }
    }
}
