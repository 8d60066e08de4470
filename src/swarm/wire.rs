//! The agents' messages, in JSON.
//!
//! | subject | content | understood by |
//! | --- | --- | --- |
//! | `ratelimit.capacity` | one cut | all agents, agentkit's (Go) included |
//! | `ratelimit.pause` | one pause, in a state without cuts | tollgate |
//! | `ratelimit.query` | a request for the cuts and pauses that stand | tollgate |
//! | `ratelimit.state` | cuts and pauses that stand, with all those of a resource | tollgate |
//!
//! A cut that an agent of agentkit has announced is passed on as it was, in `new_capacity`, with a `floor`:
//! the factor that it scales every limit by at least.
//!
//! The first is agentkit's `CapacityUpdate`, with fields of ours that Go's decoder ignores:
//! `incident` (the cut's id), `factor` (of the sender's limit, for agents with another limit),
//! `age_ms`, `measured` (a request was refused), and `instance` (one limiter, whatever its `agent_id`). A cut
//! carries its age and not only its date, because machines' calendar clocks differ.
//!
//! Anybody may send a message. It is parsed within bounds, and a malformed one is rejected. What only
//! people read (a reason, an agent's id) makes no message malformed by its length: it is truncated.

mod pause;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limiter::{CutTarget, Origin, Pause, Plain, RemoteCut, RemotePause, Told};
use pause::StatePause;

pub(super) const CAPACITY: &str = "ratelimit.capacity";
pub(super) const PAUSE: &str = "ratelimit.pause";
pub(super) const QUERY: &str = "ratelimit.query";
pub(super) const STATE: &str = "ratelimit.state";

/// Bytes of a state or a query that are parsed. An announcement may be as long as the bus allows.
pub(super) const LONGEST: usize = 128 * 1024;
/// A message holds another resource's cuts if its cuts are no larger than this. The cuts of one
/// resource need about as much, with the longest ids and reasons, escaped.
pub(super) const ROOM: usize = LONGEST / 2;
/// Longer ids of other agents are truncated.
pub(super) const LONGEST_ID: usize = 256;
/// Longer reasons are truncated.
pub(super) const LONGEST_REASON: usize = 1024;

/// A parsed message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) agent_id: String,
    /// `None`: not sent by tollgate.
    pub(super) instance: Option<u64>,
    /// With the resource of each.
    pub(super) cuts: Vec<(String, RemoteCut)>,
    pub(super) pauses: Vec<(String, RemotePause)>,
}

impl Message {
    /// All that it tells, by resource.
    pub(super) fn told(self) -> Vec<(String, Told)> {
        let cuts = self.cuts.into_iter().map(|(resource, cut)| (resource, Told::Cut(cut)));
        let pauses =
            self.pauses.into_iter().map(|(resource, pause)| (resource, Told::Pause(pause)));
        let mut told: Vec<_> = cuts.chain(pauses).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }
}

/// A cut to send.
#[derive(Clone, Debug)]
pub(super) struct Cut<'a> {
    pub(super) resource: &'a str,
    pub(super) id: u64,
    pub(super) factor: f64,
    /// `Some` if its origin announced tokens only.
    pub(super) plain: Option<Plain>,
    pub(super) age: u64,
    pub(super) origin: &'a Origin,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    resource: String,
    #[serde(default)]
    agent_id: Option<String>,
    new_capacity: u64,
    #[serde(default)]
    reason: Option<String>,
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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    measured: bool,
}

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(default)]
    agent_id: Option<String>,
    instance: Hex,
    #[serde(default)]
    cuts: Vec<StateCut>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pauses: Vec<StatePause>,
}

#[derive(Serialize, Deserialize)]
struct StateCut {
    resource: String,
    incident: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_capacity: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<f64>,
    age_ms: u64,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
}

/// 64 bits as 16 hexadecimal digits: a JSON number has 53.
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

// ---- encoding --------------------------------------------------------------------------------

/// A message that does not fit into the payloads of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    /// Without what can be left out.
    pub(super) bytes: usize,
}

