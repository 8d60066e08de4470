//! Agents on one bus: what they tell each other, and what comes of it.
#![cfg(all(feature = "swarm", not(loom)))]

#[path = "common/part_two.rs"]
mod part_two;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tollgate::{
    BusError, BusFuture, CapacityUpdate, Clock, Delivery, DistributedConfig, DistributedLimiter,
    Limit, ManualClock, MemoryBus, MessageBus, RateLimiter, Subscription, SwarmError, UpdateKind,
};

const SECOND: Duration = Duration::from_secs(1);
/// More than a message takes, and less than anything recovers.
const A_MOMENT: Duration = Duration::from_millis(20);

/// As an agent of agentkit (Go) sends it.
const GO: &str = r#"{"resource":"shared-api","agent_id":"go-agent-1","new_capacity":5,"reason":"received 429","timestamp":"2026-11-23T23:38:48.858236705Z"}"#;

fn config(bus: &Arc<dyn MessageBus>, id: &str) -> DistributedConfig {
    DistributedConfig { clock: Clock::tokio(), ..DistributedConfig::new(Arc::clone(bus), id) }
}

fn memory() -> Arc<dyn MessageBus> {
    Arc::new(MemoryBus::new())
}

async fn agent(bus: &Arc<dyn MessageBus>, id: &str, capacity: u64) -> DistributedLimiter {
    let agent = DistributedLimiter::new(config(bus, id)).await.unwrap();
    agent.set_capacity("shared-api", capacity, SECOND).unwrap();
    agent
}

fn total(agent: &DistributedLimiter) -> u64 {
    agent.capacity("shared-api").unwrap().total
}

fn updates(agent: &DistributedLimiter) -> Arc<Mutex<Vec<CapacityUpdate>>> {
    let updates = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&updates);
    agent.on_capacity_change(move |update| told.lock().unwrap().push(update.clone()));
    updates
}

