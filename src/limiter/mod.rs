//! Limits, permits and names: what users hold in their hands.

mod acquire;
mod any;
mod capacity;
mod entry;
mod error;
mod limit;
mod memory;
mod permit;
mod resource;
mod settings;

pub use crate::adapt::Recovery;
pub use acquire::Acquire;
pub use any::RateLimiter;
pub use capacity::{Capacity, CapacityUpdate, UpdateKind};
pub use error::{AcquireError, ConfigError, Shortage, TryAcquireError};
pub use limit::{Limit, OnRelease};
pub use memory::MemoryLimiter;
pub use permit::Permit;
pub use resource::Resource;
