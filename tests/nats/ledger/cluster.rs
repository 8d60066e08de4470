//! A cluster of three, and figures. `scripts/deep.sh` runs these.

use super::*;
use crate::jetstream::Cluster;

async fn on_three(cluster: &Cluster) -> JetStreamLedger {
    with_replicas(3, &cluster.urls()).await
}

async fn with_replicas(replicas: usize, urls: &[String]) -> JetStreamLedger {
    let since = Instant::now();
    loop {
        let client = NatsBus::options().connect(urls).await.expect("a connection");
        let config = JetStreamConfig { replicas, ..JetStreamConfig::new(SWARM) };
        match JetStreamLedger::new(client, config).await {
            Ok(ledger) => return ledger,
            // Until there is a leader.
            Err(error) => assert!(since.elapsed() < HANG, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute: scripts/deep.sh swarm"]
async fn the_death_of_a_leader_is_no_gap() {
    let mut cluster = Cluster::start();
    let ledger = on_three(&cluster).await;
    let other = on_three(&cluster).await;
    let mut readings = [Reading::of(&ledger, "api"), Reading::of(&other, "api")];
    append_and_read(&mut readings[0], &["0", "1"]).await;
    for reading in &mut readings {
        reading.follow().await.unwrap();
    }
    while readings[1].last() < 2 {
        readings[1].text().await;
    }
    let admin = jetstream::new(NatsBus::options().connect(cluster.urls()).await.unwrap());
    for round in 0..3 {
        let info = admin.get_stream(STREAM).await.unwrap().cached_info().clone();
        let leader = info.cluster.unwrap().leader.expect("a leader");
        cluster.server(&leader).kill();
        let since = Instant::now();
        // It may be applied and its answer be lost with the leader. Then the next one is outrun.
        let last = readings[0].last();
        let back = loop {
            match ledger.append("api", format!("round {round}").into(), last).await {
                Ok(()) | Err(LedgerError::Outrun) => break since.elapsed(),
                Err(error) => assert!(since.elapsed() < HANG, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        println!("leader killed: an append was accepted after {back:.1?}");
        for reading in &mut readings {
            assert_eq!(reading.text().await, format!("round {round}"));
        }
        cluster.server(&leader).restart();
        // Until the new one has caught up: with two gone there is no leader.
        let caught_up = async {
            loop {
                if let Ok(mut stream) = admin.get_stream(STREAM).await
                    && let Ok(info) = stream.info().await
                    && let Some(cluster) = &info.cluster
                    && cluster.leader.is_some()
                    && cluster.replicas.iter().all(|replica| replica.current && !replica.offline)
                {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(HANG, caught_up).await.unwrap();
    }
}

/// The follower's own connection does not notice: it is to another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute: scripts/deep.sh swarm"]
async fn a_stream_restored_behind_another_server_is_a_gap() {
    let mut cluster = Cluster::start();
    let first = with_replicas(1, &cluster.urls()).await;
    let admin = jetstream::new(NatsBus::options().connect(cluster.urls()).await.unwrap());
    let info = admin.get_stream(STREAM).await.unwrap().cached_info().clone();
    let home = info.cluster.unwrap().leader.expect("a leader");
    let elsewhere: Vec<String> = cluster
        .names()
        .into_iter()
        .filter(|name| *name != home)
        .map(|name| cluster.server(&name).url())
        .collect();
    drop(first);
    let ledger = with_replicas(1, &elsewhere[..1]).await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["1", "2", "3"]).await;
    cluster.server(&home).kill();
    let copy = cluster.server(&home).copy_store();
    cluster.server(&home).restart();
    append_and_read(&mut reading, &["4", "5", "6"]).await;
    cluster.server(&home).kill();
    cluster.server(&home).restore(&copy);
    cluster.server(&home).restart();
    let since = Instant::now();
    assert_eq!(reading.next().await, LedgerItem::Gap);
    println!("restored: noticed after {:.1?}", since.elapsed());
    assert_eq!(reading.text().await, "3");
    append_and_read(&mut reading, &["another 4", "another 5"]).await;
}

/// From an append to its reading, by ten followers with a connection each.
async fn latency(name: &str, writer: JetStreamLedger, followers: Vec<JetStreamLedger>) {
    const ENTRIES: u64 = 200;
    let begin = Instant::now();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for ledger in followers {
        let tell = tell.clone();
        let mut reading = Reading::of(&ledger, "api");
        reading.follow().await.unwrap();
        tokio::spawn(async move {
            loop {
                let LedgerItem::Entry(entry) = reading.next().await else { panic!("a gap") };
                let sent = u64::from_le_bytes(entry.bytes[..8].try_into().unwrap());
                let _ = tell.send(begin.elapsed().saturating_sub(Duration::from_nanos(sent)));
            }
        });
    }
    let mut all = Vec::new();
    for last in 0..ENTRIES {
        let mut entry = vec![0; 600];
        let now = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        entry[..8].copy_from_slice(&now.to_le_bytes());
        writer.append("api", entry, last).await.unwrap();
        for _ in 0..10 {
            all.push(timeout(HANG, told.recv()).await.unwrap().unwrap());
        }
        sleep(Duration::from_millis(10)).await;
    }
    all.sort();
    let at = |percent: usize| all[all.len() * percent / 100];
    println!("{name}: append to reading, 10 followers: p50 {:.1?}, p99 {:.1?}", at(50), at(99));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures: scripts/deep.sh swarm"]
async fn how_long_an_entry_takes() {
    let synced = concat!(env!("CARGO_TARGET_TMPDIR"), "/nats-synced.conf");
    std::fs::write(synced, "jetstream { sync_interval: always }\n").unwrap();
    for (name, server) in [
        ("one server", StreamServer::start()),
        ("one server, sync_interval: always", StreamServer::start_with(&["--config", synced])),
    ] {
        let mut followers = Vec::new();
        for _ in 0..10 {
            followers.push(connect(&server.url()).await);
        }
        latency(name, connect(&server.url()).await, followers).await;
    }

    let cluster = Cluster::start();
    let mut followers = Vec::new();
    for _ in 0..10 {
        followers.push(on_three(&cluster).await);
    }
    latency("three replicas", on_three(&cluster).await, followers).await;
}
