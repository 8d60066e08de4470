//! A swarm over a real server, which dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use crate::common::bus::next;
use crate::common::part_two::part_two;
use crate::common::watchdog::HANG;
use crate::server::Server;
use tokio::time::{sleep, timeout};
use tollgate::{DistributedConfig, DistributedLimiter, MessageBus, NatsBus};

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
