//! What a limiter does for who wants several resources at once.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::acquire::{self, AcquireAll};
use super::error::{AcquireError, TryAcquireError};
use super::memory::MemoryLimiter;
use super::multi;
use super::permits::Permits;
use super::registry::configured;
use super::resource::Resource;

/// # Several resources at once
///
/// All or none: `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`.
impl MemoryLimiter {
    /// Take tokens of several resources, all or none; no permits: in-flight is neither counted nor
    /// looked at. See [`try_acquire_all`](Self::try_acquire_all).
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken. `retry_after` is the latest of all.
    pub fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), TryAcquireError> {
        self.take_set(wanted, |take_set| take_set.check())?
    }

    /// [`check_all`](Self::check_all) by handles, without the look-up of names. The handles must be
    /// this limiter's.
    ///
    /// # Errors
    ///
    /// As [`check_all`](Self::check_all); [`TryAcquireError::UnknownResource`] for another limiter's
    /// handle.
    #[inline]
    pub fn check_all_of(&self, wanted: &[(&Resource, u64)]) -> Result<(), TryAcquireError> {
        self.take_set_of(wanted).ok_or(TryAcquireError::UnknownResource)?.check()
    }

    /// Take tokens of several resources and a permit of each, all or none, or fail at once:
    /// `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`. Names may come in any order, and several
    /// times: then they are added up. Never overtakes those who wait.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken. `retry_after` is the latest of all.
    pub fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, TryAcquireError> {
        self.take_set(wanted, |take_set| take_set.try_acquire())?
    }

    /// [`try_acquire_all`](Self::try_acquire_all) by handles, without the look-up of names. The
    /// handles must be this limiter's.
    ///
    /// # Errors
    ///
    /// As [`try_acquire_all`](Self::try_acquire_all); [`TryAcquireError::UnknownResource`] for another
    /// limiter's handle.
    #[inline]
    pub fn try_acquire_all_of(
        &self,
        wanted: &[(&Resource, u64)],
    ) -> Result<Permits, TryAcquireError> {
        self.take_set_of(wanted).ok_or(TryAcquireError::UnknownResource)?.try_acquire()
    }

    /// Wait for tokens of several resources and a permit of each, all or none, holding nothing
    /// meanwhile: see [`AcquireAll`].
    pub fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll {
        match self.take_set(wanted, |take_set| take_set.to_list()) {
            Ok(list) => AcquireAll::new(list),
            Err(error) => AcquireAll::failed(AcquireError::from_nothing(error)),
        }
    }

    /// [`acquire_all`](Self::acquire_all) by handles, without the look-up of names. Another limiter's
    /// handle is an [`AcquireError::UnknownResource`].
    pub fn acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> AcquireAll {
        match self.take_set_of(wanted) {
            Some(take_set) => AcquireAll::new(take_set.to_list()),
            None => AcquireAll::failed(AcquireError::UnknownResource),
        }
    }

    /// [`acquire_all`](Self::acquire_all) for a thread, with or without a timeout.
    ///
    /// # Errors
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire), and [`AcquireError::TimedOut`].
    pub fn blocking_acquire_all(
        &self,
        wanted: &[(&str, u64)],
        timeout: Option<Duration>,
    ) -> Result<Permits, AcquireError> {
        match self.take_set(wanted, |take_set| take_set.to_list()) {
            Ok(list) => acquire::blocking_all(list, timeout),
            Err(error) => Err(AcquireError::from_nothing(error)),
        }
    }

    fn take_set<R>(
        &self,
        wanted: &[(&str, u64)],
        act: impl FnOnce(multi::TakeSet<'_>) -> R,
    ) -> Result<R, TryAcquireError> {
        let entries = self.0.entries.pin();
        let configured =
            |(name, n): &(&str, u64)| configured(&entries, name).map(|entry| (entry, *n));
        match multi::TakeSet::new(wanted.iter().map(configured)) {
            Some(take_set) => Ok(act(take_set)),
            None => self.take_set_with_keys(wanted, act),
        }
    }

    #[cold]
    fn take_set_with_keys<R>(
        &self,
        wanted: &[(&str, u64)],
        act: impl FnOnce(multi::TakeSet<'_>) -> R,
    ) -> Result<R, TryAcquireError> {
        let held = wanted.iter().map(|(name, _)| self.0.hold(name));
        let held: SmallVec<[_; 4]> = held.collect::<Result<_, _>>()?;
        let parts = held.iter().zip(wanted).map(|(entry, (_, n))| Some((entry, *n)));
        multi::TakeSet::new(parts).map(act).ok_or(TryAcquireError::UnknownResource)
    }

    #[inline]
    fn take_set_of<'a>(&self, wanted: &[(&'a Resource, u64)]) -> Option<multi::TakeSet<'a>> {
        multi::TakeSet::new(wanted.iter().map(|(Resource(entry), n)| {
            Arc::ptr_eq(&entry.context, &self.0.context).then_some((entry, *n))
        }))
    }
}
