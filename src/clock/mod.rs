//! Where time comes from, and who wakes those who wait for it.
//!
//! A clock reads nanoseconds since its start. It also owns the timers that count in its time,
//! so that [`ManualClock::advance`] wakes whoever is due, blocked threads as well.

mod coarse;
mod course;
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
pub use model::SteeredClock;
use system::System;

/// The time by which a limiter counts. Cheap to clone; clones read the same time.
///
/// | clock | reads | for |
/// | --- | --- | --- |
/// | [`Clock::system`] | the CPU's counter, kept in step with the system's monotonic clock | the default |
/// | [`Clock::coarse`] | a value that a thread refreshes | floods of denials |
/// | [`ManualClock`] | what a test sets | tests |
/// | `Clock::tokio` (feature `tokio`) | tokio's time, which a test may pause | tests |
///
/// # The machine's time
///
/// All clocks that read the machine's time, in one process, read the same time, from 0 at the first one's
/// start. It is the CPU's counter, calibrated at the start and then corrected against the system's
/// monotonic clock: by whoever reads it, after a quarter of a second and less and less often, at most every
/// 16 seconds. A correction is never a step: an offset is worked off by a slope that differs from the
/// system's by at most 500 millionths, which is the most by which a rate is off meanwhile. After some
/// seconds the offset that remains is below a microsecond, and a rate is off by less than a millionth,
/// while the system's clock keeps its own pace. The time never goes back, but by what one core's counter is
/// behind another's.
///
/// Where the two clocks disagree on how much time has passed, by more than a thousandth, the later one is
/// believed, and the reading goes forward by the difference: no bucket holds more than its burst for it.
/// So time spent in suspend counts where either of them counts it. If the counter jumps back by more
/// than a second, the system's clock fills in; by less, the time stands still until the counter
/// is there again, or goes back with it within the last 16 seconds. A counter that disagrees again and
/// again is not used any more, nor is one that the CPU does not call reliable: then the system's clock is read.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(System),
    Coarse(Arc<coarse::Coarse>),
    Manual(ManualClock),
    /// Behind a pointer, as the others are: else the tag hides in it, and takes longer to read.
    #[cfg(feature = "tokio")]
    Tokio(Arc<tokio::TokioClock>),
}

impl Clock {
    /// The machine's time, by its fastest reliable counter: [see above](Clock#the-machines-time).
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(System::new()))
    }

    /// The machine's time as a thread notes it every `step` (from 50 us to a second): for floods of denials,
    /// which cost a third of what they cost by [`Clock::system`]. An admission is not much cheaper.
    ///
    /// A reading is stale by up to `step`, more where the thread is not scheduled. By the readings the
    /// bound holds; an observer with another clock may see up to `rate x staleness` more in a window: at
    /// 1000/s and a step of 1 ms, one token. Waiters wake up to a step later, and their timeouts end so. What
    /// accrues in a step is there at its end: of a bucket that holds less than `rate x step` a part of the
    /// rate is lost. So take a step of a millisecond or a few. The thread wakes every `step`, whether anybody
    /// reads or not, and ends within one of the last clone. Where no thread can be had, this is
    /// [`Clock::system`].
    #[must_use]
    pub fn coarse(step: Duration) -> Self {
        match coarse::Coarse::start(System::new(), step) {
            Some(clock) => Self(Source::Coarse(clock)),
            None => Self::system(),
        }
    }

    /// The time of tokio's runtime, which `tokio::time::pause` stops. Made for tests: a reading
    /// costs several times that of [`Clock::system`].
    ///
    /// It follows the runtime that it is used in, and outside of any the machine's time: so one that
    /// is paused must be used inside. Its timers need the runtime's time driver (`enable_time`): without
    /// it a timer's task panics, and a thread of the crate's wakes the waiter instead.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn tokio() -> Self {
        Self(Source::Tokio(Arc::new(tokio::TokioClock::new())))
    }

    /// Nanoseconds since this clock's start; of the machine's time, since the process first read it.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        // Those of hot paths first and inline.
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
            #[cfg(feature = "tokio")]
            Source::Tokio(tokio) => tokio.now(),
        }
    }

    /// Have `waker` woken once when this clock reads `at`; where that is cheaper, up to `slack`
    /// nanoseconds later. Never wakes before it returns.
    pub(crate) fn arm(&self, at: u64, slack: u64, waker: Waker) -> Result<Alarm, ArmError> {
        match &self.0 {
            Source::System(system) => in_thread(at.saturating_add(slack), system.now(), waker),
            // The thread keeps the machine's time: a step later this clock reads it, too.
            Source::Coarse(coarse) => {
                let at = at.saturating_add(slack).saturating_add(coarse.step());
                in_thread(at, coarse.now(), waker)
            }
            Source::Manual(manual) => manual.arm(at, waker),
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

/// An armed timer; dropping it disarms.
#[derive(Debug)]
#[allow(dead_code)] // held for what their drop does
pub(crate) enum Alarm {
    Thread(timers::ThreadTimer),
    Manual(manual::ManualTimer),
    #[cfg(feature = "tokio")]
    Tokio(tokio::Task),
}

/// Why a timer was not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmError {
    /// The clock has reached the time already.
    Due,
    /// The process cannot start another thread.
    NoTimer,
}
