//! A simulated world: agents with clocks of their own, a bus that loses and delays reports, and a log that is
//! partitioned, down, truncated and restored. All from one seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;

use crate::bucket::Bucket;
use crate::demand::Meter;
use crate::judge::Judge;
use crate::member::Terms;
use crate::participant::Participant;
use crate::quota::Quota;
use crate::report::Report;
use crate::table::Table;

mod agents;
mod clock;
mod faults;
mod log;

use clock::Clock;
use log::Log;

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
    /// Whether agents write tables; if not, only one that has read none yet does.
    pub(crate) plans: bool,
    /// Clocks drift otherwise after at most so long; 0 for never.
    pub(crate) wobble: u64,
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

#[derive(Clone)]
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
    /// And other calls.
    calls: u32,
    is_connected: bool,
    feed: u64,
    /// It cannot read what a newer version wrote.
    pub(crate) is_old: bool,
    paused_until: u64,
    deaf_until: u64,
    next_poll: u64,
    next_take: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Take { agent: usize },
    Arrive { agent: usize, calls: u32 },
    Poll { agent: usize, life: u32 },
    Measure { agent: usize, life: u32 },
    Deliver { agent: usize, connection: u32, index: usize, log: u32 },
    Connect { agent: usize, life: u32 },
    Hear { agent: usize, bytes: Vec<u8> },
    Append { bytes: Vec<u8>, after: Option<u64> },
    Drift { agent: usize },
    Stop { agent: usize, life: u32 },
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
    /// Whether the shares are summed after each event, and were ever above the limit.
    pub(crate) sums_shares: bool,
    pub(crate) is_shared_twice: bool,
    pub(crate) writes: u64,
    pub(crate) messages: u64,
    log: Log,
    /// Labels and nonces of the last reports.
    reported: VecDeque<(u64, u64)>,
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
            sums_shares: false,
            is_shared_twice: false,
            writes: 0,
            messages: 0,
            log: Log::default(),
            reported: VecDeque::new(),
            knows_new,
            events: BinaryHeap::new(),
            count: 0,
        }
    }

    pub(crate) fn rate(&self, at: usize) -> u64 {
        self.agents[at].bucket.quota().rate
    }

    /// The agent whose row is at this place of the newest table.
    pub(crate) fn at_rank(&self, rank: usize) -> usize {
        let label = self.newest_table().map(|(_, table)| table.rows[rank].label);
        let is_it = |agent: &Agent| agent.rules.as_ref().map(Participant::label) == label;
        self.agents.iter().position(is_it).unwrap_or(0)
    }

    fn newest_table(&self) -> Option<(u64, Table)> {
        let mut entries = self.log.entries.iter().enumerate().rev();
        entries.find_map(|(at, bytes)| Some((at as u64 + 1, Table::decode(bytes)?)))
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, _, _))) = self.events.peek() {
            if *time > end {
                break;
            }
            let Some(Reverse((time, count, event))) = self.events.pop() else { break };
            self.now = self.now.max(time);
            self.handle(count, event);
            if self.sums_shares {
                self.sum_shares();
            }
        }
        self.now = end;
    }

    /// The proof's own words: at each instant, the shares sum to at most the largest limit of those that spend.
    fn sum_shares(&mut self) {
        let (mut sum, mut most) = ((0u128, 0u128), Quota::ZERO);
        for agent in &self.agents {
            let Some(rules) = &agent.rules else { continue };
            let quota = rules.segment(agent.clock.at(self.now)).quota;
            if quota != Quota::ZERO {
                most.rate = most.rate.max(agent.limit.rate);
                most.burst = most.burst.max(agent.limit.burst);
                sum = (sum.0 + u128::from(quota.rate), sum.1 + u128::from(quota.burst));
            }
        }
        self.is_shared_twice |= sum.0 > most.rate.into() || sum.1 > most.burst.into();
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

    fn handle(&mut self, count: u64, event: Event) {
        // A stopped process does everything later. Its callers may be the first to run again.
        let of = match &event {
            Event::Take { agent }
            | Event::Arrive { agent, .. }
            | Event::Poll { agent, .. }
            | Event::Measure { agent, .. }
            | Event::Deliver { agent, .. }
            | Event::Connect { agent, .. }
            | Event::Hear { agent, .. } => Some(*agent),
            Event::Append { .. } | Event::Drift { .. } | Event::Stop { .. } => None,
        };
        if let Some(at) = of
            && self.agents[at].paused_until > self.now
        {
            let is_ordered = matches!(event, Event::Take { .. } | Event::Deliver { .. });
            let later =
                self.agents[at].paused_until + if is_ordered { 0 } else { self.rng.u64(0..MILLI) };
            // With the old number, as entries that wait keep their order.
            self.events.push(Reverse((later, count, event)));
            return;
        }
        match event {
            Event::Take { agent } if self.agents[agent].next_take <= self.now => {
                self.agents[agent].next_take = u64::MAX;
                self.take(agent);
            }
            Event::Arrive { agent, calls } if calls == self.agents[agent].calls => {
                self.arrive(agent);
            }
            Event::Poll { agent, life }
                if life == self.agents[agent].life && self.agents[agent].next_poll <= self.now =>
            {
                self.agents[agent].next_poll = u64::MAX;
                self.poll(agent);
            }
            Event::Measure { agent, life } if life == self.agents[agent].life => {
                self.measure(agent);
            }
            Event::Deliver { agent, connection, index, log }
                if connection == self.agents[agent].connection && log == self.log.version =>
            {
                self.deliver(agent, index);
            }
            Event::Connect { agent, life } if life == self.agents[agent].life => {
                self.connect(agent);
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
            Event::Stop { agent, life } if life == self.agents[agent].life => self.crash(agent),
            Event::Append { bytes, after } => self.append_now(bytes, after),
            Event::Drift { agent } => {
                self.drift(agent);
                self.drift_later(agent);
            }
            _ => {}
        }
    }
}
