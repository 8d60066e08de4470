use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::task::random;
use crate::bus::MemoryBus;
use crate::clock::Clock;
use crate::ledger::{
    Follower, Ledger, LedgerEntry, LedgerError, LedgerFuture, LedgerTerms, MemoryLedger,
};
use crate::limiter::Limit;
use crate::swarm::{DistributedConfig, DistributedLimiter};
use crate::sync::{AtomicU64, Ordering};

const LIMIT: Limit = Limit::per_second(10);

async fn agent(clock: Clock, ledger: impl Ledger + 'static) -> DistributedLimiter {
    let mut config = DistributedConfig::new(Arc::new(MemoryBus::new()), "agent");
    config.ledger = Some(Arc::new(ledger));
    config.clock = clock;
    DistributedLimiter::new(config).await.expect("an agent")
}

/// Two copies of a process that drew the same numbers would find the same row, and both spend it.
#[test]
fn a_copy_of_the_process_draws_other_numbers() {
    let draw = || {
        fastrand::seed(7);
        random().expect("random numbers")
    };
    assert_ne!(draw(), draw());
}

/// A coarse clock stands still in a forked child, and does not count suspend.
#[tokio::test]
async fn a_share_is_never_timed_by_a_coarse_clock() {
    let coarse = Clock::coarse(Duration::from_millis(1));
    let limiter = agent(coarse, MemoryLedger::new()).await;
    assert!(!limiter.clock().is_of_machine() || cfg!(not(target_os = "linux")));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_resources_that_were_removed() {
    let limiter = agent(Clock::tokio(), MemoryLedger::new()).await;
    for n in 0..50 {
        let name = format!("tenant-{n}");
        limiter.share(&name, LIMIT).expect("a share");
        assert!(limiter.remove(&name));
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(limiter.0.quotas.running.lock().len(), 0);
    let metrics = tokio::runtime::Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    limiter.share("api", LIMIT).expect("a share");
    assert!(metrics.num_alive_tasks() > tasks);
    assert_eq!(limiter.0.quotas.running.lock().len(), 1);
}

/// A ledger that never answers an append.
#[derive(Default)]
struct Stuck {
    ledger: MemoryLedger,
    in_flight: Arc<AtomicU64>,
}

struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ledger for Stuck {
    fn terms(&self) -> LedgerTerms {
        self.ledger.terms()
    }
    fn append<'a>(
        &'a self,
        _: &'a str,
        _: Vec<u8>,
        _: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let guard = InFlight(Arc::clone(&self.in_flight));
        Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        })
    }
    fn follow<'a>(
        &'a self,
        resource: &'a str,
        last: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>> {
        self.ledger.follow(resource, last)
    }
}

#[tokio::test(start_paused = true)]
async fn appends_that_hang_do_not_pile_up() {
    let stuck = Stuck::default();
    let in_flight = Arc::clone(&stuck.in_flight);
    let limiter = agent(Clock::tokio(), stuck).await;
    limiter.share("api", LIMIT).expect("a share");
    sleep(Duration::from_secs(600)).await;
    let in_flight = in_flight.load(Ordering::Relaxed);
    assert!((1..=20).contains(&in_flight), "{in_flight}");
}
