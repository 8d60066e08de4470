//! What every bus does. Each test runs on any of them.
#![cfg(all(feature = "swarm", not(loom)))]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tollgate::{Delivery, MemoryBus, MessageBus, Subscription};

const SOON: Duration = Duration::from_secs(5);

async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    let delivery = timeout(SOON, subscription.next()).await.expect("a delivery, in time");
    delivery.expect("a subscription that goes on")
}

fn message(text: &str) -> Delivery {
    Delivery::Message(text.as_bytes().to_vec())
}

#[tokio::test]
async fn each_subscriber_gets_each_message_in_order() {
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    let mut first = bus.subscribe("a").await.unwrap();
    let mut second = bus.subscribe("a").await.unwrap();
    let mut other = bus.subscribe("b").await.unwrap();
    for text in ["one", "two", "three"] {
        bus.publish("a", text.into()).await.unwrap();
    }
    bus.publish("b", "four".into()).await.unwrap();
    bus.publish("nobody listens", "five".into()).await.unwrap();
    bus.flush().await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(next(&mut first).await, message(text));
        assert_eq!(next(&mut second).await, message(text));
    }
    assert_eq!(next(&mut other).await, message("four"));
}

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
