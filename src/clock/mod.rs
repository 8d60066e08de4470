//! Clocks and their timers.
//!
//! A clock reads nanoseconds since its start. It also owns the timers that count in its time, so
//! that [`ManualClock::advance`] wakes the tasks and blocked threads that are due.

#[cfg(feature = "swarm")]
mod boot;
mod coarse;
mod manual;
#[cfg(loom)]
mod model;
mod system;
mod timers;
#[cfg(feature = "tokio")]
mod tokio;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use manual::ManualClock;
#[cfg(loom)]
pub use model::SimulatedClock;
use system::System;

/// The time that a limiter counts in. Cheap to clone; clones read the same time.
///
/// | clock | reads | for |
/// | --- | --- | --- |
/// | [`Clock::system`] | the CPU's counter | the default |
/// | [`Clock::coarse`] | a value that a thread refreshes | floods of denials |
/// | [`ManualClock`] | what a test sets | tests |
/// | `Clock::boot_time` (feature `swarm`) | the time since the machine was started | quotas that a swarm shares |
/// | `Clock::tokio` (feature `tokio`) | tokio's time, which a test may pause | tests |
///
/// # The machine's time
///
/// All clocks of a process that read the machine's time read the same time, which is 0 when the
/// first of them starts. It is the CPU's counter, at the pace that [quanta](https://docs.rs/quanta)
/// measures when the first clock starts, in at most 200 ms. That pace is not corrected afterwards: it
/// differs from the system's clock by some 20 ppm at most on the machines where we measured it, and a
/// rate is off by as much. A counter that the CPU does not call reliable is never used: then the
/// system's monotonic clock is read.
///
/// The time never goes back, except by the amount that one core's counter is behind another's. If the
/// counter falls back by more than a second, as it may when a machine is resumed or migrated, the time
/// continues from where it was, at most 100 ms ahead. If the counter leaps forward, so does the time;
/// that fills no bucket beyond its burst. Time spent in suspend counts if the counter counts it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(System),
    Coarse(Arc<coarse::Coarse>),
    Manual(ManualClock),
    #[cfg(feature = "swarm")]
    Boot(boot::Boot),
    /// Behind a pointer like the others: otherwise the tag is a niche in it, and slower to read.
    #[cfg(feature = "tokio")]
    Tokio(Arc<tokio::TokioClock>),
}

