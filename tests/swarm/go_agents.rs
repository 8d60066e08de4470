//! Beside agents of agentkit's `ratelimit` package (Go), which are built bytes here. Such an agent
//! announces its new capacity in tokens, on one subject and once. It cuts for each refusal, and takes over
//! every capacity that it hears and that is below its configured one, even if that raises it.

use std::sync::Arc;
use std::time::Duration;

use crate::common::swarm::{A_MOMENT, GO, SECOND, agent, config, memory, total, updates};
use tokio::time::{sleep, timeout};
use tollgate::{
    Delivery, DistributedConfig, DistributedLimiter, Limit, MessageBus, Recovery, Subscription,
};

const CAPACITY: &str = "ratelimit.capacity";

/// An agent of agentkit with a limit of 100.
struct Go {
    bus: Arc<dyn MessageBus>,
    heard: Box<dyn Subscription>,
    capacity: u64,
    /// Counts its announcements, so that each has a timestamp of its own.
    said: u32,
}

impl Go {
    async fn new(bus: &Arc<dyn MessageBus>) -> Self {
        let heard = bus.subscribe(CAPACITY).await.unwrap();
        Self { bus: Arc::clone(bus), heard, capacity: 100, said: 0 }
    }

    /// It is told 429 so many times.
    async fn refused(&mut self, times: u32) {
        for _ in 0..times {
            self.hear().await;
            self.capacity = (self.capacity / 2).max(1);
            self.said += 1;
            announce(&self.bus, self.capacity, self.said).await;
        }
    }

    /// Takes over what others have announced.
    async fn hear(&mut self) {
        while let Ok(Some(Delivery::Message(message))) =
            timeout(Duration::from_millis(1), self.heard.next()).await
        {
            let message = String::from_utf8(message).unwrap();
            let (_, number) = message.split_once("\"new_capacity\":").unwrap();
            let capacity = number.split(',').next().unwrap().parse().unwrap();
            if capacity < 100 && !message.contains("go-agent-1") {
                self.capacity = capacity;
            }
        }
    }
}

async fn announce(bus: &Arc<dyn MessageBus>, capacity: u64, number: u32) {
    let message =
        GO.replace(":5,", &format!(":{capacity},")).replace("858236705", &format!("{number:09}"));
    bus.publish(CAPACITY, message.into()).await.unwrap();
}

async fn totals(go: &mut Go, agents: &[DistributedLimiter; 2]) -> [u64; 3] {
    sleep(A_MOMENT).await;
    go.hear().await;
    [go.capacity, total(&agents[0]), total(&agents[1])]
}

async fn swarm(capacity: u64) -> (Arc<dyn MessageBus>, Go, [DistributedLimiter; 2]) {
    let bus = memory();
    let go = Go::new(&bus).await;
    let agents = [agent(&bus, "a", capacity).await, agent(&bus, "b", capacity).await];
    sleep(SECOND).await;
    (bus, go, agents)
}

#[tokio::test(start_paused = true)]
async fn a_go_agent_is_heard_and_never_raises() {
    let bus = memory();
    let (ten, fifty) = (agent(&bus, "a", 10).await, agent(&bus, "b", 50).await);
    let heard = updates(&ten);
    announce(&bus, 5, 1).await;
    sleep(A_MOMENT).await;
    assert_eq!((total(&ten), total(&fifty)), (5, 25), "no lower than one refusal");
    let update = heard.lock().unwrap().pop().unwrap();
    assert_eq!((update.agent_id.as_str(), update.new_capacity), ("go-agent-1", 5));
    for (number, larger) in [(2, 25), (3, 50), (4, 5)] {
        announce(&bus, larger, number).await;
    }
    sleep(6 * SECOND).await;
    assert_eq!((total(&ten), total(&fifty)), (5, 25));
    assert!(heard.lock().unwrap().is_empty());
    // After the cooldown a lower one is another incident's.
    announce(&bus, 2, 5).await;
    sleep(A_MOMENT).await;
    assert_eq!((total(&ten), total(&fifty)), (2, 12));
    // Whoever missed all that learns how far it went.
    let late = [agent(&bus, "c", 20).await, agent(&bus, "d", 1_000).await];
    sleep(SECOND).await;
    assert_eq!((total(&late[0]), total(&late[1])), (5, 250));
}

