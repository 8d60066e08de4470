//! Two agents that share an upstream, as the tour shows them: on whichever bus they have.

use std::sync::Arc;
use std::time::Duration;

use super::watchdog::HANG;
use tokio::time::{sleep, timeout};
use tollgate::{DistributedConfig, DistributedLimiter, MessageBus};

const API: &str = "shared-api";

/// On the machine's time: one incident and no recovery, however long the machine takes.
async fn join(bus: Arc<dyn MessageBus>, id: &str) -> DistributedLimiter {
    let hour = Duration::from_secs(60 * 60);
    let config = DistributedConfig {
        recovery_interval: hour,
        cooldown: hour,
        ..DistributedConfig::new(bus, id)
    };
    let agent = DistributedLimiter::new(config).await.expect("an agent");
    agent.set_capacity(API, 10, Duration::from_secs(1)).expect("a limit");
    agent
}

fn shown(agent: &DistributedLimiter) -> String {
    agent.capacity(API).expect("it was configured").to_string()
}

pub(crate) async fn part_two(bus_1: Arc<dyn MessageBus>, bus_2: Arc<dyn MessageBus>) {
    let agents = [join(bus_1, "agent-1").await, join(bus_2, "agent-2").await];
    let full = "shared-api: 10/10 available, 0 in-flight, window=1s";
    for agent in &agents {
        assert_eq!(shown(agent), full);
    }
    for agent in &agents {
        let permits: Vec<_> = (0..8).map(|_| agent.try_acquire(API).expect("a token")).collect();
        assert_eq!(shown(agent), "shared-api: 2/10 available, 8 in-flight, window=1s");
        drop(permits);
        assert_eq!(shown(agent), full);
    }
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    agents[1].on_capacity_change(move |update| _ = told.send(update.clone()));
    agents[0].announce_reduced(API, "received 429");
    let half = "shared-api: 5/5 available, 0 in-flight, window=1s";
    assert_eq!(shown(&agents[0]), half);
    let update = timeout(HANG, tells.recv()).await.expect("an update").unwrap();
    assert_eq!((update.agent_id.as_str(), update.new_capacity), ("agent-1", 5));
    assert_eq!((update.reason.as_str(), update.is_ours), ("received 429", false));
    assert_eq!(shown(&agents[1]), half);
    // The second agent's refusals are of the same incident.
    agents[1].announce_reduced(API, "received 429, too");
    sleep(Duration::from_millis(50)).await;
    for agent in &agents {
        assert_eq!(shown(agent), half);
        agent.close().await;
    }
}
