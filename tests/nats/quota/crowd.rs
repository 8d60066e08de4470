//! What a quota costs: 200 agents in one process. `scripts/deep.sh` prints the figures.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};
use tollgate::async_nats::jetstream;
use tollgate::{
    DistributedConfig, DistributedLimiter, JetStreamConfig, JetStreamLedger, Limit, NatsBus,
    Resource,
};

use super::agents::STREAM;
use crate::jetstream::StreamServer;

const AGENTS: u64 = 200;
const RATE: u64 = 10_000;
const TIME: Duration = Duration::from_secs(20);
/// Until shares follow what is wanted.
const SETTLING: Duration = Duration::from_secs(20);

/// Acquires at random times, in all at 80 % of the limit. Returns how long each took after `begin`.
async fn demand(api: Resource, begin: Instant, end: Instant) -> Vec<Duration> {
    let mean = AGENTS as f64 / (0.8 * RATE as f64);
    let mut took = Vec::new();
    let mut next = Instant::now();
    while next < end {
        next += Duration::from_secs_f64(-mean * (1.0 - fastrand::f64()).ln());
        sleep_until(next.into()).await;
        let called = Instant::now();
        drop(api.acquire().await.expect("a permit"));
        if called > begin {
            took.push(called.elapsed());
        }
    }
    took
}

/// CPU time of this process in seconds. Linux counts it in hundredths.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures: scripts/deep.sh quota"]
async fn what_200_agents_in_one_process_cost() {
    let server = StreamServer::start();
    let client = NatsBus::options().connect(server.url()).await.expect("a connection");
    let config = JetStreamConfig::new("test");
    let ledger = JetStreamLedger::new(client.clone(), config).await.expect("a ledger");
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        let bus = Arc::new(NatsBus::from(client.clone()));
        let mut config = DistributedConfig::new(bus, format!("agent-{agent}"));
        config.ledger = Some(Arc::new(ledger.clone()));
        let limiter = DistributedLimiter::new(config).await.expect("an agent");
        let limit = Limit::per_second(RATE).burst(5 * AGENTS);
        let api = limiter.share("api", limit).expect("a share");
        agents.push((limiter, api));
    }
    let shares = || agents.iter().filter_map(|(_, api)| Some(api.capacity().share?.rate));
    while shares().any(|rate| rate < 1.0) {
        sleep(Duration::from_millis(100)).await;
    }
    let begin = Instant::now() + SETTLING;
    let tasks =
        agents.iter().map(|(_, api)| tokio::spawn(demand(api.clone(), begin, begin + TIME)));
    let tasks: Vec<_> = tasks.collect();
    sleep_until(begin.into()).await;

    let stream = jetstream::new(client.clone());
    let written = async || {
        let stream = stream.get_stream(STREAM).await.expect("a stream");
        stream.cached_info().state.last_sequence
    };
    let count = || {
        let statistics = client.statistics();
        let sent = statistics.out_messages.load(Ordering::Relaxed);
        (sent, statistics.in_messages.load(Ordering::Relaxed))
    };
    let (entries, (out, into), used) = (written().await, count(), cpu());
    let start = Instant::now();
    sleep(TIME).await;
    let seconds = start.elapsed().as_secs_f64();
    let (entries, used) = (written().await - entries, cpu() - used);
    let (out, into) = (count().0 - out, count().1 - into);
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a task"));
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    println!("{AGENTS} agents, {RATE}/s, 80 % wanted, {seconds:.1} s:");
    println!("  {:.2} writes to the ledger a second", entries as f64 / seconds);
    println!(
        "  {:.0} messages sent a second, {:.0} received",
        out as f64 / seconds,
        into as f64 / seconds
    );
    println!("  {:.1} % of one CPU, calls included", 100.0 * used / seconds);
    println!(
        "  {} acquires: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(entries as f64 / seconds < 6.0, "more than one agent writes");
}
