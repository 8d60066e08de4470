//! Pauses that agents tell each other.

use std::sync::Arc;
use std::time::Duration;

use crate::common::swarm::{A_MOMENT, SECOND, agent, config, memory, total, updates};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tollgate::{
    CapacityUpdate, Delivery, DistributedConfig, DistributedLimiter, Limit, MessageBus,
    Subscription, UpdateKind,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// An agent that ends each pause on time.
async fn prompt(bus: &Arc<dyn MessageBus>, id: &str) -> DistributedLimiter {
    let config = DistributedConfig { pause_spread: false, ..config(bus, id) };
    let agent = DistributedLimiter::new(config).await.unwrap();
    agent.configure("shared-api", Limit::per_second(100)).unwrap();
    agent
}

/// A message about a pause, in milliseconds, on the subject of pauses.
async fn told(bus: &Arc<dyn MessageBus>, id: &str, length: &str, age: &str) {
    told_on(bus, "ratelimit.pause", id, length, age).await;
}

async fn told_on(bus: &Arc<dyn MessageBus>, subject: &str, id: &str, length: &str, age: &str) {
    let message = format!(
        r#"{{"agent_id":"liar","instance":"77","pauses":[{{"resource":"shared-api","id":"{id}","length_ms":{length},"age_ms":{age},"agent_id":"liar","timestamp":"1999-12-31T23:59:59Z"}}]}}"#
    );
    bus.publish(subject, message.into()).await.unwrap();
}

fn left(agent: &DistributedLimiter) -> Duration {
    agent.capacity("shared-api").unwrap().paused_until.unwrap_or_default()
}

/// Whether `agent` is paused for about `expected`: messages take no time here.
fn is_paused_for(agent: &DistributedLimiter, expected: Duration) -> bool {
    left(agent).abs_diff(expected) <= 2 * MILLISECOND
}

fn kinds(updates: &[CapacityUpdate]) -> Vec<UpdateKind> {
    updates.iter().map(|update| update.kind).collect()
}

/// The messages that are there.
async fn drained(subscription: &mut Box<dyn Subscription>) -> Vec<String> {
    let mut messages = Vec::new();
    while let Ok(Some(Delivery::Message(message))) = timeout(MILLISECOND, subscription.next()).await
    {
        messages.push(String::from_utf8(message).unwrap());
    }
    messages
}

#[tokio::test(start_paused = true)]
async fn one_is_told_to_wait_and_none_sends_until_then_nor_all_at_once_after_it() {
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..10 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    sleep(SECOND).await;
    // Permits that end in the pause give back tokens, which are void too.
    let mut held: Vec<_> =
        agents.iter().map(|agent| agent.try_acquire_n("shared-api", 5)).collect();
    let start = Instant::now();
    agents[3].pause_for("shared-api", 2 * SECOND);
    assert!(agents[3].check("shared-api").is_err(), "at once");
    sleep_until(start + 100 * MILLISECOND).await;
    assert!(agents.iter().all(|agent| agent.check("shared-api").is_err()));
    held.clear();
    let mut sent = Vec::new();
    while start.elapsed() < 4 * SECOND {
        for agent in &agents {
            while agent.check("shared-api").is_ok() {
                sent.push(start.elapsed());
            }
        }
        sleep(MILLISECOND).await;
    }
    // The first of each: it ends empty, so the first token follows the end by a tenth of a second.
    let firsts = &sent[..10];
    assert!(firsts.iter().all(|at| (2_100..=2_305).contains(&at.as_millis())), "{firsts:?}");
    assert!(firsts[9] >= firsts[0] + 20 * MILLISECOND, "spread: {firsts:?}");
    let within = |from: Duration, length| {
        sent.iter().filter(|&&at| (from..from + length).contains(&at)).count()
    };
    let end = 2 * SECOND;
    let most = (0..1_000).map(|at| within(end + at * MILLISECOND, 50 * MILLISECOND)).max();
    let all = within(end, SECOND);
    assert!(most.unwrap() * 5 <= all, "{most:?} of {all}");
}

#[tokio::test(start_paused = true)]
async fn each_agent_adds_its_part_once_and_never_ends_early() {
    let bus = memory();
    let mut agents = Vec::new();
    for i in 0..40 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    agents[0].pause_for("shared-api", SECOND);
    sleep(A_MOMENT).await;
    let parts = |pause: Duration| -> Vec<Duration> {
        agents.iter().map(|agent| (left(agent) + A_MOMENT).saturating_sub(pause)).collect()
    };
    let first = parts(SECOND);
    assert!(first.iter().all(|part| *part <= 102 * MILLISECOND), "{first:?}");
    assert!(first.iter().min() < first.iter().max());
    agents[1].pause_for("shared-api", 20 * SECOND);
    sleep(A_MOMENT).await;
    let second = parts(20 * SECOND);
    for (first, second) in first.iter().zip(&second) {
        assert!(second.abs_diff(*first * 10) <= 25 * MILLISECOND, "{first:?}: {second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_spread_all_end_together() {
    let bus = memory();
    let (one, other) = (prompt(&bus, "one").await, prompt(&bus, "other").await);
    one.pause_for("shared-api", 2 * SECOND);
    assert_eq!(left(&one), 2 * SECOND);
    let error = one.check("shared-api").unwrap_err();
    assert_eq!(error.retry_after(), Some(2_010 * MILLISECOND), "empty at its end");
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&other, 1_980 * MILLISECOND));
    assert!(left(&other) >= left(&one), "never earlier");
    sleep(2 * SECOND).await;
    assert_eq!((left(&one), left(&other)), (Duration::ZERO, Duration::ZERO));
    assert!(one.capacity("shared-api").unwrap().available <= 2, "it accrues since the end");
}

#[tokio::test(start_paused = true)]
async fn the_first_window_ends_empty_and_a_debt_stays() {
    let bus = memory();
    let agent = prompt(&bus, "a").await;
    let limit = Limit::per_second(10).and(Limit::new(100, 10 * SECOND));
    agent.configure("windows", limit).unwrap();
    agent.configure("debt", Limit::per_second(10)).unwrap();
    agent.try_acquire("debt").unwrap().settle(30);
    for name in ["windows", "debt"] {
        agent.pause_for(name, SECOND);
    }
    sleep(SECOND).await;
    let windows = agent.capacity("windows").unwrap().windows;
    let available: Vec<u64> = windows.iter().map(|window| window.available).collect();
    assert_eq!(available, [0, 100]);
    assert_eq!(agent.check("windows").unwrap_err().retry_after(), Some(SECOND / 10));
    assert_eq!(agent.check("debt").unwrap_err().retry_after(), Some(SECOND * 21 / 10));
}

#[tokio::test(start_paused = true)]
async fn a_known_id_never_moves_its_end() {
    let bus = memory();
    let agent = prompt(&bus, "a").await;
    told(&bus, "1", "2000", "500").await;
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&agent, 1_480 * MILLISECOND), "{:?}", left(&agent));
    for (length, age) in [("2000", "0"), ("3600000", "0"), ("2000", "1999")] {
        told(&bus, "1", length, age).await;
        told_on(&bus, "ratelimit.state", "1", length, age).await;
    }
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&agent, 1_460 * MILLISECOND), "{:?}", left(&agent));
    sleep(2 * SECOND).await;
    told(&bus, "1", "2000", "0").await;
    sleep(A_MOMENT).await;
    assert!(agent.check("shared-api").is_ok(), "it has ended");
    assert_eq!((agent.stats().pauses, agent.stats().malformed), (1, 0));
    assert_eq!(agent.paused_by(), [("liar".to_string(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn of_joined_pauses_the_later_end_counts() {
    let bus = memory();
    let (one, other) = (prompt(&bus, "one").await, prompt(&bus, "other").await);
    let heard = updates(&other);
    one.pause_for("shared-api", 2 * SECOND);
    sleep(A_MOMENT).await;
    other.pause_for("shared-api", SECOND); // shorter: nothing to tell
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&one, 1_960 * MILLISECOND) && is_paused_for(&other, 1_960 * MILLISECOND));
    assert_eq!(one.stats().pauses, 0);
    other.pause_for("shared-api", 5 * SECOND);
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&one, 4_980 * MILLISECOND) && is_paused_for(&other, 4_980 * MILLISECOND));
    sleep(5 * SECOND).await;
    // Told once each, on time, though nobody uses the limiter.
    let heard = heard.lock().unwrap().clone();
    assert_eq!(kinds(&heard), [UpdateKind::Pause, UpdateKind::Resume]);
    assert_eq!((heard[0].agent_id.as_str(), heard[0].is_ours), ("one", false));
    assert_eq!((heard[0].new_capacity, heard[0].per_window), (100, 100));
    assert_eq!((heard[1].agent_id.as_str(), heard[1].is_ours), ("other", true));
    assert_eq!((heard[1].new_capacity, heard[1].per_window), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn another_agents_pause_is_capped_also_when_it_is_passed_on() {
    let bus = memory();
    let agent = prompt(&bus, "a").await;
    for (i, length) in ["36000000", "18446744073709551615"].into_iter().enumerate() {
        told(&bus, &i.to_string(), length, "7200000").await;
        sleep(A_MOMENT).await;
        assert!(is_paused_for(&agent, 3_599_980 * MILLISECOND), "{:?}", left(&agent));
    }
    sleep(HOUR / 2).await;
    let late = prompt(&bus, "late").await;
    sleep(SECOND).await;
    assert!(left(&late).abs_diff(left(&agent)) <= 50 * MILLISECOND, "{:?}", left(&late));
    sleep(HOUR / 2).await;
    assert!(agent.check("shared-api").is_ok() && late.check("shared-api").is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_cap_is_an_option() {
    let bus = memory();
    for (longest_pause, expected) in [(SECOND, 980 * MILLISECOND), (Duration::ZERO, Duration::ZERO)]
    {
        let config = DistributedConfig { longest_pause, pause_spread: false, ..config(&bus, "a") };
        let agent = DistributedLimiter::new(config).await.unwrap();
        agent.set_capacity("shared-api", 10, SECOND).unwrap();
        told(&bus, "1", "36000000", "0").await;
        sleep(A_MOMENT).await;
        assert!(is_paused_for(&agent, expected), "{:?}", left(&agent));
        agent.pause_for("shared-api", 10 * HOUR); // one's own has no cap
        assert_eq!(left(&agent), 10 * HOUR);
        agent.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_ignored_where_they_are_not_accepted() {
    let bus = memory();
    let config = DistributedConfig { accept_pauses: false, ..config(&bus, "one") };
    let one = DistributedLimiter::new(config).await.unwrap();
    let other = prompt(&bus, "other").await;
    one.set_capacity("shared-api", 10, SECOND).unwrap();
    other.pause_for("shared-api", 2 * SECOND);
    sleep(SECOND).await;
    assert!(one.check("shared-api").is_ok());
    assert_eq!((left(&one), one.stats().pauses, one.paused_by()), (Duration::ZERO, 0, vec![]));
    sleep(2 * SECOND).await;
    one.pause_for("shared-api", 2 * SECOND); // its own is told in any case
    sleep(A_MOMENT).await;
    assert!(one.check("shared-api").is_err() && is_paused_for(&other, 1_980 * MILLISECOND));
}

#[tokio::test(start_paused = true)]
async fn a_pause_for_oneself_is_exact_and_not_told() {
    let bus = memory();
    let (one, other) = (agent(&bus, "one", 10).await, agent(&bus, "other", 10).await);
    let (seen, heard) = (updates(&one), updates(&other));
    sleep(SECOND).await;
    one.pause_here_for("shared-api", 2 * SECOND);
    assert_eq!(left(&one), 2 * SECOND);
    sleep(SECOND).await;
    assert!(one.check("shared-api").is_err() && other.check("shared-api").is_ok());
    sleep(SECOND).await;
    assert_eq!(one.capacity("shared-api").unwrap().available, 10, "on time, and tokens are kept");
    assert_eq!(kinds(&seen.lock().unwrap()), [UpdateKind::Pause, UpdateKind::Resume]);
    assert!(heard.lock().unwrap().is_empty());
    one.resource("shared-api").unwrap().pause_here_for(Duration::ZERO);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn late_joiners_and_names_that_come_late_are_paused_too() {
    let bus = memory();
    let early = prompt(&bus, "early").await;
    early.pause_for("shared-api", 10 * SECOND);
    sleep(5 * SECOND).await;
    let late = prompt(&bus, "late").await;
    sleep(SECOND).await;
    assert!(is_paused_for(&late, 4 * SECOND), "{:?}", left(&late));
    // One that knows no such name yet.
    let nameless = DistributedLimiter::new(DistributedConfig {
        pause_spread: false,
        ..config(&bus, "nameless")
    });
    let nameless = nameless.await.unwrap();
    sleep(2 * SECOND).await;
    nameless.set_capacity("shared-api", 10, SECOND).unwrap();
    sleep(A_MOMENT).await;
    assert!(is_paused_for(&nameless, 1_980 * MILLISECOND), "{:?}", left(&nameless));
    sleep(3 * SECOND).await;
    nameless.set_capacity("other", 10, SECOND).unwrap();
    for agent in [&early, &late, &nameless] {
        assert!(agent.check("shared-api").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn resume_ends_a_pause_here_and_it_does_not_come_back() {
    let bus = memory();
    let (one, other) = (prompt(&bus, "one").await, prompt(&bus, "other").await);
    let seen = updates(&one);
    other.pause_for("shared-api", 60 * SECOND);
    sleep(A_MOMENT).await;
    one.resume("shared-api");
    sleep(10 * SECOND).await;
    assert!(one.check("shared-api").is_ok() && other.check("shared-api").is_err());
    let late = prompt(&bus, "late").await; // all are asked, and tell
    sleep(SECOND).await;
    assert!(one.check("shared-api").is_ok() && late.check("shared-api").is_err());
    assert_eq!(kinds(&seen.lock().unwrap()), [UpdateKind::Pause, UpdateKind::Resume]);
    // The one that began it: the others go on.
    other.resume("shared-api");
    other.resume("shared-api");
    sleep(10 * SECOND).await;
    assert!(other.check("shared-api").is_ok() && late.check("shared-api").is_err());
    // Another pause is another one.
    late.pause_for("shared-api", 100 * SECOND);
    sleep(A_MOMENT).await;
    assert!(one.check("shared-api").is_err() && other.check("shared-api").is_err());
}

#[tokio::test(start_paused = true)]
async fn lengths_and_ages_that_make_no_sense_change_nothing() {
    let bus = memory();
    let agent = prompt(&bus, "a").await;
    let heard = updates(&agent);
    let mut sent = 0;
    for (length, age) in [
        ("0", "0"),
        ("-1", "0"),
        ("1000", "-1"),
        ("1000", "1000"),
        ("1000", "18446744073709551615"),
        ("18446744073709551616", "0"),
        ("1e400", "0"),
        ("0.5", "0"),
        ("null", "0"),
        ("\"9\"", "0"),
        ("NaN", "0"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        for subject in ["ratelimit.pause", "ratelimit.state"] {
            told_on(&bus, subject, "1", length, age).await;
            sent += 1;
        }
    }
    told(&bus, "x", "1000", "0").await;
    told(&bus, "", "1000", "0").await;
    for text in ["", "null", "{}", "[5]", "\u{0}", &"[".repeat(1 << 20)] {
        bus.publish("ratelimit.pause", text.into()).await.unwrap();
        sent += 1;
    }
    sleep(A_MOMENT).await;
    assert_eq!(agent.stats().malformed, sent + 2);
    assert!(heard.lock().unwrap().is_empty() && agent.check("shared-api").is_ok());
    // Over by the time that it is heard: its age is of the sending.
    told(&bus, "1", "1", "0").await;
    sleep(A_MOMENT).await;
    assert!(agent.check("shared-api").is_ok());
}

/// The calendar of the messages in these tests is decades off: only lengths and ages count.
#[tokio::test(start_paused = true)]
async fn who_can_publish_holds_the_swarm_for_as_long_as_it_publishes_plus_the_cap() {
    let bus = memory();
    let (one, other) = (prompt(&bus, "one").await, prompt(&bus, "other").await);
    let mut start = Instant::now();
    for i in 0..2_000 {
        told(&bus, &format!("{i:x}"), "18446744073709551615", "0").await;
        start = Instant::now();
        sleep(100 * MILLISECOND).await;
    }
    assert!(one.check("shared-api").is_err());
    let late = prompt(&bus, "late").await;
    sleep_until(start + HOUR - SECOND).await;
    assert!([&one, &other, &late].iter().all(|agent| agent.check("shared-api").is_err()));
    sleep_until(start + HOUR + SECOND).await;
    for agent in [&one, &other, &late] {
        assert!(agent.check("shared-api").is_ok(), "{:?}", left(agent));
        assert_eq!(total(agent), 100);
    }
    assert_eq!(one.stats().pauses, 2_000);
    assert_eq!(one.paused_by(), [("liar".to_string(), 2_000)]);
}

#[tokio::test(start_paused = true)]
async fn agents_that_know_no_pauses_are_told_nothing_new() {
    let bus = memory();
    let mut go = bus.subscribe("ratelimit.capacity").await.unwrap();
    let mut states = bus.subscribe("ratelimit.state").await.unwrap();
    let agent = prompt(&bus, "a").await;
    agent.pause_for("shared-api", 20 * SECOND);
    // An older agent: it has a cut, and never a pause.
    let cut = r#"{"resource":"shared-api","incident":"1","factor":0.5,"age_ms":0}"#;
    let message = format!(r#"{{"agent_id":"old","instance":"77","cuts":[{cut}]}}"#);
    for _ in 0..4 {
        bus.publish("ratelimit.state", message.clone().into()).await.unwrap();
        sleep(5 * SECOND).await;
    }
    assert!(drained(&mut go).await.is_empty(), "nothing on the subject of Go agents");
    let states: Vec<_> = drained(&mut states).await;
    // It reads the cuts of a message as before, and is not answered without end.
    let ours = states.iter().filter(|message| message.contains("\"agent_id\":\"a\",\"instance\""));
    let ours: Vec<_> = ours.collect();
    assert!(ours.iter().all(|message| message.contains("\"cuts\":[")));
    assert!((1..=40).contains(&ours.len()), "{} messages in 20 s", ours.len());
    assert_eq!(total(&agent), 50);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_refusals_with_a_retry_after_are_few_messages() {
    let bus = memory();
    let mut tap = bus.subscribe("ratelimit.pause").await.unwrap();
    let mut agents = Vec::new();
    for i in 0..10 {
        agents.push(agent(&bus, &i.to_string(), 10).await);
    }
    sleep(3 * SECOND).await;
    let before: u64 = agents.iter().map(|agent| agent.stats().sent).sum();
    for _ in 0..100 {
        for agent in &agents {
            agent.pause_for("shared-api", 2 * SECOND);
        }
        sleep(MILLISECOND).await;
    }
    let last = Instant::now() - MILLISECOND;
    sleep(100 * MILLISECOND).await;
    assert!(agents.iter().all(|agent| left(agent) >= last + 2 * SECOND - Instant::now()));
    sleep(SECOND).await;
    let sent = agents.iter().map(|agent| agent.stats().sent).sum::<u64>() - before;
    let announced = drained(&mut tap).await.len();
    assert!(announced <= 10 && sent <= 60, "{announced} of {sent}");
}
