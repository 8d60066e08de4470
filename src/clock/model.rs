//! The machine's time over a simulated counter, for models.

use std::sync::Mutex;

use super::calibration::SCALE;
use super::system::{Source, Steered};

/// The system's nanoseconds; the counter runs 400 ppm fast. Not loom's mutex, because passing time
/// is no step of a model.
#[derive(Debug)]
struct Simulated(Mutex<u64>);

impl Simulated {
    fn pass(&self, nanos: u64) -> u64 {
        let mut now = self.0.lock().expect("a model stops at its first panic");
        *now += nanos;
        *now
    }
}

impl Source for Simulated {
    fn ticks(&self) -> u64 {
        let now = self.pass(1);
        now + now / 2_500
    }
    fn nanos(&self) -> u64 {
        self.pass(0)
    }
}

/// What [`Clock::system`](super::Clock::system) reads.
#[derive(Debug)]
pub struct SteeredClock(Steered<Simulated>);

impl SteeredClock {
    /// A clock whose first correction is due after a quarter of a second.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Steered::new(Simulated(Mutex::new(0)), 1 << SCALE))
    }

    /// Let `nanos` nanoseconds pass.
    pub fn pass(&self, nanos: u64) {
        self.0.source.pass(nanos);
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.0.now()
    }
}
