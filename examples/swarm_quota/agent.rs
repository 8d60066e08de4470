//! One agent: a process of its own, that sends as many requests as it may.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tollgate::async_nats::Client as NatsClient;
use tollgate::{
    DistributedConfig, DistributedLimiter, JetStreamConfig, JetStreamLedger, LedgerError,
    LedgerTerms, NatsBus, Resource,
};

use crate::args::Args;
use crate::http::{Client, Url};

/// Requests that it has in flight at most.
const TASKS: usize = 8;
const LOOK: Duration = Duration::from_millis(100);

/// Sends requests until its standard input ends.
pub(crate) async fn run(args: &Args, name: &str) -> Result<(), Box<dyn Error>> {
    let (Some(nats), Some(swarm), Some(url)) = (&args.nats, &args.swarm, &args.upstream) else {
        return Err("an agent needs --nats, --swarm and --upstream".into());
    };
    // The bus and the ledger share a connection.
    let client = NatsBus::options().name(name).connect(nats).await?;
    let bus = Arc::new(NatsBus::from(client.clone()));
    let mut config = DistributedConfig::new(bus, name);
    if args.is_shared {
        config.ledger = Some(Arc::new(ledger(client, swarm, args.term).await?));
    }
    let limiter = DistributedLimiter::new(config).await?;
    let api = if args.is_shared {
        limiter.share("api", args.agent_limit())?
    } else {
        limiter.configure("api", args.agent_limit())?
    };

    let senders: JoinSet<()> = (0..TASKS).map(|_| send(api.clone(), url.clone())).collect();
    let shown = tokio::spawn(show(api));
    spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    limiter.close().await; // tells the swarm that it leaves
    shown.abort();
    senders.join_all().await;
    Ok(())
}

/// The log of this run.
pub(crate) async fn ledger(
    client: NatsClient,
    swarm: &str,
    term: Duration,
) -> Result<JetStreamLedger, LedgerError> {
    let terms = LedgerTerms { term, ..LedgerTerms::DEFAULT };
    JetStreamLedger::new(client, JetStreamConfig { terms, ..JetStreamConfig::new(swarm) }).await
}

/// Sends one request after another, until the limiter is closed.
async fn send(api: Resource, url: Url) {
    let mut client = Client::new(url);
    while let Ok(permit) = api.acquire().await {
        // A process that was stopped meanwhile must not send by a share that others have by now.
        if permit.valid_until() == Some(Duration::ZERO) {
            continue;
        }
        let sent = micros();
        let status = client.get().await.map_or(0, |answer| answer.status);
        say(&format!("{sent} {status}"));
        drop(permit);
    }
}

/// Tells each change of the share.
async fn show(api: Resource) {
    let mut shown = None;
    loop {
        let share = api.capacity().share.map_or((0.0, 0.0), |share| (share.rate, share.burst));
        if shown.replace(share) != Some(share) {
            say(&format!("{} share {} {}", micros(), share.0, share.1));
        }
        sleep(LOOK).await;
    }
}

fn say(line: &str) {
    // If nobody listens, the standard input ends as well.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Since 1970: the same for all processes.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
