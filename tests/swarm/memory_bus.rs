//! The bus within a process.

use crate::common::bus::{conformance, message, next};
use tollgate::{Delivery, MemoryBus, MessageBus};

conformance!(((), MemoryBus::new()));

#[tokio::test]
async fn a_slow_subscriber_loses_its_oldest_messages_and_is_told() {
    let bus = MemoryBus::new();
    let mut slow = bus.subscribe("a").await.unwrap();
    for i in 0..1_000 {
        bus.publish("a", i.to_string().into()).await.unwrap();
    }
    assert_eq!(next(&mut slow).await, Delivery::Lost(744));
    assert_eq!(next(&mut slow).await, message("744"));
}

#[tokio::test]
async fn subjects_without_subscribers_are_forgotten() {
    let bus = MemoryBus::new();
    for subject in 0..100 {
        drop(bus.subscribe(&subject.to_string()).await.unwrap());
    }
    assert_eq!(format!("{bus:?}"), "MemoryBus(1)");
}
