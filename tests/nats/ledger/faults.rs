//! Servers that crash, streams that are lost, ways that are cut: nothing is lost without a word.

use super::*;
use crate::proxy::Proxy;
use futures_util::StreamExt;
use tollgate::async_nats::jetstream::consumer::{DeliverPolicy, push::OrderedConfig};

/// Yields a gap, and then this entry.
async fn gap_then(reading: &mut Reading, text: &str) {
    assert_eq!(reading.next().await, LedgerItem::Gap);
    assert_eq!(reading.text().await, text);
}

#[tokio::test]
async fn a_crash_of_the_server_is_no_gap() {
    let (mut server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one", "two"]).await;
    for outage in ["three", "four"] {
        server.kill();
        // Of another resource: it may be applied later.
        let error = ledger.append("other", "x".into(), 0).await.unwrap_err();
        assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
        server.restart();
        append_and_read(&mut reading, &[outage]).await;
    }
    // By one who was not there meanwhile.
    let mut late = Reading::of(&connect(&server.url()).await, "api");
    assert_eq!(late.text().await, "four");
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_read_on_from_without_a_gap() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one"]).await;
    server.pause();
    let error = timeout(HANG, ledger.append("api", "two".into(), 1)).await.unwrap().unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    let follower = reading.follower.as_mut().unwrap();
    assert_eq!(timeout(HANG, follower.next()).await.unwrap(), None);
    server.resume();
    // The append has failed, and is applied all the same.
    assert_eq!(reading.text().await, "two");
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_made_anew_with_a_gap() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one", "two"]).await;
    let admin = admin(&server.url()).await;
    admin.delete_stream(STREAM).await.unwrap();
    assert_eq!(reading.next().await, LedgerItem::Gap);
    let config = admin.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert_eq!(config.metadata["tollgate-term"], "3s");
    assert_eq!(config.metadata["tollgate-drift"], "0.01");
    assert!(!config.allow_direct);
    // As it has read "two", which is lost, it appends after that.
    append_and_read(&mut reading, &["three", "four"]).await;
    assert_eq!(reading.last(), 2);
}

#[tokio::test]
async fn a_new_stream_with_another_entry_at_the_same_place_is_a_gap() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one", "two"]).await;
    admin(&server.url()).await.delete_stream(STREAM).await.unwrap();
    let other = connect(&server.url()).await;
    for (last, text) in ["one", "another", "three"].into_iter().enumerate() {
        append(&other, "api", text, last as u64).await;
    }
    gap_then(&mut reading, "three").await;
}

#[tokio::test]
async fn entries_that_are_purged_are_a_gap() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one", "two"]).await;
    let stream = admin(&server.url()).await.get_stream(STREAM).await.unwrap();
    stream.purge().await.unwrap();
    append(&ledger, "api", "three", reading.last()).await;
    // The consumer goes on; the entry tells that it comes after another.
    gap_then(&mut reading, "three").await;
    append_and_read(&mut reading, &["four"]).await;
    // The newest one alone.
    stream.delete_message(reading.last()).await.unwrap();
    append(&ledger, "api", "five", reading.last()).await;
    gap_then(&mut reading, "five").await;
}

#[tokio::test]
async fn an_entry_that_somebody_else_put_there_comes_after_a_gap() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one"]).await;
    admin(&server.url())
        .await
        .publish("tollgate.quota.test.api", "x".into())
        .await
        .unwrap()
        .await
        .unwrap();
    gap_then(&mut reading, "x").await;
    append_and_read(&mut reading, &["two"]).await;
}

/// Entries 1 to 3 are stored, 4 to 6 are read and lost, and the server is back without them.
async fn restored(server: &mut StreamServer, reading: &mut Reading) {
    append_and_read(reading, &["1", "2", "3"]).await;
    server.kill();
    let copy = server.copy_store();
    server.restart();
    append_and_read(reading, &["4", "5", "6"]).await;
    server.kill();
    server.restore(&copy);
    server.restart();
}

