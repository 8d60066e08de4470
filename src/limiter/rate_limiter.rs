//! Any limiter, behind one object-safe trait.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::{Acquire, AcquireAll, UntilReady};
use super::capacity::{Capacity, CapacityUpdate};
use super::decision::Decision;
use super::error::{
    AcquireAllError, AcquireError, AllError, ConfigError, ConfigureAllError, TryAcquireError,
};
use super::limit::Limit;
use super::memory::MemoryLimiter;
use super::permit::Permit;
use super::permits::Permits;
use super::resource::Resource;

/// The accessor that keeps [`RateLimiter`] sealed.
pub trait Local {
    /// The limiter of this process.
    fn local(&self) -> &MemoryLimiter;
    /// Closes the limiter for good, without waiting.
    fn close_now(&self);
}

impl Local for MemoryLimiter {
    fn local(&self) -> &MemoryLimiter {
        self
    }
    fn close_now(&self) {
        self.close();
    }
}

impl RateLimiter for MemoryLimiter {}

/// What every limiter does. The trait is object-safe, and sealed: code that takes a `&dyn RateLimiter`
/// runs on a [`MemoryLimiter`] and on a `DistributedLimiter`.
///
/// Each method is the one of [`MemoryLimiter`] of the same name, and is documented there.
#[allow(missing_docs)] // documented at `MemoryLimiter`
pub trait RateLimiter: Local + Send + Sync {
    fn set_capacity(
        &self,
        resource: &str,
        capacity: u64,
        window: Duration,
    ) -> Result<(), ConfigError> {
        self.local().set_capacity(resource, capacity, window)
    }
    fn configure(&self, resource: &str, limit: Limit) -> Result<Resource, ConfigError> {
        self.local().configure(resource, limit)
    }
    fn configure_all(&self, limits: &[(&str, Limit)]) -> Result<Vec<Resource>, ConfigureAllError> {
        self.local().configure_all(limits)
    }
    fn per_key(&self, prefix: &str, limit: Limit) -> Result<(), ConfigError> {
        self.local().per_key(prefix, limit)
    }
    fn per_key_at_most(
        &self,
        prefix: &str,
        limit: Limit,
        max_keys: u64,
    ) -> Result<(), ConfigError> {
        self.local().per_key_at_most(prefix, limit, max_keys)
    }
    fn remove_per_key(&self, prefix: &str) -> bool {
        self.local().remove_per_key(prefix)
    }
    fn keys(&self, prefix: &str) -> Vec<Capacity> {
        self.local().keys(prefix)
    }
    fn key_count(&self, prefix: &str) -> u64 {
        self.local().key_count(prefix)
    }
    fn resource(&self, resource: &str) -> Option<Resource> {
        self.local().resource(resource)
    }
    fn remove(&self, resource: &str) -> bool {
        self.local().remove(resource)
    }
    fn resources(&self) -> Vec<Capacity> {
        self.local().resources()
    }
    fn capacity(&self, resource: &str) -> Option<Capacity> {
        self.local().capacity(resource)
    }
    fn check(&self, resource: &str) -> Result<(), TryAcquireError> {
        self.local().check(resource)
    }
    fn check_n(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        self.local().check_n(resource, n)
    }
    fn check_all(&self, wanted: &[(&str, u64)]) -> Result<(), AllError> {
        self.local().check_all(wanted)
    }
    fn decide(&self, resource: &str, n: u64) -> Decision {
        self.local().decide(resource, n)
    }
    fn admit(&self, resource: &str, n: u64) -> Result<(Permit<'static>, Decision), Decision> {
        self.local().admit(resource, n)
    }
    fn admit_all(
        &self,
        wanted: &[(&str, u64)],
    ) -> Result<(Permits, Vec<Decision>), (AllError, Vec<Decision>)> {
        self.local().admit_all(wanted)
    }
    fn peek(&self, resource: &str, n: u64) -> Result<(), TryAcquireError> {
        self.local().peek(resource, n)
    }
    fn peek_all(&self, wanted: &[(&str, u64)]) -> Result<(), AllError> {
        self.local().peek_all(wanted)
    }
    fn try_acquire(&self, resource: &str) -> Result<Permit<'static>, TryAcquireError> {
        self.local().try_acquire(resource)
    }
    fn try_acquire_n(&self, resource: &str, n: u64) -> Result<Permit<'static>, TryAcquireError> {
        self.local().try_acquire_n(resource, n)
    }
    fn try_acquire_all(&self, wanted: &[(&str, u64)]) -> Result<Permits, AllError> {
        self.local().try_acquire_all(wanted)
    }
    fn acquire(&self, resource: &str) -> Acquire {
        self.local().acquire(resource)
    }
    fn acquire_n(&self, resource: &str, n: u64) -> Acquire {
        self.local().acquire_n(resource, n)
    }
    fn acquire_all(&self, wanted: &[(&str, u64)]) -> AcquireAll {
        self.local().acquire_all(wanted)
    }
    fn until_ready(&self, resource: &str) -> UntilReady {
        self.local().until_ready(resource)
    }
    fn until_ready_n(&self, resource: &str, n: u64) -> UntilReady {
        self.local().until_ready_n(resource, n)
    }
    fn blocking_until_ready(&self, resource: &str) -> Result<(), AcquireError> {
        self.local().blocking_until_ready(resource)
    }
    fn blocking_until_ready_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<(), AcquireError> {
        self.local().blocking_until_ready_n(resource, n, timeout)
    }
    fn blocking_acquire(&self, resource: &str) -> Result<Permit<'static>, AcquireError> {
        self.local().blocking_acquire(resource)
    }
    fn blocking_acquire_timeout(
        &self,
        resource: &str,
        timeout: Duration,
    ) -> Result<Permit<'static>, AcquireError> {
        self.local().blocking_acquire_timeout(resource, timeout)
    }
    fn blocking_acquire_n(
        &self,
        resource: &str,
        n: u64,
        timeout: Option<Duration>,
    ) -> Result<Permit<'static>, AcquireError> {
        self.local().blocking_acquire_n(resource, n, timeout)
    }
    fn blocking_acquire_all(
        &self,
        wanted: &[(&str, u64)],
        timeout: Option<Duration>,
    ) -> Result<Permits, AcquireAllError> {
        self.local().blocking_acquire_all(wanted, timeout)
    }
    fn release(&self, resource: &str) {
        self.local().release(resource);
    }
    fn release_n(&self, resource: &str, n: u64) {
        self.local().release_n(resource, n);
    }
    fn announce_reduced(&self, resource: &str, reason: &str) {
        self.local().announce_reduced(resource, reason);
    }
    fn pause_for(&self, resource: &str, how_long: Duration) {
        self.local().pause_for(resource, how_long);
    }
    fn pause_here_for(&self, resource: &str, how_long: Duration) {
        self.local().pause_here_for(resource, how_long);
    }
    fn resume(&self, resource: &str) {
        self.local().resume(resource);
    }
    fn observe_remaining(&self, resource: &str, left: u64) {
        self.local().observe_remaining(resource, left);
    }
    fn observe_remaining_until(&self, resource: &str, left: u64, until: Duration) {
        self.local().observe_remaining_until(resource, left, until);
    }
    fn on_capacity_change(&self, callback: Arc<dyn Fn(&CapacityUpdate) + Send + Sync>) {
        self.local().observe(callback);
    }
    fn close(&self) {
        self.close_now();
    }
}
