//! Buses that refuse messages, that do not deliver, that panic; and runtimes that do not run.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::swarm::{A_MOMENT, SECOND, agent, config, memory, total};
use crate::common::watchdog::HANG;
use tokio::time::{Instant, sleep, timeout};
use tollgate::{
    BusError, BusFuture, Delivery, DistributedLimiter, Limit, MemoryBus, MessageBus, Subscription,
    SwarmError,
};

/// A bus that fails as it is told to.
#[derive(Clone, Default)]
struct Frail(Arc<State>);

#[derive(Default)]
struct State {
    bus: MemoryBus,
    /// The largest payload that it takes; 0 for any.
    most: AtomicUsize,
    /// Whether it says so.
    tells: AtomicBool,
    /// Each message that contains this is refused.
    refused: Mutex<Option<&'static str>>,
    is_down: AtomicBool,
    /// Subscribing fails, and subscriptions end.
    is_deaf: AtomicBool,
    /// So many of the next calls panic.
    panics: AtomicUsize,
    published: AtomicU64,
    refusals: AtomicU64,
    subscribed: AtomicU64,
}

impl State {
    fn panic_if_told(&self) {
        let counted = |panics: usize| panics.checked_sub(1);
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted);
        assert!(left.is_err(), "a bus that panics");
    }
}

impl MessageBus for Frail {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        self.0.panic_if_told();
        let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        let most = self.0.most.load(Ordering::SeqCst);
        let text = String::from_utf8_lossy(&payload);
        let is_refused = self.0.refused.lock().unwrap().is_some_and(|part| text.contains(part));
        if is(&self.0.is_down) {
            return Box::pin(std::future::ready(Err(BusError::Disconnected)));
        }
        if most > 0 && payload.len() > most || is_refused {
            self.0.refusals.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::ready(Err(BusError::Failed("refused".into()))));
        }
        self.0.published.fetch_add(1, Ordering::SeqCst);
        self.0.bus.publish(subject, payload)
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move {
            self.0.panic_if_told();
            self.0.subscribed.fetch_add(1, Ordering::SeqCst);
            if self.0.is_deaf.load(Ordering::SeqCst) {
                return Err(BusError::Disconnected);
            }
            let subscription = self.0.bus.subscribe(subject).await?;
            Ok(Box::new(FrailSubscription(self.clone(), subscription)) as Box<dyn Subscription>)
        })
    }

    fn max_payload(&self) -> usize {
        let most = self.0.most.load(Ordering::SeqCst);
        if most > 0 && self.0.tells.load(Ordering::SeqCst) { most } else { usize::MAX }
    }
}

struct FrailSubscription(Frail, Box<dyn Subscription>);

impl Subscription for FrailSubscription {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(async {
            let delivery = self.1.next().await;
            self.0.0.panic_if_told();
            if self.0.0.is_deaf.load(Ordering::SeqCst) { None } else { delivery }
        })
    }
}

fn frail() -> (Frail, Arc<dyn MessageBus>, Arc<dyn MessageBus>) {
    let frail = Frail::default();
    let (bus, other) = (Arc::new(frail.clone()), Arc::new(frail.0.bus.clone()));
    (frail, bus, other)
}

fn cut(agent: &DistributedLimiter, name: &str, reason: &str) {
    agent.configure(name, Limit::per_second(10)).unwrap();
    agent.announce_reduced(name, reason);
}

