//! Rate limits that are exact, fair and fast, to embed in hot request paths.
//!
//! ```
//! use tollgate::{Limit, MemoryLimiter};
//!
//! let limiter = MemoryLimiter::new();
//! let api = limiter.configure("api", Limit::per_second(100).burst(10))?;
//! assert!(api.check().is_ok());
//! # Ok::<(), tollgate::ConfigError>(())
//! ```
//!
//! * [`MemoryLimiter`] says which method to choose, and what is guaranteed.
//! * [`Limit`] says which burst to choose for a full rate.
//! * [`MemoryLimiter::per_key`] is a limit for each user, address or key, of which there may be a million.
//! * [`OnRelease`] tells a rate limit from a concurrency limit.
//! * [`Acquire`] is a wait: its order, its timeout, and what cancelling it does.
//! * [Limits as text](Limit#impl-FromStr-for-Limit) are for configuration files: `"10/s burst 20"`.
//! * [`ManualClock`] is time for tests.
//! * `DistributedLimiter` (feature `swarm`, a default) is a limiter whose neighbours slow down with it,
//!   over a `MessageBus`: `MemoryBus`, `NatsBus` (feature `nats`), or yours.
//!
//! The repository's `README.md` is a tutorial.
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
mod limiter;
#[cfg(feature = "swarm")]
mod swarm;
mod sync;
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
pub use limiter::{
    Acquire, AcquireAll, AcquireAllError, AcquireError, AllError, Capacity, CapacityUpdate,
    ConfigError, ConfigureAllError, Limit, LimitWindow, MemoryLimiter, OnRelease, ParseLimitError,
    Permit, Permits, RateLimiter, Recovery, Resource, ResourceError, RetryHint, TryAcquireError,
    UnknownName, UntilReady, UpdateKind, WeakLimiter, WindowCapacity,
};
#[cfg(feature = "swarm")]
pub use swarm::{DistributedConfig, DistributedLimiter, SwarmError, SwarmStats};

/// The README's code compiles and runs.
#[cfg(all(doctest, feature = "swarm"))]
#[doc = include_str!("../README.md")]
struct Readme;
