//! Rate limits that are exact, fair and fast, to embed in hot request paths.
//!
//! See the repository's `README.md` for a tutorial, and [`MemoryLimiter`] for which method to choose.

mod adapt;
mod bucket;
mod clock;
mod limiter;
mod sync;
mod wait;

pub use clock::{Clock, ManualClock};
pub use limiter::{
    Acquire, AcquireError, Capacity, CapacityUpdate, ConfigError, Limit, MemoryLimiter, OnRelease,
    Permit, RateLimiter, Recovery, Resource, Shortage, TryAcquireError, UpdateKind,
};
