//! Limiters with keys, for the suites of them.

use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, TryAcquireError};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const FULL: TryAcquireError = TryAcquireError::TooManyKeys { most: 1 };

pub(crate) fn limiter() -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    (MemoryLimiter::with_clock(time.clone()), time)
}

/// One with keys of ten a second.
pub(crate) fn tens() -> (MemoryLimiter, ManualClock) {
    let (limiter, time) = limiter();
    limiter.per_key("user:", Limit::per_second(10)).unwrap();
    (limiter, time)
}

pub(crate) fn drain(limiter: &MemoryLimiter, name: &str) -> u64 {
    (0..1_000_000).take_while(|_| limiter.check(name).is_ok()).count() as u64
}

pub(crate) fn available(limiter: &MemoryLimiter, name: &str) -> u64 {
    limiter.capacity(name).expect("a template").available
}
