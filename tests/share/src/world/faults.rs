//! What a test does to the world.

use super::{Agent, Clock, Event, Load, MILLI, SECOND, World};
use crate::bucket::Bucket;
use crate::demand::Meter;
use crate::member::Terms;
use crate::participant::Participant;
use crate::quota::Quota;
use crate::table::{Position, Row, Table};
use crate::{DROPPED, Premise};

fn is_dropped(premise: Premise) -> bool {
    DROPPED.get() == Some(premise)
}

/// Agents.
impl World {
    /// Adds an agent. It joins at once.
    pub(crate) fn join(&mut self, limit: Quota, load: Load) -> usize {
        let clock = Clock { real: self.now, local: self.rng.u64(0..1_000 * SECOND), ppm: 0 };
        let agent = Agent {
            rules: None,
            bucket: Bucket::new(clock.local),
            clock,
            limit,
            load,
            waiting: 0,
            meter: Meter::default(),
            spent: 0,
            last_token: self.now,
            longest_without: 0,
            life: 0,
            connection: 0,
            calls: 0,
            is_connected: false,
            feed: 0,
            is_old: false,
            paused_until: 0,
            deaf_until: 0,
            next_poll: u64::MAX,
            next_take: u64::MAX,
        };
        self.agents.push(agent);
        let at = self.agents.len() - 1;
        self.drift(at);
        self.drift_later(at);
        self.start(at);
        at
    }

    /// Starts an agent again, without what it knew.
    pub(crate) fn start(&mut self, at: usize) {
        let label = self.rng.u64(..);
        self.start_as(at, label, 0);
    }

    /// Starts it under a label, which another may have, and follows the log some time later.
    pub(crate) fn start_as(&mut self, at: usize, label: u64, later: u64) {
        let is_new = self.knows_new && self.log.entries.is_empty();
        let random = self.rng.u64(..);
        let mut terms = self.terms;
        if is_dropped(Premise::CommonTerm) && self.rng.bool() {
            terms = Terms { term: 2 * terms.term, ..terms };
        }
        let now = self.now;
        let agent = &mut self.agents[at];
        let local = agent.clock.at(now);
        agent.rules = Some(Participant::new(terms, agent.limit, label, is_new, random, local));
        agent.bucket = Bucket::new(local);
        agent.is_connected = false;
        agent.waiting = 0;
        agent.meter = Meter::default();
        self.runs(at, later);
    }

    fn runs(&mut self, at: usize, later: u64) {
        let life = self.agents[at].life;
        self.push(self.now + later, Event::Connect { agent: at, life });
        self.push(self.now, Event::Measure { agent: at, life });
        self.calls(at);
        self.poll_later(at);
    }

    /// Splits a process in two.
    pub(crate) fn fork(&mut self, at: usize) {
        let mut child = self.agents[at].clone();
        child.connection = 0;
        child.is_connected = false;
        (child.next_poll, child.next_take) = (u64::MAX, u64::MAX);
        let is_alive = child.rules.is_some();
        self.agents.push(child);
        let at = self.agents.len() - 1;
        self.drift_later(at);
        if is_dropped(Premise::ForkBeginsAnew) && is_alive {
            self.runs(at, 0);
        } else {
            self.start(at);
        }
    }

    pub(crate) fn crash(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        agent.rules = None;
        agent.life += 1;
        agent.calls += 1;
        agent.is_connected = false;
        agent.next_poll = u64::MAX;
    }

    /// Says goodbye, and stops when it has no row any more, or after a term.
    pub(crate) fn leave(&mut self, at: usize) {
        let Agent { clock, life, .. } = self.agents[at];
        if let Some(rules) = &mut self.agents[at].rules {
            rules.leaves(clock.at(self.now));
            self.poll_later(at);
            self.push(self.now + self.terms.term, Event::Stop { agent: at, life });
        }
    }

    /// Stops an agent, as SIGSTOP or a suspended machine does.
    pub(crate) fn pause(&mut self, at: usize, time: u64) {
        if self.agents[at].paused_until > self.now {
            return;
        }
        self.agents[at].paused_until = self.now + time;
        if is_dropped(Premise::ClockCountsSuspend) {
            let clock = &mut self.agents[at].clock;
            *clock = Clock { real: self.now + time, local: clock.at(self.now), ..*clock };
        }
    }

    /// Gives one agent another limit.
    pub(crate) fn limit(&mut self, at: usize, limit: Quota) {
        let (before, now) = (self.largest_limit(), self.now);
        self.step_bucket(at);
        let agent = &mut self.agents[at];
        agent.limit = limit;
        let local = agent.clock.at(now);
        if let Some(rules) = &mut agent.rules {
            rules.set_limit(limit, local);
            agent.bucket.change(|at| rules.segment(at), local);
        }
        let after = self.largest_limit();
        if after != before {
            self.judge.limit(after, now);
        }
        self.poll_later(at);
    }

    fn largest_limit(&self) -> Quota {
        self.agents.iter().fold(Quota::ZERO, |most, agent| Quota {
            rate: most.rate.max(agent.limit.rate),
            burst: most.burst.max(agent.limit.burst),
        })
    }

    pub(crate) fn set_load(&mut self, at: usize, load: Load) {
        self.agents[at].load = load;
        self.calls(at);
    }