#[tokio::test]
async fn the_tour() {
    let bus = memory();
    part_two::part_two(Arc::clone(&bus), bus).await;
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
async fn a_go_agent_is_heard_and_never_raises() {
    let bus = memory();
    let (ten, fifty) = (agent(&bus, "a", 10).await, agent(&bus, "b", 50).await);
    let heard = updates(&ten);
    bus.publish("ratelimit.capacity", GO.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!((total(&ten), total(&fifty)), (5, 5));
    let update = heard.lock().unwrap().pop().unwrap();
    assert_eq!((update.agent_id.as_str(), update.new_capacity), ("go-agent-1", 5));
    for larger in ["25", "50", "5"] {
        let message = GO.replace(":5,", &format!(":{larger},"));
        bus.publish("ratelimit.capacity", message.into()).await.unwrap();
    }
    sleep(6 * SECOND).await;
    assert_eq!((total(&ten), total(&fifty)), (5, 5));
    assert!(heard.lock().unwrap().is_empty());
    // After the cooldown a lower one is another incident's. Who missed it hears of it from others,
    // in the tokens that it was said in.
    bus.publish("ratelimit.capacity", GO.replace(":5,", ":2,").into()).await.unwrap();
    sleep(A_MOMENT).await;
    let late = agent(&bus, "c", 20).await;
    sleep(SECOND).await;
    assert_eq!((total(&ten), total(&fifty), total(&late)), (2, 2, 2));
}

/// What a Go agent hears: its own format, on its own subject, once for each cut.
#[tokio::test(start_paused = true)]
async fn a_go_agent_hears_of_each_cut_once() {
    let bus = memory();
    let mut go = bus.subscribe("ratelimit.capacity").await.unwrap();
    let (first, second) = (agent(&bus, "a", 10).await, agent(&bus, "b", 10).await);
    first.announce_reduced("shared-api", "429");
    sleep(6 * SECOND).await;
    second.announce_reduced("shared-api", "429");
    sleep(60 * SECOND).await;
    for (agent, capacity) in [("a", 5), ("b", 2)] {
        let Some(Delivery::Message(message)) = go.next().await else { panic!("a message") };
        let message = String::from_utf8(message).unwrap();
        let start = format!(
            r#"{{"resource":"shared-api","agent_id":"{agent}","new_capacity":{capacity},"reason":"429","timestamp":""#
        );
        assert!(message.starts_with(&start), "{message}");
    }
    assert!(timeout(SECOND, go.next()).await.is_err(), "nothing else");
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

#[tokio::test]
async fn a_manual_clock_recovers_by_its_own_time() {
    let (bus, time) = (memory(), ManualClock::new());
    let config =
        DistributedConfig { clock: time.clone().into(), ..DistributedConfig::new(bus, "a") };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.set_capacity("shared-api", 10, SECOND).unwrap();
    let told = updates(&agent);
    agent.announce_reduced("shared-api", "429");
    let deadline = Instant::now() + 10 * SECOND;
    while told.lock().unwrap().len() < 6 && Instant::now() < deadline {
        time.advance(SECOND);
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(told.lock().unwrap().last().unwrap().new_capacity, 10);
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

#[tokio::test(start_paused = true)]
async fn hostile_input_is_ignored_and_counted() {
    let bus = memory();
    let agent = agent(&bus, "a", 10).await;
    let heard = updates(&agent);
    let mut sent = 0;
    for text in ["", "null", "{}", "[5]", "{\"resource\":\"shared-api\"}", &"[".repeat(1 << 20)] {
        for subject in ["ratelimit.capacity", "ratelimit.query", "ratelimit.state"] {
            bus.publish(subject, text.into()).await.unwrap();
            sent += 1;
        }
    }
    for capacity in ["0", "-1", "4.5", "1e400", "99999999999999999999", "null", "\"5\""] {
        let message = GO.replace(":5,", &format!(":{capacity},"));
        bus.publish("ratelimit.capacity", message.into()).await.unwrap();
        sent += 1;
    }
    sleep(A_MOMENT).await;
    assert_eq!((agent.stats().malformed, agent.stats().received), (sent, sent));
    bus.publish("ratelimit.capacity", GO.replace("shared-api", "other").into()).await.unwrap();
    for huge in ["10", "11", "18446744073709551615"] {
        bus.publish("ratelimit.capacity", GO.replace(":5,", &format!(":{huge},")).into())
            .await
            .unwrap();
    }
    sleep(A_MOMENT).await;
    assert_eq!((agent.stats().malformed, agent.stats().unknown_resource), (sent, 1));
    assert!(total(&agent) == 10 && heard.lock().unwrap().is_empty());
    // At worst a cut, which recovery undoes.
    let worst =
        GO.replace(":5,", ":1,").replace('}', r#","incident":"1","factor":1e-300,"age_ms":0}"#);
    bus.publish("ratelimit.capacity", worst.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(total(&agent), 1);
    // 2^-20 x 1.1^146 > 1
    sleep(146 * 30 * SECOND).await;
    assert_eq!(total(&agent), 10);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_age_a_cut_away_nor_keep_us_from_cutting() {
    let bus = memory();
    let agent = agent(&bus, "a", 100).await;
    let mut tap = bus.subscribe("ratelimit.capacity").await.unwrap();
    agent.announce_reduced("shared-api", "429");
    let Some(Delivery::Message(ours)) = tap.next().await else { panic!("a message") };
    let ours = String::from_utf8(ours).unwrap();
    let instance = ours.split("\"instance\":").nth(1).unwrap();
    let forged = ours.replace(instance, "\"77\"}").replace("\"age_ms\":0", "\"age_ms\":600000");
    bus.publish("ratelimit.capacity", forged.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(total(&agent), 50);
    // A stream of cuts that hardly cut, so that every refusal comes just after one.
    for i in 0..200 {
        let shallow = GO.replace(
            '}',
            &format!(r#","incident":"{:x}","factor":0.{},"age_ms":0}}"#, 100 + i, 49_999 - i),
        );
        bus.publish("ratelimit.capacity", shallow.into()).await.unwrap();
        sleep(Duration::from_millis(40)).await;
    }
    agent.announce_reduced("shared-api", "429");
    assert_eq!(total(&agent), 25 - 1, "8 s later, half of 49.8");
}

#[tokio::test(start_paused = true)]
async fn one_id_for_two_limiters_is_noticed_and_they_hear_each_other() {
    let bus = memory();
    let (one, other) = (agent(&bus, "same", 10).await, agent(&bus, "same", 10).await);
    one.announce_reduced("shared-api", "429");
    sleep(A_MOMENT).await;
    assert_eq!(total(&other), 5);
    assert!(other.stats().same_agent_id > 0);
    // A Go agent under our id, too.
    bus.publish(
        "ratelimit.capacity",
        GO.replace("go-agent-1", "same").replace(":5,", ":3,").into(),
    )
    .await
    .unwrap();
    sleep(A_MOMENT).await;
    assert!(one.stats().same_agent_id > 0);
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
        let Some(Delivery::Message(late)) = go.next().await else { panic!("a message") };
        assert!(String::from_utf8(late).unwrap().contains("\"new_capacity\":5"));
        sleep(20 * SECOND).await;
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
    assert_eq!(handle.capacity().total, 5, "handles go on by themselves");
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
    assert_eq!(limiter.capacity("shared-api").unwrap().total, 5);
    limiter.close();
    assert!(limiter.check("other").is_err());
}
