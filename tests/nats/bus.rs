//! The bus over NATS, on servers that come and go.

use std::time::{Duration, Instant};

use crate::common::bus::{conformance, message, next};
use crate::common::watchdog::HANG;
use crate::server::Server;
use tokio::time::{sleep, timeout};
use tollgate::async_nats::{self, ConnectOptions};
use tollgate::{BusError, Delivery, MessageBus, NatsBus, Subscription};

async fn start() -> (Server, NatsBus) {
    let server = Server::start();
    let bus = NatsBus::connect(&server.url()).await.unwrap();
    (server, bus)
}

conformance!(start().await);

/// Publish again and again until it is as expected, or fail after some time.
async fn until(bus: &NatsBus, subject: &str, expected: &Result<(), BusError>) {
    let since = Instant::now();
    while bus.publish(subject, "again".into()).await != *expected {
        assert!(since.elapsed() < HANG, "{bus:?}, not {expected:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Publish again and again until a message with this text arrives; those of other texts may be late.
async fn until_heard(bus: &NatsBus, subscription: &mut Box<dyn Subscription>, text: &str) {
    let since = Instant::now();
    loop {
        let _ = bus.publish("a", text.into()).await;
        let heard = timeout(Duration::from_millis(10), subscription.next()).await;
        match heard {
            Ok(Some(delivery)) if delivery == message(text) => return,
            heard => assert_ne!(heard, Ok(None)),
        }
        assert!(since.elapsed() < HANG, "{text:?} is not heard");
    }
}

fn failure<T>(result: Result<T, BusError>) -> String {
    match result {
        Err(BusError::Failed(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("that is no failure"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_in_place_once_subscribed() {
    let (server, bus) = start().await;
    let other = NatsBus::connect(&server.url()).await.unwrap();
    // One who listens to everything changes nothing.
    let _everything = other.subscribe(">").await.unwrap();
    for i in 0..500 {
        let subject = format!("subject.{i}");
        let mut subscription = bus.subscribe(&subject).await.unwrap();
        other.publish(&subject, subject.clone().into()).await.unwrap();
        assert_eq!(next(&mut subscription).await, message(&subject));
    }
}

#[tokio::test]
async fn a_client_that_there_is_will_do() {
    let server = Server::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let bus = NatsBus::from(client.clone());
    let mut subscription = bus.clone().subscribe("a").await.unwrap();
    client.publish("a", "one".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await, message("one"));
    assert_eq!(format!("{bus:?}"), "NatsBus(Connected)");
    // Its end is the end of the subscription.
    client.drain().await.unwrap();
    assert_eq!(timeout(HANG, subscription.next()).await, Ok(None));
    assert!(failure(bus.publish("a", "two".into()).await).contains("send"));
    assert!(bus.subscribe("a").await.is_err());
    assert!(bus.flush().await.is_err());
}

#[tokio::test]
async fn nothing_is_kept_for_after_an_outage() {
    let (mut server, bus) = start().await;
    let mut subscription = bus.subscribe("a").await.unwrap();
    server.kill();
    until(&bus, "elsewhere", &Err(BusError::Disconnected)).await;
    let since = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(bus.publish("a", "stale".into()).await, Err(BusError::Disconnected));
        assert!(since.elapsed() < HANG, "it waits");
    }
    assert_eq!(bus.flush().await, Err(BusError::Disconnected));
    server.restart();
    until(&bus, "elsewhere", &Ok(())).await;
    bus.publish("a", "fresh".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await, message("fresh"));
}

#[tokio::test]
async fn subscriptions_outlive_the_server() {
    let (mut server, bus) = start().await;
    let other = NatsBus::connect(&server.url()).await.unwrap();
    let mut before = bus.subscribe("a").await.unwrap();
    server.kill();
    until(&bus, "elsewhere", &Err(BusError::Disconnected)).await;
    let mut meanwhile = timeout(HANG, bus.subscribe("a")).await.unwrap().unwrap();
    for outage in ["first", "second"] {
        server.restart();
        until_heard(&other, &mut before, outage).await;
        until_heard(&other, &mut meanwhile, outage).await;
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = Server::start();
    let options = NatsBus::options().ping_interval(Duration::from_millis(100));
    let bus = NatsBus::connect_with(&server.url(), options).await.unwrap();
    let mut subscription = bus.subscribe("a").await.unwrap();
    server.pause();
    // Nothing waits for it for long, not even with full buffers.
    let since = Instant::now();
    while timeout(HANG, bus.publish("elsewhere", vec![0; 100_000])).await.unwrap().is_ok() {
        assert!(since.elapsed() < HANG, "{bus:?}");
    }
    let _ = timeout(HANG, bus.flush()).await.unwrap();
    let _ = timeout(HANG, bus.subscribe("b")).await.unwrap();
    until(&bus, "elsewhere", &Err(BusError::Disconnected)).await;
    server.resume();
    until_heard(&bus, &mut subscription, "one").await;
}

#[tokio::test]
async fn a_burst_of_ten_thousand_is_held_and_what_is_lost_is_counted() {
    let server = Server::start();
    let (bus, other) = (
        NatsBus::connect(&server.url()).await.unwrap(),
        NatsBus::connect(&server.url()).await.unwrap(),
    );
    let (mut slow, mut done) =
        (bus.subscribe("a").await.unwrap(), bus.subscribe("b").await.unwrap());
    for i in 0..10_000 {
        other.publish("a", format!("{i:01400}").into()).await.unwrap();
    }
    for i in 0..10_000 {
        assert_eq!(next(&mut slow).await, message(&format!("{i:01400}")));
    }
    for _ in 0..40 {
        other.publish("a", vec![0; 1_000_000]).await.unwrap();
    }
    other.publish("b", "done".into()).await.unwrap();
    assert_eq!(next(&mut done).await, message("done"));
    // The server sends in the order of publishing, but the two subscriptions have tasks of their own.
    let mut counted = 0;
    while counted < 40 {
        match next(&mut slow).await {
            Delivery::Lost(n) => counted += n,
            Delivery::Message(_) => counted += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counted, 40);
}

#[tokio::test]
async fn what_the_server_takes_and_how_often_it_connected_is_known() {
    let mut server = Server::start_with_max_payload(2_048);
    let bus = NatsBus::connect(&server.url()).await.unwrap();
    assert_eq!((bus.max_payload(), bus.connections()), (2_048, 1));
    server.restart();
    until(&bus, "elsewhere", &Ok(())).await;
    let since = Instant::now();
    while bus.connections() < 2 {
        assert!(since.elapsed() < HANG);
        let _ = bus.publish("elsewhere", Vec::new()).await;
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_bad_subject_is_an_error_and_no_more() {
    let server = Server::start();
    let client = NatsBus::options().connect(server.url()).await.unwrap();
    let bus = NatsBus::from(client.clone());
    let mut subscription = bus.subscribe("a").await.unwrap();
    let long = "a".repeat(1_025);
    for subject in ["", " ", "a b", "a\tb", "a\r\nPUB b 0\r\n", ".a", "a.", "a..b", &long] {
        assert!(!failure(bus.publish(subject, Vec::new()).await).is_empty(), "{subject:?}");
        assert!(!failure(bus.subscribe(subject).await).is_empty(), "{subject:?}");
    }
    // The server may not like these, but the connection stays.
    let longest = "a".repeat(1_024);
    for subject in ["a.>.b", "a\0b", "*a", "ä.☃", "$SYS.>", &longest] {
        bus.publish(subject, Vec::new()).await.unwrap();
        drop(bus.subscribe(subject).await.unwrap());
    }
    bus.publish("a", "one".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await, message("one"));
    assert_eq!(format!("{:?}", client.statistics().connects), "1");
}

#[tokio::test]
async fn a_payload_too_large_is_an_error_and_no_more() {
    let server = Server::start();
    let client = NatsBus::options().connect(server.url()).await.unwrap();
    let bus = NatsBus::from(client.clone());
    let mut subscription = bus.subscribe("a").await.unwrap();
    let why = failure(bus.publish("a", vec![0; client.max_payload() + 1]).await);
    assert!(why.contains("payload"), "{why}");
    bus.publish("a", "one".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await, message("one"));
    assert_eq!(format!("{:?}", client.statistics().connects), "1");
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let mut server = Server::start();
    server.kill();
    let why = failure(timeout(HANG, NatsBus::connect(&server.url())).await.unwrap());
    assert!(why.contains("refused"), "{why}");
    for url in ["", "nats://", "http://localhost", "a b", "nats://localhost:99999", "nats://h,"] {
        assert!(timeout(HANG, NatsBus::connect(url)).await.unwrap().is_err(), "{url:?}");
    }
}

#[tokio::test]
async fn one_server_of_several_will_do() {
    let server = Server::start();
    let mut gone = Server::start();
    gone.kill();
    let bus = NatsBus::connect(&format!("{}, {}", gone.url(), server.url())).await.unwrap();
    bus.publish("a", Vec::new()).await.unwrap();
}

#[tokio::test]
async fn credentials_are_given_with_the_options() {
    async fn refused(server: &Server, options: ConnectOptions) -> String {
        failure(timeout(HANG, NatsBus::connect_with(&server.url(), options)).await.unwrap())
    }
    async fn admitted(server: &Server, options: ConnectOptions) {
        let bus = NatsBus::connect_with(&server.url(), options).await.unwrap();
        let mut subscription = bus.subscribe("a").await.unwrap();
        bus.publish("a", "one".into()).await.unwrap();
        assert_eq!(next(&mut subscription).await, message("one"));
    }
    let server = Server::start_with(&["--auth", "secret"]);
    assert!(refused(&server, NatsBus::options()).await.contains("authorization"));
    assert!(
        refused(&server, NatsBus::options().token("no".into())).await.contains("authorization")
    );
    admitted(&server, NatsBus::options().token("secret".into())).await;

    let server = Server::start_with(&["--user", "me", "--pass", "secret"]);
    let options = |password: &str| {
        NatsBus::options().user_and_password("me".to_string(), password.to_string())
    };
    assert!(refused(&server, options("no")).await.contains("authorization"));
    admitted(&server, options("secret")).await;

    // The client would leave these out without a word. The error does not tell them.
    let url = server.url().replace("//", "//me:secret@");
    let why = failure(NatsBus::connect(&url).await);
    assert!(why.contains("ConnectOptions") && !why.contains("secret"), "{why}");
}