/// Ten refusals, and six seconds later one more: two incidents.
#[tokio::test(start_paused = true)]
async fn a_storm_is_one_incident_and_what_follows_it_another() {
    let (bus, mut go, agents) = swarm(100).await;
    go.refused(10).await;
    assert_eq!(totals(&mut go, &agents).await, [1, 50, 50]);
    sleep(6 * SECOND).await;
    go.refused(1).await;
    assert_eq!(totals(&mut go, &agents).await, [1, 25, 25]);
    let late = agent(&bus, "late", 100).await;
    sleep(SECOND).await;
    assert_eq!(total(&late), 25);
    // They recover, and meet the agent that stays at 1 as they would meet any refusal.
    sleep(600 * SECOND).await;
    assert_eq!(totals(&mut go, &agents).await, [1, 100, 100]);
    go.refused(1).await;
    assert_eq!(totals(&mut go, &agents).await, [1, 50, 50]);
}

#[tokio::test(start_paused = true)]
async fn a_small_go_agent_cuts_a_large_one_by_half() {
    let (bus, _, agents) = swarm(1_000).await;
    announce(&bus, 2, 1).await;
    sleep(A_MOMENT).await;
    assert_eq!((total(&agents[0]), total(&agents[1])), (500, 500));
}

/// 5, 2 and 1 of 10 at once are one incident, also for an agent that missed its beginning.
#[tokio::test(start_paused = true)]
async fn a_storm_is_one_cut_though_one_agent_missed_its_beginning() {
    let bus = memory();
    let there = agent(&bus, "a", 10).await;
    let missed = DistributedLimiter::new(config(&bus, "b")).await.unwrap();
    sleep(3 * SECOND).await;
    for (number, capacity) in [(1, 5), (2, 2), (3, 1)] {
        announce(&bus, capacity, number).await;
        sleep(Duration::from_millis(5)).await;
        missed.set_capacity("shared-api", 10, SECOND).unwrap();
    }
    for _ in 0..5 {
        sleep(4 * SECOND).await;
        assert_eq!((total(&there), total(&missed)), (5, 5));
    }
}

