//! What a resource may do, and what of it is refused.

mod lexer;
mod text;
mod window;

use std::num::NonZeroU64;
use std::time::Duration;

use smallvec::SmallVec;

pub use lexer::ParseLimitError;
pub(crate) use window::Window;

use super::error::ConfigError;
use crate::adapt::{Policy, Recovery};
use crate::bucket::Terms;

/// So many windows a limit may have.
pub(crate) const MOST_WINDOWS: usize = 4;

/// Something for each window of a limit.
pub(crate) type EachWindow<T> = SmallVec<[T; MOST_WINDOWS]>;

/// What the end of a permit does to its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRelease {
    /// The tokens stay spent; only the permit's place in flight is freed. For upstreams that count
    /// requests: a *rate* limit.
    #[default]
    Spend,
    /// The tokens go back into the bucket at once. This bounds how many are at work at a time, and
    /// admits more than the rate when work is short: a *concurrency* limit with a refill.
    Refund,
}

/// What a resource may do: `capacity` tokens a `window`, in a bucket that holds as many, unless
/// [`burst`](Self::burst) says otherwise.
///
/// Any value can be built; [`MemoryLimiter::configure`](crate::MemoryLimiter::configure) tells what
/// is wrong with it. A limit can be [read from text](#impl-FromStr-for-Limit) and shown as text:
/// `"100/min"`, `"10/s burst 20"`.
///
/// # Which burst
///
/// The bound is strict: what a full bucket cannot hold is lost, and never caught up. Waiters are
/// woken a little late (about 0.1 ms by the timer thread here, 1 to 2 ms by a busy runtime), so a
/// bucket that fills up within that time delivers less than its rate. For the whole rate take
/// `burst >= rate x 10 ms`, which is 10 at 1,000/s and 200 at 20,000/s. With a burst of 1 each
/// token's lateness is lost: at 100/s that is about 1 %, at 1,000/s about 10 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    first: Window,
    more: [Option<Window>; MOST_WINDOWS - 1],
    pub(super) on_release: Option<OnRelease>,
    pub(super) max_in_flight: Option<u64>,
    pub(super) max_waiting: Option<u64>,
    pub(super) recovery: Option<Recovery>,
    pub(super) cooldown: Option<Duration>,
    /// What could not be put together.
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooManyWindows,
    Misplaced,
    NoBurst,
}

impl Limit {
    /// `capacity` tokens every `window`, refilled evenly: 5 a second is one every 200 ms.
    #[must_use]
    pub const fn new(capacity: u64, window: Duration) -> Self {
        Self::of(Window { capacity, length: window, burst: None, is_strict: false })
    }

    const fn of(first: Window) -> Self {
        Self {
            first,
            more: [None; MOST_WINDOWS - 1],
            on_release: None,
            max_in_flight: None,
            max_waiting: None,
            recovery: None,
            cooldown: None,
            fault: None,
        }
    }

    /// Strict: never more than `n` tokens in *any* stretch of time as long as `window`, its two ends
    /// included, wherever it begins. For upstreams that count in fixed or sliding windows.
    ///
    /// A bucket of `per_second(n)` lets `n` through at once and `n` more in the second after: twice
    /// what an upstream may count. A strict bucket makes room: of `n`, its burst `b` may come at once,
    /// and `n + 1 - b` accrue evenly in a window, which together stay below `n + 1`.
    ///
    /// ```text
    ///  tokens in the window that began with a burst
    ///  n |                          .-'|   at most n, in every window
    ///    |                     .-'     |
    ///    |                .-'          |   n + 1 - b accrue in a window: the rate
    ///    |           .-'               |
    ///  b |.     .-'                    |
    ///    | `-'                         |   b at once: the burst
    ///    +-----------------------------+-> time
    ///    0                           window
    /// ```
    ///
    /// So the burst costs rate, and which of the two you need is yours to say, by
    /// [`burst`](Self::burst):
    ///
    /// | `at_most(100, minute)` | at once | then |
    /// | --- | --- | --- |
    /// | `.burst(1)` | 1 | 100 a minute, one every 0.6 s |
    /// | by default a tenth | 10 | 91 a minute |
    /// | `.burst(50)` | 50 | 51 a minute |
    /// | `.burst(100)` | 100 | 1 a minute |
    ///
    /// It is strict by this process's clock, at the time a token is granted. An upstream counts at the
    /// time a request arrives: leave room for jitter on the way, by a longer window. A cut scales
    /// both burst and rate; recovery without a cap stops at what was configured. Tokens that users
    /// give back may be granted again. A window in which one limit was replaced by another has at most
    /// what the larger of the two allows.
    #[must_use]
    pub const fn at_most(n: u64, window: Duration) -> Self {
        Self::of(Window { capacity: n, length: window, burst: None, is_strict: true })
    }

