//! What the suites of the swarm share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::{
    CapacityUpdate, Clock, DistributedConfig, DistributedLimiter, MemoryBus, MessageBus,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// More than a message takes, and less than anything recovers.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(20);

/// As an agent of agentkit (Go) sends it.
pub(crate) const GO: &str = r#"{"resource":"shared-api","agent_id":"go-agent-1","new_capacity":5,"reason":"received 429","timestamp":"2026-11-23T23:38:48.858236705Z"}"#;

pub(crate) fn config(bus: &Arc<dyn MessageBus>, id: &str) -> DistributedConfig {
    DistributedConfig { clock: Clock::tokio(), ..DistributedConfig::new(Arc::clone(bus), id) }
}

pub(crate) fn memory() -> Arc<dyn MessageBus> {
    Arc::new(MemoryBus::new())
}

pub(crate) async fn agent(
    bus: &Arc<dyn MessageBus>,
    id: &str,
    capacity: u64,
) -> DistributedLimiter {
    let agent = DistributedLimiter::new(config(bus, id)).await.unwrap();
    agent.set_capacity("shared-api", capacity, SECOND).unwrap();
    agent
}

pub(crate) fn total(agent: &DistributedLimiter) -> u64 {
    agent.capacity("shared-api").unwrap().burst
}

pub(crate) fn updates(agent: &DistributedLimiter) -> Arc<Mutex<Vec<CapacityUpdate>>> {
    let updates = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&updates);
    agent.on_capacity_change(move |update| told.lock().unwrap().push(update.clone()));
    updates
}
