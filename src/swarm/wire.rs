//! What agents say to each other, in JSON.
//!
//! | subject | says | understood by |
//! | --- | --- | --- |
//! | `ratelimit.capacity` | one cut | all, those of agentkit (Go) included |
//! | `ratelimit.query` | what stands? | tollgate |
//! | `ratelimit.state` | all cuts that stand, or a part of them | tollgate |
//!
//! The first is agentkit's `CapacityUpdate`, with fields of ours that Go's decoder ignores:
//! `incident` (the cut's name), `factor` (of the sender's limit, for those whose limit is another),
//! `age_ms`, and `instance` (one limiter, whatever its `agent_id`). A cut tells its age and not only
//! its date, because machines' calendars differ.
//!
//! What comes in is anybody's: it is read within bounds, and what does not make sense is refused.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limiter::{Heard, Origin, Size};

pub(super) const CAPACITY: &str = "ratelimit.capacity";
pub(super) const QUERY: &str = "ratelimit.query";
pub(super) const STATE: &str = "ratelimit.state";

/// In bytes. An announcement has some 300.
const LONGEST: usize = 128 * 1024;
/// An agent's id, in bytes.
pub(super) const LONGEST_ID: usize = 256;
/// What is kept of a reason, in bytes.
const LONGEST_REASON: usize = 1024;
/// So many cuts go into one message, or until it has so many bytes.
const MOST_CUTS: usize = 64;
const ROOM: usize = LONGEST / 2;

/// What a subject's message says.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) agent_id: String,
    /// `None`: not one of ours.
    pub(super) instance: Option<u64>,
    /// By resource.
    pub(super) cuts: Vec<(String, Heard)>,
    /// Whether these are all that the sender knows of.
    pub(super) is_all: bool,
}

/// A cut to be told.
#[derive(Clone, Debug)]
pub(super) struct Cut<'a> {
    pub(super) resource: &'a str,
    pub(super) id: u64,
    pub(super) factor: f64,
    /// Told so where it came from.
    pub(super) tokens: Option<u64>,
    pub(super) age: u64,
    pub(super) origin: &'a Origin,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    resource: String,
    #[serde(default)]
    agent_id: String,
    new_capacity: u64,
    #[serde(default)]
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default)]
    age_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<Hex>,
}

#[derive(Serialize, Deserialize)]
struct State {
    agent_id: String,
    instance: Hex,
    #[serde(default)]
    cuts: Vec<StateCut>,
    #[serde(default)]
    is_all: bool,
}

#[derive(Serialize, Deserialize)]
struct StateCut {
    resource: String,
    incident: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_capacity: Option<u64>,
    age_ms: u64,
    agent_id: String,
    reason: String,
    timestamp: String,
}

/// 64 bits as 16 hexadecimal digits: JSON's numbers have 53.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex(u64);

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&digits, 16).map(Self)
    }
}

impl From<Hex> for String {
    fn from(Hex(number): Hex) -> Self {
        format!("{number:016x}")
    }
}

// ---- saying ----------------------------------------------------------------------------------

/// `per_window` is what the sender's limit is now, for those who know no factors.
pub(super) fn announcement(cut: &Cut<'_>, per_window: u64, instance: u64) -> Option<Vec<u8>> {
    let message = Announcement {
        resource: cut.resource.to_string(),
        agent_id: cut.origin.agent_id.clone(),
        new_capacity: per_window,
        reason: shortened(&cut.origin.reason).to_string(),
        timestamp: Some(format_timestamp(cut.origin.timestamp)?),
        incident: Some(Hex(cut.id)),
        factor: Some(cut.factor),
        age_ms: cut.age / 1_000_000,
        instance: Some(Hex(instance)),
    };
    serde_json::to_vec(&message).ok()
}

pub(super) fn query(agent_id: &str, instance: u64) -> Vec<u8> {
    state(agent_id, instance, Vec::new(), false)
}