    /// And in other windows too: `per_second(10).and(Limit::per_day(10_000))`. All or nothing: a
    /// request is admitted where every window has room for it, and else costs nothing in any. Up to
    /// four windows.
    ///
    /// Each window keeps its own burst; set the first's before or after. What a permit's end does, how
    /// many are in flight or wait, recovery and cooldown belong to the resource: set them on the
    /// first, not on `other`, which is a [`ConfigError`].
    ///
    /// Several windows are kept under a lock, which an uncontended call takes in a few nanoseconds:
    /// a limit of one window is lock-free.
    #[must_use]
    pub const fn and(mut self, other: Self) -> Self {
        if other.on_release.is_some()
            || other.max_in_flight.is_some()
            || other.max_waiting.is_some()
            || other.recovery.is_some()
            || other.cooldown.is_some()
        {
            self.fault = Some(Fault::Misplaced);
        }
        if other.fault.is_some() {
            self.fault = other.fault;
        }
        self = self.with(other.first);
        let mut i = 0;
        while i < other.more.len() {
            if let Some(window) = other.more[i] {
                self = self.with(window);
            }
            i += 1;
        }
        self
    }

    const fn with(mut self, window: Window) -> Self {
        let mut i = 0;
        while i < self.more.len() {
            if self.more[i].is_none() {
                self.more[i] = Some(window);
                return self;
            }
            i += 1;
        }
        self.fault = Some(Fault::TooManyWindows);
        self
    }

    /// `n` tokens a second.
    #[must_use]
    pub const fn per_second(n: u64) -> Self {
        Self::new(n, Duration::from_secs(1))
    }

    /// `n` tokens a minute.
    #[must_use]
    pub const fn per_minute(n: u64) -> Self {
        Self::new(n, Duration::from_mins(1))
    }

    /// `n` tokens an hour.
    #[must_use]
    pub const fn per_hour(n: u64) -> Self {
        Self::new(n, Duration::from_hours(1))
    }

    /// `n` tokens a day of 24 hours.
    #[must_use]
    pub const fn per_day(n: u64) -> Self {
        Self::new(n, Duration::from_hours(24))
    }

    /// The bucket holds `n` tokens: so many are admitted at once after a rest. See
    /// [which burst](Self#which-burst).
    #[must_use]
    pub const fn burst(mut self, n: u64) -> Self {
        self.first.burst = NonZeroU64::new(n);
        if n == 0 {
            self.fault = Some(Fault::NoBurst);
        } else if matches!(self.fault, Some(Fault::NoBurst)) {
            self.fault = None;
        }
        self
    }

    /// What the end of a permit does to its tokens. Default: [`OnRelease::Spend`].
    #[must_use]
    pub const fn on_release(mut self, policy: OnRelease) -> Self {
        self.on_release = Some(policy);
        self
    }

    /// At most `n` permits at a time, whatever the tokens. `check` takes no permit.
    #[must_use]
    pub const fn max_in_flight(mut self, n: u64) -> Self {
        self.max_in_flight = Some(n);
        self
    }