/// What a Go agent hears: its own format, on its own subject, once for each cut.
#[tokio::test(start_paused = true)]
async fn a_go_agent_hears_of_each_cut_once() {
    let bus = memory();
    let mut go = bus.subscribe(CAPACITY).await.unwrap();
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

/// A storm has left it below us; it would take our higher number over.
#[tokio::test(start_paused = true)]
async fn our_cut_raises_no_go_agent() {
    for refusals in [2, 10] {
        let (_, mut go, agents) = swarm(100).await;
        go.refused(refusals).await;
        let low = go.capacity;
        assert_eq!(totals(&mut go, &agents).await, [low, 50, 50]);
        sleep(6 * SECOND).await;
        agents[0].announce_reduced("shared-api", "429");
        assert_eq!(totals(&mut go, &agents).await, [low, 25, 25]);
        // The cut that it made is covered by ours now, and still stands.
        sleep(6 * SECOND).await;
        agents[1].announce_reduced("shared-api", "429");
        assert_eq!(totals(&mut go, &agents).await, [low.min(12), 12, 12]);
    }
}

/// Whatever number of tokens a Go agent names, that is what is kept, admitted, shown and announced.
#[tokio::test(start_paused = true)]
async fn what_is_named_is_what_is_kept() {
    for capacity in [100, 299, 1_000] {
        let bus = memory();
        // A factor so low that the floor of a refusal is below one token.
        let config = DistributedConfig { reduce_factor: 0.000_5, ..config(&bus, "a") };
        let agent = DistributedLimiter::new(config).await.unwrap();
        let mut go = bus.subscribe("ratelimit.state").await.unwrap();
        for tokens in 1..=capacity {
            let name = format!("api-{tokens}");
            agent.set_capacity(&name, capacity, SECOND).unwrap();
            let message = GO.replace("shared-api", &name).replace(":5,", &format!(":{tokens},"));
            bus.publish(CAPACITY, message.into()).await.unwrap();
        }
        sleep(A_MOMENT).await;
        for tokens in 1..=capacity {
            let name = format!("api-{tokens}");
            let shown = agent.capacity(&name).unwrap();
            assert_eq!((shown.burst, shown.per_window, shown.available), (tokens, tokens, tokens));
            agent.check_n(&name, tokens).unwrap();
            assert!(agent.check(&name).is_err());
        }
        // All of it in a second, no more.
        sleep(SECOND).await;
        assert!((1..=capacity).all(|n| {
            let available = agent.capacity(&format!("api-{n}")).unwrap().available;
            available == n || available + 1 == n // the clock of tokio counts milliseconds
        }));
        let Some(Delivery::Message(state)) = go.next().await else { panic!("a message") };
        assert!(String::from_utf8(state).unwrap().contains("\"new_capacity\""));
    }
}

#[tokio::test(start_paused = true)]
async fn what_we_announce_is_what_we_show() {
    for (factor, capacity, tokens) in
        [(0.6, 10, 6), (0.57, 100, 57), (0.29, 100, 29), (0.07, 100, 7)]
    {
        let bus = memory();
        let mut go = bus.subscribe(CAPACITY).await.unwrap();
        let config = DistributedConfig { reduce_factor: factor, ..config(&bus, "a") };
        let agent = DistributedLimiter::new(config).await.unwrap();
        agent.set_capacity("shared-api", capacity, SECOND).unwrap();
        agent.announce_reduced("shared-api", "429");
        let shown = agent.capacity("shared-api").unwrap();
        assert_eq!((shown.burst, shown.per_window), (tokens, tokens));
        let Some(Delivery::Message(message)) = go.next().await else { panic!("a message") };
        let message = String::from_utf8(message).unwrap();
        assert!(message.contains(&format!("\"new_capacity\":{tokens},")), "{message}");
    }
}

/// The same storm at each capacity is one cut, to half, rounded down.
#[tokio::test(start_paused = true)]
async fn a_storm_cuts_once_at_every_capacity() {
    let bus = memory();
    let agents = [agent(&bus, "a", 1).await, agent(&bus, "b", 1).await];
    for capacity in 2..300_u64 {
        let name = format!("api-{capacity}");
        for agent in &agents {
            agent.set_capacity(&name, capacity, SECOND).unwrap();
        }
        let mut left = capacity;
        while left > 1 {
            left = (left / 2).max(1);
            let message = GO
                .replace("shared-api", &name)
                .replace(":5,", &format!(":{left},"))
                .replace("858236705", &format!("{left:09}"));
            bus.publish(CAPACITY, message.into()).await.unwrap();
        }
    }
    for _ in 0..6 {
        sleep(4 * SECOND).await;
        for (agent, capacity) in agents.iter().flat_map(|agent| (2..300).map(move |c| (agent, c))) {
            let shown = agent.capacity(&format!("api-{capacity}")).unwrap();
            assert_eq!(shown.burst, capacity / 2, "of {capacity}");
        }
    }
    assert!(agents.iter().all(|agent| agent.stats().sent < 100), "they agree");
}

/// Go does not repeat: what is lost is lost.
#[tokio::test(start_paused = true)]
async fn ten_thousand_cuts_at_once_are_all_heard() {
    let (bus, _, agents) = swarm(100).await;
    for i in 0..10_000 {
        agents[0].set_capacity(&format!("api-{i}"), 10, SECOND).unwrap();
    }
    for i in 0..10_000 {
        let message = GO.replace("shared-api", &format!("api-{i}"));
        bus.publish(CAPACITY, message.into()).await.unwrap();
    }
    sleep(A_MOMENT).await;
    let is_cut = |i: &i32| agents[0].capacity(&format!("api-{i}")).unwrap().burst == 5;
    assert_eq!((0..10_000).filter(is_cut).count(), 10_000);
    assert_eq!(agents[0].stats().lost, 0);
}

/// Go escapes each `<` of a page as six bytes.
#[tokio::test(start_paused = true)]
async fn a_cut_is_not_thrown_away_for_a_long_reason_or_id() {
    for (id, reason) in [
        ("go", "x".repeat(140_000)),
        ("go", r"\u003chtml\u003e".repeat(60_000)),
        (&"g".repeat(257), "429".into()),
    ] {
        let (bus, _, agents) = swarm(100).await;
        let heard = updates(&agents[0]);
        let message = GO.replace("received 429", &reason).replace("go-agent-1", id);
        bus.publish(CAPACITY, message.into()).await.unwrap();
        sleep(A_MOMENT).await;
        assert_eq!((total(&agents[0]), total(&agents[1])), (50, 50));
        let update = heard.lock().unwrap().pop().unwrap();
        assert!(update.reason.len() <= 1_024 && update.agent_id.len() <= 256);
        let late = agent(&bus, "late", 100).await;
        sleep(SECOND).await;
        assert_eq!((total(&late), agents[1].stats().malformed), (50, 0));
    }
}

/// What each of the agents sends in a minute.
async fn a_minute_of(agents: &[DistributedLimiter]) -> u64 {
    let sent = || agents.iter().map(|agent| agent.stats().sent).sum::<u64>();
    let before = sent();
    sleep(60 * SECOND).await;
    sent() - before
}

/// A Go agent's tokens are another factor of each limit. The agents keep and tell the same cuts all the same.
#[tokio::test(start_paused = true)]
async fn agents_with_unequal_limits_come_to_rest() {
    for other in [100, 120, 200, 1_000, 50] {
        let bus = memory();
        let agents = [agent(&bus, "a", 100).await, agent(&bus, "b", other).await];
        sleep(2 * SECOND).await;
        agents[0].announce_reduced("shared-api", "429");
        sleep(3 * SECOND).await;
        announce(&bus, 60, 1).await;
        sleep(20 * SECOND).await;
        let sent = a_minute_of(&agents).await;
        assert!(sent <= 30, "{sent} with {other}");
    }
    for seed in 0..40 {
        fastrand::seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let (bus, mut agents) = (memory(), Vec::new());
        for i in 0..3 {
            agents.push(agent(&bus, &i.to_string(), random.u64(20..1_000)).await);
        }
        for i in 0..12 {
            match random.usize(0..4) {
                3 => agents[0].set_capacity("shared-api", random.u64(20..1_000), SECOND).unwrap(),
                2 => announce(&bus, random.u64(1..150), i).await,
                one => agents[one].announce_reduced("shared-api", "429"),
            }
            sleep(Duration::from_millis(random.u64(1..15_000))).await;
        }
        sleep(10 * SECOND).await;
        let sent = a_minute_of(&agents).await;
        assert!(sent <= 40, "{sent} with seed {seed}");
    }
}

/// A storm is one incident also where it was heard before there was such a resource.
#[tokio::test(start_paused = true)]
async fn a_storm_that_was_kept_for_a_name_is_one_cut() {
    for wait in [1, 4, 10, 25] {
        let bus = memory();
        let a = agent(&bus, "a", 100).await;
        let b = DistributedLimiter::new(config(&bus, "b")).await.unwrap();
        let alone = memory();
        let c = DistributedLimiter::new(config(&alone, "c")).await.unwrap();
        sleep(2 * SECOND).await;
        let mut left = 100;
        for number in 0..10 {
            left = (left / 2).max(1);
            announce(&bus, left, number).await;
            announce(&alone, left, number).await;
        }
        sleep(wait * SECOND).await;
        b.set_capacity("shared-api", 100, SECOND).unwrap();
        c.set_capacity("shared-api", 100, SECOND).unwrap();
        sleep(2 * SECOND).await;
        assert_eq!([&a, &b, &c].map(total), [50; 3], "after {wait} s");
    }
}

#[tokio::test(start_paused = true)]
async fn no_cut_of_ours_raises_a_go_agent_whoever_makes_it() {
    // An agent that joined after the storm, and one whose recovery was configured anew.
    for is_late in [true, false] {
        let (bus, mut go, agents) = swarm(100).await;
        go.refused(10).await;
        sleep(6 * SECOND).await;
        agents[0].announce_reduced("shared-api", "429");
        sleep(SECOND).await;
        let late = agent(&bus, "late", 100).await;
        sleep(SECOND).await;
        let interval = 31 * SECOND;
        let recovery = Recovery { interval, ..Recovery::default() };
        let limit = Limit::per_second(100).recovery(recovery);
        agents[1].configure("shared-api", limit).unwrap();
        sleep(6 * SECOND).await;
        let next = if is_late { &late } else { &agents[1] };
        next.announce_reduced("shared-api", "429");
        assert_eq!(totals(&mut go, &agents).await[0], 1);
    }
    // Nor many later cuts of another Go agent.
    let (bus, mut go, agents) = swarm(100).await;
    go.refused(3).await;
    sleep(6 * SECOND).await;
    for number in 100..170 {
        announce(&bus, 60, number).await;
        sleep(SECOND / 4).await;
    }
    agents[0].announce_reduced("shared-api", "429");
    assert_eq!(totals(&mut go, &agents).await[0], 12);
}

#[tokio::test(start_paused = true)]
async fn without_a_cap_a_plain_announcement_is_one_refusal_too() {
    let bus = memory();
    let config = DistributedConfig { max_recovery: false, ..config(&bus, "a") };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.set_capacity("shared-api", 100, SECOND).unwrap();
    agent.announce_reduced("shared-api", "429");
    sleep(600 * SECOND).await;
    let before = total(&agent);
    assert!(before > 300);
    announce(&bus, 50, 1).await;
    sleep(A_MOMENT).await;
    assert_eq!(total(&agent), before / 2);
    announce(&bus, 10_000, 2).await;
    sleep(6 * SECOND).await;
    assert_eq!(total(&agent), before / 2);
}
