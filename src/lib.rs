//! A rate limiter to embed in hot request paths: exact token buckets by name, waiting that is first
//! come, first served, and limiters that slow down together when an upstream says 429.
//!
//! ```
//! use std::time::Duration;
//! use tollgate::{AcquireError, Limit, MemoryLimiter};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = MemoryLimiter::new();
//! // 600 requests a minute, of which 10 may be sent at once. A cut grows back, 10 % every 30 s.
//! let limit = Limit::per_minute(600).burst(10);
//! let api = limiter.configure("api", limit)?; // a handle: clone it freely
//!
//! // Take a token now, or learn when to try again.
//! if let Err(error) = api.check() {
//!     println!("{error}"); // rate limited: retry after 99.9ms
//! }
//!
//! // Wait for a permit, at most five seconds.
//! match api.acquire().timeout(Duration::from_secs(5)).await {
//!     Ok(permit) => {
//!         let status = 429; // ... send the request ...
//!         if status == 429 {
//!             // The upstream refuses: send nothing for as long as it asks, and cut the limit.
//!             api.pause_for(Duration::from_secs(2));
//!             permit.throttled("429 Too Many Requests");
//!         }
//!     } // the permit ends here: the request is no longer in flight
//!     Err(AcquireError::TimedOut { .. }) => println!("too busy"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! * [`MemoryLimiter`] says which method to choose, and what is guaranteed.
//! * [`Limit`] says which burst to choose, and [`OnRelease`] tells a rate limit from a concurrency limit.
//! * [`Acquire`] is a wait: its order, its timeout, and what cancelling it does.
//! * [`MemoryLimiter::per_key`] is a limit for each user, address or key, of which there may be a million.
//! * [`Limit::and`], [`Limit::at_most`] and [`MemoryLimiter::acquire_all`] are for several limits at once.
//! * [`Permit::throttled`] and [`MemoryLimiter::pause_for`] are for upstreams that refuse,
//!   [`MemoryLimiter::observe_remaining`] for those that say what is left, and [`Limit::adaptive`] for those
//!   whose limit nobody knows.
//! * [`MemoryLimiter::decide`] and [`MemoryLimiter::admit`] say what is left, for an answer's headers.
//! * [`ManualClock`] is time for tests.
#![cfg_attr(
    all(
        any(doc, doctest),
        feature = "metrics",
        feature = "nats",
        feature = "serde",
        feature = "stream",
        feature = "tower"
    ),
    doc = "* The [guide] has a page for each task."
)]
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `swarm` | `DistributedLimiter`, `MessageBus` and `MemoryBus`: limiters that slow down together |
//! | `nats` | `NatsBus` and `JetStreamLedger`, a bus and a ledger between machines, and the feature `swarm` |
//! | `http` | `tollgate::http`: rate limits in HTTP headers, read from answers and written into them |
//! | `tower` | `tollgate::tower`: middleware for servers and clients, and the feature `http` |
//! | `stream` | `tollgate::stream`: streams and sinks that take tokens for their items |
//! | `metrics` | `tollgate::metrics`: counters, gauges and the times of waits, for the facade `metrics` |
//! | `tracing` | spans for waits, events for cuts and pauses |
//! | `serde` | [`Limit`] read and written as text: `"10/s burst 20"` |
//! | `tokio` | `Clock::tokio()`, time that `tokio::time::pause` stops |
//!
//! Waiting needs none of them: it works on every executor, and in threads without one.
//!
//! # Sources
//!
//! The bucket is the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), with a
//! position in fractions of a token instead of a time, and rationals instead of rounded intervals.
//! Agents repeat what stands by the Trickle algorithm (RFC 6206); their announcements are those of
//! agentkit's `ratelimit` package (Go).

mod adapt;
mod bucket;
#[cfg(feature = "swarm")]
mod bus;
mod clock;
mod counts;
#[cfg(all(
    any(doc, doctest),
    feature = "metrics",
    feature = "nats",
    feature = "serde",
    feature = "stream",
    feature = "tower"
))]
pub mod guide;
mod integrations;
#[cfg(feature = "swarm")]
mod ledger;
mod limiter;
#[cfg(feature = "swarm")]
mod swarm;
mod sync;
mod trace;
mod wait;

/// The client under [`NatsBus`], in the version that it takes.
#[cfg(feature = "nats")]
pub use async_nats;
#[cfg(feature = "nats")]
pub use bus::NatsBus;
#[cfg(feature = "swarm")]
pub use bus::{BusError, BusFuture, Delivery, MemoryBus, MessageBus, Subscription};
#[cfg(loom)]
#[doc(hidden)]
pub use clock::SimulatedClock;
pub use clock::{Clock, ManualClock};
#[cfg(feature = "http")]
pub use integrations::http;
#[cfg(feature = "metrics")]
pub use integrations::metrics;
#[cfg(feature = "stream")]
pub use integrations::stream;
#[cfg(feature = "tower")]
pub use integrations::tower;
#[cfg(feature = "swarm")]
pub use ledger::{
    Follower, Ledger, LedgerEntry, LedgerError, LedgerFuture, LedgerItem, LedgerTerms, MemoryLedger,
};
#[cfg(feature = "nats")]
pub use ledger::{JetStreamConfig, JetStreamLedger};
pub use limiter::{
    Acquire, AcquireAll, AcquireAllError, AcquireError, AllError, Capacity, CapacityUpdate,
    ConfigError, ConfigureAllError, Decision, Limit, LimitWindow, MemoryLimiter, OnRelease,
    ParseLimitError, Permit, Permits, RateLimiter, Recovery, Resource, ResourceError, RetryHint,
    Share, TryAcquireError, UnknownName, UntilReady, UpdateKind, WeakLimiter, WindowCapacity,
};
#[cfg(feature = "swarm")]
pub use swarm::{DistributedConfig, DistributedLimiter, ShareError, SwarmError, SwarmStats};

/// The README's code compiles and runs.
#[cfg(all(doctest, feature = "nats", feature = "serde", feature = "stream", feature = "tower"))]
#[doc = include_str!("../README.md")]
struct Readme;
