//! Agents that crash, stop and are cut off; servers and streams that are lost.

use std::time::Duration;

use tokio::time::sleep;

use super::agents::STREAM;
use super::{Swarm, TERM};
use crate::jetstream::{Cluster, StreamServer};
use crate::proxy::Proxy;
use tollgate::NatsBus;
use tollgate::async_nats::jetstream;

async fn start(count: usize, term: Duration) -> (StreamServer, Swarm) {
    let server = StreamServer::start();
    let swarm = Swarm::start(count, &[server.url()], term, 1).await;
    (server, swarm)
}

async fn admin(urls: &[String]) -> jetstream::Context {
    jetstream::new(NatsBus::options().connect(urls).await.expect("a connection"))
}

#[tokio::test]
async fn agents_that_are_killed_leave_their_shares_to_the_others() {
    let (server, mut swarm) = start(4, TERM).await;
    swarm.spends(TERM).await;
    // The one that wrote the first table, and another.
    swarm.kill(0);
    swarm.uses_all("one killed").await;
    swarm.kill(1);
    let new = swarm.join(&[server.url()]);
    swarm.uses_all("another killed, and one that joins").await;
    assert!(swarm.share(new) > 0.0);
    swarm.kept_the_limit();
}

#[tokio::test]
async fn an_agent_that_was_stopped_spends_nothing_by_what_it_had() {
    let (_server, mut swarm) = start(3, TERM).await;
    for agent in [0, 2] {
        swarm.stop(agent);
        swarm.uses_all("one stopped").await;
        swarm.spends(2 * TERM).await;
        swarm.go_on(agent);
        swarm.uses_all("it goes on").await;
    }
    swarm.kept_the_limit();
}

#[tokio::test]
async fn a_server_that_is_killed_and_back_is_no_loss_for_good() {
    let (mut server, mut swarm) = start(3, TERM).await;
    // For less than a term, and until all shares have ended.
    server.restart();
    swarm.uses_all("the server restarted").await;
    server.kill();
    swarm.has_nothing("the server killed").await;
    server.restart();
    swarm.uses_all("the server is back").await;
    swarm.kept_the_limit();
}

#[tokio::test]
async fn a_stream_that_is_deleted_costs_a_term() {
    let (server, mut swarm) = start(3, TERM).await;
    let admin = admin(&[server.url()]).await;
    for _ in 0..2 {
        admin.delete_stream(STREAM).await.expect("a stream");
        swarm.has_nothing("the stream deleted").await;
        swarm.uses_all("it is made anew").await;
    }
    swarm.kept_the_limit();
}

#[tokio::test]
async fn a_stream_that_is_restored_from_an_old_copy_costs_a_term() {
    let (mut server, mut swarm) = start(3, TERM).await;
    server.kill();
    let copy = server.copy_store();
    server.restart();
    swarm.uses_all("the server restarted").await;
    swarm.spends(2 * TERM).await;
    // One more than the copy knows of.
    swarm.join(&[server.url()]);
    swarm.uses_all("one joins").await;
    server.kill();
    server.restore(&copy);
    server.restart();
    swarm.has_nothing("the stream restored").await;
    swarm.uses_all("it goes on").await;
    swarm.kept_the_limit();
}

#[tokio::test]
async fn an_agent_that_is_cut_off_has_nothing_until_it_is_back() {
    let (server, mut swarm) = start(2, TERM).await;
    let proxy = Proxy::to(&server.url()).await;
    let far = swarm.join(&[proxy.url()]);
    swarm.uses_all("one joins by another way").await;
    proxy.stop();
    swarm.until("cut off: no share", |swarm| swarm.share(far) < 0.1).await;
    swarm
        .until("cut off: the others have all", |swarm| swarm.share(0) + swarm.share(1) > 98.0)
        .await;
    swarm.spends(TERM).await;
    proxy.go_on();
    swarm.uses_all("it is back").await;
    swarm.kept_the_limit();
}

/// As `scripts/deep.sh` does: with the default term, eight agents, and each fault some times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/deep.sh quota"]
async fn whatever_happens_for_minutes() {
    let term = Duration::from_secs(3);
    let (mut server, mut swarm) = start(8, term).await;
    let proxy = Proxy::to(&server.url()).await;
    for round in 0..3 {
        println!("round {round}");
        swarm.kill(swarm.oldest());
        swarm.kill(swarm.oldest());
        swarm.uses_all("two killed").await;
        swarm.join(&[proxy.url()]);
        swarm.join(&[server.url()]);
        swarm.uses_all("two join").await;
        let stopped = swarm.oldest();
        swarm.stop(stopped);
        swarm.spends(2 * term + term / 2).await;
        swarm.go_on(stopped);
        swarm.uses_all("one was stopped").await;
        proxy.stop();
        swarm.spends(2 * term).await;
        proxy.go_on();
        swarm.uses_all("some were cut off").await;
        server.restart();
        swarm.uses_all("the server restarted").await;
        server.kill();
        let copy = server.copy_store();
        swarm.has_nothing("the server killed").await;
        server.restart();
        swarm.uses_all("the server is back").await;
        swarm.spends(term).await;
        server.kill();
        server.restore(&copy);
        server.restart();
        swarm.has_nothing("the stream restored").await;
        swarm.uses_all("it goes on").await;
        admin(&[server.url()]).await.delete_stream(STREAM).await.expect("a stream");
        swarm.has_nothing("the stream deleted").await;
        swarm.uses_all("it is made anew").await;
        for _ in 0..6 {
            swarm.kill(swarm.oldest());
            swarm.join(&[server.url()]);
        }
        swarm.uses_all("six replaced at once").await;
    }
    swarm.kept_the_limit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: scripts/deep.sh quota"]
async fn the_leader_of_three_servers_is_killed() {
    let mut cluster = Cluster::start();
    let urls = cluster.urls();
    let mut swarm = Swarm::start(8, &urls, Duration::from_secs(3), 3).await;
    let admin = admin(&urls).await;
    for _ in 0..3 {
        let leader = loop {
            let found = async {
                admin.get_stream(STREAM).await.ok()?.cached_info().cluster.clone()?.leader
            };
            match found.await {
                Some(leader) => break leader,
                None => sleep(Duration::from_millis(100)).await,
            }
        };
        cluster.server(&leader).kill();
        swarm.spends(Duration::from_secs(12)).await;
        swarm.uses_all("the leader killed").await;
        cluster.server(&leader).restart();
        swarm.spends(Duration::from_secs(12)).await;
        swarm.uses_all("it is back").await;
    }
    swarm.kept_the_limit();
}
