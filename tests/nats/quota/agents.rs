//! Agents in processes of their own: this test's program, started again.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout, timeout_at};
use tollgate::{
    DistributedConfig, DistributedLimiter, JetStreamConfig, JetStreamLedger, LedgerTerms, Limit,
    NatsBus,
};

use super::judge::{Admission, BURST, RATE, excess};
use crate::common::watchdog::HANG;

pub(super) const STREAM: &str = "TOLLGATE_test";
const SERVERS: &str = "TOLLGATE_AGENT_SERVERS";
const REPLICAS: &str = "TOLLGATE_AGENT_REPLICAS";
const TERM: &str = "TOLLGATE_AGENT_TERM";
/// Between two attempts to take a token.
const PAUSE: Duration = Duration::from_millis(5);

/// What the process of an agent runs, until its standard input ends: it takes all that it can, but for a quarter of
/// each second, in which all buckets fill.
#[tokio::test]
async fn agent() {
    let Ok(servers) = env::var(SERVERS) else { return };
    let number = |name| env::var(name).expect("a variable").parse().expect("a number");
    let terms = LedgerTerms { term: Duration::from_millis(number(TERM)), ..LedgerTerms::DEFAULT };
    let replicas = number(REPLICAS) as usize;
    let servers: Vec<String> = servers.split(',').map(String::from).collect();
    let client = NatsBus::options().connect(servers).await.expect("a connection");
    let ledger = loop {
        let config = JetStreamConfig { replicas, terms, ..JetStreamConfig::new("test") };
        match JetStreamLedger::new(client.clone(), config).await {
            Ok(ledger) => break ledger,
            // Until a cluster has a leader.
            Err(error) => eprintln!("{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    };
    let mut config = DistributedConfig::new(Arc::new(NatsBus::from(client)), "agent");
    config.ledger = Some(Arc::new(ledger));
    let limiter = DistributedLimiter::new(config).await.expect("an agent");
    let api = limiter.share("api", Limit::per_second(RATE).burst(BURST)).expect("a share");
    let end = thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut told = None;
    while !end.is_finished() {
        let before = nanos();
        if before % 1_000_000_000 < 750_000_000 && api.check().is_ok() {
            println!("\nadmitted {before} {}", nanos());
            continue;
        }
        let rate = api.capacity().share.expect("it is shared").rate;
        if told.replace(rate) != Some(rate) {
            println!("\nshare {rate}");
        }
        sleep(PAUSE).await;
    }
    limiter.close().await;
}

/// The same clock for all processes.
fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

enum Said {
    Admitted(Admission),
    Share(f64),
}

/// Agents that share a quota, and what they were admitted.
pub(super) struct Swarm {
    term: Duration,
    replicas: usize,
    agents: BTreeMap<usize, Agent>,
    started: usize,
    admissions: Vec<Admission>,
    /// For how long less than 90 % was shared, and since when it is.
    short: Duration,
    short_since: Option<Instant>,
    say: UnboundedSender<(usize, Said)>,
    said: UnboundedReceiver<(usize, Said)>,
}

struct Agent {
    child: Child,
    /// Tokens a second; 0 for one that is stopped.
    share: f64,
    is_stopped: bool,
    /// Whether it has had no share since that was last asked.
    had_none: bool,
}

impl Swarm {
    /// Of `count` agents, that have reached the limit.
    pub(super) async fn start(
        count: usize,
        servers: &[String],
        term: Duration,
        replicas: usize,
    ) -> Self {
        let (say, said) = unbounded_channel();
        let mut swarm = Self {
            term,
            replicas,
            agents: BTreeMap::new(),
            started: 0,
            admissions: Vec::new(),
            short: Duration::ZERO,
            short_since: Some(Instant::now()),
            say,
            said,
        };
        for _ in 0..count {
            swarm.join(servers);
        }
        swarm.uses_all("it begins").await;
        swarm
    }

    /// Another agent, by these servers. Returns its number.
    pub(super) fn join(&mut self, servers: &[String]) -> usize {
        let mut child = Command::new(env::current_exe().expect("a test binary"))
            .args(["quota::agents::agent", "--exact", "--nocapture", "--test-threads=1"])
            .env(SERVERS, servers.join(","))
            .env(REPLICAS, self.replicas.to_string())
            .env(TERM, self.term.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let output = child.stdout.take().expect("its output");
        let (number, say) = (self.started, self.say.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(said) = parse(&line)
                    && say.send((number, said)).is_err()
                {
                    return;
                }
            }
        });
        self.agents.insert(number, Agent { child, share: 0.0, is_stopped: false, had_none: true });
        self.started += 1;
        number
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        let mut agent = self.agents.remove(&number).expect("an agent");
        agent.child.kill().expect("a signal");
        agent.child.wait().expect("its end");
        self.look();
    }

    /// SIGSTOP.
    pub(super) fn stop(&mut self, number: usize) {
        self.signal(number, "-STOP");
        self.hear();
        let agent = self.agents.get_mut(&number).expect("an agent");
        (agent.share, agent.is_stopped) = (0.0, true);
        self.look();
    }

    /// SIGCONT.
    pub(super) fn go_on(&mut self, number: usize) {
        self.signal(number, "-CONT");
        self.agents.get_mut(&number).expect("an agent").is_stopped = false;
    }

    fn signal(&self, number: usize, signal: &str) {
        let id = self.agents[&number].child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("a signal").success(), "{signal}");
    }

    pub(super) fn share(&self, number: usize) -> f64 {
        self.agents[&number].share
    }

    fn sum(&self) -> f64 {
        self.agents.values().map(|agent| agent.share).sum()
    }

    fn note(&mut self, (number, said): (usize, Said)) {
        match said {
            Said::Admitted(admission) => self.admissions.push(admission),
            Said::Share(share) => {
                if let Some(agent) = self.agents.get_mut(&number).filter(|agent| !agent.is_stopped)
                {
                    agent.share = share;
                    agent.had_none |= share < 0.1;
                    self.look();
                }
            }
        }
    }

    fn look(&mut self) {
        let is_short = self.sum() < 0.9 * RATE as f64;
        match self.short_since {
            Some(since) if !is_short => {
                self.short += since.elapsed();
                self.short_since = None;
            }
            None if is_short => self.short_since = Some(Instant::now()),
            _ => {}
        }
    }

    fn hear(&mut self) {
        while let Ok(said) = self.said.try_recv() {
            self.note(said);
        }
    }

    /// Waits until this holds, and prints how long that took.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            let said = timeout(HANG, self.said.recv()).await;
            self.note(said.unwrap_or_else(|_| panic!("not: {what}")).expect("agents"));
        }
        println!("{what}: after {:.1?}", since.elapsed());
    }

    /// Waits until each agent has been without a share.
    pub(super) async fn has_nothing(&mut self, what: &str) {
        for agent in self.agents.values_mut() {
            agent.had_none = agent.share < 0.1;
        }
        let none = |swarm: &Self| swarm.agents.values().all(|agent| agent.had_none);
        self.until(&format!("{what}: no share"), none).await;
    }

    /// The number of the agent that is there for longest.
    pub(super) fn oldest(&self) -> usize {
        *self.agents.keys().next().expect("an agent")
    }

    /// Waits until the agents use nearly all of the limit, each a part of it, and are admitted.
    pub(super) async fn uses_all(&mut self, what: &str) {
        let all = |swarm: &Self| {
            let each = || swarm.agents.values().filter(|agent| !agent.is_stopped);
            swarm.sum() > 0.98 * RATE as f64 && each().all(|agent| agent.share > 1.0)
        };
        self.until(&format!("{what}: all is shared"), all).await;
        let before = self.admissions.len();
        let admitted = |swarm: &Self| swarm.admissions.len() > before + BURST as usize;
        self.until(&format!("{what}: and spent"), admitted).await;
        println!("{what}: less than 90 % for {:.1?}", std::mem::take(&mut self.short));
    }

    /// Lets the agents spend for as long as this.
    pub(super) async fn spends(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(said) = timeout_at(end, self.said.recv()).await {
            self.note(said.expect("agents"));
        }
    }

    /// Whatever happened, no more was admitted than the limit allows.
    pub(super) fn kept_the_limit(mut self) {
        self.hear();
        let excess = excess(&self.admissions);
        println!(
            "{} admitted; the closest to the bound by {:.1} tokens",
            self.admissions.len(),
            -excess
        );
        assert!(excess <= 0.0, "{excess} tokens above the bound");
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for agent in self.agents.values_mut() {
            let _ = agent.child.kill();
            let _ = agent.child.wait();
        }
    }
}

fn parse(line: &str) -> Option<Said> {
    let mut words = line.split(' ');
    match words.next()? {
        "admitted" => {
            Some(Said::Admitted((words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        }
        "share" => Some(Said::Share(words.next()?.parse().ok()?)),
        _ => None,
    }
}
