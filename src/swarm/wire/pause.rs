//! A pause in a message: its length and its age in milliseconds, so that calendar clocks may differ.

use serde::{Deserialize, Serialize};

use super::{Hex, format_timestamp, nanos, origin};
use crate::limiter::{Pause, RemotePause};

const MILLISECOND: u64 = 1_000_000;

/// Its reason is not told: it is always the same.
#[derive(Serialize, Deserialize)]
pub(super) struct StatePause {
    resource: String,
    id: Hex,
    length_ms: u64,
    age_ms: u64,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
}

impl StatePause {
    /// Rounded so that it ends no earlier than the pause.
    pub(super) fn new(resource: &str, pause: &Pause, now: u64) -> Self {
        Self {
            resource: resource.to_string(),
            id: Hex(pause.id),
            length_ms: pause.length.div_ceil(MILLISECOND),
            age_ms: pause.age(now) / MILLISECOND,
            agent_id: Some(pause.origin.agent_id.clone()),
            timestamp: Some(format_timestamp(pause.origin.timestamp)),
        }
    }

    /// With its resource. Nobody tells of a pause that has ended.
    pub(super) fn parse(self) -> Option<(String, RemotePause)> {
        let (Hex(id), length, age) = (self.id, nanos(self.length_ms), nanos(self.age_ms));
        let reason = Some("paused".to_string());
        let origin = origin(self.agent_id, reason, self.timestamp, false)?;
        (age < length).then_some((self.resource, RemotePause { id, length, age, origin }))
    }
}