#[tokio::test]
async fn a_stream_restored_from_an_old_copy_is_a_gap() {
    let (mut server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    restored(&mut server, &mut reading).await;
    gap_then(&mut reading, "3").await;
    append_and_read(&mut reading, &["another 4"]).await;
}

#[tokio::test]
async fn a_stream_restored_and_written_on_is_a_gap() {
    let (mut server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    restored(&mut server, &mut reading).await;
    let other = connect(&server.url()).await;
    for last in 3..8 {
        append(&other, "api", &format!("another {}", last + 1), last).await;
    }
    gap_then(&mut reading, "another 8").await;
}

/// Why a follower is not the ordered consumer of async-nats: that misses entries of a restored stream and says
/// nothing. If this fails, it has learned to.
#[tokio::test]
#[ignore = "shows a fault of async-nats 0.51: scripts/deep.sh swarm"]
async fn an_ordered_consumer_does_not_notice_that_a_stream_was_restored() {
    let (mut server, ledger) = start().await;
    let admin = admin(&server.url()).await;
    let config = OrderedConfig {
        deliver_subject: admin.client().new_inbox(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: "tollgate.quota.test.api".into(),
        ..OrderedConfig::default()
    };
    let consumer = admin.create_consumer_on_stream(config, STREAM).await.unwrap();
    let mut ordered = consumer.messages().await.unwrap();
    let mut reading = Reading::of(&ledger, "api");
    let read = async {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "another 12") {
            match ordered.next().await.unwrap() {
                Ok(message) => texts.push(String::from_utf8(message.payload.to_vec()).unwrap()),
                Err(error) => texts.push(format!("error: {error}")),
            }
        }
        texts
    };
    let write = async {
        restored(&mut server, &mut reading).await;
        // Until the ordered consumer is back.
        sleep(Duration::from_secs(12)).await;
        let other = connect(&server.url()).await;
        for last in 3..12 {
            append(&other, "api", &format!("another {}", last + 1), last).await;
        }
    };
    let (texts, ()) = tokio::join!(timeout(HANG, read), write);
    let texts = texts.unwrap();
    println!("{texts:?}");
    assert!(!texts.iter().any(|text| text.starts_with("error")), "{texts:?}");
    assert!(!texts.contains(&"another 4".to_string()), "{texts:?}");
}

#[tokio::test]
async fn a_follower_too_slow_for_what_is_kept_has_a_gap() {
    let server = StreamServer::start();
    let client = NatsBus::options().subscription_capacity(8).connect(server.url()).await.unwrap();
    let slow = JetStreamLedger::new(client, JetStreamConfig::new(SWARM)).await.unwrap();
    let fast = connect(&server.url()).await;
    let mut reading = Reading::of(&slow, "api");
    append_and_read(&mut reading, &["one"]).await;
    // The client loses some, and the log still has them.
    for last in 1..=30 {
        append(&fast, "api", "x", last).await;
    }
    while reading.last() <= 30 {
        assert_eq!(reading.text().await, "x");
    }
    for last in 31..=200 {
        append(&fast, "api", "x", last).await;
    }
    while reading.next().await != LedgerItem::Gap {}
    assert!(reading.last() < 201 - 64, "no gap was due");
    assert_eq!(reading.text().await, "x");
    assert_eq!(reading.last(), 201, "not the newest");
}

#[tokio::test]
async fn a_partition_is_no_gap_or_a_gap_and_never_a_silent_loss() {
    let (server, near) = start().await;
    let proxy = Proxy::to(&server.url()).await;
    let far = connect(&proxy.url()).await;
    let mut reading = Reading::of(&far, "api");
    append_and_read(&mut reading, &["1"]).await;
    // Within what is kept, for less than the silence that ends a follower and for more.
    for (time, entries) in [(Duration::from_millis(500), 2..=20), (Duration::from_secs(4), 21..=40)]
    {
        proxy.stop();
        for text in entries.clone() {
            append(&near, "api", &text.to_string(), text - 1).await;
        }
        reading.is_silent(time).await;
        assert!(!matches!(far.append("api", "x".into(), 0).await, Ok(())));
        proxy.go_on();
        for text in entries {
            assert_eq!(reading.text().await, text.to_string());
        }
    }
    proxy.stop();
    reading.is_silent(Duration::from_secs(4)).await;
    for text in 41..=200 {
        append(&near, "api", &text.to_string(), text - 1).await;
    }
    proxy.go_on();
    // What had reached us before, and then either all or a gap.
    let mut next = 41;
    loop {
        match reading.next().await {
            LedgerItem::Gap => next = 200,
            LedgerItem::Entry(entry) => {
                assert_eq!(entry.sequence, next);
                next += 1;
            }
            other => panic!("{other:?}"),
        }
        if next > 200 {
            return;
        }
    }
}
