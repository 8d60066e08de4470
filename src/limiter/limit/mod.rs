//! Limits: construction, validation, and the bucket terms that follow from them.

mod adaptive;
mod getters;
mod lexer;
mod text;
mod window;

use std::num::NonZeroU64;
use std::time::Duration;

use smallvec::SmallVec;

use adaptive::Bounds;
pub use getters::LimitWindow;
pub use lexer::ParseLimitError;
pub(crate) use window::Window;

use super::error::ConfigError;
use crate::adapt::{Policy, Recovery};
use crate::bucket::Terms;

const MAX_WINDOWS: usize = 4;
/// With the 5 seconds of other limits, one that begins far too high would take long to come down.
const ADAPTIVE_COOLDOWN: Duration = Duration::from_secs(2);

/// One value per window of a limit.
pub(crate) type EachWindow<T> = SmallVec<[T; MAX_WINDOWS]>;

/// What happens to a permit's tokens when the permit ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRelease {
    /// The tokens stay spent; the permit only stops counting as in flight. For upstreams that count
    /// requests: a *rate* limit.
    #[default]
    Spend,
    /// The tokens return to the bucket at once. This bounds how many requests run at a time, and
    /// admits more than the rate when requests are short: a *concurrency* limit with a refill.
    Refund,
}

/// A rate limit: `capacity` tokens per `window`, in a token bucket that holds `capacity` tokens
/// unless [`burst`](Self::burst) is set.
///
/// Building never fails; [`MemoryLimiter::configure`](crate::MemoryLimiter::configure) validates. A
/// limit can be [parsed from text](#impl-FromStr-for-Limit) and shown as text: `"100/min"`,
/// `"10/s burst 20"`.
///
/// # Which burst
///
/// The bound is strict: tokens that a full bucket cannot hold are lost, and never made up for.
/// Waiters wake a little late (about 0.1 ms with the crate's timer thread, 1 to 2 ms with a busy
/// runtime), so a bucket that fills up within that time delivers less than its rate. For the full
/// rate choose `burst >= rate x 10 ms`, which is 10 at 1,000/s and 200 at 20,000/s. With a burst of
/// 1 each wake-up's lateness is lost: about 1 % at 100/s, about 10 % at 1,000/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    first: Window,
    more: [Option<Window>; MAX_WINDOWS - 1],
    pub(super) on_release: Option<OnRelease>,
    pub(super) max_in_flight: Option<u64>,
    pub(super) max_waiting: Option<u64>,
    /// `None`: the limiter's own.
    pub(super) recovery: Option<Recovers>,
    pub(super) min_rate: Option<NonZeroU64>,
    pub(super) cooldown: Option<Duration>,
    adaptive: Option<Bounds>,
    /// An error of building, reported on validation.
    pub(super) fault: Option<Fault>,
}

/// What a limit says about its recovery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Recovers {
    Never,
    By(Recovery),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooManyWindows,
    SettingNotOnFirstWindow,
    NoBurst,
    NoMinRate,
}

impl Limit {
    /// `capacity` tokens per `window`, refilled evenly: 5 a second is one every 200 ms.
    #[must_use]
    pub const fn new(capacity: u64, window: Duration) -> Self {
        Self::of(Window { capacity, length: window, burst: None, is_strict: false })
    }

    const fn of(first: Window) -> Self {
        Self {
            first,
            more: [None; MAX_WINDOWS - 1],
            on_release: None,
            max_in_flight: None,
            max_waiting: None,
            recovery: None,
            min_rate: None,
            cooldown: None,
            adaptive: None,
            fault: None,
        }
    }

    /// A strict limit: at most `n` tokens in *any* interval of length `window`, both ends included.
    /// For upstreams that count in fixed or sliding windows.
    ///
    /// A bucket of `per_second(n)` admits `n` at once and `n` more in the following second: twice
    /// what the upstream allows in a window. A strict bucket admits its burst `b` at once, and
    /// `n + 1 - b` accrue evenly in a window. The sum stays below `n + 1`.
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
    /// A larger burst lowers the rate. Choose with [`burst`](Self::burst):
    ///
    /// | `at_most(100, minute)` | at once | then |
    /// | --- | --- | --- |
    /// | `.burst(1)` | 1 | 100 a minute, one every 0.6 s |
    /// | the default, a tenth | 10 | 91 a minute |
    /// | `.burst(50)` | 50 | 51 a minute |
    /// | `.burst(100)` | 100 | 1 a minute |
    ///
    /// The bound holds by this process's clock, at the time a token is granted. An upstream counts
    /// when a request arrives: allow for network jitter with a longer window. A cut scales burst
    /// and rate; even an uncapped recovery stops at the configured limit. Tokens that the caller
    /// gives back may be granted again. A window in which one limit replaced another admits at most
    /// what the larger of the two allows.
    #[must_use]
    pub const fn at_most(n: u64, window: Duration) -> Self {
        Self::of(Window { capacity: n, length: window, burst: None, is_strict: true })
    }

