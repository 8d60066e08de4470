//! The task of one limiter: it receives other agents' cuts and pauses, announces its own, and repeats
//! those that stand. Nothing else talks to the bus.

use std::iter;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::inbound::{Inbound, Incoming};
use super::outbox::Outbox;
use super::parked::Parked;
use super::schedule::Schedule;
use super::stats::Counters;
use super::task_queue::TaskQueue;
use super::trickle::Trickle;
use super::wire::{self, Message, QUERY, STATE};
use crate::clock::{Alarm, ArmError};
use crate::limiter::{ActiveCuts, MemoryLimiter, Told};

/// How late a callback may learn of a step of recovery, in nanoseconds.
const SLACK: u64 = 1_000_000;
/// How long a closing agent tries to send what it has to say.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The agent handles up to this many incoming messages before it sends: they may make its own unnecessary.
const BATCH: u32 = 64;

pub(super) struct Agent {
    pub(super) limiter: MemoryLimiter,
    pub(super) id: String,
    pub(super) tasks: Arc<TaskQueue>,
    pub(super) counters: Arc<Counters>,
    pub(super) parked: Arc<Parked>,
    pub(super) outbox: Outbox,
    /// In nanoseconds.
    pub(super) longest_pause: u64,
    pub(super) accept_pauses: bool,
    /// Resources with cuts or pauses that stand, or steps of recovery to come; and when the next step of each
    /// is due, or the end of its pause, by the limiter's clock.
    pub(super) cut: Schedule<u64>,
    /// When the first of them is due, and its timer.
    pub(super) alarm: Option<(u64, Option<Alarm>)>,
}

impl Agent {
    /// Run until the limiter closes.
    pub(super) async fn run(mut self, mut inbound: Inbound) {
        let mut handled = 0;
        while !self.take_pending() {
            self.recover();
            if self.outbox.has_reconnected() {
                self.outbox.repeat_all(self.cut.names());
            }
            if handled >= BATCH {
                self.outbox.send(self.cut.names());
                handled = 0;
                yield_now().await; // a flood must not keep the runtime's other tasks waiting
            }
            let tasks = Arc::clone(&self.tasks);
            let far = Instant::now() + Duration::from_secs(60 * 60);
            let next = self.outbox.next().unwrap_or(far);
            // Biased, so that a simulated swarm is reproducible, and what has come in is handled before
            // anything is sent.
            tokio::select! {
                biased;
                sent = self.outbox.sent() => {
                    if self.outbox.on_sent(sent) {
                        self.outbox.repeat_all(self.cut.names());
                    }
                }
                incoming = inbound.next() => {
                    handled += 1;
                    self.on_incoming(incoming);
                }
                () = tasks.arrived() => {}
                () = sleep_until(next) => {
                    self.outbox.send(self.cut.names());
                    handled = 0;
                }
            }
        }
        self.outbox.flush(Instant::now() + FLUSH_TIMEOUT).await;
    }

    /// Whether to stop.
    fn take_pending(&mut self) -> bool {
        let pending = self.tasks.take();
        let now = Instant::now();
        for resource in pending.to_announce {
            self.outbox.cuts.add(&resource, now);
            self.changed(&resource, true);
        }
        for (resource, is_urgent) in pending.paused {
            if is_urgent {
                self.outbox.pauses.add(&resource, now);
            }
            self.changed(&resource, true);
        }
        for name in pending.known {
            let told = self.parked.take(&name, self.limiter.clock().now());
            if !self.hear(&name, &told, None) {
                self.parked.add(&name, &told, self.limiter.clock().now()); // it has gone already
            }
        }
        pending.stop
    }

    /// A cut or a pause of our own, or one that was heard.
    fn changed(&mut self, resource: &str, is_ours: bool) {
        let now = Instant::now();
        match &mut self.outbox.trickle {
            Some(trickle) => trickle.changed(resource, is_ours, now),
            None => self.outbox.trickle = Some(Trickle::new(is_ours, now)),
        }
        self.schedule(resource);
    }

    /// Notes when the next step of a resource is due, or that nothing of it stands.
    fn schedule(&mut self, resource: &str) {
        let standing = self.limiter.standing(resource);
        let stands = |s: &ActiveCuts| !s.cuts.is_empty() || s.pause.is_some() || s.due.is_some();
        let standing = standing.filter(stands);
        match standing {
            Some(standing) => self.cut.set(resource, standing.due.unwrap_or(u64::MAX)),
            None => self.cut.remove(resource),
        }
        if self.cut.is_empty() {
            self.outbox.trickle = None;
        }
    }

