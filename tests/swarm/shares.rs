//! A quota that agents share, over a ledger in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tollgate::{
    Clock, ConfigError, DistributedConfig, DistributedLimiter, Follower, Ledger, LedgerEntry,
    LedgerError, LedgerFuture, LedgerItem, LedgerTerms, Limit, MemoryBus, MemoryLedger, OnRelease,
    Resource, ShareError, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Limit = Limit::per_second(200).burst(20);

async fn agent(
    bus: &MemoryBus,
    ledger: &(impl Ledger + Clone + 'static),
    id: usize,
) -> DistributedLimiter {
    let mut config = DistributedConfig::new(Arc::new(bus.clone()), format!("agent-{id}"));
    config.ledger = Some(Arc::new(ledger.clone()) as Arc<dyn Ledger>);
    config.clock = Clock::tokio();
    DistributedLimiter::new(config).await.expect("an agent")
}

/// Spends all that it can, and says when.
async fn spend(api: Resource, until: Instant) -> Vec<Instant> {
    let mut times = Vec::new();
    loop {
        tokio::select! {
            permit = api.acquire() => {
                drop(permit.expect("a permit"));
                times.push(Instant::now());
            }
            () = sleep_until(until) => return times,
        }
    }
}

/// The most by which the admissions of a window exceed `rate` a second, in tokens.
fn excess(times: &mut [Instant], rate: f64) -> f64 {
    times.sort_unstable();
    let (mut excess, mut worst, mut last) = (0.0_f64, 0.0_f64, times[0]);
    for time in times {
        excess = (excess - (*time - last).as_secs_f64() * rate).max(0.0) + 1.0;
        (worst, last) = (worst.max(excess), *time);
    }
    worst
}

#[tokio::test(start_paused = true)]
async fn agents_use_all_of_a_quota_and_no_more() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let end = Instant::now() + Duration::from_secs(40);
    let mut agents = Vec::new();
    let mut spending = Vec::new();
    for id in 0..8 {
        let limiter = agent(&bus, &ledger, id).await;
        let api = limiter.share("api", LIMIT).expect("a share");
        spending.push(tokio::spawn(spend(api, end)));
        agents.push(limiter);
    }
    let begin = Instant::now() + Duration::from_secs(10);
    let mut times = Vec::new();
    for spent in spending {
        times.extend(spent.await.expect("a task"));
    }
    let used = times.iter().filter(|time| **time >= begin).count();
    assert!(excess(&mut times, 200.0 * 1.01) <= 20.0);
    assert!(used > 200 * 30 * 98 / 100, "{used}");
}

/// Callers that take all that there is, until the resource is closed.
fn busy(limiter: &DistributedLimiter) -> Resource {
    let api = limiter.share("api", LIMIT).expect("a share");
    let taken = api.clone();
    tokio::spawn(async move { while taken.acquire().await.is_ok() {} });
    api
}