    /// Adds the windows of `other`: `per_second(10).and(Limit::per_day(10_000))`. A request is
    /// admitted if every window has room for it; otherwise it takes nothing from any. Up to four
    /// windows.
    ///
    /// Each window keeps its own burst; set the first's before or after. `on_release`,
    /// `max_in_flight`, `max_waiting`, `recovery`, `min_rate` and `cooldown` belong to the resource:
    /// set them on the first limit. On `other` they are a [`ConfigError`], and so is `adaptive` on either.
    ///
    /// A limit of one window is lock-free. Several windows share a lock, which costs an uncontended
    /// call a few nanoseconds.
    #[must_use]
    pub const fn and(mut self, other: Self) -> Self {
        if other.on_release.is_some()
            || other.max_in_flight.is_some()
            || other.max_waiting.is_some()
            || other.recovery.is_some()
            || other.min_rate.is_some()
            || other.adaptive.is_some()
            || other.cooldown.is_some()
        {
            self.fault = Some(Fault::SettingNotOnFirstWindow);
        }
        if other.fault.is_some() {
            self.fault = other.fault;
        }
        self = self.with_window(other.first);
        let mut i = 0;
        while i < other.more.len() {
            if let Some(window) = other.more[i] {
                self = self.with_window(window);
            }
            i += 1;
        }
        self
    }

    const fn with_window(mut self, window: Window) -> Self {
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
        Self::new(n, Duration::from_secs(60))
    }

    /// `n` tokens an hour.
    #[must_use]
    pub const fn per_hour(n: u64) -> Self {
        Self::new(n, Duration::from_secs(60 * 60))
    }

    /// `n` tokens a day of 24 hours.
    #[must_use]
    pub const fn per_day(n: u64) -> Self {
        Self::new(n, Duration::from_secs(24 * 60 * 60))
    }

    /// The bucket holds `n` tokens: up to `n` are admitted at once after idle time. See
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

    /// What happens to a permit's tokens when it ends. Default: [`OnRelease::Spend`].
    #[must_use]
    pub const fn on_release(mut self, policy: OnRelease) -> Self {
        self.on_release = Some(policy);
        self
    }

    /// At most `n` permits at a time, in addition to the rate. `check` takes no permit.
    #[must_use]
    pub const fn max_in_flight(mut self, n: u64) -> Self {
        self.max_in_flight = Some(n);
        self
    }

    /// At most `n` callers wait at a time; the next one fails with
    /// [`QueueFull`](crate::AcquireError::QueueFull). 0: no caller waits.
    #[must_use]
    pub const fn max_waiting(mut self, n: u64) -> Self {
        self.max_waiting = Some(n);
        self
    }