/// By its size, which the bus tells or not, or by what it says.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_keeps_no_other_from_being_sent() {
    let long = "x".repeat(200_000);
    let escaped = "\u{1}".repeat(1_024);
    for tells in [true, false] {
        for (name, reason) in [(long.as_str(), "429"), ("api", &long), ("api", &escaped)] {
            let (frail, bus, other) = frail();
            frail.0.most.store(1_024, Ordering::SeqCst);
            frail.0.tells.store(tells, Ordering::SeqCst);
            let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
            sleep(SECOND).await;
            b.configure(name, Limit::per_second(10)).unwrap();
            cut(&a, name, reason);
            sleep(A_MOMENT).await;
            a.announce_reduced("shared-api", "429");
            sleep(A_MOMENT).await;
            assert_eq!(total(&b), 5);
            sleep(5 * SECOND).await;
            // One with a long reason is sent with a shorter one.
            let burst = |agent: &DistributedLimiter, name| agent.capacity(name).unwrap().burst;
            assert_eq!(burst(&b, name), if name == "api" { 5 } else { 10 });
            let late = agent(&other, "late", 10).await;
            sleep(SECOND).await;
            assert_eq!(total(&late), 5);
            if name != "api" && tells {
                assert!(a.stats().dropped > 0);
            }
            cut(&a, "last", "429");
            b.configure("last", Limit::per_second(10)).unwrap();
            let before = Instant::now();
            a.close().await;
            // One that fits into no message is not waited for where that is known.
            assert!(!tells || before.elapsed() < A_MOMENT);
            sleep(A_MOMENT).await;
            assert_eq!(burst(&b, "last"), 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_always_refused_is_given_up_and_its_cut_is_not() {
    let (frail, bus, other) = frail();
    let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
    *frail.0.refused.lock().unwrap() = Some("bad");
    cut(&a, "bad", "429");
    for _ in 0..4 {
        sleep(60 * SECOND).await;
        a.announce_reduced("shared-api", "429");
    }
    sleep(SECOND).await;
    assert_eq!((a.stats().dropped, total(&b)), (1, total(&a)));
    let late = agent(&other, "late", 10).await;
    sleep(SECOND).await;
    assert_eq!(total(&late), total(&a), "though both cuts stand");
    // What stands is told as long as it stands; each refusal is counted.
    assert!(a.stats().not_sent < 200, "{:?}", a.stats());
    assert_eq!(a.stats().not_sent, frail.0.refusals.load(Ordering::SeqCst));
}

/// 100 resources in state messages, of which the bus takes only small ones.
#[tokio::test(start_paused = true)]
async fn what_stands_is_split_into_messages_that_fit() {
    for tells in [true, false] {
        let (frail, bus, other) = frail();
        frail.0.tells.store(tells, Ordering::SeqCst);
        frail.0.most.store(2_048, Ordering::SeqCst);
        let a = agent(&bus, "a", 10).await;
        let names: Vec<_> = (0..100).map(|i| format!("api-{i}")).collect();
        for name in &names {
            cut(&a, name, &"because of this ".repeat(50));
        }
        sleep(20 * SECOND).await;
        let late = agent(&other, "late", 10).await;
        for name in &names {
            late.configure(name, Limit::per_second(10)).unwrap();
        }
        sleep(SECOND).await;
        let is_cut = |name: &&String| late.capacity(name).unwrap().burst == 5;
        assert_eq!(names.iter().filter(is_cut).count(), 100, "tells: {tells}");
        assert_eq!(a.stats().dropped, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hears_nothing_is_heard() {
    let (frail, bus, other) = frail();
    let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
    frail.0.is_deaf.store(true, Ordering::SeqCst);
    b.announce_reduced("shared-api", "429"); // which ends the subscription
    sleep(SECOND).await;
    assert_eq!((total(&a), total(&b)), (10, 5));
    let before = frail.0.subscribed.load(Ordering::SeqCst);
    b.configure("mine", Limit::per_second(10)).unwrap();
    cut(&a, "mine", "429");
    sleep(A_MOMENT).await;
    assert_eq!(b.capacity("mine").unwrap().burst, 5);
    sleep(20 * SECOND).await;
    let attempts = frail.0.subscribed.load(Ordering::SeqCst) - before;
    assert!((20..=60).contains(&attempts), "{attempts} attempts in 20 s");
    frail.0.is_deaf.store(false, Ordering::SeqCst);
    sleep(2 * SECOND).await;
    assert_eq!(total(&a), 5);
}

#[tokio::test(start_paused = true)]
async fn close_tries_for_two_seconds() {
    for down_for in [100, 1_500, 60_000] {
        let (frail, bus, other) = frail();
        let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
        sleep(SECOND).await;
        frail.0.is_down.store(true, Ordering::SeqCst);
        a.announce_reduced("shared-api", "429");
        let start = Instant::now();
        let closing = a.close();
        let closing = tokio::spawn(async move {
            closing.await;
            Instant::now()
        });
        sleep(Duration::from_millis(down_for)).await;
        frail.0.is_down.store(false, Ordering::SeqCst);
        let took = closing.await.unwrap() - start;
        let is_back = down_for < 2_000;
        let (least, most) = (Duration::from_millis(down_for.min(2_000)), 2 * SECOND + A_MOMENT);
        assert!((least..=most).contains(&took), "{took:?}");
        sleep(A_MOMENT).await;
        assert_eq!(total(&b), if is_back { 5 } else { 10 });
        assert!(!a.stats().is_running);
    }
}

/// On the machine's time: a runtime that stands still has none of its own.
#[test]
fn close_ends_although_nobody_drives_the_limiters_runtime() {
    let home = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bus = memory();
    let agent = home.block_on(agent(&bus, "a", 10));
    agent.announce_reduced("shared-api", "429");
    let (closing, start) = (agent.close(), std::time::Instant::now());
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async { timeout(HANG, closing).await.expect("it ends") });
    assert!(start.elapsed() >= 2 * SECOND && agent.stats().is_running);
    // On no runtime at all.
    pollster::block_on(agent.close());
    home.block_on(agent.close());
    assert!(!agent.stats().is_running);
}

#[test]
fn a_runtime_that_ends_leaves_a_limiter_that_says_so() {
    let home = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let agent = home.block_on(agent(&memory(), "a", 10));
    assert!(agent.stats().is_running);
    drop(home);
    assert!(!agent.stats().is_running);
    agent.announce_reduced("shared-api", "429");
    assert_eq!(total(&agent), 5, "it continues alone");
    pollster::block_on(agent.close());
}

#[test]
fn a_runtime_without_timers_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = runtime.block_on(DistributedLimiter::new(config(&memory(), "a")));
    assert_eq!(refused.unwrap_err(), SwarmError::NoTimers);
    assert!(SwarmError::NoTimers.to_string().contains("enable_time"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_survives_a_bus_that_panics() {
    let (frail, bus, other) = frail();
    frail.0.panics.store(1, Ordering::SeqCst);
    let refused = DistributedLimiter::new(config(&bus, "a")).await.unwrap_err();
    assert!(matches!(refused, SwarmError::Bus(BusError::Failed(_))));
    let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
    sleep(SECOND).await;
    for _ in 0..5 {
        // In publishing, or in receiving.
        frail.0.panics.store(3, Ordering::SeqCst);
        a.announce_reduced("shared-api", "429");
        sleep(6 * SECOND).await;
        assert_eq!(total(&b), total(&a));
        frail.0.panics.store(3, Ordering::SeqCst);
        b.announce_reduced("shared-api", "429");
        sleep(6 * SECOND).await;
        assert_eq!(total(&b), total(&a));
    }
    assert_eq!(frail.0.panics.load(Ordering::SeqCst), 0);
    assert!(a.stats().is_running && a.stats().not_sent > 0);
}
