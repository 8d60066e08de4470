//! Where time comes from, and who wakes those who wait for it.
//!
//! A clock reads nanoseconds since its own start. It also owns the timers that count in its time,
//! so that [`ManualClock::advance`] wakes whoever is due, blocked threads as well.

mod coarse;
mod manual;
mod timers;
#[cfg(feature = "tokio")]
mod tokio;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use manual::ManualClock;

/// The time by which a limiter counts. Cheap to clone; clones read the same time.
///
/// | clock | reads | for |
/// | --- | --- | --- |
/// | [`Clock::system`] | the CPU's counter, where it is reliable, else the system's monotonic clock | the default |
/// | [`Clock::coarse`] | a value that a thread refreshes | floods of denials |
/// | [`ManualClock`] | what a test sets | tests |
/// | `Clock::tokio` (feature `tokio`) | tokio's time, which a test may pause | tests |
///
/// The CPU's counter is calibrated once against the system's clock; what remains is a drift of a
/// few millionths (-4 to +16 were measured), by which a rate is off. Time spent in suspend counts
/// or not as the platform's monotonic clock has it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(System),
    Coarse(Arc<coarse::Coarse>),
    Manual(ManualClock),
    #[cfg(feature = "tokio")]
    Tokio(tokio::TokioClock),
}

/// The fast counter, its reading at the start, and the nanoseconds of a tick in 2^-[`SCALE`].
#[derive(Clone, Debug)]
struct System {
    counter: quanta::Clock,
    start: u64,
    scale: u64,
}

/// Leaves room for ticks of up to 256 ns; the clock is off by less than one part in 10^14 for it.
const SCALE: u32 = 56;

impl System {
    fn new() -> Self {
        let counter = quanta::Clock::new();
        let (start, scale) = (counter.raw(), counter.delta_as_nanos(0, 1 << SCALE));
        Self { counter, start, scale }
    }

    #[inline]
    fn now(&self) -> u64 {
        // A core whose counter is behind the starting one's reads the start.
        let ticks = self.counter.raw().saturating_sub(self.start);
        ((u128::from(ticks) * u128::from(self.scale)) >> SCALE) as u64
    }
}

impl Clock {
    /// The machine's time, by its fastest reliable counter.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(System::new()))
    }

    /// The machine's time as a thread notes it every `step` (at least 50 us). A reading costs next
    /// to nothing and is stale by up to `step`, more where the thread is not scheduled: an
    /// observer may see up to `rate x staleness` more than the bound in a window. The thread ends
    /// with the last clone. Where no thread can be had, this is [`Clock::system`].
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
        Self(Source::Tokio(tokio::TokioClock::new()))
    }

    /// Nanoseconds since this clock's start.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        // The usual one first and inline.
        if let Source::System(system) = &self.0 { system.now() } else { self.other_now() }
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
    pub(crate) fn arm(&self, at: u64, slack: u64, waker: Waker) -> Result<Alarm, Unarmed> {
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

fn in_thread(at: u64, now: u64, waker: Waker) -> Result<Alarm, Unarmed> {
    let delay = Duration::from_nanos(at.saturating_sub(now));
    timers::in_thread(delay, waker).map(Alarm::Thread).ok_or(Unarmed::NoTimer)
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
pub(crate) enum Unarmed {
    /// The clock has reached the time already.
    Due,
    /// The process cannot start another thread.
    NoTimer,
}
