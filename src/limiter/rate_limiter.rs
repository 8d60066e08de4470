//! Any limiter, behind one object-safe trait.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::{Acquire, AcquireAll};
use super::capacity::{Capacity, CapacityUpdate};
use super::error::{AcquireError, ConfigError, TryAcquireError};
use super::limit::Limit;
use super::memory::MemoryLimiter;
use super::permit::Permit;
use super::permits::Permits;
use super::resource::Resource;

/// What every limiter does, object-safe: code that takes a `&dyn RateLimiter` runs on any of them.
///
/// Each method does what the one of its name on [`MemoryLimiter`] does.
#[allow(clippy::missing_errors_doc)] // each is documented where it is named
pub trait RateLimiter: Send + Sync {
    /// See [`MemoryLimiter::set_capacity`].
    fn set_capacity(
        &self,
        resource: &str,
        capacity: u64,
        window: Duration,
    ) -> Result<(), ConfigError>;
    /// See [`MemoryLimiter::configure`].
    fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError>;
    /// See [`MemoryLimiter::per_key_at_most`].
    fn per_key_at_most(
        &self,
        prefix: &str,
        limit: Limit,
        most_keys: u64,
    ) -> Result<(), ConfigError>;
    /// See [`MemoryLimiter::per_key`].
    fn per_key(&self, prefix: &str, limit: Limit) -> Result<(), ConfigError>;
    /// See [`MemoryLimiter::remove_per_key`].
    fn remove_per_key(&self, prefix: &str) -> bool;
    /// See [`MemoryLimiter::resource`].
    fn resource(&self, resource: &str) -> Option<Resource>;
    /// See [`MemoryLimiter::remove`].
    fn remove(&self, resource: &str) -> bool;
    /// See [`MemoryLimiter::resources`].
    fn resources(&self) -> Vec<Capacity>;
    /// See [`MemoryLimiter::check_n`].
    fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError>;
    /// See [`MemoryLimiter::peek`].
    fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError>;
    /// See [`MemoryLimiter::try_acquire_n`].
    fn try_acquire_n(&self, resource: &str, n: u64) -> Result<Permit<'static>, TryAcquireError>;
    /// See [`MemoryLimiter::acquire_n`].
    fn acquire_n(&self, resource: &str, n: u64) -> Acquire;
    /// See [`MemoryLimiter::blocking_acquire_n`].
    fn blocking_acquire_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError>;
    /// See [`MemoryLimiter::check_all`].
    fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), TryAcquireError>;
    /// See [`MemoryLimiter::try_acquire_all`].
    fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, TryAcquireError>;
    /// See [`MemoryLimiter::acquire_all`].
    fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll;
    /// See [`MemoryLimiter::blocking_acquire_all`].
    fn blocking_acquire_all(
        &self,
        wanted: &[(&str, u64)],
        timeout: Option<Duration>,
    ) -> Result<Permits, AcquireError>;
    /// See [`MemoryLimiter::release_n`].
    fn release_n(&self, resource: &str, n: u64);
    /// See [`MemoryLimiter::announce_reduced`].
    fn announce_reduced(&self, resource: &str, reason: &str);
    /// See [`MemoryLimiter::pause_for`].
    fn pause_for(&self, resource: &str, how_long: Duration);
    /// See [`MemoryLimiter::capacity`].
    fn capacity(&self, resource: &str) -> Option<Capacity>;
    /// See [`MemoryLimiter::on_capacity_change`].
    fn on_capacity_change(&self, callback: Arc<dyn Fn(&CapacityUpdate) + Send + Sync>);
    /// See [`MemoryLimiter::close`].
    fn close(&self);

    /// See [`MemoryLimiter::check`].
    fn check(&self, resource: &str) -> Result<(), TryAcquireError> {
        self.check_n(resource, 1)
    }
    /// See [`MemoryLimiter::try_acquire`].
    fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError> {
        self.try_acquire_n(resource, 1)
    }
    /// See [`MemoryLimiter::acquire`].
    fn acquire(&self, resource: &str) -> Acquire {
        self.acquire_n(resource, 1)
    }
    /// See [`MemoryLimiter::blocking_acquire`].
    fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, None)
    }
    /// See [`MemoryLimiter::blocking_acquire_timeout`].
    fn blocking_acquire_timeout(
        &self,
        resource: &str,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.blocking_acquire_n(resource, 1, Some(timeout))
    }
    /// See [`MemoryLimiter::release`].
    fn release(&self, resource: &str) {
        self.release_n(resource, 1);
    }
}

