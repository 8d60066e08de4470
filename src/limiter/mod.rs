//! Limits, permits and names: what users hold in their hands.

mod acquire;
mod any;
mod capacity;
mod change;
mod context;
mod entry;
mod error;
mod group;
mod keyed;
mod limit;
mod memory;
mod name;
mod permit;
mod permits;
mod resource;
mod scan;
mod settings;
mod several;
mod text;
mod window;

pub use crate::adapt::Recovery;
#[cfg(feature = "swarm")]
pub(crate) use crate::adapt::{Origin, Policy, Size};
pub use acquire::{Acquire, AcquireAll};
pub use any::RateLimiter;
#[cfg(feature = "swarm")]
pub(crate) use any::rate_limiter;
#[cfg(feature = "swarm")]
pub(crate) use capacity::{Callback, Observers};
pub use capacity::{Capacity, CapacityUpdate, UpdateKind, WindowCapacity};
#[cfg(feature = "swarm")]
pub(crate) use change::{Heard, Standing};
#[cfg(feature = "swarm")]
pub(crate) use context::Context;
pub use error::{AcquireError, ConfigError, Shortage, TryAcquireError};
pub use limit::{Limit, OnRelease};
pub use memory::MemoryLimiter;
pub use permit::Permit;
pub use permits::Permits;
pub use resource::Resource;
pub use scan::ParseLimitError;
