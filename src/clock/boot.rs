//! The time since the machine was started, in which suspend counts.
//!
//! # Forks
//!
//! In a forked child this clock is hours ahead of the parent's. So what the parent had been allotted for a time has
//! ended: the child has no share of a quota that the parent has, which would be spent twice.

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
        ORIGIN.get_or_init(source::begin).map(|origin| Self { origin })
    }

    pub(super) fn now(self) -> u64 {
        source::read().map_or(0, |now| now.saturating_sub(self.origin))
    }
}

#[cfg(all(target_os = "linux", not(loom)))]
mod source {
    use rustix::time::{ClockId, clock_gettime};

    use crate::sync::{AtomicU64, Ordering};

    /// By how much a child is ahead, in nanoseconds: more than the longest term of a ledger.
    const LEAP: u64 = 2 * 3_600 * 1_000_000_000;

    /// By how much this process is ahead. Relaxed: it changes in a process with one thread, before that runs any code.
    static AHEAD: AtomicU64 = AtomicU64::new(0);

    extern "C" fn in_child() {
        AHEAD.fetch_add(LEAP, Ordering::Relaxed);
    }

    /// The first reading.
    #[allow(unsafe_code)] // no safe crate wraps this call
    pub(super) fn begin() -> Option<u64> {
        // SAFETY: the handler is a function of this crate, which stays loaded. It changes one atomic integer, which
        // is allowed in a child of a process with threads, where only the calls that signal handlers may make are.
        let is_watched = unsafe { libc::pthread_atfork(None, None, Some(in_child)) } == 0;
        // Without it a child would go unnoticed: then there is no such clock.
        is_watched.then(read).flatten()
    }

    /// In nanoseconds.
    pub(super) fn read() -> Option<u64> {
        // Every Linux that Rust supports has it, since 2.6.39.
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?;
        let ahead = AHEAD.load(Ordering::Relaxed);
        seconds.checked_add(u64::try_from(time.tv_nsec).ok()?)?.checked_add(ahead)
    }
}

#[cfg(not(all(target_os = "linux", not(loom))))]
mod source {
    pub(super) fn begin() -> Option<u64> {
        None
    }
    pub(super) fn read() -> Option<u64> {
        None
    }
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
