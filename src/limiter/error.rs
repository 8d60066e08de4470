//! Errors, told apart by what the caller can do next.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::{Deficit, Denied, Never};
use crate::wait::GiveUp;

/// Why a call that does not wait failed. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// Too few tokens now, or others wait: try again after [`retry_after`](Self::retry_after), or wait with
    /// `acquire`. Also of a call for more than a cut bucket holds, but not more than it will hold when the
    /// limit has recovered.
    #[non_exhaustive]
    Exhausted {
        /// When to try again.
        hint: RetryHint,
    },
    /// As many permits are in flight as the limit allows: end one, or wait with `acquire`.
    TooManyInFlight,
    /// More tokens than the bucket will hold, so that no wait helps: more than the configured burst, or than
    /// a cut left of it where the limit does not [recover](crate::Limit::no_recovery), or than an
    /// [adaptive](crate::Limit::adaptive) limit holds at present. Ask for at most `capacity`, or raise the
    /// limit's burst.
    ExceedsCapacity {
        /// The most that can be asked for, in tokens.
        capacity: u64,
    },
    /// There are as many keys as their template allows, and the keys that were visited are in use: shed
    /// this call, or allow more by [`per_key_at_most`](crate::MemoryLimiter::per_key_at_most).
    TooManyKeys {
        /// The number that it allows.
        most: u64,
    },
    /// There is neither a resource of this name nor a template of a prefix of it: configure one, or set
    /// the other by [`per_key`](crate::MemoryLimiter::per_key). Handles of a removed resource, and of
    /// another limiter, fail with this too.
    UnknownResource,
    /// The limiter was closed, for good.
    Closed,
}

/// When a denied call may succeed. The time is computed on demand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RetryHint(pub(crate) Deficit);

impl RetryHint {
    fn wait(self) -> Duration {
        Duration::from_nanos(self.0.wait())
    }
}

/// `main` prints an error that it returns in this format: the time, not what it is computed from.
impl fmt::Debug for RetryHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryHint").field("retry_after", &self.wait()).finish()
    }
}

impl TryAcquireError {
    /// The time until the same call would succeed if no other call came, rounded up to the next
    /// nanosecond. For more than a cut bucket holds it is that of the recovery's steps and the accrual. Those
    /// that wait already are served before it, and then it is at least a millisecond. It is a lower bound:
    /// others may come, and those that wait may wait for another resource, or for a place in flight. `None`
    /// if time alone does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { hint } => Some(hint.wait()),
            _ => None,
        }
    }

    /// The error with the name of its resource, for a log line or a caller further up.
    #[must_use]
    pub fn for_resource(self, resource: &str) -> AllError {
        ResourceError::of(resource, self)
    }
}

impl From<Denied> for TryAcquireError {
    #[inline]
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Exhausted(deficit) => Self::Exhausted { hint: RetryHint(deficit) },
            Denied::TooManyInFlight => Self::TooManyInFlight,
            Denied::Never(Never::ExceedsCapacity(capacity)) => Self::ExceedsCapacity { capacity },
            Denied::Never(Never::Closed) => Self::Closed,
            Denied::Never(Never::Removed) => Self::UnknownResource,
        }
    }
}

impl From<NoEntry> for TryAcquireError {
    fn from(missing: NoEntry) -> Self {
        match missing {
            NoEntry::Unknown => Self::UnknownResource,
            NoEntry::Closed => Self::Closed,
            NoEntry::TooManyKeys(most) => Self::TooManyKeys { most },
        }
    }
}

/// Why a name has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoEntry {
    Unknown,
    Closed,
    /// As many as the template allows.
    TooManyKeys(u64),
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { hint } => {
                write!(f, "rate limited: retry after {:?}", hint.wait())
            }
            Self::TooManyInFlight => f.write_str(
                "too many permits in flight: end one, or raise the limit's `max_in_flight`",
            ),
            Self::ExceedsCapacity { capacity } => exceeds(f, *capacity),
            Self::TooManyKeys { most } => too_many_keys(f, *most),
            Self::UnknownResource => f.write_str(UNKNOWN),
            Self::Closed => f.write_str(CLOSED),
        }
    }
}

impl Error for TryAcquireError {}

