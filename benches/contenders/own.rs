//! Reference limiters: the cheapest exact one, the simplest exact one, and the simplest of many names.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds of the counter that tollgate and governor read too.
pub(crate) struct Time {
    counter: quanta::Clock,
    start: u64,
}

impl Time {
    pub(crate) fn new() -> Self {
        let counter = quanta::Clock::new();
        let start = counter.raw();
        Self { counter, start }
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.counter.delta_as_nanos(self.start, self.counter.raw())
    }
}

/// The floor: one clock reading and one CAS loop. The word is the time at which the bucket is full
/// again. Exact if a token takes a whole number of nanoseconds; fixed rate, no waiting.
#[repr(align(128))]
pub(crate) struct Floor {
    full_at: AtomicU64,
    token: u64,
    bucket: u64,
    time: Time,
}

impl Floor {
    pub(crate) fn new(token: u64, burst: u64) -> Self {
        Self { full_at: AtomicU64::new(0), token, bucket: token * burst, time: Time::new() }
    }

    /// Fails with the nanoseconds until the next token.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), u64> {
        let now = self.time.now();
        let mut full_at = self.full_at.load(Ordering::Acquire);
        loop {
            let next = full_at.max(now) + self.token;
            if next > now + self.bucket {
                return Err(next - self.bucket - now);
            }
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            match self.full_at.compare_exchange_weak(full_at, next, new, old) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }
}

/// The simplest exact limiter: a lock around a level, in units of tokens x window.
pub(crate) struct Oracle {
    bucket: Mutex<Bucket>,
    rate: u128,
    window: u128,
    full: u128,
    time: Time,
}

struct Bucket {
    level: u128,
    at: u64,
}

impl Oracle {
    /// `rate` tokens per `window` nanoseconds.
    pub(crate) fn new(rate: u64, window: u64, burst: u64) -> Self {
        let (rate, window) = (u128::from(rate), u128::from(window));
        let full = u128::from(burst) * window;
        Self {
            bucket: Mutex::new(Bucket { level: full, at: 0 }),
            rate,
            window,
            full,
            time: Time::new(),
        }
    }

    /// Fails with the missing amount, in units of tokens x window.
    pub(crate) fn check(&self) -> Result<(), u128> {
        let now = self.time.now();
        let mut bucket = self.bucket.lock().expect("nothing panics in here");
        let elapsed = now.saturating_sub(bucket.at);
        bucket.at += elapsed;
        let level = self.full.min(bucket.level + u128::from(elapsed) * self.rate);
        let rest = level.checked_sub(self.window);
        bucket.level = rest.unwrap_or(level);
        rest.map(|_| ()).ok_or(self.window - level.min(self.window))
    }
}

/// The simplest limiter of many names whose permits give their token back: one lock around a map of
/// [`Oracle`]'s buckets, and of the permits in flight.
pub(crate) struct NamedOracle {
    buckets: Mutex<HashMap<String, (Bucket, u64)>>,
    window: u128,
    burst: u128,
    time: Time,
}

impl NamedOracle {
    /// `burst` tokens per `window` nanoseconds, of each of these names.
    pub(crate) fn new(names: &[&str], burst: u64, window: u64) -> Self {
        let (burst, window) = (u128::from(burst), u128::from(window));
        let full = || (Bucket { level: burst * window, at: 0 }, 0);
        let buckets = names.iter().map(|name| ((*name).to_string(), full())).collect();
        Self { buckets: Mutex::new(buckets), window, burst, time: Time::new() }
    }

    pub(crate) fn try_acquire(&self, name: &str) -> bool {
        let mut buckets = self.buckets.lock().expect("nothing panics in here");
        let Some((bucket, in_flight)) = buckets.get_mut(name) else { return false };
        let elapsed = self.time.now().saturating_sub(bucket.at);
        bucket.at += elapsed;
        let accrued = bucket.level + u128::from(elapsed) * self.burst;
        bucket.level = accrued.min(self.burst * self.window);
        let Some(rest) = bucket.level.checked_sub(self.window) else { return false };
        (bucket.level, *in_flight) = (rest, *in_flight + 1);
        true
    }

    pub(crate) fn release(&self, name: &str) {
        let mut buckets = self.buckets.lock().expect("nothing panics in here");
        if let Some((bucket, in_flight)) = buckets.get_mut(name) {
            bucket.level = (bucket.level + self.window).min(self.burst * self.window);
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}
