//! What a limiter does for who wants several resources at once.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::acquire::{self, AcquireAll};
use super::error::{AcquireError, TryAcquireError};
use super::group;
use super::keyed::configured;
use super::memory::MemoryLimiter;
use super::permits::Permits;
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
        self.asked(wanted, |asked| asked.check())?
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
        self.asked_of(wanted).ok_or(TryAcquireError::UnknownResource)?.check()
    }

    /// Take tokens of several resources and a permit of each, all or none, or fail at once:
    /// `&[("gpt-4o/requests", 1), ("gpt-4o/tokens", 1_200)]`. Names may come in any order, and several
    /// times: then they are added up. Never overtakes those who wait.
    ///
    /// # Errors
    ///
    /// See [`TryAcquireError`]; nothing was taken. `retry_after` is the latest of all.
    pub fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, TryAcquireError> {
        self.asked(wanted, |asked| asked.try_acquire())?
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
        self.asked_of(wanted).ok_or(TryAcquireError::UnknownResource)?.try_acquire()
    }

    /// Wait for tokens of several resources and a permit of each, all or none, holding nothing
    /// meanwhile: see [`AcquireAll`].
    pub fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll {
        match self.asked(wanted, |asked| asked.to_group()) {
            Ok(group) => AcquireAll::new(group),
            Err(error) => AcquireAll::failed(AcquireError::from_nothing(error)),
        }
    }

    /// [`acquire_all`](Self::acquire_all) by handles, without the look-up of names. Another limiter's
    /// handle is an [`AcquireError::UnknownResource`].
    pub fn acquire_all_of(&self, wanted: &[(&Resource, u64)]) -> AcquireAll {
        match self.asked_of(wanted) {
            Some(asked) => AcquireAll::new(asked.to_group()),
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
        match self.asked(wanted, |asked| asked.to_group()) {
            Ok(group) => acquire::blocking_all(group, timeout),
            Err(error) => Err(AcquireError::from_nothing(error)),
        }
    }

    fn asked<R>(
        &self,
        wanted: &[(&str, u64)],
        act: impl FnOnce(group::Asked<'_>) -> R,
    ) -> Result<R, TryAcquireError> {
        let entries = self.0.entries.pin();
        let configured =
            |(name, n): &(&str, u64)| configured(&entries, name).map(|entry| (entry, *n));
        match group::Asked::new(wanted.iter().map(configured)) {
            Some(asked) => Ok(act(asked)),
            None => self.asked_with_keys(wanted, act),
        }
    }

    #[cold]
    fn asked_with_keys<R>(
        &self,
        wanted: &[(&str, u64)],
        act: impl FnOnce(group::Asked<'_>) -> R,
    ) -> Result<R, TryAcquireError> {
        let held = wanted.iter().map(|(name, _)| self.0.hold(name));
        let held: SmallVec<[_; 4]> = held.collect::<Result<_, _>>()?;
        let parts = held.iter().zip(wanted).map(|(entry, (_, n))| Some((entry, *n)));
        group::Asked::new(parts).map(act).ok_or(TryAcquireError::UnknownResource)
    }

    #[inline]
    fn asked_of<'a>(&self, wanted: &[(&'a Resource, u64)]) -> Option<group::Asked<'a>> {
        group::Asked::new(wanted.iter().map(|(Resource(entry), n)| {
            Arc::ptr_eq(&entry.context, &self.0.context).then_some((entry, *n))
        }))
    }
}
