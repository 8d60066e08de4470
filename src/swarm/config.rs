//! The configuration of a swarm's limiter.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{BusError, MessageBus};
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::limiter::{Policy, Recovery};

/// The configuration of a [`DistributedLimiter`](crate::DistributedLimiter). Agents of a swarm
/// should agree on all of it except their ids.
#[derive(Clone)]
pub struct DistributedConfig {
    /// The bus that connects the agents.
    pub bus: Arc<dyn MessageBus>,
    /// This agent's name, 1 to 256 bytes. Each limiter of a swarm should have its own: a second one
    /// with the same name works, and is logged and counted ([`SwarmStats`](crate::SwarmStats)).
    pub agent_id: String,
    /// The factor by which a cut multiplies a limit: above 0, below 1. Default: 0.5.
    pub reduce_factor: f64,
    /// Time from a cut to the first step of its recovery, and between steps: at least 1 ms.
    /// Default: 30 seconds.
    pub recovery_interval: Duration,
    /// The factor by which each step multiplies the limit: finite, above 1. Default: 1.1.
    pub recovery_factor: f64,
    /// Whether recovery stops at the configured limit. Default: true. **If false, a limit grows
    /// beyond the configured one after its first cut**, step by step, up to 1,024 times of it.
    pub max_recovery: bool,
    /// How long after a cut refusals belong to its incident and cut no further. Default: 5 seconds.
    /// With 0 every announcement cuts. Keep it shorter than the time in which recovery undoes a
    /// cut: see [`Limit::cooldown`](crate::Limit::cooldown).
    pub cooldown: Duration,
    /// Whether a pause that is told in the swarm is longer on each agent by a random part of up to a tenth of
    /// it, and of at most a second, so that the agents do not all start at once. Default: true.
    pub pause_spread: bool,
    /// The longest pause that another agent can begin here, from when it is heard. With 0 none has an
    /// effect. Default: an hour.
    pub longest_pause: Duration,
    /// Whether other agents' pauses hold this agent. Its own are told in any case. Default: true.
    pub accept_pauses: bool,
    /// The log by which the agents divide the limits that they [share](crate::DistributedLimiter::share), the same for
    /// all. Default: none. There is no other default: agents with a log each would each spend the whole limit.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// The time that the limits count in. Default: [`Clock::system`]. With a ledger, [`Clock::boot_time`] replaces
    /// this and [`Clock::coarse`]. On Linux it counts suspend, and a forked child has no share.
    pub clock: Clock,
}

impl DistributedConfig {
    /// The defaults, for the agent `agent_id` on `bus`.
    pub fn new(bus: Arc<dyn MessageBus>, agent_id: impl Into<String>) -> Self {
        Self {
            bus,
            agent_id: agent_id.into(),
            reduce_factor: 0.5,
            recovery_interval: Duration::from_secs(30),
            recovery_factor: 1.1,
            max_recovery: true,
            cooldown: Duration::from_secs(5),
            pause_spread: true,
            longest_pause: Duration::from_secs(60 * 60),
            accept_pauses: true,
            ledger: None,
            clock: Clock::system(),
        }
    }

    pub(super) fn policy(&self) -> Result<Policy, SwarmError> {
        if self.agent_id.is_empty() || self.agent_id.len() > super::wire::LONGEST_ID {
            return Err(SwarmError::InvalidAgentId);
        }
        if !(self.reduce_factor > 0.0 && self.reduce_factor < 1.0) {
            return Err(SwarmError::InvalidReduceFactor);
        }
        let recovery = Recovery {
            interval: self.recovery_interval,
            factor: self.recovery_factor,
            cap: self.max_recovery,
        };
        if !recovery.is_valid() {
            return Err(SwarmError::InvalidRecovery);
        }
        let (reduce, cooldown) = (self.reduce_factor, self.cooldown);
        Ok(Policy { reduce, recovery: Some(recovery), cooldown, floor: 0.0 })
    }
}

impl fmt::Debug for DistributedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedConfig")
            .field("agent_id", &self.agent_id)
            .field("reduce_factor", &self.reduce_factor)
            .field("recovery_interval", &self.recovery_interval)
            .field("recovery_factor", &self.recovery_factor)
            .field("max_recovery", &self.max_recovery)
            .field("cooldown", &self.cooldown)
            .field("pause_spread", &self.pause_spread)
            .field("longest_pause", &self.longest_pause)
            .field("accept_pauses", &self.accept_pauses)
            .field("ledger", &self.ledger.is_some())
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// Why a limiter could not join its swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwarmError {
    /// The agent's id must have 1 to 256 bytes.
    InvalidAgentId,
    /// The factor of cuts must be above 0 and below 1.
    InvalidReduceFactor,
    /// The interval of recovery must be at least 1 ms, and its factor finite and above 1.
    InvalidRecovery,
    /// The limiter must be made inside a tokio runtime, which runs its task.
    NoRuntime,
    /// The tokio runtime in which the limiter was made has no timers: build it with `enable_time` or
    /// `enable_all`. tokio also panics inside, which is caught, so the panic hook runs.
    NoTimers,
    /// The bus could not be subscribed to.
    Bus(BusError),
}

impl fmt::Display for SwarmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidAgentId => "agent_id must have 1 to 256 bytes",
            Self::InvalidReduceFactor => "reduce_factor must be above 0 and below 1",
            Self::InvalidRecovery => {
                "recovery_interval must be at least 1 ms, and recovery_factor finite and above 1"
            }
            Self::NoRuntime => "make a DistributedLimiter inside a tokio runtime",
            Self::NoTimers => "build the tokio runtime of a DistributedLimiter with enable_time",
            Self::Bus(error) => return write!(f, "the swarm cannot be joined: {error}"),
        })
    }
}

impl Error for SwarmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Bus(error) = self { Some(error) } else { None }
    }
}