    fn calls(&mut self, at: usize) {
        self.agents[at].calls += 1;
        let calls = self.agents[at].calls;
        self.push(self.now, Event::Arrive { agent: at, calls });
    }

    /// Another drift of an agent's clock: often as much as there may be.
    pub(crate) fn drift(&mut self, at: usize) {
        let most = self.terms.drift.cast_signed();
        let most =
            if is_dropped(Premise::ClockWithinDrift) { (4 * most).min(800_000) } else { most };
        let ppm = match self.rng.u32(0..4) {
            0 => most,
            1 => -most,
            _ => self.rng.i32(-most..=most),
        };
        let clock = &mut self.agents[at].clock;
        *clock = Clock { real: self.now.max(clock.real), local: clock.at(self.now), ppm };
        self.poll_later(at);
        self.take_later(at);
    }

    pub(super) fn drift_later(&mut self, at: usize) {
        if self.net.wobble > 0 {
            let later = self.now + self.rng.u64(1..=self.net.wobble);
            self.push(later, Event::Drift { agent: at });
        }
    }
}

/// The net.
impl World {
    /// Cuts an agent off from the bus and the log.
    pub(crate) fn cut_off(&mut self, at: usize, time: u64) {
        self.agents[at].deaf_until = self.agents[at].deaf_until.max(self.now + time);
        self.unfollow(at, time);
    }

    /// Cuts an agent off from the log alone.
    pub(crate) fn unfollow(&mut self, at: usize, time: u64) {
        let agent = &mut self.agents[at];
        agent.is_connected = false;
        agent.connection += 1;
        let life = agent.life;
        let back = self.now + time + self.rng.u64(0..SECOND / 2);
        self.push(back, Event::Connect { agent: at, life });
    }

    /// Entries reach an agent only after this time, in order.
    pub(crate) fn slow_down(&mut self, at: usize, time: u64) {
        self.agents[at].feed = self.agents[at].feed.max(self.now + time);
    }
}

/// The log.
impl World {
    /// Stops the log. Its followers connect again afterwards.
    pub(crate) fn log_down(&mut self, time: u64) {
        // Not sooner back than a restored log, whose outage the assumptions ask for.
        self.log.down_until = self.log.down_until.max(self.now + time);
        for at in 0..self.agents.len() {
            self.unfollow(at, time);
        }
    }

    /// Brings the log back as it was before its last `lost` entries. It was down for more than a term.
    pub(crate) fn restore(&mut self, lost: usize) {
        let left = self.log.entries.len().saturating_sub(lost);
        self.log.entries.truncate(left);
        self.log.first = self.log.first.min(left);
        self.log.version += 1;
        let down = if is_dropped(Premise::LossAfterTerm) { MILLI } else { self.terms.term };
        let later = self.rng.u64(0..self.terms.term / 8);
        self.log_down(down + later);
    }

    /// Drops all entries but the last `kept`.
    pub(crate) fn truncate(&mut self, kept: usize) {
        self.log.first = self.log.first.max(self.log.entries.len().saturating_sub(kept));
    }

    /// Appends what is no table, or a wrong one.
    pub(crate) fn append(&mut self, bytes: Vec<u8>) {
        let later = self.now + if self.rng.bool() { 0 } else { self.rng.u64(0..self.terms.term) };
        self.push(later, Event::Append { bytes, after: None });
    }

    pub(crate) fn append_at_once(&mut self, bytes: Vec<u8>) {
        self.push(self.now, Event::Append { bytes, after: None });
    }

    /// A table for those that reported lately, with rows at random that sum to the limit or less.
    pub(crate) fn any_table(&mut self, limit: Quota) -> Table {
        let mut reports: Vec<_> = self.reported.iter().rev().copied().collect();
        if self.rng.u32(0..4) == 0 {
            self.rng.shuffle(&mut reports); // some answer older reports
        }
        let mut rows: Vec<Row> = Vec::new();
        for (label, nonce) in reports {
            if rows.iter().all(|row| row.label != label) {
                rows.push(Row { label, nonce, quota: Quota::ZERO });
            }
        }
        self.rng.shuffle(&mut rows);
        let mut left = limit;
        for row in &mut rows {
            row.quota = match self.rng.u32(0..6) {
                0 | 1 => left,
                2 | 3 => Quota { rate: left.rate / 2, burst: left.burst / 2 },
                4 => Quota::ZERO,
                _ => {
                    Quota { rate: self.rng.u64(0..=left.rate), burst: self.rng.u32(0..=left.burst) }
                }
            };
            left.rate -= row.quota.rate;
            left.burst -= row.quota.burst;
        }
        Table { id: self.rng.u128(..), prev: Position::default(), limit, rows }
    }

    /// The newest table again, for newer reports.
    pub(crate) fn same_table(&mut self) -> Option<Table> {
        let (sequence, mut table) = self.newest_table()?;
        if self.rng.bool() {
            table.prev = Position { sequence, id: table.id };
        }
        table.id = self.rng.u128(..);
        for row in &mut table.rows {
            let newest = self.reported.iter().rev().find(|(label, _)| *label == row.label);
            row.nonce = newest.map_or(row.nonce, |(_, nonce)| *nonce);
        }
        Some(table)
    }
}
