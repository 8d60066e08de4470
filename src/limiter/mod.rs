//! Limits, permits and names: what users hold in their hands.

mod acquire;
mod adaptation;
mod admitted;
mod capacity;
mod context;
mod counting;
mod decision;
mod entry;
mod error;
mod lately;
mod limit;
#[cfg(loom)]
mod loom_api;
mod memory;
mod memory_all;
mod memory_one;
mod multi;
mod pauses;
mod permit;
mod permits;
mod prepaid;
#[cfg(feature = "swarm")]
mod quota;
mod rate_limiter;
#[cfg(feature = "metrics")]
mod readings;
mod refusal;
mod registry;
#[cfg(feature = "swarm")]
mod remote;
mod resource;
mod seen;
mod settings;
mod share;
mod wait_record;
mod wanted;

pub use crate::adapt::Recovery;
#[cfg(feature = "swarm")]
pub(crate) use crate::adapt::{Origin, Pause, Plain, Policy};
pub use acquire::{Acquire, AcquireAll, UntilReady};
#[cfg(feature = "swarm")]
pub(crate) use capacity::Observers;
pub use capacity::{Capacity, CapacityUpdate, Share, UpdateKind, WindowCapacity};
#[cfg(feature = "swarm")]
pub(crate) use context::Context;
pub use decision::Decision;
pub use error::{
    AcquireAllError, AcquireError, AllError, ConfigError, ConfigureAllError, ResourceError,
    RetryHint, TryAcquireError, UnknownName,
};
pub use limit::{Limit, LimitWindow, OnRelease, ParseLimitError};
pub use memory::{MemoryLimiter, WeakLimiter};
pub use permit::Permit;
pub use permits::Permits;
#[cfg(feature = "swarm")]
pub(crate) use quota::Use;
#[cfg(feature = "swarm")]
pub(crate) use rate_limiter::Local;
pub use rate_limiter::RateLimiter;
#[cfg(feature = "metrics")]
pub(crate) use readings::{Gauges, Reading, State};
#[cfg(feature = "swarm")]
pub(crate) use remote::{ActiveCuts, CutTarget, RemoteCut, RemotePause, Told};
pub use resource::Resource;
