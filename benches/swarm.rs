//! The swarm's cost and latency.
//!
//! * Flood: thread CPU time of a call while 10,000 hostile messages a second arrive, beside a
//!   control without them, alternating in one run.
//! * With the feature `nats` and a server (see `scripts/nats-server.sh`): time from an announcement
//!   until it has taken effect on ten other agents.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use tokio::runtime::{Builder, Runtime};
use tollgate::{DistributedConfig, DistributedLimiter, Limit, MemoryBus, MessageBus, Resource};

const FLOOD: u64 = 10_000;
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 40;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn agent(bus: Arc<dyn MessageBus>, id: &str) -> (DistributedLimiter, Resource) {
    let config = DistributedConfig::new(bus, id);
    let agent = DistributedLimiter::new(config).await.expect("an agent");
    let limit = Limit::new(1_000_000_000, Duration::from_secs(1));
    let api = agent.configure("api", limit).expect("a limit");
    (agent, api)
}

/// The k-th message of the flood. The kinds rotate.
fn hostile(k: u64) -> String {
    let go = |resource: &str, capacity: u64| {
        format!(
            r#"{{"resource":"{resource}","agent_id":"x","new_capacity":{capacity},"reason":"429","timestamp":"2026-11-23T23:38:48Z"}}"#
        )
    };
    match k % 4 {
        0 => "[".repeat(500),
        1 => go("unknown", 1),
        2 => go("api", u64::MAX),
        // A new cut by a tiny step, so that each message changes something.
        _ => go("api", 999).replace('}', &format!(r#","incident":"{k:x}","factor":0.999}}"#)),
    }
}

/// Publishes while `is_on` is set, and catches up if it falls behind.
fn flood(bus: &dyn MessageBus, is_on: &AtomicBool, is_over: &AtomicBool, sent: &AtomicU64) {
    let runtime = runtime();
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
        let due = (last.elapsed().as_micros() as u64) * FLOOD / 1_000_000;
        last = Instant::now();
        for _ in 0..if is_on.load(Ordering::Relaxed) { due } else { 0 } {
            let k = sent.fetch_add(1, Ordering::Relaxed);
            let message = hostile(k).into_bytes();
            runtime.block_on(bus.publish("ratelimit.capacity", message)).expect("it takes it");
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)]
fn nanos_a_call(elapsed: Duration, calls: u64) -> f64 {
    elapsed.as_nanos() as f64 / calls as f64
}

/// One row: nanoseconds per call of `turn` without and with the flood, and the flood's volume.
fn beside_a_flood(
    name: &str,
    bus: &Arc<dyn MessageBus>,
    agent: &DistributedLimiter,
    turns: usize,
    turn: impl Fn() -> f64,
) {
    let (is_on, is_over, sent) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (mut calm, mut flooded) = (Vec::new(), Vec::new());
    let mut time = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&**bus, &is_on, &is_over, &sent));
        for _ in 0..turns {
            calm.push(turn());
            is_on.store(true, Ordering::Relaxed);
            let start = Instant::now();
            flooded.push(turn());
            time += start.elapsed();
            is_on.store(false, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20)); // drain the flood
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let sent = sent.into_inner();
    let rate = sent * 1_000 / u64::try_from(time.as_millis()).unwrap_or(1).max(1);
    let heard = 100 * agent.stats().received / sent.max(1);
    let (calm, flooded) = (median(calm), median(flooded));
    let ratio = flooded / calm;
    println!("| {name} | {calm:.1} | {flooded:.1} | {ratio:.2} | {rate} | {heard} % |");
}

