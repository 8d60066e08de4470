//! What an agent makes of its neighbours that lie, and of those that flood. Go agents: see `go_agents.rs`.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::swarm::{A_MOMENT, GO, SECOND, agent, config, memory, total, updates};
use tokio::time::sleep;
use tollgate::{Delivery, DistributedLimiter, MessageBus};
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Metadata, Subscriber, span};

/// One cut, as it stands in a message of state.
fn stated(id: &str, factor: f64, age_ms: u64, agent_id: &str, reason: &str) -> String {
    format!(
        r#"{{"resource":"shared-api","incident":"{id}","factor":{factor},"age_ms":{age_ms},"agent_id":"{agent_id}","reason":"{reason}","timestamp":"2026-11-23T23:38:48Z"}}"#
    )
}

async fn state(bus: &Arc<dyn MessageBus>, cuts: &[String]) {
    let cuts = cuts.join(",");
    let message = format!(r#"{{"agent_id":"liar","instance":"77","cuts":[{cuts}]}}"#);
    bus.publish("ratelimit.state", message.into()).await.unwrap();
}

/// The name of the cut that `agent` announces.
async fn cut_of(bus: &Arc<dyn MessageBus>, agent: &DistributedLimiter) -> String {
    let mut tap = bus.subscribe("ratelimit.capacity").await.unwrap();
    agent.announce_reduced("shared-api", "429");
    let Some(Delivery::Message(message)) = tap.next().await else { panic!("a message") };
    let message = String::from_utf8(message).unwrap();
    message.split("\"incident\":\"").nth(1).unwrap()[..16].to_string()
}

#[tokio::test(start_paused = true)]
async fn hostile_input_is_ignored_and_counted() {
    let bus = memory();
    let agent = agent(&bus, "a", 10).await;
    let heard = updates(&agent);
    let mut sent = 0;
    for text in ["", "null", "{}", "[5]", "{\"resource\":\"shared-api\"}", &"[".repeat(1 << 20)] {
        for subject in ["ratelimit.capacity", "ratelimit.query", "ratelimit.state"] {
            bus.publish(subject, text.into()).await.unwrap();
            sent += 1;
        }
    }
    for capacity in ["0", "-1", "4.5", "1e400", "99999999999999999999", "null", "\"5\""] {
        let message = GO.replace(":5,", &format!(":{capacity},"));
        bus.publish("ratelimit.capacity", message.into()).await.unwrap();
        sent += 1;
    }
    sleep(A_MOMENT).await;
    assert_eq!((agent.stats().malformed, agent.stats().received), (sent, sent));
    bus.publish("ratelimit.capacity", GO.replace("shared-api", "other").into()).await.unwrap();
    for huge in ["10", "11", "18446744073709551615"] {
        bus.publish("ratelimit.capacity", GO.replace(":5,", &format!(":{huge},")).into())
            .await
            .unwrap();
    }
    sleep(A_MOMENT).await;
    assert_eq!((agent.stats().malformed, agent.stats().unknown_resource), (sent, 1));
    assert!(total(&agent) == 10 && heard.lock().unwrap().is_empty());
    // At worst a cut, which recovery undoes.
    let worst =
        GO.replace(":5,", ":1,").replace('}', r#","incident":"1","factor":1e-300,"age_ms":0}"#);
    bus.publish("ratelimit.capacity", worst.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(total(&agent), 1);
    // 2^-20 x 1.1^146 > 1
    sleep(146 * 30 * SECOND).await;
    assert_eq!(total(&agent), 10);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_age_a_cut_away_nor_keep_us_from_cutting() {
    let bus = memory();
    let agent = agent(&bus, "a", 100).await;
    let mut tap = bus.subscribe("ratelimit.capacity").await.unwrap();
    agent.announce_reduced("shared-api", "429");
    let Some(Delivery::Message(ours)) = tap.next().await else { panic!("a message") };
    let ours = String::from_utf8(ours).unwrap();
    let instance = ours.split("\"instance\":").nth(1).unwrap();
    let forged = ours.replace(instance, "\"77\"}").replace("\"age_ms\":0", "\"age_ms\":600000");
    bus.publish("ratelimit.capacity", forged.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(total(&agent), 50);
    // A stream of cuts that hardly cut, so that every refusal comes just after one.
    for i in 0..200 {
        let shallow = GO.replace(
            '}',
            &format!(r#","incident":"{:x}","factor":0.{},"age_ms":0}}"#, 100 + i, 49_999 - i),
        );
        bus.publish("ratelimit.capacity", shallow.into()).await.unwrap();
        sleep(Duration::from_millis(40)).await;
    }
    agent.announce_reduced("shared-api", "429");
    assert_eq!(total(&agent), 25 - 1, "8 s later, half of 49.8");
}

#[tokio::test(start_paused = true)]
async fn one_id_for_two_limiters_is_noticed_and_they_hear_each_other() {
    let bus = memory();
    let (one, other) = (agent(&bus, "same", 10).await, agent(&bus, "same", 10).await);
    one.announce_reduced("shared-api", "429");
    sleep(A_MOMENT).await;
    assert_eq!(total(&other), 5);
    assert!(other.stats().same_agent_id > 0);
    // A Go agent under our id, too.
    bus.publish(
        "ratelimit.capacity",
        GO.replace("go-agent-1", "same").replace(":5,", ":3,").into(),
    )
    .await
    .unwrap();
    sleep(A_MOMENT).await;
    assert!(one.stats().same_agent_id > 0);
}

/// Many cuts just below the present factor, each about to recover, do not push the real one out.
#[tokio::test(start_paused = true)]
async fn many_false_cuts_raise_nothing() {
    let bus = memory();
    let (a, b) = (agent(&bus, "a", 1_000).await, agent(&bus, "b", 1_000).await);
    a.announce_reduced("shared-api", "429");
    for round in 0..20_u32 {
        sleep(SECOND).await;
        let cuts: Vec<String> = (0..16)
            .map(|i| {
                let below = 0.5 * (1.0 - 0.000_1 * f64::from(17 - i));
                let age = 29_950 - 2 * u64::from(i);
                stated(&format!("{:x}", 16 * round + i + 1), below, age, "x", "")
            })
            .collect();
        state(&bus, &cuts).await;
    }
    sleep(9 * SECOND).await;
    assert!(total(&a) <= 500 && total(&b) <= 500, "{} {}", total(&a), total(&b));
    sleep(300 * SECOND).await;
    assert_eq!((total(&a), total(&b)), (1_000, 1_000), "and they are undone");
}

/// Someone says all the time that the cut is hardly one, or long over.
#[tokio::test(start_paused = true)]
async fn a_liar_does_not_keep_a_late_joiner_from_learning() {
    for (factor, age_ms) in [(0.999_9, 0), (0.5, 200_000)] {
        let bus = memory();
        let (a, _b) = (agent(&bus, "a", 1_000).await, agent(&bus, "b", 1_000).await);
        sleep(SECOND).await;
        let id = cut_of(&bus, &a).await;
        sleep(5 * SECOND).await;
        let other = Arc::clone(&bus);
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(40)).await;
                state(&other, &[stated(&id, factor, age_ms, "x", "")]).await;
            }
        });
        let late = agent(&bus, "late", 1_000).await;
        sleep(SECOND).await;
        assert_eq!((total(&a), total(&late)), (500, 500));
    }
}

#[tokio::test(start_paused = true)]
async fn what_escapes_to_six_times_its_length_is_told_all_the_same() {
    let bus = memory();
    let joined = async |id| {
        let agent = DistributedLimiter::new(config(&bus, id)).await.unwrap();
        for i in 0..64 {
            agent.set_capacity(&format!("api-{i}"), 10, SECOND).unwrap();
        }
        agent
    };
    let a = joined("a").await;
    for (i, reason) in
        ["\u{1}".repeat(1_024), "\"\n\t\\".repeat(256)].iter().cycle().take(64).enumerate()
    {
        a.announce_reduced(&format!("api-{i}"), reason);
    }
    sleep(3 * SECOND).await;
    let late = joined("late").await;
    sleep(SECOND).await;
    for i in 0..64 {
        assert_eq!(late.capacity(&format!("api-{i}")).unwrap().burst, 5);
    }
    assert_eq!(late.stats().malformed, 0);
}

/// What a neighbour would have to pass on: it is truncated.
#[tokio::test(start_paused = true)]
async fn long_ids_of_a_liar_do_not_silence_the_others() {
    let bus = memory();
    let a = agent(&bus, "a", 1_000).await;
    a.announce_reduced("shared-api", "429");
    sleep(SECOND).await;
    let (id, reason) = ("\\u0001".repeat(8 * 1_024), "\\u0001".repeat(1_024));
    for i in 0..16_u32 {
        let below = 0.5 * (1.0 - 0.000_1 * f64::from(17 - i));
        state(
            &bus,
            &[stated(&format!("{:x}", i + 1), below, 20_000 - 2 * u64::from(i), &id, &reason)],
        )
        .await;
    }
    sleep(A_MOMENT).await;
    assert_eq!(a.stats().malformed, 0);
    let late = agent(&bus, "late", 1_000).await;
    sleep(SECOND).await;
    assert_eq!((total(&late), late.stats().malformed), (total(&a), 0));
    assert!((490..=500).contains(&total(&late)));
}

/// A cut that is heard of late began an incident that is over.
#[tokio::test(start_paused = true)]
async fn who_learns_of_an_old_cut_still_cuts_for_the_next() {
    let bus = memory();
    let a = agent(&bus, "a", 100).await;
    a.announce_reduced("shared-api", "429");
    sleep(20 * SECOND).await;
    let late = agent(&bus, "late", 100).await;
    sleep(SECOND).await;
    assert_eq!(total(&late), 50);
    late.announce_reduced("shared-api", "429");
    sleep(A_MOMENT).await;
    assert_eq!((total(&a), total(&late)), (25, 25));
}

// ---- what is told in the log --------------------------------------------------------------------

/// Keeps what is logged, a line an event: its level, its message and its fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tollgate")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Log {
    /// How many lines of `level` say `what`.
    fn lines(&self, level: &str, what: &str) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(level) && line.contains(what)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_and_a_flood_does_not_fill_the_log() {
    let log = Log::default();
    // With one subscriber in the process an event of the crate is switched off for good where a thread
    // without it, such as another test's, comes to it first. With two, all are asked.
    let _second = Dispatch::new(Log::default());
    let _guard = tracing::subscriber::set_default(log.clone());
    let bus = memory();
    let (one, _other) = (agent(&bus, "same", 1_000_000).await, agent(&bus, "same", 10).await);
    sleep(SECOND).await;
    assert!(log.lines("WARN", "another limiter uses this agent_id") > 0, "{:?}", log.0);
    assert!(log.lines("WARN", "agent_id=\"same\"") > 0);
    bus.publish("ratelimit.capacity", b"[5".to_vec()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(log.lines("WARN", "a message that makes no sense was ignored"), 2, "one each");
    assert_eq!(log.lines("WARN", "bytes=2"), 2);
    bus.publish("ratelimit.capacity", GO.into()).await.unwrap();
    sleep(A_MOMENT).await;
    assert_eq!(log.lines("INFO", "a neighbour's cut"), 2);
    assert_eq!(log.lines("INFO", "agent_id=\"go-agent-1\""), 2);
    sleep(3_000 * SECOND).await;
    // Neither nonsense nor cuts that are hardly any.
    let before = (log.lines("WARN", ""), log.lines("INFO", ""));
    let heard = one.stats().received;
    for i in 0..2_000_u32 {
        let factor = 0.999_9 - 0.000_1 * f64::from(i % 1_000);
        state(&bus, &[stated(&format!("{:x}", i + 1), factor, 0, "x", "")]).await;
        bus.publish("ratelimit.capacity", b"{}".to_vec()).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(one.stats().received >= heard + 4_000 && total(&one) < 950_000);
    let after = (log.lines("WARN", ""), log.lines("INFO", ""));
    assert!(after.0 - before.0 <= 20 && after.1 - before.1 <= 20, "{before:?} to {after:?}");
}
