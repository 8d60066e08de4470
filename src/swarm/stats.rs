//! OutgoingKind an agent counts, for those who look after it.

use crate::sync::{AtomicU64, Ordering};

/// OutgoingKind has come and gone since a limiter joined its swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwarmStats {
    /// Messages of others.
    pub received: u64,
    /// Messages that the bus took from this agent.
    pub sent: u64,
    /// Messages that the bus did not take; what still stands is said again.
    pub not_sent: u64,
    /// Messages that made no sense, and changed nothing.
    pub malformed: u64,
    /// Cuts of resources that are not configured here; they changed nothing.
    pub unknown_resource: u64,
    /// Messages that the bus dropped because this agent was slow.
    pub lost: u64,
    /// Messages of another limiter under this agent's id.
    pub same_agent_id: u64,
}

/// Each counter for itself, so Relaxed: they publish nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) not_sent: Counter,
    pub(super) malformed: Counter,
    pub(super) unknown_resource: Counter,
    pub(super) lost: Counter,
    pub(super) same_agent_id: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Whether this is worth a word in the log: the 1st, 10th, 100th ... of its kind is, so that a
    /// flood does not fill it.
    pub(super) fn add(&self, n: u64) -> bool {
        let before = self.0.fetch_add(n, Ordering::Relaxed);
        before.checked_ilog10() != (before + n).checked_ilog10()
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn read(&self) -> SwarmStats {
        SwarmStats {
            received: self.received.get(),
            sent: self.sent.get(),
            not_sent: self.not_sent.get(),
            malformed: self.malformed.get(),
            unknown_resource: self.unknown_resource.get(),
            lost: self.lost.get(),
            same_agent_id: self.same_agent_id.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_a_line_for_each_power_of_ten() {
        let counter = Counter::default();
        let told = (0..1_000).filter(|_| counter.add(1)).count();
        assert_eq!(told, 4);
        assert!(!counter.add(5) && counter.add(100_000));
    }
}