/// The trait by the inherent methods of the same names.
macro_rules! rate_limiter {
    ($limiter:ty, $close:expr) => {
        impl $crate::RateLimiter for $limiter {
            fn set_capacity(
                &self,
                resource: &str,
                capacity: u64,
                window: std::time::Duration,
            ) -> Result<(), $crate::ConfigError> {
                self.set_capacity(resource, capacity, window)
            }
            fn configure(
                &self,
                resource: &str,
                limit: $crate::Limit,
            ) -> Result<$crate::Resource, $crate::ConfigError> {
                self.configure(resource, limit)
            }
            fn per_key_at_most(
                &self,
                prefix: &str,
                limit: $crate::Limit,
                most_keys: u64,
            ) -> Result<(), $crate::ConfigError> {
                self.per_key_at_most(prefix, limit, most_keys)
            }
            fn per_key(
                &self,
                prefix: &str,
                limit: $crate::Limit,
            ) -> Result<(), $crate::ConfigError> {
                self.per_key(prefix, limit)
            }
            fn remove_per_key(&self, prefix: &str) -> bool {
                self.remove_per_key(prefix)
            }
            fn resource(&self, resource: &str) -> Option<$crate::Resource> {
                self.resource(resource)
            }
            fn remove(&self, resource: &str) -> bool {
                self.remove(resource)
            }
            fn resources(&self) -> Vec<$crate::Capacity> {
                self.resources()
            }
            fn check_n(&self, resource: &str, n: u64) -> Result<(), $crate::TryAcquireError> {
                self.check_n(resource, n)
            }
            fn peek(&self, resource: &str, n: u64) -> Result<(), $crate::TryAcquireError> {
                self.peek(resource, n)
            }
            fn try_acquire_n(
                &self,
                resource: &str,
                n: u64,
            ) -> Result<$crate::Permit<'static>, $crate::TryAcquireError> {
                self.try_acquire_n(resource, n)
            }
            fn acquire_n(&self, resource: &str, n: u64) -> $crate::Acquire {
                self.acquire_n(resource, n)
            }
            fn blocking_acquire_n(
                &self,
                resource: &str,
                n: u64,
                timeout: Option<std::time::Duration>,
            ) -> Result<$crate::Permit<'static>, $crate::AcquireError> {
                self.blocking_acquire_n(resource, n, timeout)
            }
            fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), $crate::TryAcquireError> {
                self.check_all(wanted)
            }
            fn try_acquire_all(
                &self,
                wanted: &[(&str, u64)],
            ) -> Result<$crate::Permits, $crate::TryAcquireError> {
                self.try_acquire_all(wanted)
            }
            fn acquire_all(&self, wanted: &[(&str, u64)]) -> $crate::AcquireAll {
                self.acquire_all(wanted)
            }
            fn blocking_acquire_all(
                &self,
                wanted: &[(&str, u64)],
                timeout: Option<std::time::Duration>,
            ) -> Result<$crate::Permits, $crate::AcquireError> {
                self.blocking_acquire_all(wanted, timeout)
            }
            fn release_n(&self, resource: &str, n: u64) {
                self.release_n(resource, n);
            }
            fn announce_reduced(&self, resource: &str, reason: &str) {
                self.announce_reduced(resource, reason);
            }
            fn pause_for(&self, resource: &str, how_long: std::time::Duration) {
                self.pause_for(resource, how_long);
            }
            fn capacity(&self, resource: &str) -> Option<$crate::Capacity> {
                self.capacity(resource)
            }
            fn on_capacity_change(
                &self,
                callback: std::sync::Arc<dyn Fn(&$crate::CapacityUpdate) + Send + Sync>,
            ) {
                self.observe(callback);
            }
            fn close(&self) {
                $close(self);
            }
        }
    };
}

#[cfg(feature = "swarm")]
pub(crate) use rate_limiter;

rate_limiter!(MemoryLimiter, MemoryLimiter::close);
