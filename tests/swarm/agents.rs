//! Agents on one bus: what they tell each other, and what comes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::swarm::{A_MOMENT, SECOND, agent, config, memory, total, updates};
use tokio::time::{Instant, sleep, timeout};
use tollgate::{
    BusError, BusFuture, Delivery, DistributedConfig, DistributedLimiter, Limit, ManualClock,
    MemoryBus, MessageBus, RateLimiter, Subscription, SwarmError, TryAcquireError, UpdateKind,
};

#[tokio::test]
async fn the_tour() {
    let bus = memory();
    crate::common::part_two::part_two(Arc::clone(&bus), bus).await;
}

#[tokio::test(start_paused = true)]
async fn one_hears_429_and_all_slow_down_and_recover_together() {
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..10 {
        agents.push(agent(&bus, &format!("agent-{i}"), 10).await);
    }
    let (ours, theirs) = (updates(&agents[0]), updates(&agents[9]));
    agents[0].announce_reduced("shared-api", "received 429");
    assert_eq!(total(&agents[0]), 5, "at once");
    sleep(A_MOMENT).await;
    for agent in &agents {
        assert_eq!(
            agent.capacity("shared-api").unwrap().to_string(),
            "shared-api: 5/5 available, 0 in-flight, window=1s"
        );
    }
    let (ours, theirs) =
        (ours.lock().unwrap().pop().unwrap(), theirs.lock().unwrap().pop().unwrap());
    for update in [&ours, &theirs] {
        assert_eq!((update.resource.as_str(), update.agent_id.as_str()), ("shared-api", "agent-0"));
        assert_eq!((update.new_capacity, update.kind), (5, UpdateKind::Cut));
        assert_eq!(update.reason, "received 429");
        assert_eq!(update.timestamp, ours.timestamp);
    }
    assert!(ours.is_ours && !theirs.is_ours);
    let start = Instant::now() - A_MOMENT;
    // 0.5 x 1.1^k of 10, rounded down.
    for (k, expected) in
        [(1_u32, 5), (2, 6), (3, 6), (4, 7), (5, 8), (6, 8), (7, 9), (8, 10), (9, 10)]
    {
        tokio::time::sleep_until(start + 30 * k * SECOND + A_MOMENT).await;
        for agent in &agents {
            assert_eq!(total(agent), expected, "after {k} steps");
        }
    }
    assert!(agents.iter().all(|agent| agent.stats().malformed == 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_refusals_at_once_are_one_cut() {
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..10 {
        let agent = agent(&bus, &i.to_string(), 100).await;
        agent.configure("shared-api", Limit::per_second(100)).unwrap();
        agents.push(agent);
    }
    let permits: Vec<_> = (agents.iter())
        .flat_map(|agent| (0..100).map(|_| agent.try_acquire("shared-api").unwrap()))
        .collect();
    for (i, permit) in permits.iter().enumerate() {
        if i % 2 == 0 {
            permit.throttled("429");
        } else {
            agents[i % 10].announce_reduced("shared-api", "429");
        }
    }
    sleep(A_MOMENT).await;
    assert!(agents.iter().all(|agent| total(agent) == 50));
    // Answers that come late are of the same incident, if their request was sent before.
    sleep(10 * SECOND).await;
    for permit in &permits {
        permit.throttled("429");
    }
    sleep(A_MOMENT).await;
    assert!(agents.iter().all(|agent| total(agent) == 50));
    // A second incident cuts again, and again once.
    for agent in &agents {
        agent.try_acquire("shared-api").unwrap().throttled("429");
        agent.announce_reduced("shared-api", "429");
    }
    sleep(A_MOMENT).await;
    assert!(agents.iter().all(|agent| total(agent) == 25));
}

#[tokio::test(start_paused = true)]
async fn without_a_cooldown_each_announcement_cuts() {
    let bus = memory();
    let config = DistributedConfig { cooldown: Duration::ZERO, ..config(&bus, "a") };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.set_capacity("shared-api", 10, SECOND).unwrap();
    for expected in [5, 2, 1, 1] {
        agent.announce_reduced("shared-api", "429");
        assert_eq!(total(&agent), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn shares_may_be_unequal() {
    let bus = memory();
    let (ten, fifty) = (agent(&bus, "a", 10).await, agent(&bus, "b", 50).await);
    let thousand = agent(&bus, "c", 1_000).await;
    thousand.configure("shared-api", Limit::per_minute(1_000).burst(100)).unwrap();
    fifty.announce_reduced("shared-api", "429");
    sleep(A_MOMENT).await;
    assert_eq!((total(&ten), total(&fifty), total(&thousand)), (5, 25, 50));
    assert_eq!(thousand.capacity("shared-api").unwrap().per_window, 500);
    // Below one token each goes on at the swarm's factor.
    for _ in 0..5 {
        sleep(6 * SECOND).await;
        thousand.announce_reduced("shared-api", "429");
    }
    sleep(A_MOMENT).await;
    assert_eq!((total(&ten), total(&fifty), total(&thousand)), (1, 1, 1));
    assert_eq!(thousand.capacity("shared-api").unwrap().per_window, 15, "of 1,000, after six cuts");
}

/// A key is cut with its neighbours while it is there, and no cut that is heard of makes one.
#[tokio::test(start_paused = true)]
async fn keys_are_cut_together_where_they_are() {
    let bus = memory();
    let [one, other] = [agent(&bus, "one", 100).await, agent(&bus, "other", 100).await];
    for agent in [&one, &other] {
        agent.per_key_at_most("user:", Limit::per_second(100), 1).unwrap();
    }
    assert!(other.check("user:there").is_ok());
    one.announce_reduced("user:there", "429");
    sleep(A_MOMENT).await;
    let burst = |agent: &DistributedLimiter, name| agent.capacity(name).unwrap().burst;
    assert_eq!((burst(&one, "user:there"), burst(&other, "user:there")), (50, 50));
    assert_eq!(burst(&other, "user:new"), 100);
    // It stays there while it is cut, and so there is room for no other.
    let full = TryAcquireError::TooManyKeys { most: 1 };
    assert_eq!(other.check("user:new"), Err(full));
    sleep(600 * SECOND).await;
    assert!(other.check("user:new").is_ok());
    assert_eq!(burst(&other, "user:there"), 100);

    let third = agent(&bus, "third", 100).await;
    third.per_key_at_most("user:", Limit::per_second(100), 1).unwrap();
    one.announce_reduced("user:new", "429");
    sleep(A_MOMENT).await;
    assert_eq!(burst(&other, "user:new"), 50);
    assert_eq!(burst(&third, "user:new"), 100);
    assert!(third.check("user:another").is_ok());
    assert!(third.remove_per_key("user:"));
}

/// Long after the cut, before it is told again.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_first_used_after_it_was_cut_elsewhere_is_cut_at_once() {
    fastrand::seed(2026);
    let bus = memory();
    let [one, other] = [agent(&bus, "one", 100).await, agent(&bus, "other", 100).await];
    for agent in [&one, &other] {
        agent.per_key("user:", Limit::per_second(100)).unwrap();
    }
    for i in 0..100 {
        one.announce_reduced(&format!("user:{i}"), "429");
    }
    sleep(60 * SECOND).await;
    let late = agent(&bus, "late", 100).await;
    late.per_key("user:", Limit::per_second(100)).unwrap();
    sleep(SECOND).await;
    // By a check, a permit, a wait, or as a resource of its own.
    for agent in [&other, &late] {
        assert!(agent.check("user:1").is_ok());
        agent.try_acquire("user:2").unwrap().spend();
        agent.acquire("user:3").await.unwrap().spend();
        agent.configure("user:4", Limit::per_second(100)).unwrap();
        sleep(A_MOMENT).await;
        for i in 1..=4 {
            assert_eq!(agent.capacity(&format!("user:{i}")).unwrap().burst, 60, "{i}");
        }
        assert!(agent.check("user:new").is_ok());
        sleep(A_MOMENT).await;
        assert_eq!(agent.capacity("user:new").unwrap().burst, 100);
    }
    // On the same schedule.
    sleep(29 * SECOND).await;
    assert!([&one, &other, &late].iter().all(|a| a.capacity("user:1").unwrap().burst == 66));
    // And once it has recovered there is nothing to apply.
    sleep(300 * SECOND).await;
    assert!(other.check("user:50").is_ok());
    sleep(A_MOMENT).await;
    assert_eq!(other.capacity("user:50").unwrap().burst, 100);
}

#[tokio::test(start_paused = true)]
async fn late_joiners_learn_within_a_second() {
    fastrand::seed(2026); // of when who answers
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..20 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    agents[3].announce_reduced("shared-api", "429");
    sleep(60 * SECOND + A_MOMENT).await;
    let mut state = bus.subscribe("ratelimit.state").await.unwrap();
    let late = DistributedLimiter::new(config(&bus, "late")).await.unwrap();
    sleep(10 * SECOND).await;
    while timeout(A_MOMENT, state.next()).await.is_ok() {}
    // Joining is configuring: before, the cut was of an unknown resource.
    late.set_capacity("shared-api", 100, SECOND).unwrap();
    assert_eq!(total(&late), 100);
    sleep(SECOND).await;
    assert_eq!(total(&late), 60, "0.5 x 1.1^2");
    let mut answers = 0;
    while timeout(Duration::from_millis(1), state.next()).await.is_ok() {
        answers += 1;
    }
    assert!(answers <= 10, "{answers} of 20 agents answered");
    // And is on the others' schedule.
    sleep(19 * SECOND).await;
    assert!(total(&late) == 66 && agents.iter().all(|agent| total(agent) == 6));
}

/// However many messages it takes: what one has said the others do not.
#[tokio::test(start_paused = true)]
async fn many_agents_say_much_in_few_messages() {
    fastrand::seed(2026); // of when who speaks
    let (bus, names) = (memory(), (0..300).map(|i| format!("{i:0200}")).collect::<Vec<_>>());
    let mut agents = Vec::new();
    for i in 0..8 {
        let agent = DistributedLimiter::new(config(&bus, &i.to_string())).await.unwrap();
        for name in &names {
            agent.set_capacity(name, 10, SECOND).unwrap();
        }
        agents.push(agent);
    }
    for (i, name) in names.iter().enumerate() {
        agents[i % 8].announce_reduced(name, "429");
        sleep(Duration::from_millis(1)).await;
    }
    sleep(20 * SECOND).await;
    let sent = || agents.iter().map(|agent| agent.stats().sent).sum::<u64>();
    let before = sent();
    sleep(60 * SECOND).await;
    let messages = sent() - before;
    // Two each time, a dozen times: not eight times as many.
    assert!((24..=60).contains(&messages), "{messages} in a minute");
}

/// Whoever lost messages asks what was in them.
#[tokio::test(start_paused = true)]
async fn an_agent_that_was_too_slow_asks_again() {
    let bus = memory();
    let (a, slow) = (agent(&bus, "a", 10).await, agent(&bus, "slow", 10).await);
    sleep(2 * SECOND).await;
    a.announce_reduced("shared-api", "429");
    sleep(10 * SECOND).await;
    let mut queries = bus.subscribe("ratelimit.query").await.unwrap();
    // More than its buffer holds, before it has a turn.
    for _ in 0..20 {
        bus.publish("ratelimit.capacity", vec![b'['; 1 << 20]).await.unwrap();
    }
    sleep(A_MOMENT).await;
    let stats = slow.stats();
    assert_eq!((stats.lost, stats.malformed), (5, 15));
    // Both have lost the same, and one asks for both.
    let Ok(Some(Delivery::Message(query))) = timeout(SECOND / 4, queries.next()).await else {
        panic!("a query")
    };
    assert!(String::from_utf8(query).unwrap().contains("\"instance\""));
    assert!(timeout(SECOND, queries.next()).await.is_err());
    // Lost queries are no reason to ask.
    for _ in 0..20 {
        bus.publish("ratelimit.query", vec![b'['; 1 << 20]).await.unwrap();
    }
    sleep(A_MOMENT).await;
    assert_eq!((a.stats().lost, slow.stats().lost), (10, 10));
    while timeout(A_MOMENT, queries.next()).await.is_ok() {}
    assert!(timeout(10 * SECOND, queries.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn recovery_is_told_on_time_though_nobody_acquires() {
    let bus = memory();
    let agent = agent(&bus, "a", 10).await;
    let told = updates(&agent);
    let times = Arc::new(Mutex::new(Vec::new()));
    let (noted, start) = (Arc::clone(&times), Instant::now());
    agent.on_capacity_change(move |_| noted.lock().unwrap().push(start.elapsed().as_secs()));
    agent.announce_reduced("shared-api", "429");
    sleep(300 * SECOND).await;
    let told: Vec<_> =
        told.lock().unwrap().drain(..).map(|u| (u.kind, u.new_capacity, u.is_ours)).collect();
    let recovery = |capacity| (UpdateKind::Recovery, capacity, true);
    let expected = [5, 6, 7, 8, 9, 10].map(recovery);
    assert_eq!((told[0], &told[1..]), ((UpdateKind::Cut, 5, true), &expected[1..]));
    assert_eq!(*times.lock().unwrap(), [0, 60, 120, 150, 210, 240]);
}

/// The runtime's time stands still: only the manual clock's alarms call the agent.
#[tokio::test(start_paused = true)]
async fn a_manual_clock_recovers_by_its_own_time() {
    let (bus, time) = (memory(), ManualClock::new());
    let config =
        DistributedConfig { clock: time.clone().into(), ..DistributedConfig::new(bus, "a") };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.set_capacity("shared-api", 10, SECOND).unwrap();
    let told = updates(&agent);
    agent.announce_reduced("shared-api", "429");
    // 10 x 0.5 x 1.1^k.
    let capacities = [5, 5, 6, 6, 7, 8, 8, 9, 10];
    for second in 0..=240 {
        // The agent has its turn, and comes to rest.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let last = told.lock().unwrap().last().unwrap().new_capacity;
        assert_eq!(last, capacities[second / 30], "after {second} s");
        time.advance(SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_cap_recovery_passes_the_original() {
    let bus = memory();
    let config = DistributedConfig { max_recovery: false, ..config(&bus, "a") };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.set_capacity("shared-api", 10, SECOND).unwrap();
    agent.announce_reduced("shared-api", "429");
    sleep(600 * SECOND).await;
    assert_eq!(total(&agent), 33, "0.5 x 1.1^20");
}

/// A bus that can be cut off; what is published meanwhile fails.
struct Frail {
    bus: MemoryBus,
    is_down: Arc<AtomicBool>,
    /// Publishing never returns.
    hangs: bool,
}

impl MessageBus for Frail {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        if !self.is_down.load(Ordering::SeqCst) {
            return self.bus.publish(subject, payload);
        }
        if self.hangs {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Err(BusError::Disconnected)))
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        self.bus.subscribe(subject)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_during_an_outage_applies_here_and_is_told_when_the_bus_is_back() {
    for hangs in [false, true] {
        let (memory, is_down) = (MemoryBus::new(), Arc::new(AtomicBool::new(false)));
        let frail = Frail { bus: memory.clone(), is_down: Arc::clone(&is_down), hangs };
        let (frail, memory): (Arc<dyn MessageBus>, Arc<dyn MessageBus>) =
            (Arc::new(frail), Arc::new(memory));
        let (here, there) = (agent(&frail, "here", 10).await, agent(&memory, "there", 10).await);
        let mut go = memory.subscribe("ratelimit.capacity").await.unwrap();
        sleep(SECOND).await;
        is_down.store(true, Ordering::SeqCst);
        here.announce_reduced("shared-api", "429");
        assert_eq!(total(&here), 5);
        sleep(40 * SECOND).await;
        assert_eq!((total(&here), total(&there)), (5, 10));
        is_down.store(false, Ordering::SeqCst);
        sleep(3 * SECOND).await;
        // 5.5 of 10: it is told as old as it is.
        assert_eq!((total(&here), total(&there)), (5, 5));
        // It is repeated for a client that comes back later than ours.
        sleep(15 * SECOND).await;
        for _ in 0..6 {
            let Some(Delivery::Message(late)) = go.next().await else { panic!("a message") };
            assert!(String::from_utf8(late).unwrap().contains("\"new_capacity\":5"));
        }
        assert!(timeout(SECOND, go.next()).await.is_err());
        sleep(5 * SECOND).await;
        assert_eq!((total(&here), total(&there)), (6, 6), "on the same schedule");
        assert!(here.stats().not_sent > 0);
        // One that has recovered by then is not told any more.
        is_down.store(true, Ordering::SeqCst);
        sleep(240 * SECOND).await;
        here.announce_reduced("shared-api", "429");
        sleep(250 * SECOND).await;
        is_down.store(false, Ordering::SeqCst);
        sleep(10 * SECOND).await;
        assert_eq!((total(&here), total(&there)), (10, 10));
        assert!(timeout(SECOND, go.next()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn close_ends_everything_and_says_what_is_left() {
    let bus = memory();
    let (leaving, staying) = (agent(&bus, "a", 10).await, agent(&bus, "b", 10).await);
    leaving.announce_reduced("shared-api", "429");
    let closing = leaving.close();
    assert!(leaving.check("shared-api").is_err(), "at once");
    closing.await;
    sleep(A_MOMENT).await;
    assert_eq!(total(&staying), 5);
    leaving.close().await;
    assert!(leaving.set_capacity("new", 1, SECOND).is_err());
    staying.close().await;
    sleep(SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_a_bus_that_hangs() {
    let is_down = Arc::new(AtomicBool::new(false));
    let frail = Frail { bus: MemoryBus::new(), is_down: Arc::clone(&is_down), hangs: true };
    let frail: Arc<dyn MessageBus> = Arc::new(frail);
    let agent = agent(&frail, "a", 10).await;
    is_down.store(true, Ordering::SeqCst);
    agent.announce_reduced("shared-api", "429");
    sleep(A_MOMENT).await;
    let start = Instant::now();
    agent.close().await;
    assert!(start.elapsed() <= 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_takes_the_task_with_it() {
    let bus = memory();
    let agent = agent(&bus, "a", 10).await;
    let clone = agent.clone();
    let handle = agent.resource("shared-api").unwrap();
    drop(agent);
    sleep(A_MOMENT).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive() > 0);
    drop(clone);
    sleep(SECOND).await;
    assert_eq!(alive(), 0);
    handle.announce_reduced("429");
    assert_eq!(handle.capacity().burst, 5, "handles go on by themselves");
}

#[tokio::test]
async fn what_cannot_work_is_said() {
    let bus = memory();
    let is = |config: DistributedConfig, error: SwarmError| async move {
        let refused = DistributedLimiter::new(config).await.unwrap_err();
        assert_eq!(refused, error);
        assert!(!refused.to_string().is_empty());
    };
    for factor in [0.0, -0.5, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        let config = DistributedConfig { reduce_factor: factor, ..config(&bus, "a") };
        is(config, SwarmError::InvalidReduceFactor).await;
    }
    for factor in [0.5, 1.0, f64::NAN, f64::INFINITY] {
        let config = DistributedConfig { recovery_factor: factor, ..config(&bus, "a") };
        is(config, SwarmError::InvalidRecovery).await;
    }
    for nanos in [0, 999_999] {
        let recovery_interval = Duration::from_nanos(nanos);
        let config = DistributedConfig { recovery_interval, ..config(&bus, "a") };
        is(config, SwarmError::InvalidRecovery).await;
    }
    is(config(&bus, ""), SwarmError::InvalidAgentId).await;
    is(config(&bus, &"a".repeat(257)), SwarmError::InvalidAgentId).await;
}

#[test]
fn without_a_runtime_it_is_an_error() {
    let new = DistributedLimiter::new(DistributedConfig::new(memory(), "a"));
    let mut new = std::pin::pin!(new);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = new.as_mut().poll(&mut context) else { panic!("ready") };
    assert_eq!(result.unwrap_err(), SwarmError::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn either_limiter_behind_one_trait() {
    let bus = memory();
    let agent = agent(&bus, "a", 10).await;
    let limiter: &dyn RateLimiter = &agent;
    limiter.set_capacity("other", 1, SECOND).unwrap();
    limiter.acquire("other").await.unwrap().forget();
    limiter.release("other");
    limiter.announce_reduced("shared-api", "429");
    assert_eq!(limiter.capacity("shared-api").unwrap().burst, 5);
    limiter.close();
    assert!(limiter.check("other").is_err());
}
