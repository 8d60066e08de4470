//! Rate limits in HTTP headers: read from an upstream's answers, and written into a server's. Feature `http`.
//!
//! # As a client
//!
//! [`Feedback`] reads an answer: its status, its headers and, if the provider puts details there, its body.
//! [`Feedback::apply_to`] then pauses, cuts or lowers the limit of the resource, and never raises it.
//!
//! ```
//! use std::time::Duration;
//! use http::{HeaderMap, StatusCode};
//! use tollgate::http::{Feedback, Outcome, Profile};
//! use tollgate::{Limit, ManualClock, MemoryLimiter};
//!
//! let limiter = MemoryLimiter::with_clock(ManualClock::new());
//! let api = limiter.configure("api", Limit::per_minute(600))?;
//!
//! let permit = api.try_acquire()?;
//! // ... send the request; the answer is 429, with these headers ...
//! let mut headers = HeaderMap::new();
//! headers.insert("retry-after", "2".parse()?);
//!
//! let feedback = Feedback::new(Profile::Auto, StatusCode::TOO_MANY_REQUESTS, &headers);
//! assert_eq!(feedback.outcome, Outcome::Throttled);
//! assert_eq!(feedback.retry_after, Some(Duration::from_secs(2)));
//! feedback.apply_to(&api, &permit); // one cut for each incident, and a pause
//! assert_eq!(api.capacity().burst, 450);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is read
//!
//! | header | in |
//! | --- | --- |
//! | `Retry-After`, in seconds or as a date; `retry-after-ms`, `x-ms-retry-after-ms`, which win over it; `X-RateLimit-Retry-After` | all profiles |
//! | `RateLimit`, `RateLimit-Policy`, `RateLimit-Limit` and the like, of each draft of the IETF | [`Ietf`](Profile::Ietf), [`GitLab`](Profile::GitLab) |
//! | `X-RateLimit-*`, `X-Rate-Limit-*`, with a dimension (`-requests`, `-tokens-minute`) or without | [`OpenAi`](Profile::OpenAi), [`Azure`](Profile::Azure), [`GitHub`](Profile::GitHub), [`Discord`](Profile::Discord), [`Mistral`](Profile::Mistral) |
//! | `anthropic-ratelimit-*` | [`Anthropic`](Profile::Anthropic) |
//! | `X-Shopify-Shop-Api-Call-Limit` and other `*-Api-Call-Limit` | [`Shopify`](Profile::Shopify) |
//! | `x-amzn-errortype` | [`Aws`](Profile::Aws), and `Auto` |
//! | `grpc-status`, with the `RetryInfo` in `grpc-status-details-bin` | all profiles |
//!
//! [`Generic`](Profile::Generic) and [`Auto`](Profile::Auto) read all of these, unless the table says otherwise.
//! [`Feedback::with_body`] reads bodies. Times are relative to the answer's `Date`, so the local clock does not
//! matter, and are at most [`MAX_WAIT`]. Malformed and negative fields are ignored, and so are quotas whose window
//! has ended.
//!
//! # As a server
//!
//! [`RateLimitHeaders`] writes `Retry-After`, `RateLimit`, `RateLimit-Policy` and `X-RateLimit-*`.

mod apply;
mod aws;
mod body;
mod feedback;
mod fields;
mod grpc;
#[cfg(feature = "tower")]
pub(crate) mod grpc_status;
#[cfg(feature = "metrics")]
mod ignored;
mod names;
mod reader;
mod server;
mod types;
mod values;

pub use feedback::Feedback;
pub use server::{RateLimitHeaders, retry_after};
pub use types::{Outcome, Profile, Quota, Scope, Unit};
pub use values::MAX_WAIT;
