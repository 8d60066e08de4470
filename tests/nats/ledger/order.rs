//! What all followers see, without faults.

use super::*;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tollgate::async_nats::jetstream::consumer::AckPolicy;

/// Otherwise the server sends an entry again after 30 s, and the follower, which takes that for a fault, ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_waits_for_no_acknowledgement() {
    let (server, ledger) = start().await;
    let _follower = ledger.follow("api", None).await.expect("a follower");
    let stream = admin(&server.url()).await.get_stream(STREAM).await.expect("the stream");
    let consumer = stream.consumers().next().await.expect("a consumer").expect("an answer");
    assert_eq!(consumer.config.ack_policy, AckPolicy::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_the_same_order_and_each_entry_once() {
    const WRITERS: usize = 4;
    const ENTRIES: usize = 200;
    let (server, first) = start().await;
    let second = connect(&server.url()).await;
    let readers = [&first, &second].map(|ledger| Reading::of(ledger, "api"));
    let mut readers = join_all(readers.map(async |mut reader| {
        reader.follow().await.unwrap();
        reader
    }))
    .await;

    // They write against each other, each after what it has read.
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| {
            let ledger = if i % 2 == 0 { first.clone() } else { second.clone() };
            tokio::spawn(async move {
                let mut reading = Reading::of(&ledger, "api");
                let mut written = 0;
                let mut outrun = 0;
                while reading.last() < ENTRIES as u64 {
                    let text = format!("{i}: {written}");
                    match ledger.append("api", text.into(), reading.last()).await {
                        Ok(()) => written += 1,
                        Err(LedgerError::Outrun) => outrun += 1,
                        Err(error) => panic!("{error}"),
                    }
                    assert!(matches!(reading.next().await, LedgerItem::Entry(_)));
                }
                (written, outrun)
            })
        })
        .collect();
    let mut all: Vec<Vec<LedgerItem>> = Vec::new();
    for reader in &mut readers {
        let mut items = Vec::new();
        for sequence in 1..=ENTRIES as u64 {
            items.push(reader.next().await);
            assert_eq!(reader.last(), sequence);
        }
        all.push(items);
    }
    assert!(all[0] == all[1]);
    let mut outrun = 0;
    for writer in writers {
        outrun += timeout(HANG, writer).await.unwrap().unwrap().1;
    }
    assert!(outrun > 0, "no two ever wrote at once");
}

#[tokio::test]
async fn an_append_that_is_outrun_does_nothing() {
    let (_server, ledger) = start().await;
    append(&ledger, "api", "one", 0).await;
    assert_eq!(ledger.append("api", "other".into(), 0).await, Err(LedgerError::Outrun));
    append(&ledger, "api", "two", 1).await;
    assert_eq!(ledger.append("api", "other".into(), 1).await, Err(LedgerError::Outrun));
    let mut reading = Reading::of(&ledger, "api");
    assert_eq!(reading.text().await, "two");
    append_and_read(&mut reading, &["three"]).await;
}

#[tokio::test]
async fn a_new_log_is_not_known_to_be_new_and_a_joiner_begins_with_the_newest_entry() {
    let (server, ledger) = start().await;
    let mut early = Reading::of(&ledger, "api");
    early.follow().await.unwrap();
    append_and_read(&mut early, &["one", "two", "three"]).await;
    let mut late = Reading::of(&connect(&server.url()).await, "api");
    assert_eq!(late.text().await, "three");
    append_and_read(&mut late, &["four"]).await;
    assert_eq!(early.text().await, "four");
    // One that returns goes on where it was.
    early.follower = None;
    append_and_read(&mut late, &["five", "six"]).await;
    assert_eq!((early.text().await, early.text().await), ("five".into(), "six".into()));
}

#[tokio::test]
async fn a_next_that_is_given_up_loses_nothing() {
    let (_server, ledger) = start().await;
    let mut follower = ledger.follow("api", None).await.unwrap();
    for i in 0..20 {
        append(&ledger, "api", &i.to_string(), i).await;
        let entry = loop {
            if let Ok(item) = timeout(Duration::from_micros(100), follower.next()).await {
                break item;
            }
        };
        let bytes = i.to_string().into_bytes().into();
        assert_eq!(entry, Some(LedgerItem::Entry(LedgerEntry { sequence: i + 1, bytes })));
    }
}

#[tokio::test]
async fn any_name_is_a_resource_of_its_own() {
    let (_server, ledger) = start().await;
    let longest = "a".repeat(1_024);
    let names = ["", "a", "A", "a.b", "a%2Eb", "%", "*", ">", "ä ☃\r\n\0", "PUB x 0\r\n", &longest];
    let mut followers = Vec::new();
    for name in names {
        followers.push(ledger.follow(name, None).await.unwrap());
    }
    for name in names {
        append(&ledger, name, name, 0).await;
    }
    for (name, mut follower) in names.into_iter().zip(followers) {
        let Some(LedgerItem::Entry(entry)) = timeout(HANG, follower.next()).await.unwrap() else {
            panic!("no entry of {name:?}");
        };
        assert_eq!(*entry.bytes, *name.as_bytes());
        let more = timeout(Duration::from_millis(10), follower.next()).await;
        assert!(more.is_err(), "{name:?} gets what is not its own: {more:?}");
    }
    for name in ["a".repeat(1_025), "ä".repeat(200)] {
        assert!(failed(ledger.follow(&name, None).await.map(drop)).contains("too long"));
        assert!(failed(ledger.append(&name, Vec::new(), 0).await).contains("too long"));
    }
}

#[tokio::test]
async fn two_swarms_on_one_server_are_apart() {
    let (server, ledger) = start().await;
    let other = JetStreamLedger::connect(&server.url(), "test-2").await.unwrap();
    append(&other, "api", "other", 0).await;
    append(&ledger, "api", "one", 0).await;
    assert_eq!(Reading::of(&ledger, "api").text().await, "one");
}
