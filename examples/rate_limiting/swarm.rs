//! Part 2: two agents share an upstream, over any bus.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tollgate::{CapacityUpdate, DistributedConfig, DistributedLimiter, MessageBus};

const SECOND: Duration = Duration::from_secs(1);
const REQUESTS: usize = 8;
/// Longer than an announcement takes on any bus.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn tour(bus: Arc<dyn MessageBus>) -> Result<(), Box<dyn Error>> {
    let agents = [join(&bus, "agent-1").await?, join(&bus, "agent-2").await?];
    println!("Two agents sharing 'shared-api' rate limit (10/sec each):");
    show("  ", &agents);

    println!("\nBoth agents making requests concurrently...");
    let [first, second] = &agents;
    let (by_first, by_second) = tokio::join!(requests(first), requests(second));
    println!("  Agent-1 successful requests: {by_first}");
    println!("  Agent-2 successful requests: {by_second}");

    println!("\nAgent-1 receives 429 response and announces reduced capacity...");
    println!("  Before announcement:");
    show("    ", &agents);
    let mut heard = updates(second);
    first.announce_reduced("shared-api", "received 429 from API");
    let update = timeout(TIMEOUT, heard.recv()).await.ok().flatten();
    let update = update.ok_or("agent-2 did not hear of the cut")?;
    println!("  After announcement (both agents reduce capacity):");
    show("    ", &agents);

    for agent in &agents {
        agent.close().await;
    }
    let told = (update.agent_id.as_str(), update.reason.as_str());
    if told != ("agent-1", "received 429 from API") {
        return Err(format!("agent-2 heard of another cut: {update:?}").into());
    }
    Ok(())
}

async fn join(bus: &Arc<dyn MessageBus>, id: &str) -> Result<DistributedLimiter, Box<dyn Error>> {
    let agent = DistributedLimiter::new(DistributedConfig::new(Arc::clone(bus), id)).await?;
    // Each agent has its own limit and bucket: only cuts are shared.
    agent.set_capacity("shared-api", 10, SECOND)?;
    Ok(agent)
}

/// A stream of the agent's capacity changes.
fn updates(agent: &DistributedLimiter) -> mpsc::UnboundedReceiver<CapacityUpdate> {
    let (tell, updates) = mpsc::unbounded_channel();
    agent.on_capacity_change(move |update| {
        let _ = tell.send(update.clone()); // no error if the receiver is gone
    });
    updates
}

/// Sends requests concurrently; returns how many succeeded.
async fn requests(agent: &DistributedLimiter) -> usize {
    let requests: JoinSet<bool> = (0..REQUESTS).map(|_| request(agent.clone())).collect();
    requests.join_all().await.into_iter().filter(|succeeded| *succeeded).count()
}

async fn request(agent: DistributedLimiter) -> bool {
    let Ok(_permit) = agent.acquire("shared-api").timeout(SECOND).await else { return false };
    sleep(Duration::from_millis(50)).await; // the call; its permit ends with it
    true
}

fn show(indent: &str, agents: &[DistributedLimiter; 2]) {
    for (number, agent) in (1..).zip(agents) {
        if let Some(capacity) = agent.capacity("shared-api") {
            // The usual text, with the agent instead of the resource.
            let capacity = capacity.to_string().replace("shared-api", &format!("Agent-{number}"));
            println!("{indent}{capacity}");
        }
    }
}
