//! A thousand swarms on a bad network, each by a seed: 2 to 20 agents with limits of their own, of
//! whom some come late, one may crash and one may lose its bus, beside an agent of agentkit (Go) and hostile
//! senders.
//!
//! They are judged by what they admit and by what is announced, not by what they say of themselves.
//! The announcements tell which factor is justified at any time: that of the lowest cut, as far as it
//! has recovered. An agent has to be at it when whatever was announced has had time to arrive, and
//! may not be below, but for the time that messages take. `TOLLGATE_SWARM_SEED=7` runs one seed,
//! `TOLLGATE_SWARM_SEEDS=10000` that many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::number;
use crate::network::{At, End, Network, Parting};
use tokio::time::sleep;
use tollgate::{Clock, DistributedConfig, DistributedLimiter, Limit, UpdateKind};

/// A tenth in debug builds, where all of them take minutes.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 1_000 };
const THREADS: u64 = 2;

const API: &str = "api";
/// A step of the recovery every 20 s, half as much again: two of them undo a cut.
const INTERVAL: At = 20.0;
const STEP: f64 = 1.5;
/// After that everybody knows what somebody said: a few messages are lost, and repeated.
const ARRIVES: At = 20.0;
/// An agent's step of a recovery comes so much too early at most, and so much too late.
const EARLY: At = 4.0;
const LATE: At = 8.0;
/// A hostile sender may have told an agent that did not know a cut that it is so much older.
const FORGED: At = 10.0;
/// The agents' cooldown, in seconds.
const COOLDOWN: At = 5.0;
/// An incident's refusals come in this time; where requests were sent before, in twice of it.
const STORM: At = 3.0;

/// A cut, as it was announced.
#[derive(Clone, Debug)]
struct Cut {
    by: usize,
    /// The name of its incident; none if it was announced in tokens.
    incident: String,
    made: At,
    said: At,
    size: Size,
    /// Whether whoever can hear of it will.
    spreads: bool,
}

#[derive(Clone, Debug)]
enum Size {
    Factor(f64),
    /// Of one who knows no factors, and cuts for each refusal.
    Tokens {
        first: f64,
        last: f64,
        /// Incidents up to its end, each of which halves a limit at most.
        incidents: i32,
    },
}

/// What an agent admitted in a second, as a part of its limit.
struct Admitted {
    agent: usize,
    from: At,
    part: f64,
}

struct Agent {
    limiter: DistributedLimiter,
    limit: u32,
    since: At,
    /// When permits of it were refused, which empties its bucket, and when it paused.
    emptied: Arc<Mutex<Vec<At>>>,
}

struct Swarm {
    random: fastrand::Rng,
    network: Arc<Mutex<Network>>,
    agents: Vec<Agent>,
    admitted: Vec<Admitted>,
    /// When each began.
    incidents: Vec<At>,
    /// Refusals that were further apart than the cooldown count as several.
    refusals: i32,
    /// Cuts of the Go agent.
    plain: Vec<Cut>,
    /// What is left of its 100, and the number of its announcements.
    go: (u32, u32),
    is_attacked: bool,
    /// The end of whoever attacks.
    hostile: End,
}

impl Swarm {
    fn new(seed: u64) -> Self {
        fastrand::seed(seed); // what the agents draw from
        let mut random = fastrand::Rng::with_seed(seed);
        let members = random.usize(2..=20) + 2;
        let network = Arc::new(Mutex::new(Network::new(members, random.fork())));
        let hostile = End::of(members - 1, &network);
        let is_attacked = random.u8(..4) == 0;
        Self {
            random,
            network,
            agents: Vec::new(),
            admitted: Vec::new(),
            incidents: Vec::new(),
            refusals: 0,
            plain: Vec::new(),
            go: (100, 0),
            is_attacked,
            hostile,
        }
    }

    /// How many there will be. Two more members are of another kind, and hostile.
    fn most(&self) -> usize {
        self.hostile.member - 1
    }

    fn now(&self) -> At {
        self.hostile.lock().now()
    }

    async fn join(&mut self) {
        let end = End::of(self.agents.len(), &self.network);
        let config = DistributedConfig {
            recovery_interval: Duration::from_secs_f64(INTERVAL),
            recovery_factor: STEP,
            clock: Clock::tokio(),
            ..DistributedConfig::new(Arc::new(end.clone()), end.member.to_string())
        };
        let limiter = DistributedLimiter::new(config).await.expect("an agent");
        let limit = [100, 250, 1_000][self.random.usize(..3)];
        limiter.configure(API, Limit::per_second(limit.into())).expect("a limit");
        let (since, emptied) = (self.now(), Arc::<Mutex<Vec<At>>>::default());
        // Where nothing gets through an agent pauses, by itself.
        let (noted, network) = (Arc::clone(&emptied), Arc::clone(&self.network));
        limiter.on_capacity_change(move |update| {
            if matches!(update.kind, UpdateKind::Pause | UpdateKind::Resume) {
                let now = network.lock().unwrap().now();
                noted.lock().unwrap().push(now);
            }
        });
        self.agents.push(Agent { limiter, limit, since, emptied });
    }

