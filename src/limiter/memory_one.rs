//! Calls of a limiter for one resource: taking, waiting, and ending permits by name.

use std::time::Duration;

use super::acquire::{self, Acquire, UntilReady};
use super::decision::Decision;
use super::error::{AcquireError, TryAcquireError};
use super::memory::MemoryLimiter;
use super::permit::Permit;

/// # One resource
impl MemoryLimiter {
    /// Takes one token without a permit: not counted as in flight nor limited by `max_in_flight`.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// match limiter.check("api") {
    ///     Ok(()) => { /* send the request */ }
    ///     Err(error) => println!("{error}"), // rate limited: retry after 199.9ms
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn check(&self, resource: &str) -> Result<(), TryAcquireError> {
        self.check_n(resource, 1)
    }

    /// Takes `n` tokens, all or none; 0 is granted and takes nothing.
    ///
    /// Fails as [`check`](Self::check).
    #[inline]
    pub fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        self.0.check(resource, n)
    }

    /// [`check_n`](Self::check_n), and what is left after it, from the same look at the bucket and without an
    /// allocation: for the headers of an answer, of a refusal as well. 0 tokens are granted and take
    /// nothing: then it is a look.
    ///
    /// The decision's `outcome` is what [`check_n`](Self::check_n) would return.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Limit, ManualClock, MemoryLimiter};
    /// # let limiter = MemoryLimiter::with_clock(ManualClock::new());
    /// limiter.per_key("user:", Limit::per_second(10))?;
    /// let decision = limiter.decide("user:ann", 4);
    /// assert!(decision.outcome.is_ok());
    /// assert_eq!((decision.remaining, decision.burst), (6, 10));
    /// assert_eq!(decision.until_next, Duration::from_millis(100));
    /// assert_eq!(decision.until_full, Duration::from_millis(400));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decide(&self, resource: &str, n: u64) -> Decision {
        self.0.decide(resource, n)
    }

    /// [`try_acquire_n`](Self::try_acquire_n), and what is left after it, from the same look at the bucket.
    ///
    /// Fails as [`try_acquire`](Self::try_acquire), by the decision's `outcome`.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_hour(5))?;
    /// match limiter.admit("api", 1) {
    ///     Ok((permit, decision)) => assert_eq!((permit.tokens(), decision.remaining), (1, 4)),
    ///     Err(decision) => println!("{:?}, {} left", decision.outcome, decision.remaining),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit(&self, resource: &str, n: u64) -> Result<(Permit<'static>, Decision), Decision> {
        self.0.admit(resource, n)
    }

    /// Whether `n` tokens would be admitted now. Takes nothing. The error's
    /// [`retry_after`](TryAcquireError::retry_after) says when they would.
    ///
    /// Fails as [`check_n`](Self::check_n) would.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.peek("api", 5)?; // five tokens could be taken
    /// assert_eq!(limiter.capacity("api").unwrap().available, 5); // and were not
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        match self.0.configured(resource) {
            Some(entry) => Ok(entry.peek(n)?),
            None => self.0.peek(resource, n),
        }
    }

    /// Takes one token with a permit, or fails at once. Never overtakes waiters.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`].
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// let permit = limiter.try_acquire("api")?;
    /// assert_eq!(limiter.capacity("api").unwrap().in_flight, 1);
    /// drop(permit); // when the request has ended
    /// assert_eq!(limiter.capacity("api").unwrap().in_flight, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError> {
        self.try_acquire_n(resource, 1)
    }

    /// Takes `n` tokens with one permit, or fails at once.
    ///
    /// Fails as [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_n(
        &self,
        resource: &str,
        n: u64,
    ) -> Result<Permit<'static>, TryAcquireError> {
        self.0.try_acquire(resource, n)
    }

    /// Waits for one token with a permit: see [`Acquire`] for order, timeout and cancel safety.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// let permit = limiter.acquire("api").timeout(std::time::Duration::from_secs(1)).await?;
    /// // ... send the request ...
    /// drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire(&self, resource: &str) -> Acquire {
        self.acquire_n(resource, 1)
    }

    /// Waits for `n` tokens with one permit.
    pub fn acquire_n(&self, resource: &str, n: u64) -> Acquire {
        match self.0.entry(resource) {
            Ok(entry) => Acquire::of(entry, n),
            Err(missing) => Acquire::failed(missing.into()),
        }
    }

    /// Waits for one token without a permit: a [`check`](Self::check) that waits. The token stays
    /// spent, whatever the limit's policy. See [`UntilReady`] for order, timeout and cancel safety.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.until_ready("api").await?;
    /// assert_eq!(limiter.capacity("api").unwrap().in_flight, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn until_ready(&self, resource: &str) -> UntilReady {
        self.until_ready_n(resource, 1)
    }

    /// Waits for `n` tokens without a permit.
    pub fn until_ready_n(&self, resource: &str, n: u64) -> UntilReady {
        match self.0.entry(resource) {
            Ok(entry) => UntilReady::of(entry, n),
            Err(missing) => UntilReady::failed(missing.into()),
        }
    }

    /// Blocks this thread until it has one token with a permit. Needs no runtime; inside one, use
    /// [`acquire`](Self::acquire), which does not block other tasks.
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// let permit = limiter.blocking_acquire("api")?; // waits, in a thread
    /// // ... send the request ...
    /// drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, None)
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for at most `timeout`, on the limiter's clock.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_timeout(
        &self,
        resource: &str,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, Some(timeout))
    }

    /// [`blocking_acquire`](Self::blocking_acquire) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        acquire::blocking(self.0.entry(resource)?, n, timeout)
    }

    /// [`until_ready`](Self::until_ready) for threads: blocks until one token was taken.
    ///
    /// On an error nothing was taken: see [`AcquireError`].
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.blocking_until_ready("api")?; // waits, in a thread
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking_until_ready(&self, resource: &str) -> Result<(), AcquireError> {
        self.blocking_until_ready_n(resource, 1, None)
    }

    /// [`blocking_until_ready`](Self::blocking_until_ready) for `n` tokens, with or without a timeout.
    ///
    /// Fails as [`blocking_until_ready`](Self::blocking_until_ready), and [`AcquireError::TimedOut`].
    pub fn blocking_until_ready_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<(), AcquireError> {
        acquire::blocking_until_ready(self.0.entry(resource)?, n, timeout)
    }

    // ---- ending -------------------------------------------------------------------------------

    /// Ends one forgotten permit of one token by the limit's policy. Call it only after
    /// [`forget`](Permit::forget): otherwise a permit that is still held stops counting as in
    /// flight. Does nothing if no permit is in flight or the resource does not exist.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(5))?;
    /// limiter.try_acquire("api")?.forget(); // it ends elsewhere
    /// assert_eq!(limiter.capacity("api").unwrap().in_flight, 1);
    /// limiter.release("api");
    /// assert_eq!(limiter.capacity("api").unwrap().in_flight, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(&self, resource: &str) {
        self.release_n(resource, 1);
    }

    /// Ends one forgotten permit of `n` tokens: see [`release`](Self::release).
    pub fn release_n(&self, resource: &str, n: u64) {
        if let Some(entry) = self.0.promoted(resource) {
            entry.release(n);
        }
    }
}
