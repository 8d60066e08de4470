//! The bus within a process.

use crate::common::bus::{conformance, message, next};
use tollgate::{Delivery, MemoryBus, MessageBus};

conformance!(((), MemoryBus::new()));

#[tokio::test]
async fn a_slow_subscriber_loses_its_oldest_messages_and_is_told() {
    let bus = MemoryBus::new();
    let (mut slow, mut fast) =
        (bus.subscribe("a").await.unwrap(), bus.subscribe("a").await.unwrap());
    // 20 messages of 1 MiB, of which 15 fit into 16 MiB with what each takes besides.
    for i in 0..20_u8 {
        bus.publish("a", vec![i; 1 << 20]).await.unwrap();
        assert_eq!(next(&mut fast).await, Delivery::Message(vec![i; 1 << 20]));
    }
    assert_eq!(next(&mut slow).await, Delivery::Lost(5));
    assert_eq!(next(&mut slow).await, Delivery::Message(vec![5; 1 << 20]));
    // One that is larger than all of it is delivered.
    bus.publish("a", vec![0; 20 << 20]).await.unwrap();
    assert_eq!(next(&mut slow).await, Delivery::Lost(14));
    assert_eq!(next(&mut slow).await, Delivery::Message(vec![0; 20 << 20]));
}

#[tokio::test]
async fn a_burst_of_ten_thousand_long_announcements_is_held() {
    let bus = MemoryBus::new();
    let mut slow = bus.subscribe("a").await.unwrap();
    for i in 0..10_000 {
        bus.publish("a", format!("{i:01400}").into()).await.unwrap();
    }
    for i in 0..10_000 {
        assert_eq!(next(&mut slow).await, message(&format!("{i:01400}")));
    }
}

#[tokio::test]
async fn subjects_without_subscribers_are_forgotten() {
    let bus = MemoryBus::new();
    for subject in 0..100 {
        drop(bus.subscribe(&subject.to_string()).await.unwrap());
    }
    assert_eq!(format!("{bus:?}"), "MemoryBus(1)");
}