/// Why a wait ended without a permit. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The timeout passed, or the rate rules out success before it: then at once, so that a loop which
    /// retries must sleep first.
    #[non_exhaustive]
    TimedOut {
        /// When a new call may succeed: see [`retry_after`](Self::retry_after).
        retry_after: Option<Duration>,
    },
    /// As many calls wait as the limit's `max_waiting` allows: shed this call, or raise the limit.
    QueueFull,
    /// More tokens than the bucket will hold, from the start or since a new configuration, or since a cut
    /// where the limit does not recover or is adaptive: see [`TryAcquireError::ExceedsCapacity`].
    ExceedsCapacity {
        /// The most that can be asked for, in tokens.
        capacity: u64,
    },
    /// There are as many keys as their template allows: see [`TryAcquireError::TooManyKeys`].
    TooManyKeys {
        /// The number that it allows.
        most: u64,
    },
    /// No resource of this name, or it was removed during the wait.
    UnknownResource,
    /// The limiter was closed, before or during the wait.
    Closed,
}

impl AcquireError {
    /// The error with the name of its resource, for a log line or a caller further up.
    #[must_use]
    pub fn for_resource(self, resource: &str) -> AcquireAllError {
        ResourceError::of(resource, self)
    }

    /// After a timeout, the time until a new call would succeed, as
    /// [`TryAcquireError::retry_after`] counts it. `None` for other errors, and where time alone does not
    /// help, because too many permits are in flight.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TimedOut { retry_after } => *retry_after,
            _ => None,
        }
    }
}

impl From<GiveUp> for AcquireError {
    fn from(why: GiveUp) -> Self {
        match why {
            GiveUp::TimedOut(nanos) => {
                Self::TimedOut { retry_after: nanos.map(Duration::from_nanos) }
            }
            GiveUp::QueueFull => Self::QueueFull,
            GiveUp::Never(never) => never.into(),
        }
    }
}

impl From<Never> for AcquireError {
    fn from(never: Never) -> Self {
        match never {
            Never::ExceedsCapacity(capacity) => Self::ExceedsCapacity { capacity },
            Never::Closed => Self::Closed,
            Never::Removed => Self::UnknownResource,
        }
    }
}

impl From<NoEntry> for AcquireError {
    fn from(missing: NoEntry) -> Self {
        match missing {
            NoEntry::Unknown => Self::UnknownResource,
            NoEntry::Closed => Self::Closed,
            NoEntry::TooManyKeys(most) => Self::TooManyKeys { most },
        }
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { retry_after: Some(wait) } => {
                write!(f, "no success before the timeout: retry after {wait:?}")
            }
            Self::TimedOut { retry_after: None } => {
                f.write_str("no success before the timeout: too many permits are in flight, end one first")
            }
            Self::QueueFull => f.write_str(
                "as many calls wait as the limit allows: shed this one, or raise the limit's `max_waiting`",
            ),
            Self::ExceedsCapacity { capacity } => exceeds(f, *capacity),
            Self::TooManyKeys { most } => too_many_keys(f, *most),
            Self::UnknownResource => f.write_str(UNKNOWN),
            Self::Closed => f.write_str(CLOSED),
        }
    }
}

impl Error for AcquireError {}

/// An error, and the resource that it is about: of calls that name several.
///
/// A call that names one resource fails with the cause alone, which needs no allocation;
/// [`for_resource`](TryAcquireError::for_resource) adds the name where it is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceError<C> {
    /// The name of the resource: if several are at fault, of the one that is for longest.
    pub resource: Arc<str>,
    /// What is wrong with it.
    pub cause: C,
}

/// Why a call for several resources that does not wait failed. Nothing was taken from any.
pub type AllError = ResourceError<TryAcquireError>;
/// Why a wait for several resources ended without permits. Nothing was taken from any.
pub type AcquireAllError = ResourceError<AcquireError>;
/// Why several limits were not accepted. Nothing was changed.
pub type ConfigureAllError = ResourceError<ConfigError>;

impl<C> ResourceError<C> {
    pub(crate) fn new(resource: Arc<str>, cause: impl Into<C>) -> Self {
        Self { resource, cause: cause.into() }
    }

    pub(crate) fn of(resource: &str, cause: impl Into<C>) -> Self {
        Self::new(resource.into(), cause)
    }
}

impl AllError {
    /// As [`TryAcquireError::retry_after`]: the latest of all resources.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause.retry_after()
    }
}

impl AcquireAllError {
    /// As [`AcquireError::retry_after`]: the latest of all resources.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause.retry_after()
    }
}

