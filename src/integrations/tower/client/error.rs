//! Why there is no answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::limiter::{AcquireAllError, AcquireError, AllError, ResourceError, TryAcquireError};

/// Why a request has no answer: it was not sent, or the inner service failed.
///
/// ```
/// use tollgate::tower::client::ClientError;
///
/// fn report(error: &ClientError) {
///     match error {
///         ClientError::Limited(limited) => println!("wait {:?}", limited.retry_after()),
///         ClientError::Service(error) if error.is::<std::io::Error>() => println!("{error}"),
///         _ => println!("{error}"),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The request was not sent, and nothing was taken: the resource, and why it gave no permit. Its
    /// [`retry_after`](AcquireAllError::retry_after) says when a new call may succeed.
    ///
    /// A layer that [sheds](super::ClientLayer::shed) fails as a wait with a timeout of zero does, with
    /// [`AcquireError::TimedOut`].
    Limited(AcquireAllError),
    /// The error of the inner service. Downcast it to tell which.
    Service(Box<dyn Error + Send + Sync>),
}

impl ClientError {
    /// The resource that gave no permit, and why; `None` if the inner service failed.
    #[must_use]
    pub fn limited(&self) -> Option<&AcquireAllError> {
        match self {
            Self::Limited(limited) => Some(limited),
            Self::Service(_) => None,
        }
    }

    /// Whether the request was not sent, for want of a permit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited().is_some()
    }

    /// When a request that was not sent may succeed; `None` where time alone does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.limited()?.retry_after()
    }

    pub(super) fn denied(denied: AllError) -> Self {
        let cause = match denied.cause {
            TryAcquireError::Exhausted { .. } | TryAcquireError::TooManyInFlight => {
                AcquireError::TimedOut { retry_after: denied.retry_after() }
            }
            TryAcquireError::ExceedsCapacity { capacity } => {
                AcquireError::ExceedsCapacity { capacity }
            }
            TryAcquireError::TooManyKeys { most } => AcquireError::TooManyKeys { most },
            TryAcquireError::UnknownResource => AcquireError::UnknownResource,
            TryAcquireError::Closed => AcquireError::Closed,
        };
        Self::Limited(ResourceError { resource: denied.resource, cause })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A layer that sheds has no timeout to speak of.
            Self::Limited(ResourceError {
                resource,
                cause: AcquireError::TimedOut { retry_after },
            }) => {
                write!(f, "request not sent: no permit of {resource:?}")?;
                match retry_after {
                    Some(wait) => write!(f, ", retry after {wait:?}"),
                    None => f.write_str(", too many are in flight: retry when one has ended"),
                }
            }
            Self::Limited(limited) => write!(f, "request not sent: {limited}"),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl Error for ClientError {
    /// The source of the inner service's error. An error is never its own source: `Display` shows it, and
    /// [`limited`](Self::limited) returns it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Limited(_) => None,
            Self::Service(error) => error.source(),
        }
    }
}