    /// At most `n` wait at a time; the next fails with
    /// [`QueueFull`](crate::AcquireError::QueueFull). 0: nobody waits.
    #[must_use]
    pub const fn max_waiting(mut self, n: u64) -> Self {
        self.max_waiting = Some(n);
        self
    }

    /// How the limit recovers after a cut. Default: not by itself; on a `DistributedLimiter`, as it
    /// was configured.
    #[must_use]
    pub const fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = Some(recovery);
        self
    }

    /// How long after a cut refusals belong to its incident, and cut no further: see
    /// [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced). Default: 5
    /// seconds; on a `DistributedLimiter`, as it was configured. 0: each announcement cuts.
    ///
    /// Keep it shorter than a recovery takes to undo a cut. Otherwise the limit is back before it may
    /// be cut again, and never gets down to what an upstream allows that allows much less.
    #[must_use]
    pub const fn cooldown(mut self, how_long: Duration) -> Self {
        self.cooldown = Some(how_long);
        self
    }

    /// The first window, which stands for the limit where there is room for one.
    pub(crate) fn first(&self) -> &Window {
        &self.first
    }

    /// All windows, the first one first.
    pub(crate) fn windows(&self) -> impl Iterator<Item = &Window> {
        std::iter::once(&self.first).chain(self.more.iter().flatten())
    }

    /// Which window of `old` each window goes on from: one of the same length if there is one, or
    /// else the next that is left over.
    pub(crate) fn windows_from(&self, old: &Self) -> EachWindow<Option<usize>> {
        let mut left: EachWindow<Option<Duration>> =
            old.windows().map(|window| Some(window.length)).collect();
        let mut take = |is_it: &dyn Fn(Duration) -> bool| {
            let found = left.iter().position(|length| length.is_some_and(is_it));
            found.inspect(|index| left[*index] = None)
        };
        let mut from: EachWindow<Option<usize>> =
            self.windows().map(|window| take(&|length| length == window.length)).collect();
        for from in from.iter_mut().filter(|from| from.is_none()) {
            *from = take(&|_| true);
        }
        from
    }

    /// Whether a permit's end gives its tokens back.
    pub(crate) fn refunds(&self) -> bool {
        self.on_release == Some(OnRelease::Refund)
    }

    /// `u64::MAX` for no bound, here and below.
    pub(crate) fn max_in_flight_or_none(&self) -> u64 {
        self.max_in_flight.unwrap_or(u64::MAX)
    }

    pub(crate) fn max_waiting_or_none(&self) -> u64 {
        self.max_waiting.unwrap_or(u64::MAX)
    }

    /// How this limit reacts to a refusal, where its limiter reacts by `policy`.
    pub(crate) fn policy(&self, policy: Policy) -> Policy {
        Policy {
            recovery: self.recovery.or(policy.recovery),
            cooldown: self.cooldown.unwrap_or(policy.cooldown),
            ..policy
        }
    }

    /// The factor at which one token a window is left: no cut goes below.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    pub(crate) fn least_factor(&self) -> f64 {
        1.0 / self.first.capacity as f64
    }

    /// This limit as the terms of its buckets, scaled.
    pub(crate) fn terms(&self, factor: f64) -> Result<EachWindow<Terms>, ConfigError> {
        match self.fault {
            Some(Fault::TooManyWindows) => return Err(ConfigError::TooManyWindows),
            Some(Fault::Misplaced) => return Err(ConfigError::Misplaced),
            Some(Fault::NoBurst) => return Err(ConfigError::InvalidBurst),
            None => {}
        }
        if self.max_in_flight == Some(0) {
            return Err(ConfigError::InvalidInFlight);
        }
        if self.recovery.is_some_and(|recovery| !recovery.is_valid()) {
            return Err(ConfigError::InvalidRecovery);
        }
        let mut terms = EachWindow::new();
        for window in self.windows() {
            terms.push(window.terms(factor)?);
        }
        if terms.len() > 1 {
            // All of them must agree to each token.
            terms.iter_mut().for_each(|terms| terms.batch = 0);
        }
        Ok(terms)
    }
}