    /// The upstream has had enough: some agents are refused, at once or by and by.
    fn incident(&mut self) {
        self.incidents.push(self.now());
        self.refusals += 1;
        let share = self.random.f64();
        for agent in &self.agents {
            let by_permit = self.random.bool();
            let most = if by_permit { 2.0 * STORM } else { STORM };
            let limiter = agent.limiter.clone();
            for _ in 0..self.random.u8(..4) {
                if self.random.f64() > share {
                    continue;
                }
                let after = Duration::from_secs_f64(most * self.random.f64().powi(2));
                let (limiter, permit) = (limiter.clone(), limiter.try_acquire(API));
                let (emptied, network) = (agent.emptied.clone(), self.network.clone());
                tokio::spawn(async move {
                    sleep(after).await;
                    match permit {
                        Ok(permit) if by_permit => {
                            permit.throttled("429");
                            let now = network.lock().unwrap().now();
                            emptied.lock().unwrap().push(now);
                        }
                        _ => limiter.announce_reduced(API, "429"),
                    }
                });
            }
        }
    }

    /// The Go agent is refused some times, and cuts for each: in a moment, or for longer than the cooldown.
    /// It does not recover, but it may have been restarted.
    async fn go_storm(&mut self) {
        let end = End::of(self.most(), &self.network);
        let (start, times) = (self.now(), self.random.u32(1..12));
        let most = if self.random.bool() { 0.01 } else { 1.5 };
        if self.random.u8(..3) == 0 {
            self.go.0 = 100;
        }
        let logged = end.lock().log.len();
        let first = f64::from((self.go.0 / 2).max(1));
        for _ in 0..times {
            self.go = ((self.go.0 / 2).max(1), self.go.1 + 1);
            let (capacity, number) = self.go;
            let message = format!(
                r#"{{"resource":"{API}","agent_id":"go","new_capacity":{capacity},"reason":"429","timestamp":"2026-11-24T12:00:00.{number:09}Z"}}"#,
            );
            end.say("ratelimit.capacity", &message);
            let pause = most * self.random.f64();
            sleep(Duration::from_secs_f64(pause)).await;
        }
        // Agents that heard it late, by the loss or the delay of a message, may count one more.
        let said = self.now();
        self.refusals += if most > 1.0 { ((said - start) / COOLDOWN) as i32 + 2 } else { 1 };
        let (last, incidents) = (self.go.0.into(), self.refusals);
        let spreads = end.lock().log[logged..].iter().any(|announced| announced.is_heard);
        let (by, incident) = (end.member, String::new());
        let size = Size::Tokens { first, last, incidents };
        self.plain.push(Cut { by, incident, made: start, said, size, spreads });
    }

