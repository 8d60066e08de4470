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
    /// What becomes of a message on a subject: `None` for a publish that never returns.
    verdict: Mutex<Option<Verdict>>,
    /// How long publishing takes.
    delay: Mutex<Duration>,
    is_down: AtomicBool,
    /// Subscribing fails, and subscriptions end.
    is_deaf: AtomicBool,
    /// So many of the next calls panic.
    panics: AtomicUsize,
    published: AtomicU64,
    refusals: AtomicU64,
    subscribed: AtomicU64,
}

type Verdict = Box<dyn FnMut(&str, &str) -> Option<Result<(), BusError>> + Send>;

fn refusal() -> Result<(), BusError> {
    Err(BusError::Failed("refused".into()))
}

impl Frail {
    fn answer(
        &self,
        verdict: impl FnMut(&str, &str) -> Option<Result<(), BusError>> + Send + 'static,
    ) {
        *self.0.verdict.lock().unwrap() = Some(Box::new(verdict));
    }
    fn is_well(&self) {
        *self.0.verdict.lock().unwrap() = None;
    }
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
        let verdict = match &mut *self.0.verdict.lock().unwrap() {
            Some(verdict) => verdict(subject, &text),
            None => Some(Ok(())),
        };
        let delay = *self.0.delay.lock().unwrap();
        drop(text);
        self.0.published.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            sleep(delay).await;
            match verdict {
                Some(Ok(())) => self.0.bus.publish(subject, payload).await,
                Some(failed) => failed,
                None => std::future::pending().await,
            }
        })
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

    fn connections(&self) -> u64 {
        self.0.panic_if_told();
        0
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
    assert!((5..=60).contains(&attempts), "{attempts} attempts in 20 s");
    frail.0.is_deaf.store(false, Ordering::SeqCst);
    sleep(3 * SECOND).await;
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

/// Whatever the bus says of it: that it is disconnected, or nothing at all.
#[tokio::test(start_paused = true)]
async fn a_message_that_disconnects_the_bus_keeps_no_other_from_being_sent() {
    for answer in [Some(Err(BusError::Disconnected)), None] {
        let (frail, bus, other) = frail();
        let a = agent(&bus, "a", 10).await;
        frail.answer(
            move |_, text| {
                if text.contains("\"bad\"") { answer.clone() } else { Some(Ok(())) }
            },
        );
        cut(&a, "bad", "429");
        sleep(SECOND).await;
        a.announce_reduced("shared-api", "429");
        sleep(20 * SECOND).await;
        let late = agent(&other, "late", 10).await;
        sleep(10 * SECOND).await;
        assert_eq!(total(&late), total(&a));
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_no_limit_on_the_size() {
    let (frail, bus, other) = frail();
    let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
    let name = "k".repeat(1_500);
    b.configure(&name, Limit::per_second(10)).unwrap();
    let mut is_first = true;
    frail.answer(move |_, _| Some(if std::mem::take(&mut is_first) { refusal() } else { Ok(()) }));
    cut(&a, &name, "429");
    sleep(2 * SECOND).await;
    assert_eq!((b.capacity(&name).unwrap().burst, a.stats().dropped), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn close_tries_again_and_again_on_a_bus_that_refuses() {
    for (refused_for, back_after) in [(0, 1_700), (60, 300)] {
        let (frail, bus, other) = frail();
        let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
        sleep(SECOND).await;
        frail.answer(|_, _| Some(refusal()));
        a.announce_reduced("shared-api", "429");
        sleep(refused_for * SECOND).await;
        let closing = tokio::spawn(a.close());
        sleep(Duration::from_millis(back_after)).await;
        frail.is_well();
        closing.await.unwrap();
        sleep(A_MOMENT).await;
        assert_eq!(total(&b), total(&a));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_in_an_outage_is_sent_soon_after_it() {
    for outage in [33, 62, 95] {
        let (frail, bus, other) = frail();
        let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
        let mut announced = other.subscribe("ratelimit.capacity").await.unwrap();
        sleep(2 * SECOND).await;
        frail.answer(|_, _| Some(refusal()));
        a.announce_reduced("shared-api", "429");
        sleep(outage * SECOND).await;
        frail.is_well();
        // A state is sent in the second half of each interval of 5 s, so two are up to 7.5 s apart. The first that the
        // bus takes shows that it is back.
        assert!(timeout(8 * SECOND, announced.next()).await.is_ok());
        assert_eq!(total(&b), total(&a));
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_always_refused_is_given_up() {
    let (frail, bus, _) = frail();
    frail.answer(|subject, _| Some(if subject == "ratelimit.query" { refusal() } else { Ok(()) }));
    let a = agent(&bus, "a", 10).await;
    sleep(600 * SECOND).await;
    let tried = frail.0.published.load(Ordering::SeqCst);
    assert!((3..=20).contains(&tried), "{tried} times");
    sleep(600 * SECOND).await;
    assert_eq!(a.stats().not_sent, tried);
}

#[tokio::test(start_paused = true)]
async fn states_that_are_all_refused_are_no_flood() {
    let (frail, bus, _) = frail();
    frail.answer(|subject, _| Some(if subject == "ratelimit.state" { refusal() } else { Ok(()) }));
    let a = agent(&bus, "a", 10).await;
    for i in 0..1_000 {
        cut(&a, &format!("api-{i}"), "429");
    }
    sleep(60 * SECOND).await;
    assert!(a.stats().not_sent < 500, "{}", a.stats().not_sent);
}

/// 10,000 announcements at 5 ms each, and after them their repeats.
#[tokio::test(start_paused = true)]
async fn announcements_keep_no_late_joiner_waiting() {
    let (frail, bus, other) = frail();
    let a = agent(&bus, "a", 10).await;
    a.announce_reduced("shared-api", "429");
    sleep(2 * SECOND).await;
    *frail.0.delay.lock().unwrap() = Duration::from_millis(5);
    for i in 0..10_000 {
        cut(&a, &format!("api-{i}"), "429");
    }
    let late = agent(&other, "late", 10).await;
    sleep(SECOND).await;
    assert_eq!(total(&late), 5);
}

/// A bus that often fails is no reason to repeat without end.
#[tokio::test(start_paused = true)]
async fn repeats_do_not_sustain_themselves() {
    for (part, answer) in [(0.01, BusError::Disconnected), (0.1, BusError::Failed(String::new()))] {
        let (frail, bus, _) = frail();
        let a = agent(&bus, "a", 10).await;
        for i in 0..300 {
            cut(&a, &format!("api-{i}"), "429");
        }
        sleep(5 * SECOND).await;
        frail.answer(|_, _| Some(Err(BusError::Disconnected)));
        sleep(10 * SECOND).await; // one outage
        let mut random = fastrand::Rng::with_seed(5);
        let announced = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&announced);
        frail.answer(move |subject, _| {
            count.fetch_add(u64::from(subject == "ratelimit.capacity"), Ordering::SeqCst);
            let fails = random.f64() < part;
            Some(if fails { Err(answer.clone()) } else { Ok(()) })
        });
        sleep(60 * SECOND).await;
        let before = announced.load(Ordering::SeqCst);
        assert!(before >= 300 * 5, "they are repeated once");
        sleep(60 * SECOND).await;
        assert!(announced.load(Ordering::SeqCst) - before <= 300 * 6);
    }
}

/// A subscription that ends whenever it is made.
struct Ended;

impl Subscription for Ended {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(std::future::ready(None))
    }
}

/// One that always has a message, which makes no sense.
struct Flood;

impl Subscription for Flood {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(std::future::ready(Some(Delivery::Message(b"[".to_vec()))))
    }
}

/// One subject is flooded; the announcements' subscription ends so many times.
struct Lopsided {
    bus: MemoryBus,
    is_flooded: bool,
    ends: AtomicUsize,
    subscribed: Arc<AtomicU64>,
}

impl MessageBus for Lopsided {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        self.bus.publish(subject, payload)
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        let ready =
            |subscription: Box<dyn Subscription>| Box::pin(std::future::ready(Ok(subscription)));
        if subject == "ratelimit.state" && self.is_flooded {
            return ready(Box::new(Flood));
        }
        let ends = |left: usize| left.checked_sub(1);
        let is_end = subject != "ratelimit.state"
            && self.ends.fetch_update(Ordering::SeqCst, Ordering::SeqCst, ends).is_ok();
        if is_end { ready(Box::new(Ended)) } else { self.bus.subscribe(subject) }
    }
}

#[tokio::test(start_paused = true)]
async fn subscriptions_that_end_at_once_are_renewed_in_no_loop() {
    let subscribed = Arc::new(AtomicU64::new(0));
    let bus = Lopsided {
        bus: MemoryBus::new(),
        is_flooded: false,
        ends: AtomicUsize::new(usize::MAX),
        subscribed: Arc::clone(&subscribed),
    };
    let bus: Arc<dyn MessageBus> = Arc::new(bus);
    let a = agent(&bus, "a", 10).await;
    sleep(60 * SECOND).await;
    let times = subscribed.load(Ordering::SeqCst);
    assert!((30..=120).contains(&times), "{times} times");
    a.close().await;
}

/// On the machine's time: a flood leaves tokio's paused time no moment to advance.
#[tokio::test]
async fn a_flood_keeps_no_other_subject_deaf() {
    let memory = MemoryBus::new();
    let bus = Lopsided {
        bus: memory.clone(),
        is_flooded: true,
        ends: AtomicUsize::new(1),
        subscribed: Arc::new(AtomicU64::new(0)),
    };
    let bus: Arc<dyn MessageBus> = Arc::new(bus);
    let other: Arc<dyn MessageBus> = Arc::new(memory);
    let (a, b) = (agent(&bus, "a", 10).await, agent(&other, "b", 10).await);
    b.announce_reduced("shared-api", "429");
    let heard = async {
        let mut number = 0;
        while total(&a) == 10 {
            number += 1;
            // Again and again, as the first may precede the renewal.
            let message = crate::common::swarm::GO.replace("858236705", &format!("{number:09}"));
            other.publish("ratelimit.capacity", message.into()).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(HANG, heard).await.expect("it is heard");
}

/// With its age: it ends no later for those who hear of it late.
#[tokio::test(start_paused = true)]
async fn a_pause_is_told_when_the_bus_is_back() {
    let bus = Frail::default();
    let shared: Arc<dyn MessageBus> = Arc::new(bus.clone());
    let (one, other) = (agent(&shared, "one", 10).await, agent(&shared, "other", 10).await);
    sleep(SECOND).await;
    bus.0.is_down.store(true, Ordering::SeqCst);
    one.pause_for("shared-api", 10 * SECOND);
    one.pause_for("over", 2 * SECOND);
    sleep(4 * SECOND).await;
    assert!(other.check("shared-api").is_ok());
    bus.0.is_down.store(false, Ordering::SeqCst);
    sleep(SECOND).await;
    let left = other.capacity("shared-api").unwrap().paused_until.unwrap();
    assert!(left >= 5 * SECOND && left <= 6 * SECOND + A_MOMENT, "{left:?}");
    assert_eq!((other.stats().pauses, one.stats().dropped), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_closes_tells_of_its_pause() {
    let bus = memory();
    let (one, other) = (agent(&bus, "one", 10).await, agent(&bus, "other", 10).await);
    one.pause_for("shared-api", 10 * SECOND);
    one.close().await;
    sleep(A_MOMENT).await;
    assert!(other.check("shared-api").is_err());
}
