//! A clock that one thread writes and all threads read.

use std::sync::Arc;
use std::time::Duration;

use super::System;
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Coarse {
    now: AtomicU64,
    step: Duration,
}

impl Coarse {
    /// `None` if the thread cannot be started.
    pub(super) fn start(system: System, step: Duration) -> Option<Arc<Self>> {
        let step = step.clamp(Duration::from_micros(50), Duration::from_secs(1));
        let clock = Arc::new(Self { now: AtomicU64::new(system.now()), step });
        let weak = Arc::downgrade(&clock);
        let update = move || {
            while let Some(clock) = weak.upgrade() {
                // Relaxed would do for the number alone. Release, with the Acquire of `now`, keeps
                // it in step with what else the process orders by its time.
                clock.now.store(system.now(), Ordering::Release);
                drop(clock);
                std::thread::sleep(step);
            }
        };
        std::thread::Builder::new().name("tollgate-clock".into()).spawn(update).ok()?;
        Some(clock)
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    pub(super) fn step(&self) -> u64 {
        u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX)
    }
}