fn floods(turns: usize) {
    println!("| | ns a call | in a flood | x | messages a second | heard |");
    println!("|---|---:|---:|---:|---:|---:|");

    // The agent's task runs on its own thread.
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    let workers = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let workers = workers.expect("a runtime");
    let (agent_a, api) = workers.block_on(agent(Arc::clone(&bus), "a"));
    let turn = || {
        let (start, mut calls) = (ThreadTime::now(), 0);
        while start.elapsed() < TURN {
            for _ in 0..1_000 {
                let _ = black_box(api.check());
            }
            calls += 1_000;
        }
        nanos_a_call(start.elapsed(), calls)
    };
    beside_a_flood("check, the agent on another thread", &bus, &agent_a, turns, turn);

    // The agent's task shares its only thread with the callers of `acquire`.
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    let alone = runtime();
    let (agent_b, api) = alone.block_on(agent(Arc::clone(&bus), "a"));
    let turn = || {
        alone.block_on(async {
            let (start, mut calls) = (ThreadTime::now(), 0);
            while start.elapsed() < TURN {
                for _ in 0..1_000 {
                    drop(black_box(api.acquire().await));
                }
                calls += 1_000;
                tokio::task::yield_now().await;
            }
            nanos_a_call(start.elapsed(), calls)
        })
    };
    beside_a_flood("acquire, the agent on the same thread", &bus, &agent_b, turns, turn);
}

/// Time until an announcement takes effect on ten agents with a connection each to a local server.
#[cfg(feature = "nats")]
mod over_nats {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use tollgate::{DistributedConfig, DistributedLimiter, NatsBus};

    struct Server(Child, String);

    impl Server {
        fn start() -> Self {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/nats-server.sh");
            let found = Command::new(script).current_dir(root).output().expect("a shell").stdout;
            let found = String::from_utf8(found).expect("a path");
            let mut child = Command::new(found.trim())
                .args(["--addr", "127.0.0.1", "--port", "-1"])
                .stderr(Stdio::piped())
                .spawn()
                .expect("scripts/nats-server.sh finds a server");
            let log = BufReader::new(child.stderr.take().expect("a log"));
            let mut port = None;
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("client connections on ") {
                    port = address.rsplit(':').next().map(String::from);
                }
                if line.contains("Server is ready") {
                    break;
                }
            }
            Self(child, format!("nats://127.0.0.1:{}", port.expect("a port in its log")))
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }

    async fn agent(url: &str, id: usize, resources: usize) -> DistributedLimiter {
        let bus = NatsBus::connect(url).await.expect("a connection");
        let config = DistributedConfig::new(Arc::new(bus), format!("agent-{id}"));
        let agent = DistributedLimiter::new(config).await.expect("an agent");
        for i in 0..resources {
            let window = Duration::from_secs(1);
            agent.set_capacity(&format!("api-{i}"), 100, window).expect("a limit");
        }
        agent
    }

    pub(super) fn latency(announcements: usize) {
        let server = Server::start();
        let workers =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        workers.expect("a runtime").block_on(async {
            let started: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
            let took: Arc<Mutex<Vec<Duration>>> = Arc::default();
            let mut agents = Vec::new();
            for id in 0..11 {
                let agent = agent(&server.1, id, announcements).await;
                let (started, took) = (Arc::clone(&started), Arc::clone(&took));
                agent.on_capacity_change(move |update| {
                    if !update.is_ours {
                        let start = started.lock().expect("no panic")[&update.resource];
                        took.lock().expect("no panic").push(start.elapsed());
                    }
                });
                agents.push(agent);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            for i in 0..announcements {
                let api = format!("api-{i}");
                started.lock().expect("no panic").insert(api.clone(), Instant::now());
                agents[i % 11].announce_reduced(&api, "429");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut took = took.lock().expect("no panic").clone();
            took.sort();
            let at = |percent: usize| took[(took.len() - 1) * percent / 100];
            println!(
                "\n{} effects of {announcements} announcements on ten other agents over NATS: \
                 median {:?}, p99 {:?}, worst {:?}",
                took.len(),
                at(50),
                at(99),
                at(100),
            );
        });
    }
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let turns = if std::env::args().any(|arg| arg == "--bench") { TURNS } else { 2 };
    floods(turns);
    #[cfg(feature = "nats")]
    over_nats::latency(if turns == TURNS { 300 } else { 3 });
}
