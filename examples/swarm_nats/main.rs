//! One agent of a swarm: start several, and see how what one of them is told slows all of them down.
//!
//! ```text
//! nats-server &
//! alias agent='cargo run --quiet --release --features nats --example swarm_nats --'
//! agent --agent-id a --serve 127.0.0.1:8080 --seconds 12 &
//! agent --agent-id b --upstream http://127.0.0.1:8080/ &
//! agent --agent-id c --upstream http://127.0.0.1:8080/
//! ```
//!
//! Each of the three may send 20 requests a second, and the upstream, which one of them is, allows 40
//! in all. When it has had enough one agent is told 429, and a millisecond later all are at half.
//! They recover together, by a tenth a second, until the upstream has had enough again. Stop the NATS
//! server in the middle and start it again: each goes on by itself, and they find together again.
//! Ctrl-C ends an agent early, but properly.
//!
//! The last line is JSON. `cuts_made` are this agent's, `cuts_heard` the others'; `capacity` is what
//! the agent may send a second at the end.

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

    let closed = limiter.close(); // at once, which ends the senders' waits
    let tally = senders.join_all().await.into_iter().fold(Tally::default(), Tally::plus);
    closed.await; // and says what was not yet said

    let Tally { ok, refused, failed } = tally;
    let (id, stats) = (&args.agent_id, limiter.stats());
    println!("{id}: {ok} x 200, {refused} x 429, {failed} x no answer or another status");
    println!(
        "{id}: {} messages sent, {} not for want of the bus, {} received",
        stats.sent, stats.not_sent, stats.received
    );
    println!(
        r#"{{"agent_id":{},"requests":{},"status_429":{refused},"cuts_made":{},"cuts_heard":{},"capacity":{capacity}}}"#,
        serde_json::Value::from(id.as_str()), // in quotes
        ok + refused + failed,
        cuts.made,
        cuts.heard,
    );
    Ok(if ok + refused > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A limiter of the swarm, and what changes its limits, as it comes.
async fn join(args: &Args) -> Result<(DistributedLimiter, Updates), Box<dyn Error>> {
    let bus = NatsBus::connect(&args.nats).await;
    let bus = bus.map_err(|error| format!("no NATS at {}: {error}", args.nats))?;
    let limiter = DistributedLimiter::new(DistributedConfig {
        // So that a few seconds show it. The default is a tenth each half minute.
        recovery_interval: Duration::from_secs(1),
        cooldown: Duration::from_secs(2),
        ..DistributedConfig::new(Arc::new(bus), args.agent_id.as_str())
    });
    let limiter = limiter.await?;
    let (tell, updates) = mpsc::unbounded_channel();
    // Whoever changes a limit calls this, and should not have to wait until it is printed.
    limiter.on_capacity_change(move |update| _ = tell.send(update.clone()));
    Ok((limiter, updates))
}

/// Ask before each request, and heed the server where it refuses one. Until the limiter closes.
async fn send(mut client: Client, api: Resource) -> Tally {
    let mut tally = Tally::default();
    while let Ok(permit) = api.acquire().await {
        match client.get().await {
            Ok(Answer { status: 200, .. }) => tally.ok += 1,
            Ok(Answer { status: 429, retry_after }) => {
                // The pause is this agent's own. The cut is the swarm's: however many requests of
                // however many agents are refused in one go, it is made once.
                api.pause_for(retry_after.unwrap_or_default());
                permit.throttled("429 from the API");
                tally.refused += 1;
            }
            _ => tally.failed += 1,
        }
    }
    tally
}

/// Print what changes the limit until the time is over, or Ctrl-C; how often it was cut.
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

/// How often who cut.
#[derive(Default)]
struct Cuts {
    made: u32,
    heard: u32,
}

impl Cuts {
    /// Count it, and put it in words.
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

/// What became of requests.
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
