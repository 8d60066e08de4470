//! What an agent has to say, and when: announcements of its own cuts and pauses, queries, and the cuts and
//! pauses that stand.
//! One message at a time is given to the bus.
//!
//! # A bus that fails
//!
//! While the bus is [disconnected](BusError::Disconnected), or does not answer, nothing is sent for a moment.
//! Any other failure may be due to the message: it is put back behind the others, and what follows is made
//! smaller. What fits into no message, or was refused again and again while others were taken, is dropped,
//! counted and logged. Announcements, queries and states take turns, so that none of them keeps the others
//! from being sent.

mod contents;

use std::collections::VecDeque;
use std::future::pending;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::announcements::{Announcements, Attempts};
use super::guard::{asked, guarded};
use super::queries::Queries;
use super::stats::Counters;
use super::trickle::Trickle;
use super::wire::{self, CAPACITY, PAUSE, QUERY, STATE, TooLarge};
use crate::bus::{BusError, MessageBus};
use crate::limiter::MemoryLimiter;

/// The bus has failed if it has not accepted a message by then.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Nothing is sent to the bus for this long after a failure of the connection, and no message is tried
/// again for this long.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The same while the agent closes.
const LAST_RETRY_DELAY: Duration = Duration::from_millis(50);
/// The bus was gone, whatever it said, if it was disconnected for this long, or has refused for this long what
/// it then accepted.
const OUTAGE: Duration = Duration::from_secs(1);
/// After this many failures in a row the rest of a state waits for the next interval.
const ALL: u32 = 16;
/// After this many failures in a row a success makes all refused announcements due.
const MANY: u32 = 3;
/// Announcements are repeated for an outage at most once in this time, which is longer than the repeats take.
const REPEATED_FOR: Duration = Duration::from_secs(30);

/// Messages of up to this many bytes do not fail because of their size.
const SMALL: usize = 1_024;
/// For how long messages are smaller after one has failed.
const SMALLER_FOR: Duration = Duration::from_secs(60);

pub(super) struct Outbox {
    limiter: MemoryLimiter,
    bus: Arc<dyn MessageBus>,
    id: String,
    instance: u64,
    counters: Arc<Counters>,
    pub(super) cuts: Announcements,
    pub(super) pauses: Announcements,
    pub(super) queries: Queries,
    /// While any cut or pause stands.
    pub(super) trickle: Option<Trickle>,
    /// The resources of which is still to be told in this interval of the trickle.
    to_tell: VecDeque<String>,
    /// The number of these to send in a message each, because one of them was refused.
    alone: usize,
    sending: Option<Sending>,
    /// Nothing is sent before.
    retry_at: Instant,
    retry_delay: Duration,
    disconnected_since: Option<Instant>,
    failures_in_row: u32,
    accepted_at: Option<Instant>,
    repeated_at: Option<Instant>,
    /// Whose turn it was: of cuts, pauses, queries and states.
    turn: u32,
    /// The most bytes of a message that the bus has not refused lately, and until when.
    smaller: Option<(usize, Instant)>,
    connections: u64,
}

type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// A message that was given to the bus, and what came of it.
pub(super) struct Sent {
    content: Content,
    bytes: usize,
    result: Result<(), BusError>,
}

enum Content {
    Announcement(Topic, String, Attempts),
    Query,
    /// The cuts and pauses of these resources.
    State(Vec<String>),
}

/// What is announced.
#[derive(Clone, Copy, Debug)]
enum Topic {
    Cut,
    Pause,
}

impl Outbox {
    pub(super) fn new(
        limiter: MemoryLimiter,
        bus: Arc<dyn MessageBus>,
        id: String,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        let connections = asked(0, || bus.connections());
        Self {
            limiter,
            bus,
            id,
            instance: fastrand::u64(..),
            counters,
            cuts: Announcements::new(),
            pauses: Announcements::new(),
            queries: Queries::new(now),
            trickle: None,
            to_tell: VecDeque::new(),
            alone: 0,
            sending: None,
            retry_at: now,
            retry_delay: RETRY_DELAY,
            disconnected_since: None,
            failures_in_row: 0,
            accepted_at: None,
            repeated_at: None,
            turn: 3,
            smaller: None,
            connections,
        }
    }

    /// A number that tells this agent from others with the same id.
    pub(super) fn instance(&self) -> u64 {
        self.instance
    }

