//! One agent of a swarm. Start several: a 429 to one of them slows all of them down.
//!
//! ```text
//! nats-server &
//! alias agent='cargo run --quiet --release --features nats --example swarm_nats --'
//! agent --agent-id a --serve 127.0.0.1:8080 --seconds 12 &
//! agent --agent-id b --upstream http://127.0.0.1:8080/ &
//! agent --agent-id c --upstream http://127.0.0.1:8080/
//! ```
//!
//! Each of the three agents may send 20 requests a second; the upstream, run by one of them, allows
//! 40 in total. Above that it answers 429 to one agent, and a millisecond later all are at half
//! rate. They recover together, by a tenth a second, until the next 429. If the NATS server stops
//! and restarts, each agent continues alone and rejoins the others. Ctrl-C ends an agent cleanly.
//!
//! The last line is JSON. `cuts_made` are this agent's, `cuts_heard` the others'; `capacity` is the
//! agent's rate per second at the end.

mod args;
#[path = "../shared/http.rs"]
mod http;
#[path = "../shared/options.rs"]
mod options;
#[path = "../shared/server.rs"]
mod server;

use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use args::{Args, USAGE, Upstream};
use http::{Answer, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tollgate::{
    CapacityUpdate, DistributedConfig, DistributedLimiter, Limit, NatsBus, Resource, UpdateKind,
};

type Updates = mpsc::UnboundedReceiver<CapacityUpdate>;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return Ok(stop.exit(USAGE)),
    };
    let (limiter, mut updates) = join(&args).await?;
    let api = limiter.configure("api", Limit::per_second(args.share.into()))?;
    let url = match &args.upstream {
        Upstream::At(url) => url.clone(),
        Upstream::Own { address, rate, burst } => server::start(address, *rate, *burst).await?,
    };
    println!("{}: {} a second to {url}", args.agent_id, args.share);

    let start = Instant::now();
    let senders: JoinSet<Tally> =
        (0..args.tasks).map(|_| send(Client::new(url.clone()), api.clone())).collect();
    let cuts = tell(&args, &mut updates, start).await;
    let capacity = api.capacity().per_window;

    let closed = limiter.close(); // takes effect at once, and ends the senders' waits
    let tally = senders.join_all().await.into_iter().fold(Tally::default(), Tally::plus);
    closed.await; // flushes pending announcements

    let Tally { ok, refused, failed } = tally;
    let (id, stats) = (&args.agent_id, limiter.stats());
    println!("{id}: {ok} x 200, {refused} x 429, {failed} x no answer or another status");
    println!(
        "{id}: {} messages sent, {} not for want of the bus, {} received",
        stats.sent, stats.not_sent, stats.received
    );
    println!(
        r#"{{"agent_id":{},"requests":{},"status_429":{refused},"cuts_made":{},"cuts_heard":{},"capacity":{capacity}}}"#,
        serde_json::Value::from(id.as_str()), // quoted
        ok + refused + failed,
        cuts.made,
        cuts.heard,
    );
    Ok(if ok + refused > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Joins the swarm. Returns the limiter and a stream of its capacity changes.
async fn join(args: &Args) -> Result<(DistributedLimiter, Updates), Box<dyn Error>> {
    let bus = NatsBus::connect(&args.nats).await;
    let bus = bus.map_err(|error| format!("no NATS at {}: {error}", args.nats))?;
    let limiter = DistributedLimiter::new(DistributedConfig {
        // Fast enough for a run of a few seconds. The default is a tenth every half minute.
        recovery_interval: Duration::from_secs(1),
        cooldown: Duration::from_secs(2),
        ..DistributedConfig::new(Arc::new(bus), args.agent_id.as_str())
    });
    let limiter = limiter.await?;
    let (tell, updates) = mpsc::unbounded_channel();
    // The callback runs on the thread that changes the limit, and printing could block that thread.
    limiter.on_capacity_change(move |update| _ = tell.send(update.clone()));
    Ok((limiter, updates))
}

/// Acquires a permit before each request, and reacts to refusals, until the limiter closes.
async fn send(mut client: Client, api: Resource) -> Tally {
    let mut tally = Tally::default();
    while let Ok(permit) = api.acquire().await {
        match client.get().await {
            Ok(Answer { status: 200, .. }) => tally.ok += 1,
            Ok(Answer { status: 429, retry_after }) => {
                // The pause is local; the cut is shared, one for all refusals of an incident.
                api.pause_for(retry_after.unwrap_or_default());
                permit.throttled("429 from the API");
                tally.refused += 1;
            }
            _ => tally.failed += 1,
        }
    }
    tally
}

/// Prints changes of the limit until the time is over, or Ctrl-C; returns the number of cuts.
async fn tell(args: &Args, updates: &mut Updates, start: Instant) -> Cuts {
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    let mut end = pin!(sleep_until(start + args.duration));
    let mut cuts = Cuts::default();
    loop {
        tokio::select! {
            Some(update) = updates.recv() => {
                let (id, at) = (&args.agent_id, start.elapsed().as_secs_f64());
                println!("{id}: {at:6.3} s: {} a second, {}", update.new_capacity, cuts.note(&update));
            }
            _ = &mut ctrl_c => return cuts,
            () = &mut end => return cuts,
        }
    }
}

/// The number of cuts by this agent and by others.
#[derive(Default)]
struct Cuts {
    made: u32,
    heard: u32,
}

impl Cuts {
    /// Counts the update and describes it.
    fn note(&mut self, update: &CapacityUpdate) -> String {
        let CapacityUpdate { agent_id, reason, .. } = update;
        match (update.kind, update.is_ours) {
            (UpdateKind::Cut, true) => {
                self.made += 1;
                format!("cut by this agent: {reason}")
            }
            (UpdateKind::Cut, false) => {
                self.heard += 1;
                let ago = update.timestamp.elapsed().unwrap_or_default();
                format!("cut by {agent_id} {:.1} ms ago: {reason}", ago.as_secs_f64() * 1e3)
            }
            _ => reason.clone(),
        }
    }
}

/// Outcomes of requests.
#[derive(Clone, Copy, Default)]
struct Tally {
    ok: u32,
    refused: u32,
    failed: u32,
}

impl Tally {
    fn plus(self, more: Self) -> Self {
        Self {
            ok: self.ok + more.ok,
            refused: self.refused + more.refused,
            failed: self.failed + more.failed,
        }
    }
}