/// All that stands, in as many messages as it takes.
pub(super) fn states(agent_id: &str, instance: u64, cuts: &[Cut<'_>]) -> Vec<Vec<u8>> {
    let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
    for cut in cuts {
        let Some(timestamp) = format_timestamp(cut.origin.timestamp) else { continue };
        if part.len() == MOST_CUTS || size > ROOM {
            parts.push(mem::take(&mut part));
            size = 0;
        }
        size += cut.resource.len() + cut.origin.agent_id.len() + cut.origin.reason.len();
        part.push(StateCut {
            resource: cut.resource.to_string(),
            incident: Hex(cut.id),
            factor: cut.tokens.is_none().then_some(cut.factor),
            new_capacity: cut.tokens,
            age_ms: cut.age / 1_000_000,
            agent_id: cut.origin.agent_id.clone(),
            reason: shortened(&cut.origin.reason).to_string(),
            timestamp,
        });
    }
    parts.push(part);
    let is_all = parts.len() == 1;
    parts.into_iter().map(|cuts| state(agent_id, instance, cuts, is_all)).collect()
}

fn state(agent_id: &str, instance: u64, cuts: Vec<StateCut>, is_all: bool) -> Vec<u8> {
    let message = State { agent_id: agent_id.to_string(), instance: Hex(instance), cuts, is_all };
    serde_json::to_vec(&message).unwrap_or_default()
}

// ---- understanding ---------------------------------------------------------------------------

pub(super) fn understand(subject: &str, payload: &[u8]) -> Option<Told> {
    if payload.len() > LONGEST {
        return None;
    }
    let told = if subject == CAPACITY { announced(payload) } else { stated(payload) }?;
    (told.agent_id.len() <= LONGEST_ID).then_some(told)
}

fn announced(payload: &[u8]) -> Option<Told> {
    let message: Announcement = serde_json::from_slice(payload).ok()?;
    let timestamp = message.timestamp.as_deref();
    let origin = origin(&message.agent_id, &message.reason, timestamp)?;
    if message.new_capacity == 0 {
        return None;
    }
    let (id, size) = match (message.incident, message.factor) {
        (Some(Hex(id)), Some(factor)) => (id, Size::Factor(sensible(factor)?)),
        (None, None) => (name_of(&message), Size::Tokens(message.new_capacity)),
        _ => return None,
    };
    let heard = Heard { id, size, age: nanos(message.age_ms), origin };
    Some(Told {
        agent_id: message.agent_id,
        instance: message.instance.map(|Hex(instance)| instance),
        cuts: vec![(message.resource, heard)],
        is_all: false,
    })
}

fn stated(payload: &[u8]) -> Option<Told> {
    let message: State = serde_json::from_slice(payload).ok()?;
    let understand = |cut: StateCut| {
        let origin = origin(&cut.agent_id, &cut.reason, Some(&cut.timestamp))?;
        let size = match (cut.factor, cut.new_capacity) {
            (Some(factor), None) => Size::Factor(sensible(factor)?),
            (None, Some(tokens)) if tokens > 0 => Size::Tokens(tokens),
            _ => return None,
        };
        let (Hex(id), age) = (cut.incident, nanos(cut.age_ms));
        Some((cut.resource, Heard { id, size, age, origin }))
    };
    let cuts: Option<Vec<_>> = message.cuts.into_iter().map(understand).collect();
    let Hex(instance) = message.instance;
    Some(Told {
        agent_id: message.agent_id,
        instance: Some(instance),
        cuts: cuts?,
        is_all: message.is_all,
    })
}

fn sensible(factor: f64) -> Option<f64> {
    (factor > 0.0 && factor < 1.0).then_some(factor)
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

fn origin(agent_id: &str, reason: &str, timestamp: Option<&str>) -> Option<Arc<Origin>> {
    let timestamp = match timestamp {
        Some(timestamp) => parse_timestamp(timestamp)?,
        None => SystemTime::now(),
    };
    Some(Arc::new(Origin {
        agent_id: agent_id.to_string(),
        reason: shortened(reason).to_string(),
        timestamp,
        is_ours: false,
    }))
}

fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(LONGEST_REASON)]
}

