//! Who calls an upstream, and what happens when: a queue of events in simulated time.
//!
//! *Demand* is what clients would send if nothing held them back. It does not depend on answers, but for
//! [`Demand::Tasks`]. A request that the limiter does not admit at once waits for its turn, first come,
//! first served, for as long as the client is patient; then it is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tollgate::{Permit, Resource};

use crate::common::SECOND;
use crate::report::Report;
use crate::upstreams::{Answer, Upstream};

const MILLISECOND: u64 = SECOND / 1_000;
/// Whoever waits looks again after this time at the latest: a pause may be over, or a limit higher.
const LOOKS: u64 = 100 * MILLISECOND;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Demand {
    /// This many requests a second, at equal intervals.
    Regular(f64),
    /// This many a second on average, each at a time of its own.
    Poisson(f64),
    /// This many tasks, each of which sends a request as soon as it has the answer to the one before.
    Tasks(u32),
}

/// Times of a request's way there and back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rtt {
    /// 20 to 200 ms, drawn for each request.
    Drawn,
    /// The same for all, in milliseconds.
    Fixed(u64),
}

/// One limiter, and those who send through it.
struct Client {
    api: Resource,
    demand: Demand,
    /// How long a request waits for its turn.
    patience: u64,
    /// When those that wait came.
    waiting: VecDeque<u64>,
    /// When they look next.
    looks: Option<u64>,
}

enum Event {
    /// A request comes to be.
    Demand,
    /// Those that wait look again.
    Look,
    /// A request is at the upstream; when it was sent, and the time that its answer will take.
    Arrival {
        permit: Permit<'static>,
        sent: u64,
        back: u64,
    },
    Answer {
        permit: Permit<'static>,
        sent: u64,
        answer: Answer,
    },
    /// The demand changes.
    Change(Demand),
}

/// Clients, their upstream, and what is to happen.
pub(crate) struct World {
    clients: Vec<Client>,
    upstream: Upstream,
    rtt: Rtt,
    random: fastrand::Rng,
    /// By time, then in the order in which they were added; the client of each.
    events: BTreeMap<(u64, u64), (usize, Event)>,
    added: u64,
    pub(crate) reports: Vec<Report>,
}

impl World {
    /// Odd seeds draw a time for each request, the others one for all.
    pub(crate) fn new(upstream: Upstream, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let rtt = if seed % 2 == 1 { Rtt::Drawn } else { Rtt::Fixed(random.u64(20..=200)) };
        Self {
            clients: Vec::new(),
            upstream,
            rtt,
            random,
            events: BTreeMap::new(),
            added: 0,
            reports: Vec::new(),
        }
    }

    /// A client whose first request comes within its first interval.
    pub(crate) fn add(&mut self, api: Resource, demand: Demand, patience: Duration) {
        let client = self.clients.len();
        let patience = match demand {
            Demand::Tasks(_) => u64::MAX, // whoever gives up starts again
            Demand::Regular(_) | Demand::Poisson(_) => patience.as_nanos() as u64,
        };
        let (waiting, looks) = (VecDeque::new(), None);
        self.clients.push(Client { api, demand, patience, waiting, looks });
        self.reports.push(Report::default());
        let first = match demand {
            Demand::Regular(rate) | Demand::Poisson(rate) => self.random.f64() / rate,
            Demand::Tasks(_) => 0.0,
        };
        self.push(client, seconds(first), Event::Demand);
    }

    /// Another demand of all clients from `at` seconds on.
    pub(crate) fn change_demand(&mut self, at: u64, demand: Demand) {
        for client in 0..self.clients.len() {
            self.push(client, at * SECOND, Event::Change(demand));
        }
    }

