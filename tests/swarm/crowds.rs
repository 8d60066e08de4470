//! A thousand agents on one bus: they come to rest, and wake for an incident.

use crate::common::swarm::{SECOND, agent, memory, total};
use tokio::time::sleep;
use tollgate::DistributedLimiter;

fn sent(agents: &[DistributedLimiter]) -> Vec<u64> {
    agents.iter().map(|agent| agent.stats().sent).collect()
}

#[tokio::test(start_paused = true)]
async fn twelve_hundred_agents_with_nothing_to_say_are_silent() {
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..1_200 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    sleep(3 * SECOND).await;
    let before = sent(&agents);
    assert!(before.iter().sum::<u64>() <= 3 * 1_200);
    sleep(10 * SECOND).await;
    assert_eq!(sent(&agents), before);
    assert!(agents.iter().all(|agent| agent.stats().lost == 0));
}

#[tokio::test(start_paused = true)]
async fn one_incident_of_a_thousand_agents_is_few_messages() {
    fastrand::seed(2026);
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..1_000 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    sleep(3 * SECOND).await;
    let before = sent(&agents).iter().sum::<u64>();
    agents[7].announce_reduced("shared-api", "429");
    sleep(SECOND).await;
    assert!(agents.iter().all(|agent| total(agent) == 5));
    sleep(9 * SECOND).await;
    let after = sent(&agents).iter().sum::<u64>() - before;
    assert!(after <= 20, "{after} messages in 10 s");
}
