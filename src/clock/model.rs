//! The machine's time over a simulated counter, for models.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::system::{Counter, Scaled};

/// A counter of nanoseconds. Not loom's mutex, because passing time is no step of a model.
#[derive(Debug)]
struct Simulated(Mutex<u64>);

impl Simulated {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter for Simulated {
    fn ticks(&self) -> u64 {
        *self.lock()
    }
}

/// What [`Clock::system`](super::Clock::system) reads.
#[derive(Debug)]
pub struct SimulatedClock(Scaled<Simulated>);

impl SimulatedClock {
    /// A clock that starts at the counter's value `ticks`, in nanoseconds.
    pub fn new(ticks: u64) -> Self {
        Self(Scaled::new(Simulated(Mutex::new(ticks)), 1 << 56))
    }

    /// Sets the counter.
    pub fn set(&self, ticks: u64) {
        *self.0.counter.lock() = ticks;
    }

    /// Lets `nanos` nanoseconds pass.
    pub fn pass(&self, nanos: u64) {
        *self.0.counter.lock() += nanos;
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.0.now()
    }
}
