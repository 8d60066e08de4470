//! What agents do as time goes on.

use super::{Agent, Event, Load, SECOND, World};
use crate::demand::Seen;
use crate::participant::{Action, Participant};

impl World {
    pub(super) fn poll(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        let Some(rules) = &mut agent.rules else { return };
        let rng = &mut self.rng;
        let actions = rules.poll(local, || rng.u64(..));
        let is_deaf = self.agents[at].deaf_until > self.now;
        for action in actions {
            if is_deaf {
                continue;
            }
            match action {
                Action::Report { report, to } => {
                    self.note_report(report.label, report.nonce);
                    for label in to {
                        self.messages += 1;
                        if self.chance(self.net.loss) {
                            continue;
                        }
                        let time = self.now + self.latency();
                        let is_it = |agent: &Agent| {
                            agent.rules.as_ref().map(Participant::label) == Some(label)
                        };
                        if let Some(agent) = self.agents.iter().position(is_it) {
                            self.push(time, Event::Hear { agent, bytes: report.encode() });
                        }
                    }
                }
                Action::Append { table, after } => {
                    if let Some(row) = table.rows.first() {
                        self.note_report(row.label, row.nonce);
                    }
                    let is_silent = !self.net.plans && after > 0;
                    if is_silent || self.chance(self.net.loss) {
                        continue;
                    }
                    let mut time = self.now + self.latency();
                    if self.chance(self.net.late) {
                        time += self.rng.u64(0..2 * self.terms.term);
                    }
                    let bytes = table.encode();
                    if self.chance(self.net.twice) {
                        let again = time + self.rng.u64(0..self.terms.term);
                        self.push(again, Event::Append { bytes: bytes.clone(), after: None });
                    }
                    self.push(time, Event::Append { bytes, after: Some(after) });
                }
            }
        }
        self.poll_later(at);
    }

    fn note_report(&mut self, label: u64, nonce: u64) {
        self.reported.push_back((label, nonce));
        if self.reported.len() > 32 {
            self.reported.pop_front();
        }
    }

    pub(super) fn poll_later(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let Some(rules) = &agent.rules else { return };
        let due = rules.due();
        if due == u64::MAX {
            return;
        }
        let time = agent.clock.when(due).max(self.now);
        if time != agent.next_poll {
            agent.next_poll = time;
            let life = agent.life;
            self.push(time, Event::Poll { agent: at, life });
        }
    }

    pub(super) fn step_bucket(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        if let Some(rules) = &agent.rules {
            agent.bucket.advance(|at| rules.segment(at), local);
        }
    }

    pub(super) fn take_later(&mut self, at: usize) {
        let agent = &self.agents[at];
        if agent.rules.is_none() {
            return;
        }
        let wanted = match agent.load {
            Load::Saturated(n) => n,
            Load::Poisson(_) if agent.waiting > 0 => 1,
            Load::Poisson(_) | Load::Dump(_) => return,
        };
        let Some(local) = agent.bucket.next(wanted) else { return };
        let time = agent.clock.when(local).max(self.now);
        if time != agent.next_take {
            self.agents[at].next_take = time;
            self.push(time, Event::Take { agent: at });
        }
    }

    pub(super) fn take(&mut self, at: usize) {
        if self.agents[at].rules.is_none() {
            return;
        }
        self.step_bucket(at);
        let tokens = self.agents[at].bucket.tokens();
        let taken = match self.agents[at].load {
            Load::Saturated(n) => tokens / n * n,
            Load::Poisson(_) => tokens.min(self.agents[at].waiting),
            Load::Dump(_) => tokens,
        };
        if taken > 0 {
            let now = self.now;
            let agent = &mut self.agents[at];
            agent.bucket.take(taken);
            agent.waiting = agent.waiting.saturating_sub(taken);
            agent.spent += taken;
            agent.longest_without = agent.longest_without.max(now - agent.last_token);
            agent.last_token = now;
            if let Some(over) = self.judge.admit(taken, now) {
                self.over = Some(self.over.map_or(over, |worst: f64| worst.max(over)));
            }
        }
        self.take_later(at);
    }

    pub(super) fn arrive(&mut self, at: usize) {
        let Agent { load, calls, .. } = self.agents[at];
        let rate = match load {
            Load::Saturated(_) => return self.take_later(at),
            Load::Poisson(rate) => {
                self.agents[at].waiting += 1;
                self.take(at);
                rate
            }
            Load::Dump(rate) => {
                self.take(at);
                rate
            }
        };
        let wait = -(1.0 - self.rng.f64()).ln() / rate.max(1e-9);
        let wait = std::time::Duration::from_secs_f64(wait.clamp(0.0, 1e6));
        let time = self.now + wait.as_nanos() as u64;
        self.push(time, Event::Arrive { agent: at, calls });
    }

    /// What its callers want, twice a second.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn measure(&mut self, at: usize) {
        self.step_bucket(at);
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        let (life, all) = (agent.life, agent.limit.rate);
        let (waiting, largest) = match agent.load {
            Load::Saturated(largest) => (100 * largest, largest),
            Load::Dump(_) => (1, 1),
            Load::Poisson(_) => (agent.waiting, u64::from(agent.waiting > 0)),
        };
        let is_short = waiting as f64 * 1e9 > agent.bucket.quota().rate as f64 / 4.0;
        let seen = Seen { spent: agent.spent, waiting, largest, is_short };
        let demand = agent.meter.look(seen, all, local);
        if let Some(rules) = &mut agent.rules {
            rules.demands(demand, local);
        }
        self.poll_later(at);
        let later = self.now + SECOND / 2;
        self.push(later, Event::Measure { agent: at, life });
    }
}