/// `per_window` is the sender's present limit, for agents that know no factors. At most `most` bytes: the
/// reason is shortened.
pub(super) fn announcement(
    cut: &Cut<'_>,
    per_window: u64,
    instance: u64,
    most: usize,
) -> Result<Vec<u8>, TooLarge> {
    shortened(most, truncated(&cut.origin.reason, LONGEST_REASON), |reason| {
        encoded(&Announcement {
            resource: cut.resource.to_string(),
            agent_id: Some(cut.origin.agent_id.clone()),
            new_capacity: per_window,
            reason: Some(reason.to_string()),
            timestamp: Some(format_timestamp(cut.origin.timestamp)),
            incident: Some(Hex(cut.id)),
            factor: Some(cut.factor),
            age_ms: cut.age / 1_000_000,
            instance: Some(Hex(instance)),
            measured: cut.origin.is_measured,
        })
    })
}

pub(super) fn query(agent_id: &str, instance: u64) -> Vec<u8> {
    StateMessage::new(agent_id, instance).encode()
}

/// A state in the making.
pub(super) struct StateMessage {
    state: State,
    bytes: usize,
}

impl StateMessage {
    pub(super) fn new(agent_id: &str, instance: u64) -> Self {
        let state = State {
            agent_id: Some(agent_id.to_string()),
            instance: Hex(instance),
            cuts: Vec::new(),
            pauses: Vec::new(),
        };
        let bytes = encoded(&state).len();
        Self { state, bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.cuts.is_empty() && self.state.pauses.is_empty()
    }

    /// Adds all cuts of a resource, and the pause, which is told at a time; `false` if they belong into another
    /// message, which must have at most `most` bytes too. If they do not fit into a message of their own, the
    /// reasons are shortened.
    pub(super) fn add(
        &mut self,
        cuts: &[Cut<'_>],
        pause: Option<(&str, &Pause, u64)>,
        most: usize,
    ) -> Result<bool, TooLarge> {
        /// What the first pause adds to a message besides itself.
        const NAME: usize = r#","pauses":[]"#.len();

        let pause = pause.map(|(resource, pause, now)| StatePause::new(resource, pause, now));
        let of_pause = pause.as_ref().map_or(0, |pause| encoded(pause).len() + NAME);
        let limit = most.min(if self.is_empty() { LONGEST } else { ROOM });
        let mut bytes = 0;
        for reason in [LONGEST_REASON, LONGEST_REASON / 16, 0] {
            let group: Vec<StateCut> = cuts.iter().map(|cut| state_cut(cut, reason)).collect();
            bytes = self.bytes + encoded(&group).len() + of_pause;
            if bytes <= limit {
                self.state.cuts.extend(group);
                self.state.pauses.extend(pause);
                self.bytes = bytes;
                return Ok(true);
            }
            if !self.is_empty() {
                return Ok(false);
            }
        }
        Err(TooLarge { bytes })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encoded(&self.state)
    }
}

fn state_cut(cut: &Cut<'_>, longest_reason: usize) -> StateCut {
    StateCut {
        resource: cut.resource.to_string(),
        incident: Hex(cut.id),
        factor: cut.plain.is_none().then_some(cut.factor),
        new_capacity: cut.plain.map(|plain| plain.tokens),
        floor: cut.plain.map(|plain| plain.floor),
        age_ms: cut.age / 1_000_000,
        agent_id: Some(cut.origin.agent_id.clone()),
        reason: Some(truncated(&cut.origin.reason, longest_reason).to_string()),
        timestamp: Some(format_timestamp(cut.origin.timestamp)),
    }
}

/// What `encode` makes of a reason that is short enough for `most` bytes.
fn shortened(
    most: usize,
    reason: &str,
    encode: impl Fn(&str) -> Vec<u8>,
) -> Result<Vec<u8>, TooLarge> {
    let whole = encode(reason);
    if whole.len() <= most {
        return Ok(whole);
    }
    // Each byte of a reason takes at least one.
    let excess = whole.len() - most;
    let shorter = encode(truncated(reason, reason.len().saturating_sub(excess)));
    let bytes = shorter.len();
    if bytes <= most { Ok(shorter) } else { Err(TooLarge { bytes }) }
}

fn encoded(message: &impl Serialize) -> Vec<u8> {
    // Neither numbers that JSON lacks nor maps are in the messages, so this cannot fail.
    serde_json::to_vec(message).unwrap_or_default()
}

// ---- decoding --------------------------------------------------------------------------------

pub(super) fn parse(subject: &str, payload: &[u8]) -> Option<Message> {
    if subject == CAPACITY {
        parse_announcement(payload)
    } else {
        Some(payload).filter(|payload| payload.len() <= LONGEST).and_then(parse_state)
    }
}

fn parse_announcement(payload: &[u8]) -> Option<Message> {
    let message: Announcement = serde_json::from_slice(payload).ok()?;
    if message.new_capacity == 0 {
        return None;
    }
    let (id, size) = match (message.incident, message.factor) {
        (Some(Hex(id)), Some(factor)) => (id, CutTarget::Factor(valid_factor(factor)?)),
        (None, None) => (id_of(&message), CutTarget::Tokens(message.new_capacity)),
        _ => return None,
    };
    // Only tollgate measures.
    let measured = message.measured && message.factor.is_some();
    let origin = origin(message.agent_id, message.reason, message.timestamp, measured)?;
    let agent_id = origin.agent_id.clone();
    let cut = RemoteCut { id, size, age: nanos(message.age_ms), origin };
    Some(Message {
        agent_id,
        instance: message.instance.map(|Hex(instance)| instance),
        cuts: vec![(message.resource, cut)],
        pauses: Vec::new(),
    })
}

fn parse_state(payload: &[u8]) -> Option<Message> {
    let message: State = serde_json::from_slice(payload).ok()?;
    let parse = |cut: StateCut| {
        let origin = origin(cut.agent_id, cut.reason, cut.timestamp, false)?;
        let size = match (cut.factor, cut.new_capacity) {
            (Some(factor), None) => CutTarget::Factor(valid_factor(factor)?),
            (None, Some(tokens)) if tokens > 0 => {
                let floor = cut.floor.unwrap_or(0.0);
                (0.0..=1_024.0)
                    .contains(&floor)
                    .then_some(CutTarget::Plain(Plain { tokens, floor }))?
            }
            _ => return None,
        };
        let (Hex(id), age) = (cut.incident, nanos(cut.age_ms));
        Some((cut.resource, RemoteCut { id, size, age, origin }))
    };
    let cuts = message.cuts.into_iter().map(parse).collect::<Option<_>>()?;
    let pauses = message.pauses.into_iter().map(StatePause::parse).collect::<Option<_>>()?;
    let (Hex(instance), agent_id) = (message.instance, message.agent_id.unwrap_or_default());
    let agent_id = truncated(&agent_id, LONGEST_ID).to_string();
    Some(Message { agent_id, instance: Some(instance), cuts, pauses })
}

fn valid_factor(factor: f64) -> Option<f64> {
    (factor > 0.0 && factor < 1.0).then_some(factor)
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

fn origin(
    agent_id: Option<String>,
    reason: Option<String>,
    timestamp: Option<String>,
    is_measured: bool,
) -> Option<Arc<Origin>> {
    let timestamp = match timestamp {
        Some(timestamp) => parse_timestamp(&timestamp)?,
        None => SystemTime::now(),
    };
    Some(Arc::new(Origin {
        agent_id: truncated(&agent_id.unwrap_or_default(), LONGEST_ID).to_string(),
        reason: truncated(&reason.unwrap_or_default(), LONGEST_REASON).to_string(),
        timestamp,
        is_ours: false,
        is_measured,
    }))
}

/// At most `most` bytes of `text`, whole characters.
fn truncated(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// The FNV-1a hash of the fields that identify the message: the same id on every agent.
fn id_of(message: &Announcement) -> u64 {
    let timestamp = message.timestamp.as_deref().unwrap_or_default();
    let capacity = message.new_capacity.to_string();
    let agent_id = message.agent_id.as_deref().unwrap_or_default();
    let parts = [message.resource.as_str(), agent_id, timestamp, &capacity];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// RFC 3339, at any offset and with up to nine decimals.
pub(super) fn parse_timestamp(text: &str) -> Option<SystemTime> {
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

/// A date that RFC 3339 has no digits for is the epoch.
fn format_timestamp(at: SystemTime) -> String {
    let nanos = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()),
        Err(before) => i128::try_from(before.duration().as_nanos()).map(|before| -before),
    };
    let date = nanos.ok().and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
    let formatted = date.and_then(|date| date.format(&Rfc3339).ok());
    formatted.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_string())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