/// The rate of an agent's share, in tokens a second.
fn rate(api: &Resource) -> f64 {
    api.capacity().share.expect("it is shared").rate
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_bounded_is_refused() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let config = DistributedConfig::new(Arc::new(bus.clone()), "alone");
    let alone = DistributedLimiter::new(config).await.expect("an agent");
    assert_eq!(alone.share("api", LIMIT).map(drop), Err(ShareError::NoLedger));

    let limiter = agent(&bus, &ledger, 1).await;
    let refused = |limit| limiter.share("api", limit).map(drop).expect_err("a refusal");
    assert_eq!(refused(LIMIT.on_release(OnRelease::Refund)), ShareError::Refunds);
    assert_eq!(refused(LIMIT.max_in_flight(5)), ShareError::InFlight);
    assert_eq!(refused(LIMIT.and(Limit::per_day(10_000))), ShareError::Windows);
    assert_eq!(refused(Limit::at_most(10, SECOND)), ShareError::Strict);
    assert_eq!(refused(LIMIT.adaptive(1, 500)), ShareError::Adaptive);
    assert_eq!(refused(Limit::per_second(1).burst(70_000_000)), ShareError::TooLarge);
    assert_eq!(refused(Limit::per_second(0)), ShareError::Config(ConfigError::InvalidCapacity));
    assert!(limiter.resource("api").is_none());

    let wrong = agent(&bus, &MemoryLedger::with_terms(SECOND / 100, 0.01), 2).await;
    assert_eq!(wrong.share("api", LIMIT).map(drop), Err(ShareError::InvalidTerms));

    limiter.share("api", LIMIT).expect("a share");
    assert_eq!(limiter.configure("api", LIMIT).map(drop), Err(ConfigError::Shared));
    limiter.close().await;
    assert_eq!(limiter.share("api", LIMIT).map(drop), Err(ShareError::Config(ConfigError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn agents_come_and_go() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let first = agent(&bus, &ledger, 1).await;
    let api = busy(&first);
    // The ledger knows that it is new.
    sleep(SECOND / 10).await;
    assert!((rate(&api) - 200.0).abs() < 0.01, "{}", rate(&api));
    sleep(10 * SECOND).await;

    let second = agent(&bus, &ledger, 2).await;
    let other = busy(&second);
    sleep(SECOND).await;
    assert!(rate(&api) < 101.0 && rate(&other) < 0.01);
    sleep(3 * SECOND).await;
    assert!((rate(&other) - 100.0).abs() < 0.01, "{}", rate(&other));

    // It says goodbye.
    second.close().await;
    sleep(4 * SECOND).await;
    assert!((rate(&api) - 200.0).abs() < 0.01, "{}", rate(&api));

    // Removed here, it is somebody else's.
    let third = agent(&bus, &ledger, 3).await;
    let other = busy(&third);
    sleep(5 * SECOND).await;
    assert!(first.remove("api"));
    sleep(6 * SECOND).await;
    assert!((rate(&other) - 200.0).abs() < 0.01, "{}", rate(&other));
}

/// Otherwise those that wait would do so for ever.
#[tokio::test(start_paused = true)]
async fn a_handle_that_outlives_the_limiter_fails() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let limiter = agent(&bus, &ledger, 1).await;
    let api = limiter.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    let waits = tokio::spawn({
        let api = api.clone();
        async move { while api.acquire().await.is_ok() {} }
    });
    drop(limiter);
    sleep(5 * SECOND).await;
    assert!(waits.is_finished());
    assert_eq!(api.check(), Err(TryAcquireError::Closed));
}

/// A process may end once this has returned. Otherwise the swarm would miss the agent only when it is silent.
#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_farewell() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let first = agent(&bus, &ledger, 1).await;
    first.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    let of_first = tasks();

    let second = agent(&bus, &ledger, 2).await;
    second.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    assert!(tasks() > of_first);
    // By the machine's time, `close` waits for 2.25 s at most.
    let patience = std::time::Instant::now();
    for (limiter, left) in [(second, of_first), (first, 0)] {
        let start = Instant::now();
        limiter.close().await;
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        // What it followed is aborted, which takes another turn.
        tokio::task::yield_now().await;
        assert!(tasks() == left || patience.elapsed() > 2 * SECOND, "{}, not {left}", tasks());
    }
}

#[tokio::test(start_paused = true)]
async fn the_lowest_limit_counts_and_can_be_changed() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let (first, second) = (agent(&bus, &ledger, 1).await, agent(&bus, &ledger, 2).await);
    let api = busy(&first);
    let other = busy(&second);
    sleep(25 * SECOND).await;
    assert!((rate(&api) + rate(&other) - 200.0).abs() < 0.01);
    first.share("api", Limit::per_second(100).burst(10)).expect("a share");
    sleep(5 * SECOND).await;
    assert!((rate(&api) + rate(&other) - 100.0).abs() < 0.01);
    second.share("api", Limit::per_second(100).burst(10)).expect("a share");
    for limiter in [&first, &second] {
        limiter.share("api", Limit::per_second(400).burst(40)).expect("a share");
    }
    sleep(5 * SECOND).await;
    assert!((rate(&api) + rate(&other) - 400.0).abs() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn a_call_for_more_than_a_share_has_its_turn() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let mut spending = Vec::new();
    let end = Instant::now() + 60 * SECOND;
    let mut agents = Vec::new();
    for id in 0..4 {
        let limiter = agent(&bus, &ledger, id).await;
        let api = limiter.share("api", LIMIT).expect("a share");
        if id > 0 {
            spending.push(tokio::spawn(spend(api, end)));
        }
        agents.push(limiter);
    }
    sleep(5 * SECOND).await;
    let api = agents[0].resource("api").expect("it is shared");
    assert!(matches!(api.check_n(21), Err(TryAcquireError::ExceedsCapacity { .. })));
    let large = api.acquire_n(15).timeout(30 * SECOND).await;
    assert!(large.is_ok(), "{large:?}");
}

#[tokio::test(start_paused = true)]
async fn cuts_of_the_swarm_act_on_top_of_the_share() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let (first, second) = (agent(&bus, &ledger, 1).await, agent(&bus, &ledger, 2).await);
    let api = busy(&first);
    let other = busy(&second);
    sleep(25 * SECOND).await;
    assert_eq!((api.capacity().per_window, other.capacity().per_window), (100, 100));
    api.announce_reduced("429");
    sleep(SECOND / 10).await;
    assert_eq!((api.capacity().per_window, other.capacity().per_window), (50, 50));
    assert!((rate(&other) - 100.0).abs() < 0.01);
}

/// A ledger in memory that can be taken away, and that can deliver entries again.
#[derive(Clone)]
struct Fragile {
    ledger: MemoryLedger,
    is_down: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    again: Arc<Mutex<Option<LedgerEntry>>>,
}

impl Fragile {
    fn new() -> Self {
        let is_down = Arc::new(AtomicBool::new(false));
        Self { ledger: MemoryLedger::new(), is_down, panics: Arc::default(), again: Arc::default() }
    }
    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }
}

