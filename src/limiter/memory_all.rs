//! All-or-nothing calls of a limiter, over several resources.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::{self, AcquireAll};
use super::error::{AcquireError, NoEntry, TryAcquireError};
use super::memory::MemoryLimiter;
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
    /// On an error nothing was taken: see [`TryAcquireError`]. `retry_after` is the latest of all
    /// resources.
    pub fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), TryAcquireError> {
        Ok(self.0.with_take_set(wanted, |set| set.check())??)
    }

    /// [`check_all`](Self::check_all) by handles of this limiter, without name lookups.
    ///
    /// Fails as [`check_all`](Self::check_all); `UnknownResource` for another limiter's handle.
    #[inline]
    pub fn check_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<(), TryAcquireError> {
        Ok(self.take_set_of(wanted)?.check()?)
    }

    /// Takes tokens of several resources with a permit for each, all or none, or fails at once:
    /// `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`. Names may be in any order; tokens of
    /// a repeated name add up. Never overtakes waiters.
    ///
    /// On an error nothing was taken: see [`TryAcquireError`]. `retry_after` is the latest of all
    /// resources.
    pub fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, TryAcquireError> {
        Ok(self.0.with_take_set(wanted, |set| set.try_acquire())??)
    }

    /// [`try_acquire_all`](Self::try_acquire_all) by handles of this limiter, without name lookups.
    ///
    /// Fails as [`try_acquire_all`](Self::try_acquire_all); `UnknownResource` for another limiter's
    /// handle.
    #[inline]
    pub fn try_acquire_all_of(
        &self,
        wanted: &[(&Resource, u64)],
    ) -> Result<Permits, TryAcquireError> {
        Ok(self.take_set_of(wanted)?.try_acquire()?)
    }

    /// Waits for tokens of several resources with a permit for each, all or none. Holds nothing
    /// while it waits: see [`AcquireAll`] for order, timeout and cancel safety.
    pub fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll {
        match self.0.with_take_set(wanted, |set| set.to_list()) {
            Ok(list) => AcquireAll::of(list),
            Err(missing) => AcquireAll::failed(missing),
        }
    }

    /// [`acquire_all`](Self::acquire_all) by handles of this limiter, without name lookups. Fails
    /// with [`AcquireError::UnknownResource`] for another limiter's handle.
    pub fn acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> AcquireAll {
        match self.take_set_of(wanted) {
            Ok(set) => AcquireAll::of(set.to_list()),
            Err(missing) => AcquireAll::failed(missing),
        }
    }

    /// [`acquire_all`](Self::acquire_all) for threads. A timeout runs on the limiter's clock.
    ///
    /// Fails as [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_all(
        &self,
        wanted: &[(&str, u64)],
        timeout: Option<Duration>,
    ) -> Result<Permits, AcquireError> {
        acquire::blocking_all(self.0.with_take_set(wanted, |set| set.to_list())?, timeout)
    }

    #[inline]
    fn take_set_of<'a>(&self, wanted: &[(&'a Resource, u64)]) -> Result<TakeSet<'a>, NoEntry> {
        let own = |(Resource(entry), n): &(&'a Resource, u64)| {
            Arc::ptr_eq(&entry.context, self.0.context()).then_some((entry, *n))
        };
        TakeSet::new(wanted.iter().map(own)).ok_or(NoEntry::Unknown)
    }
}
