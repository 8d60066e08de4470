//! The machine's time over a counter that is made up, for models.

use std::sync::Mutex;

use super::course::SCALE;
use super::system::{Source, Steered};

/// The system's nanoseconds, which the counter counts 400 ppm too fast. Not by loom's primitives:
/// that time passes is no step of a model.
#[derive(Debug)]
struct MadeUp(Mutex<u64>);

impl MadeUp {
    fn pass(&self, nanos: u64) -> u64 {
        let mut now = self.0.lock().expect("a model stops at its first panic");
        *now += nanos;
        *now
    }
}

impl Source for MadeUp {
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
pub struct SteeredClock(Steered<MadeUp>);

impl SteeredClock {
    /// A quarter of a second before its first correction.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Steered::new(MadeUp(Mutex::new(0)), 1 << SCALE))
    }

    /// Let time pass.
    pub fn pass(&self, nanos: u64) {
        self.0.source.pass(nanos);
    }

    /// A reading.
    pub fn now(&self) -> u64 {
        self.0.now()
    }
}