    /// Apply due steps, so that callbacks run even if nobody acquires, and arm the next timer.
    fn recover(&mut self) {
        let now = self.limiter.clock().now();
        let due: Vec<String> = iter::from_fn(|| self.cut.take_due(now)).collect();
        for resource in due {
            self.schedule(&resource);
        }
        let next = self.cut.next().filter(|next| *next < u64::MAX);
        if self.alarm.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        self.alarm = next.map(|next| {
            let waker = Waker::from(Arc::clone(&self.tasks));
            let armed = self.limiter.clock().arm(next, SLACK, waker);
            if matches!(armed, Err(ArmError::Due)) {
                Arc::clone(&self.tasks).wake(); // start the loop again
            }
            (next, armed.ok())
        });
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(subject, payload) => self.on_message(subject, &payload),
            Incoming::Lost(subject, n) => {
                if self.counters.lost.add(n) {
                    tracing::warn!(subject, n, "too slow for the bus: messages were lost");
                }
                // Queries are repeated by those that ask.
                if subject != QUERY {
                    self.outbox.queries.lost(Instant::now());
                }
            }
            // Once, and ever later where subscriptions do not last.
            Incoming::Renewed => self.outbox.queries.lost(Instant::now()),
        }
    }

    fn on_message(&mut self, subject: &'static str, payload: &[u8]) {
        let Some(message) = wire::parse(subject, payload) else {
            self.counters.received.add(1);
            if self.counters.malformed.add(1) {
                let bytes = payload.len();
                tracing::warn!(subject, bytes, "a message that makes no sense was ignored");
            }
            return;
        };
        if message.instance == Some(self.outbox.instance()) {
            return; // our own
        }
        self.counters.received.add(1);
        if message.agent_id == self.id && self.counters.same_agent_id.add(1) {
            let agent_id = &self.id;
            tracing::warn!(agent_id, "another limiter uses this agent_id: give each its own");
        }
        if subject == QUERY {
            let now = Instant::now();
            self.outbox.queries.asked(now);
            self.outbox.trickle.iter_mut().for_each(|trickle| trickle.reset(now));
        } else {
            self.merge(subject, message);
        }
    }

    fn merge(&mut self, subject: &'static str, mut message: Message) {
        if !self.accept_pauses {
            message.pauses.clear();
        }
        // From here on also told to others, so that a pause does not begin again with each that hears of it.
        for (_, pause) in &mut message.pauses {
            pause.length = pause.length.min(pause.age.saturating_add(self.longest_pause));
        }
        // All that is told of a resource at once.
        for group in message.told().chunk_by(|a, b| a.0 == b.0) {
            let resource = &group[0].0;
            let told: Vec<_> = group.iter().map(|(_, told)| told.clone()).collect();
            if !self.hear(resource, &told, Some(subject)) {
                if self.counters.unknown_resource.add(1) {
                    tracing::debug!(
                        ?resource,
                        "a cut or a pause of a resource that is not configured here"
                    );
                }
                self.parked.add(resource, &told, self.limiter.clock().now());
                // It may have come to exist before this was parked.
                if self.limiter.has(resource) {
                    self.tasks.known(resource);
                }
            }
        }
    }

    /// Hears what is told of a resource, in a message on a subject. `false` if there is no such resource.
    fn hear(&mut self, resource: &str, told: &[Told], subject: Option<&str>) -> bool {
        let Some(outcome) = self.limiter.hear(resource, told) else { return false };
        // Only incidents are logged: with cuts that hardly cut anybody could fill the log.
        let is_cut = |told: &&Told| matches!(told, Told::Cut(_));
        if outcome.is_incident
            && let Some(cut) = told.iter().rfind(is_cut)
        {
            tracing::info!(?resource, agent_id = ?cut.origin().agent_id, "a neighbour's cut");
        }
        for origin in &outcome.paused_by {
            let agent_id = &origin.agent_id;
            if self.counters.add_pause(agent_id) {
                tracing::info!(?resource, ?agent_id, "a neighbour's pause");
            }
        }
        if outcome.is_news {
            self.changed(resource, false);
        }
        // An announcement has one cut only: it does not show what its sender knows.
        if subject == Some(STATE)
            && let Some(trickle) = &mut self.outbox.trickle
        {
            if outcome.is_behind {
                trickle.inconsistent(resource, Instant::now());
            } else {
                trickle.consistent(resource);
            }
        }
        true
    }
}
