//! A simulated world: agents with clocks of their own, a bus that loses and delays reports, and a log that is
//! partitioned, down, truncated and restored. All from one seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use crate::bucket::Bucket;
use crate::demand::{Meter, Seen};
use crate::judge::Judge;
use crate::member::Terms;
use crate::participant::{Action, Participant};
use crate::quota::Quota;
use crate::report::Report;
use crate::table::Table;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MILLI: u64 = 1_000_000;

/// How the net is.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    /// Of one way, at least and at most.
    pub(crate) latency: (u64, u64),
    /// Parts of a thousand of the reports and of the appends that are lost.
    pub(crate) loss: u32,
    /// Parts of a thousand of the appends that are applied up to two terms later, or twice.
    pub(crate) late: u32,
    pub(crate) twice: u32,
    /// Whether the log refuses an append after another one.
    pub(crate) compares: bool,
}

/// What an agent's callers do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// There is always one that waits for so many tokens.
    Saturated(u64),
    /// Calls for one token come at so many a second, at random, and wait.
    Poisson(f64),
    /// All that is there is taken, at random times: so many a second.
    Dump(f64),
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    real: u64,
    local: u64,
    /// Parts of a million that it runs fast.
    ppm: i64,
}

impl Clock {
    fn at(&self, real: u64) -> u64 {
        let passed = i128::from(real - self.real) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        self.local + passed as u64
    }

    /// The first real time at which it shows at least this.
    fn when(&self, local: u64) -> u64 {
        let passed = u128::from(local.saturating_sub(self.local)) * 1_000_000;
        self.real.saturating_add(passed.div_ceil((1_000_000 + self.ppm) as u128) as u64)
    }
}

pub(crate) struct Agent {
    /// `None` while it does not run.
    pub(crate) rules: Option<Participant>,
    bucket: Bucket,
    clock: Clock,
    pub(crate) limit: Quota,
    load: Load,
    waiting: u64,
    meter: Meter,
    pub(crate) spent: u64,
    pub(crate) last_token: u64,
    pub(crate) longest_without: u64,
    /// Counts what makes old events void: crashes, and connections to the log.
    life: u32,
    connection: u32,
    is_connected: bool,
    feed: u64,
    paused_until: u64,
    deaf_until: u64,
    next_poll: u64,
    next_take: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Take { agent: usize },
    Arrive { agent: usize, life: u32 },
    Poll { agent: usize, life: u32 },
    Measure { agent: usize, life: u32 },
    Deliver { agent: usize, connection: u32, index: usize, log: u32 },
    Connect { agent: usize, life: u32 },
    Hear { agent: usize, bytes: Vec<u8> },
    Append { bytes: Vec<u8>, after: Option<u64> },
}

/// The log. Sequences count from `base + 1`.
#[derive(Default)]
struct Log {
    entries: Vec<Vec<u8>>,
    /// Entries before this one are gone.
    first: usize,
    down_until: u64,
    /// Counts restorations.
    version: u32,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) terms: Terms,
    pub(crate) net: Net,
    pub(crate) agents: Vec<Agent>,
    pub(crate) judge: Judge,
    /// The worst excess over the bound, in tokens.
    pub(crate) over: Option<f64>,
    pub(crate) writes: u64,
    pub(crate) messages: u64,
    log: Log,
    knows_new: bool,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
}

impl World {
    /// `knows_new` is a log that can tell that it never had an entry.
    pub(crate) fn new(seed: u64, terms: Terms, net: Net, limit: Quota, knows_new: bool) -> Self {
        Self {
            now: SECOND,
            rng: Rng::with_seed(seed),
            terms,
            net,
            agents: Vec::new(),
            judge: Judge::new(limit, terms.drift),
            over: None,
            writes: 0,
            messages: 0,
            log: Log::default(),
            knows_new,
            events: BinaryHeap::new(),
            count: 0,
        }
    }

    // ---- what a test does to it ---------------------------------------------------------------

