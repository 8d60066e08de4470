//! The log, and those that follow it.

use super::{Event, SECOND, World};
use crate::table::Table;

/// The log. Sequences count from `base + 1`.
#[derive(Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Vec<u8>>,
    /// Entries before this one are gone.
    pub(super) first: usize,
    pub(super) down_until: u64,
    /// Counts restorations.
    pub(super) version: u32,
}

impl World {
    pub(super) fn append_now(&mut self, bytes: Vec<u8>, after: Option<u64>) {
        if self.log.down_until > self.now {
            return;
        }
        let last = self.log.entries.len() as u64;
        if self.net.compares && after.is_some_and(|after| after != last) {
            return;
        }
        self.writes += 1;
        self.log.entries.push(bytes);
        for at in 0..self.agents.len() {
            if self.agents[at].is_connected {
                self.send_entry(at, self.log.entries.len() - 1);
            }
        }
    }

    fn send_entry(&mut self, at: usize, index: usize) {
        let latency = self.latency();
        let agent = &mut self.agents[at];
        agent.feed = agent.feed.max(self.now + latency);
        let (time, connection) = (agent.feed, agent.connection);
        let log = self.log.version;
        self.messages += 1;
        self.push(time, Event::Deliver { agent: at, connection, index, log });
    }

    pub(super) fn connect(&mut self, at: usize) {
        let agent = &self.agents[at];
        if agent.rules.is_none() || agent.is_connected {
            return;
        }
        let life = agent.life;
        let blocked = agent.deaf_until.max(self.log.down_until);
        if blocked > self.now {
            let later = blocked + self.rng.u64(0..SECOND / 2);
            return self.push(later, Event::Connect { agent: at, life });
        }
        let Some(rules) = &mut self.agents[at].rules else { return };
        let newest = rules.newest();
        let cursor = newest.sequence as usize;
        let is_there = cursor > 0
            && cursor <= self.log.entries.len()
            && id_of(&self.log.entries[cursor - 1]) == newest.id
            && cursor >= self.log.first;
        let first = if is_there || newest.sequence == 0 && self.log.entries.is_empty() {
            cursor
        } else {
            // Who is told at its start that the log is new may come when it is not.
            if cursor > 0 || self.knows_new {
                rules.interrupted();
            }
            self.log.entries.len().saturating_sub(1)
        };
        let agent = &mut self.agents[at];
        agent.is_connected = true;
        agent.connection += 1;
        agent.feed = self.now;
        for index in first..self.log.entries.len() {
            self.send_entry(at, index);
        }
    }

    pub(super) fn deliver(&mut self, at: usize, index: usize) {
        if !self.agents[at].is_connected {
            return;
        }
        self.step_bucket(at);
        let random = self.rng.u64(..);
        let bytes = self.log.entries[index].clone();
        let agent = &mut self.agents[at];
        let table = Table::decode(&bytes)
            .filter(|table| !agent.is_old || is_of_this_version(table, &bytes));
        let entry = table.ok_or_else(|| id_of(&bytes));
        let local = agent.clock.at(self.now);
        let Some(rules) = &mut agent.rules else { return };
        rules.read(index as u64 + 1, entry, random, local);
        agent.bucket.change(|at| rules.segment(at), local);
        rules.applied();
        if rules.has_left() {
            return self.crash(at);
        }
        self.poll_later(at);
        self.take_later(at);
    }
}

/// What tells an entry from another: the id of a table, or a hash.
fn id_of(bytes: &[u8]) -> u128 {
    if let Some(table) = Table::decode(bytes) {
        return table.id;
    }
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0x6c62_272e_07bb_0142, step)
}

/// Whether nothing follows that another version has added.
fn is_of_this_version(table: &Table, bytes: &[u8]) -> bool {
    table.encode().len() == bytes.len()
}