/// The same on every agent that hears it: the FNV-1a hash of what tells it from others.
fn name_of(message: &Announcement) -> u64 {
    let timestamp = message.timestamp.as_deref().unwrap_or_default();
    let capacity = message.new_capacity.to_string();
    let parts = [&message.resource, &message.agent_id, timestamp, &capacity];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// RFC 3339, at any offset and with up to nine decimals.
fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    let distance = Duration::new(
        u64::try_from(nanos.unsigned_abs() / 1_000_000_000).ok()?,
        (nanos.unsigned_abs() % 1_000_000_000) as u32,
    );
    if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

fn format_timestamp(at: SystemTime) -> Option<String> {
    let nanos = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).ok()?,
        Err(before) => -i128::try_from(before.duration().as_nanos()).ok()?,
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an agent of agentkit (Go) sends it.
    const GO: &str = r#"{"resource":"shared-api","agent_id":"go-agent-1","new_capacity":5,"reason":"received 429","timestamp":"2026-11-23T23:38:48.858236705Z"}"#;

    #[test]
    fn a_go_agent_is_understood() {
        let told = understand(CAPACITY, GO.as_bytes()).unwrap();
        assert_eq!((told.agent_id.as_str(), told.instance), ("go-agent-1", None));
        let (resource, heard) = &told.cuts[0];
        assert_eq!(resource, "shared-api");
        assert_eq!((heard.size, heard.age), (Size::Tokens(5), 0));
        assert_eq!(heard.origin.reason, "received 429");
        let since = heard.origin.timestamp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::new(1_795_477_128, 858_236_705));
        let again = understand(CAPACITY, GO.as_bytes()).unwrap();
        assert_eq!(again.cuts[0].1.id, heard.id, "one message, one name");
    }

    #[test]
    fn go_escapes_and_any_offset() {
        let text = GO
            .replace("received 429", r"a \u003c b \u0026 c \u003e d \u2028")
            .replace("2026-11-23T23:38:48.858236705Z", "2026-11-24T05:08:48.9+05:30");
        let told = understand(CAPACITY, text.as_bytes()).unwrap();
        let origin = &told.cuts[0].1.origin;
        assert_eq!(origin.reason, "a < b & c > d \u{2028}");
        let since = origin.timestamp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::new(1_795_477_128, 900_000_000));
    }

    /// What Go's `encoding/json` asks of the bytes: the five fields, an integer, RFC 3339.
    #[test]
    fn ours_is_what_a_go_agent_expects() {
        let origin = parse_timestamp("2026-11-23T23:38:48.858236705Z").map(|timestamp| Origin {
            agent_id: "agent-1".into(),
            reason: "a < b & c".into(),
            timestamp,
            is_ours: true,
        });
        let cut = Cut {
            resource: "shared-api",
            id: 0xabc,
            factor: 0.5,
            tokens: None,
            age: 1_999_999,
            origin: &origin.unwrap(),
        };
        let bytes = announcement(&cut, 5, 0xdef).unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"resource":"shared-api","agent_id":"agent-1","new_capacity":5,"reason":"a < b & c","timestamp":"2026-11-23T23:38:48.858236705Z","incident":"0000000000000abc","factor":0.5,"age_ms":1,"instance":"0000000000000def"}"#,
        );
        let told = understand(CAPACITY, &bytes).unwrap();
        assert_eq!((told.instance, told.is_all), (Some(0xdef), false));
        let (_, heard) = &told.cuts[0];
        assert_eq!((heard.id, heard.size, heard.age), (0xabc, Size::Factor(0.5), 1_000_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let not = |subject: &str, text: &str| {
            assert!(understand(subject, text.as_bytes()).is_none(), "{subject}: {text}");
        };
        for text in [
            "",
            "{}",
            "null",
            "[]",
            "5",
            "\u{0}",
            "{\"resource\":\"a\"}",
            r#"{"agent_id":"b","new_capacity":5}"#,
            r#"{"resource":5,"new_capacity":5}"#,
        ] {
            not(CAPACITY, text);
            not(STATE, text);
            not(QUERY, text);
        }
        for capacity in ["0", "-5", "5.0", "5e0", "1e30", "18446744073709551616", "\"5\"", "null"] {
            not(CAPACITY, &GO.replace(":5,", &format!(":{capacity},")));
        }
        for timestamp in ["", "now", "2026-11-23", "2026-13-23T23:38:48Z", "99999-11-23T23:38:48Z"]
        {
            not(CAPACITY, &GO.replace("2026-11-23T23:38:48.858236705Z", timestamp));
        }
        let ours = |more: &str| GO.replace('}', &format!(",{more}}}"));
        assert!(understand(CAPACITY, ours(r#""incident":"1","factor":0.5"#).as_bytes()).is_some());
        for more in [
            r#""incident":"1""#,
            r#""factor":0.5"#,
            r#""incident":"1","factor":0"#,
            r#""incident":"1","factor":1"#,
            r#""incident":"1","factor":-0.5"#,
            r#""incident":"1","factor":1e999"#,
            r#""incident":"x","factor":0.5"#,
            r#""incident":"1","factor":0.5,"age_ms":-1"#,
            r#""incident":"1","factor":0.5,"age_ms":0.5"#,
        ] {
            not(CAPACITY, &ours(more));
        }
        not(CAPACITY, &"[".repeat(1 << 20));
        not(CAPACITY, &"[".repeat(LONGEST));
        not(CAPACITY, &GO.replace('}', &format!(",\"x\":{}", "[".repeat(LONGEST / 2))));
        not(CAPACITY, &GO.replace("go-agent-1", &"a".repeat(LONGEST_ID + 1)));
        assert!(understand(CAPACITY, b"\xff\xfe").is_none());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = GO.replace("received 429", &"\u{e9}".repeat(LONGEST_REASON));
        let told = understand(CAPACITY, text.as_bytes()).unwrap();
        assert_eq!(told.cuts[0].1.origin.reason.len(), LONGEST_REASON);
    }

    #[test]
    fn much_state_goes_in_parts() {
        let origin = Origin {
            agent_id: "a".into(),
            reason: "429".into(),
            timestamp: SystemTime::UNIX_EPOCH,
            is_ours: true,
        };
        let names: Vec<String> = (0..150).map(|i| format!("api-{i}")).collect();
        let cut = |resource| Cut {
            resource,
            id: 1,
            factor: 0.25,
            tokens: Some(7),
            age: 2_000_000,
            origin: &origin,
        };
        let cuts: Vec<Cut<'_>> = names.iter().map(|name| cut(name)).collect();
        for (cuts, parts) in [(&cuts[..], 3), (&cuts[..64], 1), (&cuts[..0], 1)] {
            let messages = states("a", 3, cuts);
            assert_eq!(messages.len(), parts);
            let told: Vec<Told> =
                messages.iter().map(|bytes| understand(STATE, bytes).unwrap()).collect();
            assert!(told.iter().all(|told| told.is_all == (parts == 1)));
            let heard: Vec<_> = told.iter().flat_map(|told| &told.cuts).collect();
            assert!(heard.iter().map(|(name, _)| name).eq(&names[..cuts.len()]));
            assert!(heard.iter().all(|(_, heard)| heard.size == Size::Tokens(7)));
        }
    }
}