impl From<ResourceError<NoEntry>> for AllError {
    fn from(missing: ResourceError<NoEntry>) -> Self {
        Self::new(missing.resource, missing.cause)
    }
}

impl From<ResourceError<NoEntry>> for AcquireAllError {
    fn from(missing: ResourceError<NoEntry>) -> Self {
        Self::new(missing.resource, missing.cause)
    }
}

impl From<AcquireAllError> for AcquireError {
    fn from(error: AcquireAllError) -> Self {
        error.cause
    }
}

impl<C: fmt::Display> fmt::Display for ResourceError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.resource, self.cause)
    }
}

impl<C: Error> Error for ResourceError<C> {}

/// Why a limit was not accepted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A capacity is at least 1 token a window, and at most 2^52 (4.5e15).
    InvalidCapacity,
    /// A window is at least 1 ns, and at most 2^64 ns (584 years).
    InvalidWindow,
    /// A burst is at least 1 token, and at most 2^52; that of a strict limit at most what it allows.
    InvalidBurst,
    /// A limit has at most 4 windows.
    TooManyWindows,
    /// `on_release`, `max_in_flight`, `max_waiting`, recovery, `min_rate` and cooldown belong to the first of
    /// several limits: set them before [`Limit::and`](crate::Limit::and), or after it.
    SettingNotOnFirstWindow,
    /// A limit allows at least one permit in flight.
    InvalidInFlight,
    /// A recovery's interval is at least 1 ms, and its factor is a finite number above 1.
    InvalidRecovery,
    /// An adaptive limit lies between its bounds, of which the lower is at least 1 and the upper at most 2^52
    /// tokens a window. It has one window, which is not strict, and takes some time to be back.
    InvalidAdaptive,
    /// A `min_rate` is at least 1 token a window, and at most the limit's capacity.
    InvalidMinRate,
    /// More than about 5e12 tokens a second: an hour of it would not fit into the bucket's word.
    RateTooHigh,
    /// The resource's limit is one of a swarm: change it by `DistributedLimiter::share`, or remove the resource
    /// first.
    Shared,
    /// A resource's name is not empty.
    EmptyName,
    /// The limiter was closed.
    Closed,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidCapacity => "the number of tokens in a window must be 1 to 2^52",
            Self::InvalidWindow => "the window must be 1 ns to 2^64 ns (584 years)",
            Self::InvalidBurst => {
                "the burst must be 1 to 2^52 tokens, and of a strict limit no more than it allows"
            }
            Self::TooManyWindows => "a limit has at most 4 windows",
            Self::SettingNotOnFirstWindow => {
                "on_release, max_in_flight, max_waiting, recovery, min_rate and cooldown belong to the \
                 first of several limits, not to what `and` adds"
            }
            Self::InvalidInFlight => "max_in_flight must be at least 1",
            Self::InvalidRecovery => {
                "a recovery needs an interval of at least 1 ms and a finite factor above 1"
            }
            Self::InvalidAdaptive => {
                "adaptive(min, max) needs 1 <= min <= the limit <= max <= 2^52, one window that is not strict, \
                 and a positive back_in"
            }
            Self::InvalidMinRate => {
                "min_rate must be 1 to the number of tokens in a window of the limit"
            }
            Self::RateTooHigh => "the rate must be below 5e12 tokens a second",
            Self::Shared => {
                "the resource is shared by a swarm: call `share` with the new limit, or remove it first"
            }
            Self::EmptyName => "a resource needs a name",
            Self::Closed => CLOSED,
        })
    }
}

impl Error for ConfigError {}

/// A cost was given for a name that no permit has. All permits have ended; this cost was charged to none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// The names that the permits have.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, known } = self;
        write!(f, "no permit of {name:?}, whose cost was not charged: the permits are of {known:?}")
    }
}

impl Error for UnknownName {}

const UNKNOWN: &str = "unknown resource: configure it, or a prefix of its name by `per_key`; a handle may be of a \
     resource that was removed, or of another limiter";
const CLOSED: &str = "the limiter is closed";

fn exceeds(f: &mut fmt::Formatter<'_>, capacity: u64) -> fmt::Result {
    write!(f, "more than the burst at present: ask for at most {capacity}, or raise the burst")
}

fn too_many_keys(f: &mut fmt::Formatter<'_>, most: u64) -> fmt::Result {
    write!(
        f,
        "the prefix has as many keys as it may, {most}: refuse this call, or raise the maximum by `per_key_at_most`"
    )
}
