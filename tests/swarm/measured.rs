//! A refusal of a permit: each agent cuts from what it really sends.

use std::time::Duration;

use crate::common::swarm::{A_MOMENT, SECOND, config, memory};
use tokio::time::sleep;
use tollgate::{DistributedLimiter, Limit};

/// Tokens a second at present.
fn rate(agent: &DistributedLimiter) -> u64 {
    agent.capacity("api").unwrap().per_window
}

#[tokio::test(start_paused = true)]
async fn agents_with_unequal_demand_each_halve_what_they_send() {
    let bus = memory();
    let mut agents = Vec::new();
    for name in ["small", "large", "idle"] {
        let agent = DistributedLimiter::new(config(&bus, name)).await.unwrap();
        agent.configure("api", Limit::per_second(1_000)).unwrap();
        agents.push(agent);
    }
    for i in 0..400 {
        if i % 10 == 0 {
            drop(agents[0].try_acquire("api").unwrap()); // 20 a second
        }
        drop(agents[1].try_acquire("api").unwrap()); // 200 a second
        sleep(Duration::from_millis(5)).await;
    }
    agents[1].try_acquire("api").unwrap().throttled("received 429");
    sleep(A_MOMENT).await;
    let rates: Vec<u64> = agents.iter().map(rate).collect();
    assert!((9..=11).contains(&rates[0]), "{rates:?}");
    assert!((95..=105).contains(&rates[1]), "{rates:?}");
    assert_eq!(rates[2], 500, "the cut alone");
    // Back to what was sent: 1.1^8 > 2. Then ever faster.
    sleep(8 * 30 * SECOND).await;
    let rates: Vec<u64> = agents.iter().map(rate).collect();
    assert!((19..=21).contains(&rates[0]) && (195..=205).contains(&rates[1]), "{rates:?}");
    sleep(10 * 30 * SECOND).await;
    assert!(agents.iter().all(|agent| rate(agent) == 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_permit_cuts_the_limit_alone() {
    let bus = memory();
    let agent = DistributedLimiter::new(config(&bus, "a")).await.unwrap();
    agent.configure("api", Limit::per_second(1_000)).unwrap();
    for _ in 0..200 {
        drop(agent.try_acquire("api").unwrap());
        sleep(Duration::from_millis(10)).await;
    }
    agent.announce_reduced("api", "received 429");
    assert_eq!(rate(&agent), 500);
    assert!(agent.capacity("api").unwrap().available >= 499, "and empties nothing");
}

#[tokio::test(start_paused = true)]
async fn adaptive_agents_share_incidents_and_grow_on_their_own() {
    let bus = memory();
    let mut agents = Vec::new();
    for name in ["small", "large"] {
        let agent = DistributedLimiter::new(config(&bus, name)).await.unwrap();
        agent.configure("api", Limit::per_second(100).adaptive(1, 100)).unwrap();
        agents.push(agent);
    }
    let send = async |seconds: u64| {
        for i in 0..100 * seconds {
            if i % 5 == 0 {
                drop(agents[0].try_acquire("api")); // 20 a second
            }
            drop(agents[1].try_acquire("api")); // 100 a second
            sleep(Duration::from_millis(10)).await;
        }
        agents.iter().map(rate).collect::<Vec<_>>()
    };
    assert_eq!(send(3).await, [100, 100]);
    agents[1].try_acquire("api").unwrap().throttled("received 429");
    sleep(A_MOMENT).await;
    let cut: Vec<u64> = agents.iter().map(rate).collect();
    assert!((13..=15).contains(&cut[0]) && (68..=71).contains(&cut[1]), "{cut:?}");
    // Back in 20 seconds of growth, which begins when a rate has been measured again.
    let grown = send(24).await;
    assert!((19..=23).contains(&grown[0]) && (98..=100).contains(&grown[1]), "{grown:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_told_pause_each_goes_on_at_its_own_rate() {
    let bus = memory();
    let mut agents = Vec::new();
    for name in ["told", "hears", "idle"] {
        let agent = DistributedLimiter::new(config(&bus, name)).await.unwrap();
        let limit = Limit::per_second(1_000).and(Limit::per_day(1_000_000));
        agent.configure("api", limit).unwrap();
        agents.push(agent);
    }
    for _ in 0..200 {
        drop(agents[0].try_acquire("api").unwrap());
        drop(agents[1].try_acquire("api").unwrap());
        sleep(Duration::from_millis(10)).await;
    }
    agents[0].pause_for("api", 2 * SECOND);
    sleep(A_MOMENT).await;
    let rates: Vec<u64> = agents.iter().map(rate).collect();
    assert!(rates[..2].iter().all(|rate| (95..=105).contains(rate)), "{rates:?}");
    assert_eq!(rates[2], 1_000);
    sleep(3 * SECOND).await;
    let windows = agents[0].capacity("api").unwrap().windows;
    assert!(windows[0].available < 105, "it ends empty");
    // The ceiling scales both windows, but nothing is void in the second.
    assert!(windows[1].available > 90_000, "{}", windows[1].available);
}

/// What is left of a day stays when a minute is refused.
#[tokio::test(start_paused = true)]
async fn a_refusal_empties_the_first_window_alone() {
    let bus = memory();
    let agent = DistributedLimiter::new(config(&bus, "a")).await.unwrap();
    agent.configure("api", Limit::per_minute(100).and(Limit::per_day(10_000))).unwrap();
    agent.try_acquire("api").unwrap().throttled("received 429");
    let windows = agent.capacity("api").unwrap().windows;
    assert_eq!((windows[0].available, windows[1].available), (0, 5_000));
}
