//! A share of a swarm's quota, beside a bucket on the same clock and one on the default clock.

use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::sleep;
use tollgate::{
    Clock, DistributedConfig, DistributedLimiter, Limit, MemoryBus, MemoryLedger, OnRelease,
    Resource,
};

use super::{Contender, Load};

pub(super) fn shared(load: Load) -> Vec<Contender> {
    let plain = load.resource(OnRelease::Spend);
    let boot = load.resource_by(Clock::boot_time(), OnRelease::Spend);
    let share = share(load);
    vec![
        Contender::new("tollgate, handle", |_| plain.check()),
        Contender::new("tollgate, boot time", |_| boot.check()),
        Contender::new("tollgate, a share", |_| share.check()),
    ]
}

/// All of a quota, which has no other agent. Its task runs on a thread of its own.
fn share(load: Load) -> &'static Resource {
    let (hand_over, resource) = channel();
    // The least of a quota of which an agent has a share.
    let limit = Limit::new(1, load.token).burst(u64::from(load.burst).max(2));
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut config = DistributedConfig::new(Arc::new(MemoryBus::new()), "bench");
            config.ledger = Some(Arc::new(MemoryLedger::new()));
            let limiter = DistributedLimiter::new(config).await.expect("an agent");
            let api = limiter.share("api", limit).expect("a share");
            while api.capacity().share.is_none_or(|share| share.burst < 1.0) {
                sleep(Duration::from_millis(10)).await;
            }
            hand_over.send(api).expect("somebody who waits");
            pending::<()>().await;
        });
    });
    // It begins empty.
    Box::leak(Box::new(resource.recv().expect("a share")))
}
