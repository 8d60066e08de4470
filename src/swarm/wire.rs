//! The agents' messages, in JSON.
//!
//! | subject | content | understood by |
//! | --- | --- | --- |
//! | `ratelimit.capacity` | one cut | all agents, agentkit's (Go) included |
//! | `ratelimit.query` | a request for the cuts that stand | tollgate |
//! | `ratelimit.state` | cuts that stand, with all those of a resource | tollgate |
//!
//! A cut that an agent of agentkit has announced is passed on as it was, in `new_capacity`, with a `floor`:
//! the factor that it scales every limit by at least.
//!
//! The first is agentkit's `CapacityUpdate`, with fields of ours that Go's decoder ignores:
//! `incident` (the cut's id), `factor` (of the sender's limit, for agents with another limit),
//! `age_ms`, and `instance` (one limiter, whatever its `agent_id`). A cut carries its age and not
//! only its date, because machines' calendar clocks differ.
//!
//! Anybody may send a message. It is parsed within bounds, and a malformed one is rejected.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limiter::{CutTarget, Origin, Plain, RemoteCut};

pub(super) const CAPACITY: &str = "ratelimit.capacity";
pub(super) const QUERY: &str = "ratelimit.query";
pub(super) const STATE: &str = "ratelimit.state";

/// Bytes of a message, of which an announcement has about 300. The limits below are in bytes too.
pub(super) const LONGEST: usize = 128 * 1024;
/// A message holds another resource's cuts if its cuts are no larger than this. The cuts of one
/// resource need about as much, with the longest ids and reasons, escaped.
const ROOM: usize = LONGEST / 2;
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
    agent_id: String,
    reason: String,
    timestamp: String,
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

/// `per_window` is the sender's present limit, for agents that know no factors.
pub(super) fn announcement(cut: &Cut<'_>, per_window: u64, instance: u64) -> Option<Vec<u8>> {
    let message = Announcement {
        resource: cut.resource.to_string(),
        agent_id: cut.origin.agent_id.clone(),
        new_capacity: per_window,
        reason: truncated(&cut.origin.reason).to_string(),
        timestamp: Some(format_timestamp(cut.origin.timestamp)?),
        incident: Some(Hex(cut.id)),
        factor: Some(cut.factor),
        age_ms: cut.age / 1_000_000,
        instance: Some(Hex(instance)),
    };
    serde_json::to_vec(&message).ok()
}

pub(super) fn query(agent_id: &str, instance: u64) -> Vec<u8> {
    state(agent_id, instance, Vec::new())
}

/// The cuts that stand, in as many messages as necessary. `cuts` are sorted by resource.
pub(super) fn states(agent_id: &str, instance: u64, cuts: &[Cut<'_>]) -> Vec<Vec<u8>> {
    let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
    for group in cuts.chunk_by(|a, b| a.resource == b.resource) {
        let group: Vec<StateCut> = group.iter().filter_map(state_cut).collect();
        let more = serde_json::to_vec(&group).map_or(0, |json| json.len());
        if size > 0 && size + more > ROOM {
            parts.push(mem::take(&mut part));
            size = 0;
        }
        size += more;
        part.extend(group);
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts.into_iter().map(|cuts| state(agent_id, instance, cuts)).collect()
}

fn state_cut(cut: &Cut<'_>) -> Option<StateCut> {
    Some(StateCut {
        resource: cut.resource.to_string(),
        incident: Hex(cut.id),
        factor: cut.plain.is_none().then_some(cut.factor),
        new_capacity: cut.plain.map(|plain| plain.tokens),
        floor: cut.plain.map(|plain| plain.floor),
        age_ms: cut.age / 1_000_000,
        agent_id: cut.origin.agent_id.clone(),
        reason: truncated(&cut.origin.reason).to_string(),
        timestamp: format_timestamp(cut.origin.timestamp)?,
    })
}

fn state(agent_id: &str, instance: u64, cuts: Vec<StateCut>) -> Vec<u8> {
    let message = State { agent_id: agent_id.to_string(), instance: Hex(instance), cuts };
    serde_json::to_vec(&message).unwrap_or_default()
}

// ---- decoding --------------------------------------------------------------------------------

pub(super) fn parse(subject: &str, payload: &[u8]) -> Option<Message> {
    if payload.len() > LONGEST {
        return None;
    }
    if subject == CAPACITY { parse_announcement(payload) } else { parse_state(payload) }
}

fn parse_announcement(payload: &[u8]) -> Option<Message> {
    let message: Announcement = serde_json::from_slice(payload).ok()?;
    let timestamp = message.timestamp.as_deref();
    let origin = origin(&message.agent_id, &message.reason, timestamp)?;
    if message.new_capacity == 0 {
        return None;
    }
    let (id, size) = match (message.incident, message.factor) {
        (Some(Hex(id)), Some(factor)) => (id, CutTarget::Factor(valid_factor(factor)?)),
        (None, None) => (id_of(&message), CutTarget::Tokens(message.new_capacity)),
        _ => return None,
    };
    let cut = RemoteCut { id, size, age: nanos(message.age_ms), origin };
    Some(Message {
        agent_id: message.agent_id,
        instance: message.instance.map(|Hex(instance)| instance),
        cuts: vec![(message.resource, cut)],
    })
}

fn parse_state(payload: &[u8]) -> Option<Message> {
    let message: State = serde_json::from_slice(payload).ok()?;
    let parse = |cut: StateCut| {
        let origin = origin(&cut.agent_id, &cut.reason, Some(&cut.timestamp))?;
        let size = match (cut.factor, cut.new_capacity) {
            (Some(factor), None) => CutTarget::Factor(valid_factor(factor)?),
            (None, Some(tokens)) if tokens > 0 => {
                let floor = cut.floor.unwrap_or(0.0);
                (0.0..1.0).contains(&floor).then_some(CutTarget::Plain(Plain { tokens, floor }))?
            }
            _ => return None,
        };
        let (Hex(id), age) = (cut.incident, nanos(cut.age_ms));
        Some((cut.resource, RemoteCut { id, size, age, origin }))
    };
    let cuts = message.cuts.into_iter().map(parse).collect::<Option<_>>()?;
    let (Hex(instance), agent_id) = (message.instance, valid_id(message.agent_id)?);
    Some(Message { agent_id, instance: Some(instance), cuts })
}

fn valid_factor(factor: f64) -> Option<f64> {
    (factor > 0.0 && factor < 1.0).then_some(factor)
}

fn valid_id(agent_id: String) -> Option<String> {
    (agent_id.len() <= LONGEST_ID).then_some(agent_id)
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
        agent_id: valid_id(agent_id.to_string())?,
        reason: truncated(reason).to_string(),
        timestamp,
        is_ours: false,
    }))
}

fn truncated(reason: &str) -> &str {
    let most = LONGEST_REASON.min(reason.len());
    let end = (0..=most).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    &reason[..end]
}

/// The FNV-1a hash of the fields that identify the message: the same id on every agent.
fn id_of(message: &Announcement) -> u64 {
    let timestamp = message.timestamp.as_deref().unwrap_or_default();
    let capacity = message.new_capacity.to_string();
    let parts = [&message.resource, &message.agent_id, timestamp, &capacity];
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

fn format_timestamp(at: SystemTime) -> Option<String> {
    let nanos = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).ok()?,
        Err(before) => -i128::try_from(before.duration().as_nanos()).ok()?,
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
