//! Counters of an agent, for its operators.

use std::collections::BTreeMap;

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Agents whose pauses are counted apart.
const MOST_AGENTS: usize = 256;

/// Counts since a limiter joined its swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwarmStats {
    /// Messages of other agents.
    pub received: u64,
    /// Messages that the bus accepted from this agent. A server may still have refused them, for want of
    /// permission, which this agent is not told.
    pub sent: u64,
    /// Messages that the bus did not accept. Cuts and pauses that still stand are sent again.
    pub not_sent: u64,
    /// Messages that were given up, because the bus accepts none of the kind, for example none so large.
    /// Other agents do not learn of the cuts in them. A cut that stands counts once in each interval in which
    /// it would have been told.
    pub dropped: u64,
    /// Malformed messages. They changed nothing.
    pub malformed: u64,
    /// Cuts and pauses of resources that do not exist here. They apply once such a resource does.
    pub unknown_resource: u64,
    /// Pauses of other agents that have held this one:
    /// [`paused_by`](crate::DistributedLimiter::paused_by) says whose.
    pub pauses: u64,
    /// Messages that the bus dropped because this agent was slow.
    pub lost: u64,
    /// Messages of another limiter with this agent's id.
    pub same_agent_id: u64,
    /// Whether the limiter's task runs. It ends with [`close`](crate::DistributedLimiter::close), and with
    /// the runtime in which the limiter was made: then the limiter continues alone.
    pub is_running: bool,
}

/// Relaxed, because the counters are independent and publish nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) not_sent: Counter,
    pub(super) dropped: Counter,
    pub(super) malformed: Counter,
    pub(super) unknown_resource: Counter,
    pub(super) pauses: Counter,
    /// By the agent that began the pause. Anybody may use any id: there are at most [`MOST_AGENTS`].
    pub(super) paused_by: Mutex<BTreeMap<String, u64>>,
    pub(super) lost: Counter,
    pub(super) same_agent_id: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Add `n`. Whether to log it: only the 1st, 10th, 100th ... is, so no flood fills the log.
    pub(super) fn add(&self, n: u64) -> bool {
        let before = self.0.fetch_add(n, Ordering::Relaxed);
        before.checked_ilog10() != (before + n).checked_ilog10()
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts a pause of an agent. Whether to log it, as [`Counter::add`]: for each of the agents that are
    /// counted apart.
    pub(super) fn add_pause(&self, agent_id: &str) -> bool {
        let is_round = self.pauses.add(1);
        let mut agents = self.paused_by.lock();
        if let Some(count) = agents.get_mut(agent_id) {
            *count += 1;
            return count.checked_ilog10() != (*count - 1).checked_ilog10();
        }
        let is_apart = agents.len() < MOST_AGENTS;
        if is_apart {
            agents.insert(agent_id.to_string(), 1);
        }
        is_apart || is_round
    }

    pub(super) fn read(&self, is_running: bool) -> SwarmStats {
        SwarmStats {
            received: self.received.get(),
            sent: self.sent.get(),
            not_sent: self.not_sent.get(),
            dropped: self.dropped.get(),
            malformed: self.malformed.get(),
            unknown_resource: self.unknown_resource.get(),
            pauses: self.pauses.get(),
            lost: self.lost.get(),
            same_agent_id: self.same_agent_id.get(),
            is_running,
        }
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