    /// What may be said to raise a limit, or to keep others from telling: of the cuts that were
    /// announced, and of others just below.
    fn attack(&mut self) {
        let known: Vec<String> = (self.hostile.lock().log.iter())
            .filter_map(|announced| Some(text(&announced.message, "\"incident\":\"")?.to_string()))
            .collect();
        let mut cuts = Vec::new();
        for _ in 0..self.random.usize(..12) {
            let forged = self.random.bool() && !known.is_empty();
            let (id, factor) = if forged {
                (known[self.random.usize(..known.len())].clone(), 0.5 + 0.499_9 * self.random.f64())
            } else {
                let factor = 0.3 + 0.699_9 * self.random.f64();
                (format!("{:x}", self.random.u64(..)), factor)
            };
            let age = self.random.u32(..60_000);
            cuts.push(format!(
                r#"{{"resource":"{API}","incident":"{id}","factor":{factor},"age_ms":{age},"agent_id":"x","reason":"","timestamp":"2026-11-24T12:00:00Z"}}"#
            ));
        }
        let message = format!(r#"{{"agent_id":"x","instance":"77","cuts":[{}]}}"#, cuts.join(","));
        self.hostile.say("ratelimit.state", &message);
        for subject in ["ratelimit.capacity", "ratelimit.state", "ratelimit.query"] {
            self.hostile.say(subject, &message[self.random.usize(..message.len())..]);
        }
    }

    /// What everybody admits in a second, all at the same time.
    async fn probe(&mut self) {
        self.agents.iter().for_each(|agent| _ = agent.take_all());
        let from = self.now();
        sleep(Duration::from_secs(1)).await;
        for (i, agent) in self.agents.iter().enumerate() {
            if agent.limiter.capacity(API).is_some_and(|capacity| capacity.paused_until.is_some()) {
                agent.emptied.lock().unwrap().push(from);
            }
            let part = f64::from(agent.take_all()) / f64::from(agent.limit);
            self.admitted.push(Admitted { agent: i, from, part });
        }
    }

    /// Let so much time pass, and look every few seconds.
    async fn pass(&mut self, time: At) {
        let until = self.now() + time;
        while self.now() < until {
            if self.is_attacked && self.incidents.len() < 3 {
                self.attack();
            }
            self.probe().await;
            sleep(Duration::from_secs_f64(1.0 + 3.0 * self.random.f64())).await;
        }
    }

    /// Until all is recovered; when that is.
    async fn live(&mut self) -> At {
        let first = self.random.usize(2..=self.most());
        for _ in 0..first {
            self.join().await;
        }
        self.pass(2.0).await;
        for _ in 0..self.random.usize(1..=3) {
            if self.random.bool() {
                let is_left = (0..self.most() + 2).map(|_| self.random.bool()).collect();
                let from = self.now();
                let to = from + 1.0 + 20.0 * self.random.f64();
                self.hostile.lock().partings.push(Parting { from, to, is_left, fails: false });
            }
            if self.random.u8(..4) == 0 {
                // The bus of one agent is gone, and says so.
                let alone = self.random.usize(..self.agents.len());
                let is_left = (0..self.most() + 2).map(|member| member == alone).collect();
                let from = self.now();
                let to = from + 1.0 + 20.0 * self.random.f64();
                self.hostile.lock().partings.push(Parting { from, to, is_left, fails: true });
            }
            if self.random.u8(..4) == 0 {
                self.incidents.push(self.now());
                self.go_storm().await;
            } else {
                self.incident();
            }
            let time = self.random.f64();
            self.pass(10.0 + 25.0 * time).await;
            if self.agents.len() < self.most() {
                self.join().await;
                self.pass(6.0).await;
            }
            if self.random.u8(..8) == 0 && self.agents.len() > 2 {
                let dies = self.random.usize(..self.agents.len());
                let now = self.now();
                self.hostile.lock().crashed[dies].get_or_insert(now);
            }
        }
        self.is_attacked = false;
        self.pass(self.recovered() - self.now()).await;
        let end = self.now();
        self.probe().await;
        end
    }

    /// When the last cut has been undone everywhere, whoever made it.
    fn recovered(&self) -> At {
        let (now, cuts) = (self.now(), self.cuts());
        // Hostile senders may have told that cuts are younger than they are.
        let at = if self.was_attacked() { 0.0 } else { now };
        let lowest = |agent: &Agent| justified(&cuts, agent.limit, at, |_| true).0;
        let lowest = self.agents.iter().map(lowest).fold(0.3, f64::min);
        now + ((1.0 / lowest).log(STEP).ceil() + 1.0) * INTERVAL + ARRIVES
    }

    fn was_attacked(&self) -> bool {
        self.hostile.lock().log.iter().any(|announced| announced.by == self.hostile.member)
    }

    // ---- judging ------------------------------------------------------------------------------

    /// All cuts of honest members.
    fn cuts(&self) -> Vec<Cut> {
        let network = self.hostile.lock();
        let agents = network.log.iter().filter(|announced| announced.by < self.most());
        let cuts = agents.map(|announced| {
            let number = |key| text(&announced.message, key)?.parse::<f64>().ok();
            let age = number("\"age_ms\":").expect("an age") / 1e3;
            Cut {
                by: announced.by,
                incident: text(&announced.message, "\"incident\":\"").expect("one").to_string(),
                made: announced.at - age,
                said: announced.at,
                size: Size::Factor(number("\"factor\":").expect("a factor")),
                spreads: announced.is_heard,
            }
        });
        cuts.chain(self.plain.iter().cloned()).collect()
    }

    /// How many admissions could only be at one factor, below the limit; or what is wrong.
    fn judge(&self, end: At) -> Result<u64, String> {
        let (cuts, mut strict) = (self.cuts(), 0);
        let was_attacked = self.was_attacked();
        for Admitted { agent, from, part } in &self.admitted {
            let Agent { limit, since, emptied, .. } = &self.agents[*agent];
            let network = self.hostile.lock();
            if network.crashed[*agent].is_some_and(|at| at < from + ARRIVES) {
                continue;
            }
            let has_arrived = |cut: &Cut| {
                let said = match cut.size {
                    Size::Factor(_) => cut.said,
                    // It does not repeat it; who heard it does, after any parting.
                    Size::Tokens { .. } => {
                        network.partings.iter().map(|p| p.to).fold(cut.said, f64::max)
                    }
                };
                let known = network.together(cut.by, *agent, said.max(*since), *from);
                let crashed = network.crashed[cut.by].unwrap_or(f64::INFINITY);
                cut.spreads && known >= ARRIVES && crashed > cut.said + ARRIVES
            };
            let forged = if was_attacked { FORGED } else { 0.0 };
            let until = from + 1.0 + EARLY + forged;
            let (_, most) = justified(&cuts, *limit, until, has_arrived);
            let (mut least, _) =
                justified(&cuts, *limit, from - LATE, |cut| cut.said <= from + 1.0);
            let is_emptied = |at: &At| (from - 1.5..=from + 1.5).contains(at);
            if was_attacked || emptied.lock().unwrap().iter().any(is_emptied) {
                least = 0.0;
            }
            if *from >= end {
                (least, strict) = (1.0, strict + 1);
            }
            let slack = 0.01 + 1.5 / f64::from(*limit);
            if !(least - slack..=most + slack).contains(part) {
                return Err(format!(
                    "agent {agent} at {from:.1} s: {part:.3}, not {least:.3} to {most:.3}"
                ));
            }
            strict += u64::from(most - least < 0.01 && most < 0.9);
        }
        for (i, start) in self.incidents.iter().enumerate() {
            let end = self.incidents.get(i + 1).copied().unwrap_or(f64::INFINITY);
            for (by, agent) in self.agents.iter().enumerate() {
                let mut ours: Vec<&Cut> =
                    cuts.iter().filter(|c| c.by == by && (*start..end).contains(&c.made)).collect();
                ours.dedup_by_key(|cut| &cut.incident); // repeated after an outage
                let (level, _) =
                    justified(&cuts, agent.limit, start - LATE, |cut| cut.said < *start);
                let too_deep = |cut: &&Cut| cut.factor(agent.limit).0 < 0.5 * level - 1e-9;
                if ours.len() > 1 || !was_attacked && ours.iter().any(too_deep) {
                    return Err(format!(
                        "agent {by} in the incident at {start:.1} s, from {level}: {ours:?}"
                    ));
                }
            }
        }
        Ok(strict)
    }
}

/// What `cuts` scale a limit by at `at`, at least and at most.
fn justified(cuts: &[Cut], limit: u32, at: At, counts: impl Fn(&Cut) -> bool) -> (f64, f64) {
    let (mut least, mut most) = (1.0_f64, 1.0_f64);
    for cut in cuts.iter().filter(|cut| counts(cut)) {
        let grown = |made: At| STEP.powf(((at - made) / INTERVAL).floor().max(0.0));
        let (low, high) = cut.factor(limit);
        // Each announcement of a storm is a cut, of which an agent may have heard only some.
        let last_made = if matches!(cut.size, Size::Tokens { .. }) { cut.said } else { cut.made };
        (least, most) = (least.min(low * grown(last_made)), most.min(high * grown(cut.made)));
    }
    (least, most)
}

impl Cut {
    fn factor(&self, limit: u32) -> (f64, f64) {
        match self.size {
            Size::Factor(factor) => (factor, factor),
            // It is heard as one refusal.
            Size::Tokens { first, last, incidents } => {
                let least = (last / f64::from(limit)).max(0.5_f64.powi(incidents));
                (least, (first / f64::from(limit)).max(0.5))
            }
        }
    }
}

impl Agent {
    fn take_all(&self) -> u32 {
        let powers = (0..10).rev().map(|power| 1 << power);
        powers.filter(|n| self.limiter.check_n(API, u64::from(*n)).is_ok()).sum()
    }
}

/// What follows `key` in a message, up to the end of its value.
fn text<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    let (_, value) = message.split_once(key)?;
    value.split(['"', ',', '}']).next()
}

fn run(seed: u64) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut swarm = Swarm::new(seed);
        let end = swarm.live().await;
        swarm.judge(end)
    })
}

#[test]
fn a_thousand_swarms_agree_and_recover() {
    let seeds = match number("TOLLGATE_SWARM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TOLLGATE_SWARM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let (next, strict) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match run(*seed) {
                        Ok(n) => _ = strict.fetch_add(n, Ordering::Relaxed),
                        Err(why) => failed.lock().unwrap().push(format!("seed {seed}: {why}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} seeds:\n{}", failed.len(), seeds.len(), failed.join("\n"));
    let each = strict.into_inner() / seeds.len() as u64;
    println!("{each} admissions a seed could only be at one factor");
    assert!(each >= 10, "the bounds are so wide that they hold nothing");
}