impl Ledger for Fragile {
    fn terms(&self) -> LedgerTerms {
        self.ledger.terms()
    }
    fn append<'a>(
        &'a self,
        resource: &'a str,
        entry: Vec<u8>,
        last: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>> {
        if self.is_down() {
            return Box::pin(async { Err(LedgerError::Unavailable("down".to_string())) });
        }
        self.ledger.append(resource, entry, last)
    }
    fn follow<'a>(
        &'a self,
        resource: &'a str,
        last: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>> {
        Box::pin(async move {
            if self.is_down() {
                return Err(LedgerError::Unavailable("down".to_string()));
            }
            let follower = self.ledger.follow(resource, last).await?;
            let reader = FragileReader { follower, ledger: self.clone() };
            Ok(Box::new(reader) as Box<dyn Follower>)
        })
    }
}

struct FragileReader {
    follower: Box<dyn Follower>,
    ledger: Fragile,
}

impl Follower for FragileReader {
    fn next(&mut self) -> LedgerFuture<'_, Option<LedgerItem>> {
        Box::pin(async {
            if let Some(entry) = self.ledger.again.lock().expect("a lock").take() {
                return Some(LedgerItem::Entry(entry));
            }
            let item = self.follower.next().await?;
            assert!(!self.ledger.panics.swap(false, Ordering::Relaxed), "a fault of the ledger");
            (!self.ledger.is_down()).then_some(item)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_ledger_shares_end_and_come_back() {
    let (bus, ledger) = (MemoryBus::new(), Fragile::new());
    let limiter = agent(&bus, &ledger, 1).await;
    let api = limiter.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    assert!(rate(&api) > 199.0);
    ledger.is_down.store(true, Ordering::Relaxed);
    sleep(3 * SECOND).await;
    assert!(rate(&api) < 0.01);
    let refused = api.check().expect_err("no share");
    assert!(refused.retry_after().is_some(), "{refused:?}");
    // A waiter stays, and is served when the ledger is back.
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { api.acquire().await.map(|permit| permit.valid_until()) }
    });
    sleep(60 * SECOND).await;
    assert!(!waiting.is_finished());
    ledger.is_down.store(false, Ordering::Relaxed);
    let valid = waiting.await.expect("a task").expect("a permit");
    assert!(valid > Some(Duration::ZERO), "{valid:?}");
    sleep(4 * SECOND).await;
    assert!(rate(&api) > 199.0);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_panics_is_followed_again() {
    let (bus, ledger) = (MemoryBus::new(), Fragile::new());
    let limiter = agent(&bus, &ledger, 1).await;
    let api = limiter.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    ledger.panics.store(true, Ordering::Relaxed);
    sleep(10 * SECOND).await;
    assert!(!ledger.panics.load(Ordering::Relaxed));
    assert!(rate(&api) > 199.0, "{}", rate(&api));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_repeats_old_entries_ends_the_share() {
    let (bus, ledger) = (MemoryBus::new(), Fragile::new());
    let limiter = agent(&bus, &ledger, 1).await;
    let api = limiter.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    let mut follower = ledger.ledger.follow("api", None).await.expect("a log");
    let Some(LedgerItem::Entry(old)) = follower.next().await else { panic!("an entry") };
    sleep(2 * SECOND).await;
    assert!(rate(&api) > 199.0);
    *ledger.again.lock().expect("a lock") = Some(old);
    sleep(SECOND).await;
    assert!(rate(&api) < 0.01, "{}", rate(&api));
    sleep(5 * SECOND).await;
    assert!(rate(&api) > 199.0);
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_no_tables_end_the_share_and_break_nothing() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let limiter = agent(&bus, &ledger, 1).await;
    let api = limiter.share("api", LIMIT).expect("a share");
    sleep(5 * SECOND).await;
    for junk in [&b""[..], b"\x01", b"{}", &[1; 200], &[255; 5_000]] {
        // Until one gets in between the agent's own.
        let appended = async {
            for last in 0..1_000 {
                if ledger.append("api", junk.to_vec(), last).await.is_ok() {
                    return true;
                }
            }
            false
        };
        assert!(appended.await);
        sleep(SECOND / 10).await;
        assert!(rate(&api) < 0.01);
        sleep(4 * SECOND).await;
        assert!(rate(&api) > 199.0, "{}", rate(&api));
    }
}

/// One agent wants most of it, three want little.
#[tokio::test(start_paused = true)]
async fn an_agent_gets_what_others_do_not_want() {
    let (bus, ledger) = (MemoryBus::new(), MemoryLedger::new());
    let end = Instant::now() + 60 * SECOND;
    let mut agents = Vec::new();
    for id in 0..4 {
        let limiter = agent(&bus, &ledger, id).await;
        agents.push(limiter.share("api", LIMIT).map(|api| (limiter, api)).expect("a share"));
    }
    let busy = tokio::spawn(spend(agents[0].1.clone(), end));
    for (_, api) in &agents[1..] {
        let api = api.clone();
        tokio::spawn(async move {
            loop {
                let _ = api.check();
                sleep(SECOND / 5).await;
            }
        });
    }
    let times = busy.await.expect("a task");
    let late = times.iter().filter(|time| **time > end - 30 * SECOND).count();
    assert!(late > 30 * 120, "{late}");
}
