//! All-or-nothing calls of a limiter, over several resources.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::{self, AcquireAll};
use super::context::Context;
use super::decision::Decision;
use super::error::{AcquireAllError, AllError, NoEntry, ResourceError, TryAcquireError};
use super::memory::MemoryLimiter;
#[cfg(feature = "tower")]
use super::multi::TakeList;
use super::multi::TakeSet;
use super::permits::Permits;
use super::resource::Resource;

/// # Several resources at once
///
/// All or none: `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`.
#[allow(clippy::redundant_closure_for_method_calls)] // the methods are of one lifetime each
impl MemoryLimiter {
    /// [`try_acquire_all`](Self::try_acquire_all) without permits: see [`check`](Self::check).
    ///
    /// On an error nothing was taken: see [`AllError`]. `retry_after` is the latest of all
    /// resources.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_minute(500))?;
    /// # limiter.configure("tokens", Limit::per_minute(30_000))?;
    /// limiter.check_all(&[("requests", 1), ("tokens", 1_200)])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), AllError> {
        self.0.with_take_set(wanted, |set| set.check())
    }

    /// [`check_all`](Self::check_all) by handles of this limiter, without name lookups.
    ///
    /// Fails as [`check_all`](Self::check_all); `UnknownResource` for another limiter's handle.
    #[inline]
    pub fn check_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<(), AllError> {
        self.with_take_set_of(wanted, TakeSet::check)
    }

    /// Takes tokens of several resources with a permit for each, all or none, or fails at once:
    /// `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`. Names may be in any order; tokens of
    /// a repeated name add up. Never overtakes waiters.
    ///
    /// On an error nothing was taken: see [`AllError`]. `retry_after` is the latest of all
    /// resources.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_minute(500))?;
    /// # limiter.configure("tokens", Limit::per_minute(30_000))?;
    /// let permits = limiter.try_acquire_all(&[("requests", 1), ("tokens", 1_200)])?;
    /// // ... the call used 830 tokens ...
    /// permits.settle(&[("tokens", 830)])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, AllError> {
        self.0.with_take_set(wanted, |set| set.try_acquire())
    }

    /// [`try_acquire_all`](Self::try_acquire_all) by handles of this limiter, without name lookups.
    ///
    /// Fails as [`try_acquire_all`](Self::try_acquire_all); `UnknownResource` for another limiter's
    /// handle.
    #[inline]
    pub fn try_acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<Permits, AllError> {
        self.with_take_set_of(wanted, TakeSet::try_acquire)
    }

    /// [`try_acquire_all`](Self::try_acquire_all), and a [`Decision`] for each of `wanted`, in this order.
    /// Each bucket is looked at right after the takes, so that its figures may count other calls too.
    ///
    /// On an error nothing was taken, and the `outcome` of each decision says whether that resource alone
    /// would have admitted what was wanted of it.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_hour(500))?;
    /// # limiter.configure("tokens", Limit::per_hour(30_000))?;
    /// let (permits, decisions) = limiter.admit_all(&[("requests", 1), ("tokens", 1_200)]).unwrap();
    /// assert_eq!((decisions[0].remaining, decisions[1].remaining), (499, 28_800));
    ///
    /// let (error, decisions) = limiter.admit_all(&[("requests", 1), ("tokens", 30_000)]).unwrap_err();
    /// assert_eq!(&*error.resource, "tokens");
    /// assert!(decisions[0].outcome.is_ok() && decisions[1].outcome.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit_all(
        &self,
        wanted: &[(&str, u64)],
    ) -> Result<(Permits, Vec<Decision>), (AllError, Vec<Decision>)> {
        let admitted = self.try_acquire_all(wanted);
        let decision = |(resource, n): &(&str, u64)| {
            let outcome = match &admitted {
                Ok(_) => Ok(()),
                Err(error) if *error.resource == **resource => Err(error.cause),
                Err(_) => self.peek(resource, *n),
            };
            let mut decision = Decision { outcome, ..self.decide(resource, 0) };
            if let Err(TryAcquireError::Exhausted { .. }) = outcome {
                // Tokens that came since would contradict the outcome.
                decision.remaining = decision.remaining.min(n.saturating_sub(1));
            }
            decision
        };
        let decisions = wanted.iter().map(decision).collect();
        match admitted {
            Ok(permits) => Ok((permits, decisions)),
            Err(error) => Err((error, decisions)),
        }
    }

    /// Whether all of this would be admitted now. Takes nothing, and creates no key. The error's
    /// [`retry_after`](AllError::retry_after) says when it would.
    ///
    /// Fails as [`check_all`](Self::check_all) would.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_minute(500))?;
    /// # limiter.configure("tokens", Limit::per_minute(30_000))?;
    /// let error = limiter.peek_all(&[("requests", 1), ("tokens", 30_001)]).unwrap_err();
    /// assert_eq!(&*error.resource, "tokens");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek_all(&self, wanted: &[(&str, u64)]) -> Result<(), AllError> {
        self.0.peek_all(wanted)
    }

    /// Waits for tokens of several resources with a permit for each, all or none. Holds nothing
    /// while it waits: see [`AcquireAll`] for order, timeout and cancel safety.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_minute(500))?;
    /// # limiter.configure("tokens", Limit::per_minute(30_000))?;
    /// let permits = limiter.acquire_all(&[("requests", 1), ("tokens", 1_200)]).await?;
    /// drop(permits);
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll {
        let list = self.0.with_take_set(wanted, |set| Ok(set.to_list()));
        list.map_or_else(AcquireAll::failed, AcquireAll::of)
    }

    /// [`acquire_all`](Self::acquire_all) by handles of this limiter, without name lookups. Fails
    /// with [`AcquireError::UnknownResource`](crate::AcquireError::UnknownResource) for another limiter's handle.
    pub fn acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> AcquireAll {
        let list = self.with_take_set_of(wanted, |set| Ok(set.to_list()));
        list.map_or_else(AcquireAll::failed, AcquireAll::of)
    }

    /// [`acquire_all`](Self::acquire_all) for threads. A timeout runs on the limiter's clock.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and
    /// [`AcquireError::TimedOut`](crate::AcquireError::TimedOut).
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # limiter.configure("requests", Limit::per_minute(500))?;
    /// # limiter.configure("tokens", Limit::per_minute(30_000))?;
    /// let permits = limiter.blocking_acquire_all(&[("requests", 1), ("tokens", 1_200)], None)?;
    /// drop(permits);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking_acquire_all(
        &self,
        wanted: &[(&str, u64)],
        timeout: Option<Duration>,
    ) -> Result<Permits, AcquireAllError> {
        let list = self.0.with_take_set(wanted, |set| Ok::<_, AcquireAllError>(set.to_list()))?;
        acquire::blocking_all(list, timeout)
    }

    #[inline]
    fn with_take_set_of<'a, T, E: From<ResourceError<NoEntry>>>(
        &self,
        wanted: &[(&'a Resource, u64)],
        act: impl FnOnce(&mut TakeSet<'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        with_take_set_of(self.0.context(), wanted, act)
    }
}

/// Acts on handles of one limiter, whose context it is.
#[inline]
fn with_take_set_of<'a, T, E: From<ResourceError<NoEntry>>>(
    context: &Arc<Context>,
    wanted: &[(&'a Resource, u64)],
    act: impl FnOnce(&mut TakeSet<'a>) -> Result<T, E>,
) -> Result<T, E> {
    let own = |(Resource(entry), n): &(&'a Resource, u64)| {
        let is_own = Arc::ptr_eq(&entry.context, context);
        is_own.then_some((entry, *n)).ok_or(entry)
    };
    match TakeSet::with(wanted.iter().map(own), act) {
        Ok(acted) => acted,
        Err(other) => Err(other.error::<NoEntry>(NoEntry::Unknown).into()),
    }
}

/// For those that have handles alone: the limiter is the first one's.
#[cfg(feature = "tower")]
#[allow(clippy::redundant_closure_for_method_calls)] // the methods are of one lifetime each
impl Resource {
    /// [`MemoryLimiter::try_acquire_all_of`]
    pub(crate) fn try_acquire_all(wanted: &[(&Self, u64)]) -> Result<Permits, AllError> {
        let Some((Self(first), _)) = wanted.first() else { return Ok(Permits::new()) };
        with_take_set_of(&first.context, wanted, TakeSet::try_acquire)
    }

    /// [`MemoryLimiter::acquire_all_of`]
    pub(crate) fn acquire_all(wanted: &[(&Self, u64)]) -> AcquireAll {
        let Some((Self(first), _)) = wanted.first() else {
            return AcquireAll::of(TakeList::default());
        };
        let list = with_take_set_of(&first.context, wanted, |set| Ok(set.to_list()));
        list.map_or_else(AcquireAll::failed, AcquireAll::of)
    }
}
