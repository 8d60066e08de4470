//! An agent of a quota that wants nothing for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tollgate::{Clock, DistributedConfig, DistributedLimiter, Limit, MemoryBus, MemoryLedger};

async fn agents() -> Vec<DistributedLimiter> {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let mut agents = Vec::new();
    for id in 0..8 {
        let mut config = DistributedConfig::new(Arc::new(bus.clone()), format!("agent-{id}"));
        config.ledger = Some(Arc::new(ledger.clone()));
        config.clock = Clock::tokio();
        let limiter = DistributedLimiter::new(config).await.expect("an agent");
        let api = limiter.share("api", Limit::per_second(200).burst(20)).expect("a share");
        // All but the first take all that they can.
        if id > 0 {
            tokio::spawn(async move { while api.acquire().await.is_ok() {} });
        }
        agents.push(limiter);
    }
    sleep(Duration::from_secs(20)).await;
    agents
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_has_its_burst_at_once() {
    let agents = agents().await;
    for _ in 0..5 {
        sleep(Duration::from_secs(17)).await;
        let began = Instant::now();
        drop(agents[0].acquire("api").await.expect("a permit"));
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_idle_agent_does_not_use_others_do() {
    let agents = agents().await;
    let (mut sum, looks) = (0.0, 200);
    for _ in 0..looks {
        sleep(Duration::from_millis(500)).await;
        let shares = agents[1..].iter().filter_map(|agent| agent.capacity("api")?.share);
        sum += shares.map(|share| share.rate).sum::<f64>() / f64::from(looks);
    }
    assert!(sum > 190.0, "{sum} of 200");
}
