//! The time since the machine was started, in which suspend counts.

use std::sync::OnceLock;

/// Reads 0 when the first of them is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    origin: u64,
}

impl Boot {
    /// `None` where there is no such clock.
    pub(super) fn new() -> Option<Self> {
        static ORIGIN: OnceLock<Option<u64>> = OnceLock::new();
        ORIGIN.get_or_init(read).map(|origin| Self { origin })
    }

    pub(super) fn now(self) -> u64 {
        read().map_or(0, |now| now.saturating_sub(self.origin))
    }
}

/// In nanoseconds.
#[cfg(all(target_os = "linux", not(loom)))]
fn read() -> Option<u64> {
    use rustix::time::{ClockId, clock_gettime};

    // Every Linux that Rust supports has it, since 2.6.39.
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec).ok()?)
}

#[cfg(not(all(target_os = "linux", not(loom))))]
fn read() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::clock::Clock;

    #[test]
    fn it_passes_as_time_does() {
        let clock = Clock::boot_time();
        let (begin, first) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(20));
        let passed = clock.now() - first;
        assert!(passed >= 20_000_000);
        // And no faster: the reading before is the earlier of the two.
        let other = Clock::boot_time().now() - first;
        assert!(u128::from(other) <= begin.elapsed().as_nanos() + 1_000_000);
    }
}