    /// The time of the next event.
    pub(crate) fn next(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whatever is due at `now`.
    pub(crate) fn run_due(&mut self, now: u64) {
        while let Some(event) = self.events.first_entry().filter(|event| event.key().0 <= now) {
            let ((at, _), (client, event)) = event.remove_entry();
            self.happen(client, event, at, now);
        }
    }

    /// What the limiters say of themselves, at the end of each second.
    pub(crate) fn sample(&mut self, second: u64) {
        for (client, report) in self.clients.iter().zip(&mut self.reports) {
            report.second(second).capacity = client.api.capacity().per_window;
        }
    }

    fn push(&mut self, client: usize, at: u64, event: Event) {
        self.added += 1;
        self.events.insert((at, self.added), (client, event));
    }

    /// An event of time `at` happens at `now`, which may be later: a runtime's timers are coarse.
    fn happen(&mut self, client: usize, event: Event, at: u64, now: u64) {
        match event {
            Event::Demand => {
                let requests = match self.clients[client].demand {
                    Demand::Tasks(tasks) => tasks,
                    Demand::Regular(_) | Demand::Poisson(_) => 1,
                };
                (0..requests).for_each(|_| self.clients[client].waiting.push_back(at));
                let wait = self.serve(client, now);
                self.schedule_demand(client, at, wait);
            }
            Event::Look => {
                self.clients[client].looks = None;
                self.serve(client, now);
            }
            Event::Arrival { permit, sent, back } => {
                let answer = self.upstream.answer(at);
                self.push(client, at + back, Event::Answer { permit, sent, answer });
            }
            Event::Answer { permit, sent, answer } => {
                let report = &mut self.reports[client];
                let retry_after = match answer {
                    Answer::Served => None,
                    Answer::Refused { retry_after } => retry_after,
                    Answer::Unavailable { retry_after } => Some(retry_after),
                };
                if let Some(told) = retry_after {
                    self.clients[client].api.pause_for(told);
                    report.told = Some(now);
                }
                if matches!(answer, Answer::Refused { .. }) {
                    permit.throttled("429");
                    report.last_refusal = now;
                }
                let second = report.second(sent / SECOND);
                if answer == Answer::Served {
                    second.served += 1;
                } else {
                    second.refused += 1;
                }
                drop(permit);
                if matches!(self.clients[client].demand, Demand::Tasks(_)) {
                    self.clients[client].waiting.push_back(now);
                    self.serve(client, now);
                }
            }
            Event::Change(demand) => {
                let before = std::mem::replace(&mut self.clients[client].demand, demand);
                if matches!(before, Demand::Tasks(_)) {
                    self.clients[client].waiting.clear();
                    self.push(client, at, Event::Demand);
                }
            }
        }
    }

    /// Sends whatever is admitted. Returns when the limiter admits the next one, if one waits or is dropped.
    fn serve(&mut self, client: usize, now: u64) -> u64 {
        let Client { api, patience, waiting, looks, .. } = &mut self.clients[client];
        let (mut sent, mut wait) = (0, 0);
        while !waiting.is_empty() {
            match api.try_acquire() {
                Ok(permit) => {
                    waiting.pop_front();
                    let there = self.rtt.draw(&mut self.random);
                    let back = self.rtt.draw(&mut self.random);
                    let event = Event::Arrival { permit: permit.into_owned(), sent: now, back };
                    self.added += 1;
                    self.events.insert((now + there, self.added), (client, event));
                    sent += 1;
                }
                Err(error) => {
                    let hint = error.retry_after().unwrap_or(Duration::MAX);
                    wait = (hint.as_nanos().min(LOOKS.into()) as u64).max(1);
                    while waiting
                        .front()
                        .is_some_and(|since| since.saturating_add(*patience) <= now)
                    {
                        waiting.pop_front();
                    }
                    break;
                }
            }
        }
        if !waiting.is_empty() && looks.is_none_or(|at| at > now + wait) {
            *looks = Some(now + wait);
            self.push(client, now + wait, Event::Look);
        }
        let report = &mut self.reports[client];
        report.second(now / SECOND).sent += sent;
        (0..sent).for_each(|_| report.sent_at.push(now));
        wait
    }

    /// The next request, after one at `at`. Those that a client without patience would drop, because
    /// nothing is admitted for `wait`, do not come at all: a demand far above the limit costs no time.
    fn schedule_demand(&mut self, client: usize, at: u64, wait: u64) {
        let skips = if self.clients[client].patience == 0 { wait } else { 0 };
        let next = match self.clients[client].demand {
            Demand::Regular(rate) => {
                let interval = seconds(1.0 / rate).max(1);
                at + skips.div_ceil(interval).max(1) * interval
            }
            Demand::Poisson(rate) => at + skips + seconds(-(1.0 - self.random.f64()).ln() / rate),
            Demand::Tasks(_) => return,
        };
        self.push(client, next, Event::Demand);
    }
}

impl Rtt {
    /// One of the two ways.
    fn draw(self, random: &mut fastrand::Rng) -> u64 {
        let there_and_back = match self {
            Self::Drawn => random.u64(20 * MILLISECOND..=200 * MILLISECOND),
            Self::Fixed(milliseconds) => milliseconds * MILLISECOND,
        };
        there_and_back / 2
    }
}

/// In nanoseconds.
#[allow(clippy::cast_sign_loss)] // a saturating cast
pub(crate) fn seconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
