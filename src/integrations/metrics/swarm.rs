//! The messages of a limiter in a swarm.

use ::metrics::{Gauge, counter, gauge};

use super::series::Sum;
use super::table::{SWARM_CONNECTED, SWARM_MESSAGES};
use crate::swarm::SwarmStats;

/// Without a label: a process has one.
pub(super) struct Swarm {
    sent: Sum,
    heard: Sum,
    ignored: Sum,
    dropped: Sum,
    connected: Gauge,
}

impl Swarm {
    /// Registers its metrics with the recorder in force.
    pub(super) fn new() -> Self {
        let messages = |result| Sum::new(counter!(SWARM_MESSAGES, "result" => result));
        Self {
            sent: messages("sent"),
            heard: messages("heard"),
            ignored: messages("ignored"),
            dropped: messages("dropped"),
            connected: gauge!(SWARM_CONNECTED),
        }
    }

    /// Without stats the limiter is gone.
    pub(super) fn update(&mut self, stats: Option<&SwarmStats>) {
        let is_running = stats.is_some_and(|stats| stats.is_running);
        self.connected.set(f64::from(u8::from(is_running)));
        let Some(stats) = stats else { return };
        self.sent.update(stats.sent);
        self.heard.update(stats.received.saturating_sub(stats.malformed));
        self.ignored.update(stats.malformed);
        self.dropped.update(stats.dropped.saturating_add(stats.lost));
    }
}