    /// Adds an agent. It joins at once.
    pub(crate) fn join(&mut self, limit: Quota, load: Load) -> usize {
        let drift = i64::from(self.terms.drift);
        let ppm = self.rng.i64(-drift..=drift);
        let clock = Clock { real: self.now, local: self.rng.u64(0..1_000 * SECOND), ppm };
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
            is_connected: false,
            feed: 0,
            paused_until: 0,
            deaf_until: 0,
            next_poll: u64::MAX,
            next_take: u64::MAX,
        };
        self.agents.push(agent);
        let at = self.agents.len() - 1;
        self.start(at);
        at
    }

    /// Starts an agent again, without what it knew.
    pub(crate) fn start(&mut self, at: usize) {
        let is_new = self.knows_new && self.log.entries.is_empty();
        let (label, random) = (self.rng.u64(..), self.rng.u64(..));
        let (terms, now) = (self.terms, self.now);
        let agent = &mut self.agents[at];
        let local = agent.clock.at(now);
        agent.rules = Some(Participant::new(terms, agent.limit, label, is_new, random, local));
        agent.bucket = Bucket::new(local);
        agent.is_connected = false;
        agent.waiting = 0;
        agent.meter = Meter::default();
        let life = agent.life;
        self.push(self.now, Event::Connect { agent: at, life });
        self.push(self.now, Event::Measure { agent: at, life });
        self.push(self.now, Event::Arrive { agent: at, life });
        self.poll_later(at);
    }

    pub(crate) fn crash(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        agent.rules = None;
        agent.life += 1;
        agent.is_connected = false;
        agent.next_poll = u64::MAX;
    }

    /// Says goodbye, and stops.
    pub(crate) fn leave(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        if let Some(rules) = &mut agent.rules {
            rules.leaves(local);
            self.poll(at);
        }
        self.crash(at);
    }

    /// Stops an agent, as SIGSTOP does.
    pub(crate) fn pause(&mut self, at: usize, time: u64) {
        self.agents[at].paused_until = self.now + time;
    }

    /// Cuts an agent off from the bus and the log.
    pub(crate) fn cut_off(&mut self, at: usize, time: u64) {
        let life = self.agents[at].life;
        let agent = &mut self.agents[at];
        agent.deaf_until = self.now + time;
        agent.is_connected = false;
        agent.connection += 1;
        let back = self.now + time + self.rng.u64(0..SECOND / 2);
        self.push(back, Event::Connect { agent: at, life });
    }

    /// Stops the log. Its followers connect again afterwards.
    pub(crate) fn log_down(&mut self, time: u64) {
        self.log.down_until = self.now + time;
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            agent.is_connected = false;
            agent.connection += 1;
            let life = agent.life;
            let back = self.now + time + self.rng.u64(0..SECOND / 2);
            self.push(back, Event::Connect { agent: at, life });
        }
    }

    /// Brings the log back as it was before its last `lost` entries. It was down for more than a term.
    pub(crate) fn restore(&mut self, lost: usize) {
        let left = self.log.entries.len().saturating_sub(lost);
        self.log.entries.truncate(left);
        self.log.first = self.log.first.min(left);
        self.log.version += 1;
        let down = self.terms.window() + self.terms.window() / 8 + self.rng.u64(0..SECOND);
        self.log_down(down);
    }

    /// Drops all entries but the last `kept`.
    pub(crate) fn truncate(&mut self, kept: usize) {
        self.log.first = self.log.first.max(self.log.entries.len().saturating_sub(kept));
    }

    /// Appends what is no table, or a wrong one.
    pub(crate) fn append(&mut self, bytes: Vec<u8>) {
        self.push(self.now, Event::Append { bytes, after: None });
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
            agent.bucket.change(rules, local);
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
        let life = self.agents[at].life;
        self.push(self.now, Event::Arrive { agent: at, life });
    }

    /// Another drift of an agent's clock.
    pub(crate) fn drift(&mut self, at: usize) {
        let drift = i64::from(self.terms.drift);
        let ppm = self.rng.i64(-drift..=drift);
        let clock = &mut self.agents[at].clock;
        *clock = Clock { real: self.now, local: clock.at(self.now), ppm };
        self.poll_later(at);
        self.take_later(at);
    }

    pub(crate) fn rate(&self, at: usize) -> u64 {
        self.agents[at].bucket.quota().rate
    }

    /// The agent whose row is at this place of the newest table.
    pub(crate) fn at_rank(&self, rank: usize) -> usize {
        let table = self.log.entries.iter().rev().find_map(|bytes| Table::decode(bytes));
        let label = table.map(|table| table.rows[rank].label);
        let is_it = |agent: &Agent| agent.rules.as_ref().map(Participant::label) == label;
        self.agents.iter().position(is_it).unwrap_or(0)
    }

    // ---- how it goes on -----------------------------------------------------------------------

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, _, _))) = self.events.peek() {
            if *time > end {
                break;
            }
            let Some(Reverse((time, _, event))) = self.events.pop() else { break };
            self.now = self.now.max(time);
            self.handle(event);
        }
        self.now = end;
    }

    pub(crate) fn run_for(&mut self, time: u64) {
        self.run_until(self.now + time);
    }

    fn push(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn latency(&mut self) -> u64 {
        let (least, most) = self.net.latency;
        self.rng.u64(least..=most)
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.u32(0..1_000) < thousandths
    }

    fn handle(&mut self, event: Event) {
        // A stopped process does everything later. Its callers may be the first to run again.
        let of = match &event {
            Event::Take { agent }
            | Event::Arrive { agent, .. }
            | Event::Poll { agent, .. }
            | Event::Measure { agent, .. }
            | Event::Deliver { agent, .. }
            | Event::Connect { agent, .. }
            | Event::Hear { agent, .. } => Some(*agent),
            Event::Append { .. } => None,
        };
        if let Some(at) = of
            && self.agents[at].paused_until > self.now
        {
            let later = self.agents[at].paused_until
                + if matches!(event, Event::Take { .. }) { 0 } else { self.rng.u64(0..MILLI) };
            return self.push(later, event);
        }
        match event {
            Event::Take { agent } => {
                if self.agents[agent].next_take <= self.now {
                    self.agents[agent].next_take = u64::MAX;
                    self.take(agent);
                }
            }
            Event::Arrive { agent, life } if life == self.agents[agent].life => self.arrive(agent),
            Event::Poll { agent, life } if life == self.agents[agent].life => {
                if self.agents[agent].next_poll <= self.now {
                    self.agents[agent].next_poll = u64::MAX;
                    self.poll(agent);
                }
            }
            Event::Measure { agent, life } if life == self.agents[agent].life => {
                self.measure(agent)
            }
            Event::Deliver { agent, connection, index, log }
                if connection == self.agents[agent].connection && log == self.log.version =>
            {
                self.deliver(agent, index);
            }
            Event::Connect { agent, life } if life == self.agents[agent].life => {
                self.connect(agent)
            }
            Event::Hear { agent, bytes } => {
                let is_deaf = self.agents[agent].deaf_until > self.now;
                if let Some(rules) = &mut self.agents[agent].rules
                    && !is_deaf
                    && let Some(report) = Report::decode(&bytes)
                {
                    rules.hear(report);
                }
            }
            Event::Append { bytes, after } => self.append_now(bytes, after),
            _ => {}
        }
    }

    // ---- the log ------------------------------------------------------------------------------

    fn append_now(&mut self, bytes: Vec<u8>, after: Option<u64>) {
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

    fn connect(&mut self, at: usize) {
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
            rules.interrupted();
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

    fn deliver(&mut self, at: usize, index: usize) {
        if !self.agents[at].is_connected {
            return;
        }
        self.step_bucket(at);
        let random = self.rng.u64(..);
        let bytes = self.log.entries[index].clone();
        let entry = Table::decode(&bytes).ok_or_else(|| id_of(&bytes));
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        let Some(rules) = &mut agent.rules else { return };
        rules.read(index as u64 + 1, entry, random, local);
        agent.bucket.change(rules, local);
        rules.applied();
        self.poll_later(at);
        self.take_later(at);
    }

    // ---- the agents ---------------------------------------------------------------------------

    fn poll(&mut self, at: usize) {
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
                    for label in to {
                        self.messages += 1;
                        if self.chance(self.net.loss) {
                            continue;
                        }
                        let time = self.now + self.latency();
                        let is_it = |agent: &Agent| {
                            agent.rules.as_ref().is_some_and(|rules| rules.label() == label)
                        };
                        if let Some(agent) = self.agents.iter().position(is_it) {
                            self.push(time, Event::Hear { agent, bytes: report.encode() });
                        }
                    }
                }
                Action::Append { table, after } => {
                    if self.chance(self.net.loss) {
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

    fn poll_later(&mut self, at: usize) {
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

    fn step_bucket(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let local = agent.clock.at(self.now);
        if let Some(rules) = &agent.rules {
            agent.bucket.advance(rules, local);
        }
    }

    fn take_later(&mut self, at: usize) {
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

    fn take(&mut self, at: usize) {
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

    fn arrive(&mut self, at: usize) {
        let load = self.agents[at].load;
        let life = self.agents[at].life;
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
        let time = self.now + (wait.min(1e6) * 1e9) as u64;
        self.push(time, Event::Arrive { agent: at, life });
    }

    /// What its callers want, twice a second.
    #[allow(clippy::cast_precision_loss)]
    fn measure(&mut self, at: usize) {
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

/// What tells an entry from another: the id of a table, or a hash.
fn id_of(bytes: &[u8]) -> u128 {
    if let Some(table) = Table::decode(bytes) {
        return table.id;
    }
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0x6c62_272e_07bb_0142, step)
}