    /// How the limit recovers after a cut. Default: [`Recovery::default`], 10 % every 30 seconds; on a
    /// `DistributedLimiter`, as in its configuration. Of this and [`no_recovery`](Self::no_recovery) the
    /// last call counts.
    #[must_use]
    pub const fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = Some(Recovers::By(recovery));
        self
    }

    /// The limit stays cut until it is configured with a recovery. For upstreams that are raised by hand.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter, ManualClock, Clock};
    /// # use std::time::Duration;
    /// let time = ManualClock::new();
    /// let limiter = MemoryLimiter::with_clock(time.clone());
    /// let api = limiter.configure("api", Limit::per_second(100).no_recovery())?;
    /// api.announce_reduced("429");
    /// time.advance(Duration::from_secs(86_400));
    /// assert_eq!(api.capacity().per_window, 75);
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn no_recovery(mut self) -> Self {
        self.recovery = Some(Recovers::Never);
        self
    }

    /// Cuts leave at least `n` tokens a window of the first window, and the same part of the others.
    /// Default: a cut of our own leaves one token a window, and no cut less than a millionth of the limit.
    /// 0, and more than the limit's capacity, is a [`ConfigError`].
    ///
    /// It bounds the cuts of other agents here too. They are told of our own cuts as these are, bounded,
    /// and of the cuts of others as those were announced.
    ///
    /// Choose it so that the way back is short: with the default recovery a limit doubles in four minutes.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # use std::time::Duration;
    /// let limiter = MemoryLimiter::new();
    /// let limit = Limit::per_minute(600).min_rate(60).cooldown(Duration::ZERO);
    /// let api = limiter.configure("api", limit)?;
    /// (0..100).for_each(|_| api.announce_reduced("429"));
    /// assert_eq!(api.capacity().per_window, 60);
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn min_rate(mut self, n: u64) -> Self {
        self.min_rate = NonZeroU64::new(n);
        if n == 0 {
            self.fault = Some(Fault::NoMinRate);
        } else if matches!(self.fault, Some(Fault::NoMinRate)) {
            self.fault = None;
        }
        self
    }

    /// How long after a cut refusals belong to the same incident and do not cut further: see
    /// [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced). Default: 5
    /// seconds; on a `DistributedLimiter`, as in its configuration. 0: each announcement cuts.
    ///
    /// Keep it shorter than the time in which recovery undoes a cut. Otherwise the limit is back
    /// before it can be cut again, and never gets down to an upstream that allows much less.
    #[must_use]
    pub const fn cooldown(mut self, how_long: Duration) -> Self {
        self.cooldown = Some(how_long);
        self
    }

    /// The first window, which represents the limit where only one can be shown.
    pub(crate) fn first(&self) -> &Window {
        &self.first
    }

    pub(crate) fn windows(&self) -> impl Iterator<Item = &Window> {
        std::iter::once(&self.first).chain(self.more.iter().flatten())
    }

    /// Tokens that accrue in each window, scaled by `factor`.
    pub(crate) fn per_window(&self, window: &Window, factor: f64) -> u64 {
        let (window, factor) = self.scaled_from(window, factor);
        window.per_window(factor)
    }

    /// For each window the index of the window of `old` whose state it continues: one of the same
    /// length if there is one, otherwise the first one left.
    pub(crate) fn windows_from(&self, old: &Self) -> EachWindow<Option<usize>> {
        let mut left: EachWindow<Option<Duration>> =
            old.windows().map(|window| Some(window.length)).collect();
        let mut take = |matches: &dyn Fn(Duration) -> bool| {
            let found = left.iter().position(|length| length.is_some_and(matches));
            found.inspect(|index| left[*index] = None)
        };
        let mut from: EachWindow<Option<usize>> =
            self.windows().map(|window| take(&|length| length == window.length)).collect();
        for from in from.iter_mut().filter(|from| from.is_none()) {
            *from = take(&|_| true);
        }
        from
    }

    /// Whether a setting that its text could name is left out.
    fn lacks_a_setting(&self) -> bool {
        let release = self.on_release.is_none() || self.recovery.is_none();
        let counts = self.max_in_flight.is_none() || self.max_waiting.is_none();
        let rates = self.min_rate.is_none() || self.adaptive.is_none();
        release || counts || rates || self.cooldown.is_none()
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

    /// The limiter's `policy` with what this limit overrides.
    pub(crate) fn policy(&self, policy: Policy) -> Policy {
        Policy {
            recovery: match self.recovery {
                None => policy.recovery,
                Some(Recovers::Never) => None,
                Some(Recovers::By(recovery)) => Some(recovery),
            },
            floor: self.get_min_rate().map_or(0.0, |rate| self.part(rate)),
            cooldown: self.cooldown.unwrap_or(match self.adaptive {
                Some(_) => ADAPTIVE_COOLDOWN,
                None => policy.cooldown,
            }),
            ..policy
        }
    }

    /// The lowest factor of a cut of our own.
    pub(crate) fn least_factor(&self) -> f64 {
        self.part(self.get_min_rate().unwrap_or(1))
    }

    /// The factor at which `tokens` a window are left.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    fn part(&self, tokens: u64) -> f64 {
        tokens as f64 / self.first.capacity as f64
    }

    /// This limit as the terms of its buckets. Fails if it is not valid.
    pub(crate) fn full_terms(&self) -> Result<EachWindow<Terms>, ConfigError> {
        let terms = self.terms(1.0)?;
        self.validate_adaptive().map(|()| terms)
    }

    /// This limit as the terms of its buckets, scaled.
    pub(crate) fn terms(&self, factor: f64) -> Result<EachWindow<Terms>, ConfigError> {
        match self.fault {
            Some(Fault::TooManyWindows) => return Err(ConfigError::TooManyWindows),
            Some(Fault::SettingNotOnFirstWindow) => {
                return Err(ConfigError::SettingNotOnFirstWindow);
            }
            Some(Fault::NoBurst) => return Err(ConfigError::InvalidBurst),
            Some(Fault::NoMinRate) => return Err(ConfigError::InvalidMinRate),
            None => {}
        }
        if self.max_in_flight == Some(0) {
            return Err(ConfigError::InvalidInFlight);
        }
        if self.get_recovery().is_some_and(|recovery| !recovery.is_valid()) {
            return Err(ConfigError::InvalidRecovery);
        }
        if self.min_rate.is_some_and(|rate| rate.get() > self.first.capacity) {
            return Err(ConfigError::InvalidMinRate);
        }
        let mut terms = EachWindow::new();
        for window in self.windows() {
            let (window, factor) = self.scaled_from(window, factor);
            terms.push(window.terms(factor)?);
        }
        if terms.len() > 1 {
            // A batch is prepaid from one window; every token needs all of them.
            terms.iter_mut().for_each(|terms| terms.batch = 0);
        }
        Ok(terms)
    }
}
