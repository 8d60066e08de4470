//! A swarm over a real server, which dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use crate::common::bus::next;
use crate::common::part_two::part_two;
use crate::common::watchdog::HANG;
use crate::server::Server;
use tokio::time::{sleep, timeout};
use tollgate::{Delivery, DistributedConfig, DistributedLimiter, MessageBus, NatsBus};

const SECOND: Duration = Duration::from_secs(1);

async fn connect(server: &Server) -> Arc<dyn MessageBus> {
    Arc::new(NatsBus::connect(&server.url()).await.expect("a connection"))
}

/// It does not recover in the time of a test, however long the machine takes.
async fn agent(bus: &Arc<dyn MessageBus>, id: &str) -> DistributedLimiter {
    let recovery_interval = Duration::from_secs(60 * 60);
    let config =
        DistributedConfig { recovery_interval, ..DistributedConfig::new(Arc::clone(bus), id) };
    let agent = DistributedLimiter::new(config).await.expect("an agent");
    agent.set_capacity("api", 100, SECOND).expect("a limit");
    agent
}

fn total(agent: &DistributedLimiter) -> u64 {
    agent.capacity("api").expect("it was configured").burst
}

/// Until all show `expected`.
async fn all_show(agents: &[DistributedLimiter], expected: u64) {
    let all = async {
        while agents.iter().any(|agent| total(agent) != expected) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, all).await.expect("all agents hear of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tour() {
    let server = Server::start();
    part_two(connect(&server).await, connect(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_made_while_the_server_is_gone_is_heard_when_it_is_back() {
    let mut server = Server::start();
    let mut agents = Vec::new();
    for i in 0..10 {
        agents.push(agent(&connect(&server).await, &i.to_string()).await);
    }
    server.kill();
    sleep(SECOND).await;
    // It returns at once: nothing awaits the bus.
    agents[3].announce_reduced("api", "429");
    assert_eq!(total(&agents[3]), 50);
    sleep(2 * SECOND).await;
    assert_eq!(total(&agents[4]), 100);
    server.restart();
    all_show(&agents, 50).await;
    for agent in agents {
        agent.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_the_very_moment_of_a_crash_is_not_lost() {
    let mut server = Server::start();
    let agents =
        [agent(&connect(&server).await, "a").await, agent(&connect(&server).await, "b").await];
    sleep(SECOND).await;
    agents[0].announce_reduced("api", "429");
    server.kill();
    server.restart();
    all_show(&agents, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_learns_of_a_cut_that_was_announced_before() {
    let server = Server::start();
    let bus = connect(&server).await;
    let early = agent(&bus, "early").await;
    let mut announced = bus.subscribe("ratelimit.capacity").await.expect("a subscription");
    early.announce_reduced("api", "429");
    next(&mut announced).await;
    let late = agent(&connect(&server).await, "late").await;
    all_show(&[late], 50).await;
}

/// `benches/swarm.rs` measures how soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_takes_effect_on_ten_others_once() {
    const ROUNDS: usize = 20;
    let server = Server::start();
    let mut agents = Vec::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for id in 0..11 {
        let agent = agent(&connect(&server).await, &id.to_string()).await;
        for i in 0..ROUNDS {
            agent.set_capacity(&i.to_string(), 100, SECOND).expect("a limit");
        }
        let tell = tell.clone();
        agent.on_capacity_change(move |update| {
            if !update.is_ours {
                let _ = tell.send(update.resource.clone());
            }
        });
        agents.push(agent);
    }
    sleep(SECOND).await;
    for i in 0..ROUNDS {
        let api = i.to_string();
        agents[i % 11].announce_reduced(&api, "429");
        for _ in 0..10 {
            let resource = timeout(HANG, told.recv()).await.expect("all hear of it").unwrap();
            assert_eq!(resource, api, "one cut, once");
        }
        assert!(agents.iter().all(|agent| agent.capacity(&api).unwrap().burst == 50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_does_not_hang_with_the_server_gone_or_silent() {
    for is_silent in [false, true] {
        let mut server = Server::start();
        let agent = agent(&connect(&server).await, "a").await;
        if is_silent {
            server.pause();
        } else {
            server.kill();
        }
        agent.announce_reduced("api", "429");
        timeout(HANG, agent.close()).await.expect("it closes");
        if is_silent {
            server.resume();
        }
    }
}

/// As an agent of agentkit (Go) announces it.
async fn announce(bus: &Arc<dyn MessageBus>, resource: &str, capacity: u64) {
    let message = format!(
        r#"{{"resource":"{resource}","agent_id":"go","new_capacity":{capacity},"reason":"429","timestamp":"2026-11-23T23:38:48.858236705Z"}}"#
    );
    bus.publish("ratelimit.capacity", message.into()).await.expect("a connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cuts_of_a_go_agent_at_once_are_all_heard() {
    let server = Server::start();
    let (bus, go) = (connect(&server).await, connect(&server).await);
    let agent = agent(&bus, "a").await;
    for i in 0..1_000 {
        agent.set_capacity(&format!("api-{i}"), 100, SECOND).expect("a limit");
    }
    for i in 0..1_000 {
        announce(&go, &format!("api-{i}"), 50).await;
    }
    let all = async {
        let is_cut = |i| agent.capacity(&format!("api-{i}")).expect("one").burst == 50;
        while !(0..1_000).all(is_cut) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, all).await.expect("all are heard");
    assert_eq!(agent.stats().lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_only_small_messages_gets_small_ones() {
    let server = Server::start_with_max_payload(1_024);
    let names: Vec<String> = (0..50).map(|i| format!("api-{i}")).collect();
    let long = "x".repeat(2_000);
    let early = agent(&connect(&server).await, "early").await;
    let mut agents = vec![agent(&connect(&server).await, "other").await];
    for name in &names {
        early.set_capacity(name, 100, SECOND).expect("a limit");
        agents[0].set_capacity(name, 100, SECOND).expect("a limit");
        early.announce_reduced(name, &"because ".repeat(500));
    }
    early.set_capacity(&long, 100, SECOND).expect("a limit");
    early.announce_reduced(&long, "429");
    early.announce_reduced("api", "429");
    agents.push(early);
    all_show(&agents, 50).await;
    // After the announcements: from what is told of the cuts that stand.
    sleep(SECOND).await;
    agents.push(agent(&connect(&server).await, "late").await);
    for name in &names {
        agents[2].set_capacity(name, 100, SECOND).expect("a limit");
    }
    all_show(&agents, 50).await;
    let all = async {
        let is_cut = |name: &String| agents[2].capacity(name).expect("one").burst == 50;
        while !names.iter().all(is_cut) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, all).await.expect("all are told");
    assert!(agents[1].stats().dropped > 0);
    timeout(HANG, agents[1].close()).await.expect("it closes");
}

/// Such as one of agentkit, whose client waits longer before it connects again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_made_in_an_outage_reaches_a_client_that_is_back_later() {
    for is_before in [true, false] {
        let mut server = Server::start();
        let agents =
            [agent(&connect(&server).await, "a").await, agent(&connect(&server).await, "b").await];
        sleep(SECOND).await;
        if is_before {
            agents[0].announce_reduced("api", "429");
            all_show(&agents, 50).await;
            server.kill();
        } else {
            server.kill();
            agents[0].announce_reduced("api", "429");
        }
        sleep(SECOND).await;
        server.restart();
        all_show(&agents, 50).await;
        sleep(SECOND).await;
        let late = connect(&server).await;
        let mut heard = late.subscribe("ratelimit.capacity").await.expect("a subscription");
        let Delivery::Message(message) = next(&mut heard).await else { panic!("lost") };
        let message = String::from_utf8(message).expect("UTF-8");
        assert!(message.contains(r#""new_capacity":50"#), "{message}");
        // Nobody is cut twice.
        sleep(SECOND).await;
        assert!(agents.iter().all(|agent| total(agent) == 50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_heard_by_all_and_by_a_late_joiner() {
    let server = Server::start();
    let agents =
        [agent(&connect(&server).await, "a").await, agent(&connect(&server).await, "b").await];
    let until = |agent: &DistributedLimiter| agent.capacity("api").expect("a limit").paused_until;
    agents[0].pause_for("api", 600 * SECOND);
    let late = agent(&connect(&server).await, "late").await;
    let all = async {
        while until(&agents[1]).is_none() || until(&late).is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, all).await.expect("all agents hear of it");
    for agent in [&agents[1], &late] {
        assert!(until(agent) <= Some(601 * SECOND) && agent.check("api").is_err());
        assert_eq!(agent.paused_by(), [("a".to_string(), 1)]);
    }
}
