//! What every bus does: tests that take any.

use std::sync::Arc;

use tokio::time::timeout;
use tollgate::{Delivery, MessageBus, Subscription};

use super::watchdog::HANG;

pub(crate) async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    let delivery = timeout(HANG, subscription.next()).await.expect("a delivery");
    delivery.expect("a subscription that goes on")
}

pub(crate) fn message(text: &str) -> Delivery {
    Delivery::Message(text.as_bytes().to_vec())
}

/// Each of the tests below as a test, on what an expression starts: a guard and a bus.
macro_rules! conformance {
    ($start:expr) => {
        conformance! { $start =>
            each_subscriber_gets_each_message_in_order
            what_is_published_after_subscribing_is_received
            a_dropped_subscription_leaves_the_others_alone
            payloads_are_bytes
            a_next_that_is_given_up_loses_nothing
            publishers_do_not_disturb_each_other
        }
    };
    ($start:expr => $($test:ident)*) => {
        $(#[tokio::test]
        async fn $test() {
            let (_guard, bus) = $start;
            $crate::common::bus::$test(std::sync::Arc::new(bus)).await;
        })*
    };
}
pub(crate) use conformance;

pub(crate) async fn each_subscriber_gets_each_message_in_order(bus: Arc<dyn MessageBus>) {
    let mut first = bus.subscribe("a").await.unwrap();
    let mut second = bus.subscribe("a").await.unwrap();
    let mut other = bus.subscribe("b").await.unwrap();
    for text in ["one", "two", "three"] {
        bus.publish("a", text.into()).await.unwrap();
    }
    bus.publish("b", "four".into()).await.unwrap();
    bus.publish("nobody.listens", "five".into()).await.unwrap();
    bus.flush().await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(next(&mut first).await, message(text));
        assert_eq!(next(&mut second).await, message(text));
    }
    assert_eq!(next(&mut other).await, message("four"));
}

pub(crate) async fn what_is_published_after_subscribing_is_received(bus: Arc<dyn MessageBus>) {
    bus.publish("a", "before".into()).await.unwrap();
    bus.flush().await.unwrap();
    for i in 0..100 {
        let subject = format!("subject.{i}");
        let mut subscription = bus.subscribe(&subject).await.unwrap();
        bus.publish(&subject, subject.clone().into()).await.unwrap();
        assert_eq!(next(&mut subscription).await, message(&subject));
    }
}

pub(crate) async fn a_dropped_subscription_leaves_the_others_alone(bus: Arc<dyn MessageBus>) {
    let dropped = bus.subscribe("a").await.unwrap();
    let mut kept = bus.subscribe("a").await.unwrap();
    bus.publish("a", "one".into()).await.unwrap();
    drop(dropped);
    bus.publish("a", "two".into()).await.unwrap();
    let mut late = bus.subscribe("a").await.unwrap();
    bus.publish("a", "three".into()).await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(next(&mut kept).await, message(text));
    }
    assert_eq!(next(&mut late).await, message("three"));
}

pub(crate) async fn payloads_are_bytes(bus: Arc<dyn MessageBus>) {
    let mut subscription = bus.subscribe("a").await.unwrap();
    let payloads = [vec![], vec![0], b"\r\nPUB a 1\r\n".to_vec(), vec![0xFF; 100_000]];
    for payload in &payloads {
        bus.publish("a", payload.clone()).await.unwrap();
    }
    for payload in payloads {
        assert_eq!(next(&mut subscription).await, Delivery::Message(payload));
    }
}

pub(crate) async fn a_next_that_is_given_up_loses_nothing(bus: Arc<dyn MessageBus>) {
    let mut subscription = bus.subscribe("a").await.unwrap();
    let publisher = Arc::clone(&bus);
    tokio::spawn(async move {
        for i in 0..100 {
            publisher.publish("a", i.to_string().into()).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for i in 0..100 {
        let delivery = loop {
            tokio::select! {
                biased;
                delivery = subscription.next() => break delivery,
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(delivery, Some(message(&i.to_string())));
    }
}

pub(crate) async fn publishers_do_not_disturb_each_other(bus: Arc<dyn MessageBus>) {
    let mut subscription = bus.subscribe("a").await.unwrap();
    for publisher in 0_u8..4 {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move {
            for i in 0_u8..50 {
                bus.publish("a", vec![publisher, i]).await.unwrap();
            }
        });
    }
    let mut due = [0; 4];
    for _ in 0..200 {
        let Delivery::Message(payload) = next(&mut subscription).await else { panic!("lost") };
        let due = &mut due[usize::from(payload[0])];
        assert_eq!(payload[1], *due);
        *due += 1;
    }
    assert_eq!(due, [50; 4]);
}