impl Clock {
    /// The machine's time, by its fastest reliable counter: [see above](Clock#the-machines-time).
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(System::new()))
    }

    /// The machine's time as a thread stores it every `step` (50 us to 1 s): for floods of denials,
    /// which cost a third to a half of those with [`Clock::system`]. Admissions are not much cheaper.
    ///
    /// A reading is stale by up to `step`, or more if the thread is not scheduled. The bound holds
    /// by these readings; an observer with another clock may see up to `rate x staleness` more in a
    /// window: one token at 1000/s and a step of 1 ms. Waiters wake, and timeouts end, up to a step
    /// late. In a forked child nobody stores the time: make the clock after the fork. A step's tokens
    /// accrue at its end, so a bucket that holds less than `rate x step`
    /// loses a part of its rate. Use a step of one or a few milliseconds. The thread wakes every
    /// `step` even if nobody reads, and ends within a step after the last clone drops. If no thread
    /// can be started, this is [`Clock::system`].
    #[must_use]
    pub fn coarse(step: Duration) -> Self {
        match coarse::Coarse::start(System::new(), step) {
            Some(clock) => Self(Source::Coarse(clock)),
            None => Self::system(),
        }
    }

    /// The time since the machine was started, in which suspend counts. For a quota that a swarm shares: a
    /// machine that wakes up must not spend what others have been given meanwhile. A reading costs two to three
    /// times that of [`Clock::system`].
    ///
    /// On Linux this is `CLOCK_BOOTTIME`. Elsewhere it is [`Clock::system`], which may not count suspend.
    #[cfg(feature = "swarm")]
    #[must_use]
    pub fn boot_time() -> Self {
        match boot::Boot::new() {
            Some(clock) => Self(Source::Boot(clock)),
            None => Self::system(),
        }
    }

    /// Whether this is [`Clock::system`] or [`Clock::coarse`].
    #[cfg(feature = "swarm")]
    pub(crate) fn is_of_machine(&self) -> bool {
        matches!(self.0, Source::System(_) | Source::Coarse(_))
    }

    /// The time of tokio's runtime, which `tokio::time::pause` stops. For tests: a reading costs
    /// several times that of [`Clock::system`].
    ///
    /// It follows the runtime in which it is used, so use a paused clock in its runtime; outside any
    /// it reads the machine's time. Timers need the runtime's time driver (`enable_time`):
    /// without it a timer's task panics, and a thread of this crate wakes the waiter instead.
    ///
    /// A queue's timer is a task of the runtime in which a wait was polled first. While nobody drives that
    /// runtime (a `current_thread` one outside `block_on`), waits of the same resource elsewhere are not
    /// woken either. [`Clock::system`] has no such bond.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn tokio() -> Self {
        Self(Source::Tokio(Arc::new(tokio::TokioClock::new())))
    }

    /// Nanoseconds since this clock's start; for the machine's time, since it was first read.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        // Only the clocks of hot paths are inlined.
        if let Source::System(system) = &self.0 {
            system.now()
        } else if let Source::Coarse(coarse) = &self.0 {
            coarse.now()
        } else {
            self.other_now()
        }
    }

    #[inline(never)]
    fn other_now(&self) -> u64 {
        match &self.0 {
            Source::System(system) => system.now(),
            Source::Coarse(coarse) => coarse.now(),
            Source::Manual(manual) => manual.now(),
            #[cfg(feature = "swarm")]
            Source::Boot(boot) => boot.now(),
            #[cfg(feature = "tokio")]
            Source::Tokio(tokio) => tokio.now(),
        }
    }

    /// Wake `waker` once, when this clock reads `at`, or up to `slack` nanoseconds later where that
    /// is cheaper. Never wakes before it returns.
    pub(crate) fn arm(&self, at: u64, slack: u64, waker: Waker) -> Result<Alarm, ArmError> {
        match &self.0 {
            Source::System(system) => in_thread(at.saturating_add(slack), system.now(), waker),
            // The timer thread runs by the machine's time. This clock reads it up to a step later.
            Source::Coarse(coarse) => {
                let at = at.saturating_add(slack).saturating_add(coarse.step());
                in_thread(at, coarse.now(), waker)
            }
            Source::Manual(manual) => manual.arm(at, waker),
            // The timer thread's time does not count suspend: it is late by that at most.
            #[cfg(feature = "swarm")]
            Source::Boot(boot) => in_thread(at.saturating_add(slack), boot.now(), waker),
            #[cfg(feature = "tokio")]
            Source::Tokio(tokio) => match tokio.arm(at, waker.clone()) {
                Some(alarm) => Ok(alarm),
                None => in_thread(at, tokio.now(), waker),
            },
        }
    }
}

fn in_thread(at: u64, now: u64, waker: Waker) -> Result<Alarm, ArmError> {
    let delay = Duration::from_nanos(at.saturating_sub(now));
    timers::in_thread(delay, waker).map(Alarm::Thread).ok_or(ArmError::NoTimer)
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl From<ManualClock> for Clock {
    fn from(manual: ManualClock) -> Self {
        Self(Source::Manual(manual))
    }
}

/// An armed timer. Dropping it disarms it.
#[derive(Debug)]
#[allow(dead_code)] // held for their drop
pub(crate) enum Alarm {
    Thread(timers::ThreadTimer),
    Manual(manual::ManualTimer),
    #[cfg(feature = "tokio")]
    Tokio(tokio::Task),
}

impl Alarm {
    /// Whether it can still fire: in a forked child the timers of the parent do not.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Self::Thread(timer) => timer.is_own(),
            Self::Manual(_) => true,
            #[cfg(feature = "tokio")]
            Self::Tokio(_) => true,
        }
    }
}

/// Why a timer was not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmError {
    /// The clock has already reached the time.
    Due,
    /// The process cannot start another thread.
    NoTimer,
}