    /// When there is something to send, unless a message is being sent.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.sending.is_some() {
            return None;
        }
        let state = self.trickle.as_ref().map(Trickle::next);
        let rest = (!self.to_tell.is_empty()).then_some(self.retry_at);
        let all = [self.cuts.next(), self.pauses.next(), self.queries.next(), state, rest];
        all.into_iter().flatten().min().map(|next| next.max(self.retry_at))
    }

    /// Sends the next message that is due, unless one is being sent. `cut` are the resources with cuts
    /// or pauses that stand.
    pub(super) fn send<'a>(&mut self, cut: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        if self.sending.is_some() || now < self.retry_at {
            return;
        }
        if self.trickle.as_mut().is_some_and(|trickle| trickle.should_send(now))
            && self.to_tell.is_empty()
        {
            (self.to_tell, self.alone) = (cut.cloned().collect(), 0);
        }
        for _ in 0..4 {
            self.turn = (self.turn + 1) % 4;
            match self.turn {
                0 => self.send_announcement(Topic::Cut, now),
                1 => self.send_announcement(Topic::Pause, now),
                2 => self.send_query(now),
                _ => self.send_state(),
            }
            if self.sending.is_some() {
                break;
            }
        }
    }

    fn announcements(&mut self, topic: Topic) -> &mut Announcements {
        match topic {
            Topic::Cut => &mut self.cuts,
            Topic::Pause => &mut self.pauses,
        }
    }

    fn send_announcement(&mut self, topic: Topic, now: Instant) {
        while let Some((resource, attempts)) = self.announcements(topic).take_due(now) {
            let (subject, message) = match topic {
                Topic::Cut => (CAPACITY, self.announced_cut(&resource)),
                Topic::Pause => (PAUSE, self.announced_pause(&resource)),
            };
            match message {
                None => {}
                Some(Ok(message)) => {
                    let content = Content::Announcement(topic, resource, attempts);
                    return self.start(content, subject, message);
                }
                Some(Err(TooLarge { bytes })) => self.drop_message(&resource, bytes),
            }
        }
    }

    fn send_query(&mut self, now: Instant) {
        if self.queries.is_due(now) {
            let message = wire::query(&self.id, self.instance);
            let fits = message.len() <= self.max_payload();
            let message = if fits { message } else { wire::query("", self.instance) };
            self.start(Content::Query, QUERY, message);
        }
    }

    fn send_state(&mut self) {
        if let Some((resources, message)) = self.state() {
            self.start(Content::State(resources), STATE, message);
        }
    }

    fn max_payload(&self) -> usize {
        asked(usize::MAX, || self.bus.max_payload())
    }

    /// The most bytes of a message, less after one has failed.
    fn most_bytes(&self) -> usize {
        let smaller = self.smaller.filter(|(_, until)| Instant::now() < *until);
        smaller.map_or(usize::MAX, |(smaller, _)| smaller).min(self.max_payload())
    }

    /// A message that will never be sent.
    fn drop_message(&self, resource: &str, bytes: usize) {
        if self.counters.dropped.add(1) {
            let most = self.max_payload();
            tracing::warn!(
                resource,
                bytes,
                most,
                "a cut or a pause is not shared, because the bus takes no such message: use a shorter name"
            );
        }
    }

    fn start(&mut self, content: Content, subject: &'static str, message: Vec<u8>) {
        let (bus, bytes) = (Arc::clone(&self.bus), message.len());
        self.sending = Some(Box::pin(async move {
            let publishing = guarded(async { bus.publish(subject, message).await });
            let result = timeout(SEND_TIMEOUT, publishing).await;
            Sent { content, bytes, result: result.unwrap_or(Err(BusError::Disconnected)) }
        }));
    }

    /// The message that is being sent, once that has ended. Cancel-safe.
    pub(super) async fn sent(&mut self) -> Sent {
        match &mut self.sending {
            Some(sending) => {
                let sent = sending.await;
                self.sending = None;
                sent
            }
            None => pending().await,
        }
    }

    /// Whether the bus is back after an outage.
    #[must_use]
    pub(super) fn on_sent(&mut self, sent: Sent) -> bool {
        let now = Instant::now();
        match sent.result {
            Ok(()) => self.on_accepted(sent.content, now),
            Err(error) => {
                if self.counters.not_sent.add(1) {
                    tracing::warn!(%error, bytes = sent.bytes, "the bus did not take a message");
                }
                self.on_failed(Sent { result: Err(error), ..sent }, now);
                false
            }
        }
    }

    fn on_accepted(&mut self, content: Content, now: Instant) -> bool {
        self.counters.sent.add(1);
        self.accepted_at = Some(now);
        let since = self.disconnected_since.take();
        let mut is_back = since.is_some_and(|since| now - since >= OUTAGE);
        match content {
            Content::Announcement(topic, resource, attempts) => {
                is_back |= attempts.refused_for(now) >= OUTAGE;
                self.announcements(topic).sent(&resource, attempts, now);
            }
            Content::Query => self.queries.asked(now),
            Content::State(_) => {}
        }
        if mem::take(&mut self.failures_in_row) >= MANY || is_back {
            self.cuts.retry_all(now);
            self.pauses.retry_all(now);
            self.alone = 0;
        }
        // A bus that counts its connections says itself when it is back. Of another, one that often fails, the
        // repeats must not be a reason for more of them.
        let is_soon = |repeated_at| now - repeated_at < REPEATED_FOR;
        is_back && self.connections == 0 && !self.repeated_at.is_some_and(is_soon)
    }

    fn on_failed(&mut self, Sent { content, bytes, result }: Sent, now: Instant) {
        let is_refusal = matches!(result, Err(BusError::Failed(_)));
        self.failures_in_row += 1;
        let may_be_large = is_refusal && bytes > SMALL;
        if may_be_large {
            self.smaller = Some((SMALL.max(bytes / 2), now + SMALLER_FOR));
        }
        if !is_refusal {
            self.disconnected_since.get_or_insert(now);
            self.retry_at = now + self.retry_delay;
        }
        match content {
            Content::Announcement(topic, resource, attempts) => {
                let (delay, accepted_at) = (self.retry_delay, self.accepted_at);
                let all = self.announcements(topic);
                if !all.failed(&resource, attempts, is_refusal, now, delay, accepted_at) {
                    self.drop_message(&resource, bytes);
                }
            }
            Content::Query if is_refusal => self.queries.refused(now),
            Content::Query => {}
            Content::State(resources) => {
                if !is_refusal && resources.len() > 1 {
                    self.trickle.iter_mut().for_each(|trickle| trickle.failed(now));
                }
                if self.failures_in_row >= ALL {
                    self.to_tell.clear();
                    return;
                }
                // What was told alone is told again with the next interval.
                if may_be_large || resources.len() > 1 {
                    // One of them may be the reason, also if the bus was disconnected.
                    if !may_be_large {
                        self.alone = resources.len();
                    }
                    resources.into_iter().rev().for_each(|name| self.to_tell.push_front(name));
                }
            }
        }
    }

    /// Whether the bus has connected again since the last call.
    #[must_use]
    pub(super) fn has_reconnected(&mut self) -> bool {
        let connections = asked(self.connections, || self.bus.connections());
        let before = mem::replace(&mut self.connections, connections);
        connections > before
    }

    /// The bus is back: what was said may not have been heard. `cut` are the resources with cuts or pauses
    /// that stand.
    pub(super) fn repeat_all<'a>(&mut self, cut: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        self.repeated_at = Some(now);
        for resource in cut {
            self.cuts.repeat(resource, now);
            self.pauses.repeat(resource, now);
        }
        self.queries.start_again(now);
        self.trickle.iter_mut().for_each(|trickle| trickle.reset(now));
    }

    /// Sends the announcements that were never sent, and tries for as long as there is time.
    pub(super) async fn flush(&mut self, end: Instant) {
        self.retry_at = Instant::now();
        self.retry_delay = LAST_RETRY_DELAY;
        self.cuts.keep_unsent(self.retry_at);
        self.pauses.keep_unsent(self.retry_at);
        self.queries.stop();
        self.trickle = None;
        self.to_tell.clear();
        let sending = async {
            while self.sending.is_some() || self.cuts.has_unsent() || self.pauses.has_unsent() {
                self.send(std::iter::empty());
                if let Some(next) = self.next() {
                    sleep_until(next).await;
                } else {
                    let sent = self.sent().await;
                    let _ = self.on_sent(sent);
                }
            }
        };
        let _ = timeout_at(end, sending).await;
        let _ = timeout_at(end, guarded(self.bus.flush())).await;
    }
}
