//! What an agent has to say, and when: announcements of its own cuts, queries, and the cuts that stand.
//! One message at a time is given to the bus.
//!
//! # A bus that fails
//!
//! While the bus is [disconnected](BusError::Disconnected), or does not answer, nothing is sent for a moment.
//! Any other failure may be due to the message: it is put back behind the others, and what follows is made
//! smaller. What fits into no message, or was refused again and again while others were taken, is dropped,
//! counted and logged.

use std::collections::VecDeque;
use std::future::pending;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::announcements::{Announcements, Attempts};
use super::guard::guarded;
use super::queries::Queries;
use super::stats::Counters;
use super::trickle::Trickle;
use super::wire::{self, CAPACITY, QUERY, STATE, StateMessage, TooLarge};
use crate::bus::{BusError, MessageBus};
use crate::limiter::{ActiveCuts, MemoryLimiter};

/// The bus has failed if it has not accepted a message by then.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Nothing is sent to the bus for this long after a failure of the connection, and no message is tried
/// again for this long.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The same while the agent closes.
const LAST_RETRY_DELAY: Duration = Duration::from_millis(50);
/// An announcement that was refused for this long, and then accepted, was not refused for what it was: the bus
/// was gone, whatever it said.
const OUTAGE: Duration = Duration::from_secs(1);

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
    pub(super) announcements: Announcements,
    pub(super) queries: Queries,
    /// While any cut stands.
    pub(super) trickle: Option<Trickle>,
    /// The resources whose cuts are still to be told in this interval of the trickle.
    to_tell: VecDeque<String>,
    /// So many of them are told in messages of their own, because one of them was refused.
    alone: usize,
    sending: Option<Sending>,
    /// Nothing is sent before.
    retry_at: Instant,
    retry_delay: Duration,
    is_disconnected: bool,
    accepted_at: Option<Instant>,
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
    Announcement(String, Attempts),
    Query,
    /// The cuts of these resources.
    State(Vec<String>),
}

impl Outbox {
    pub(super) fn new(
        limiter: MemoryLimiter,
        bus: Arc<dyn MessageBus>,
        id: String,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        let connections = bus.connections();
        Self {
            limiter,
            bus,
            id,
            instance: fastrand::u64(..),
            counters,
            announcements: Announcements::new(),
            queries: Queries::new(now),
            trickle: None,
            to_tell: VecDeque::new(),
            alone: 0,
            sending: None,
            retry_at: now,
            retry_delay: RETRY_DELAY,
            is_disconnected: false,
            accepted_at: None,
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
        let all = [self.announcements.next(), self.queries.next(), state, rest];
        all.into_iter().flatten().min().map(|next| next.max(self.retry_at))
    }

    /// Sends the next message that is due, unless one is being sent. `cut` are the resources with cuts
    /// that stand.
    pub(super) fn send<'a>(&mut self, cut: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        if self.sending.is_some() || now < self.retry_at {
            return;
        }
        while let Some((resource, attempts)) = self.announcements.take_due(now) {
            match self.announcement(&resource) {
                None => {}
                Some(Ok(message)) => {
                    let content = Content::Announcement(resource, attempts);
                    return self.start(content, CAPACITY, message);
                }
                Some(Err(TooLarge { bytes })) => self.drop_message(&resource, bytes),
            }
        }
        if self.queries.is_due(now) {
            return self.start(Content::Query, QUERY, wire::query(&self.id, self.instance));
        }
        if self.trickle.as_mut().is_some_and(|trickle| trickle.should_send(now)) {
            (self.to_tell, self.alone) = (cut.cloned().collect(), 0);
        }
        if let Some((resources, message)) = self.state() {
            self.start(Content::State(resources), STATE, message);
        }
    }

    /// The announcement of our last cut of a resource, if the cut still stands.
    fn announcement(&self, resource: &str) -> Option<Result<Vec<u8>, TooLarge>> {
        let standing = self.limiter.standing(resource)?;
        let cuts = wire_cuts(resource, &standing);
        let ours = cuts.filter(|cut| cut.origin.is_ours).min_by_key(|cut| cut.age)?;
        Some(wire::announcement(&ours, standing.tokens, self.instance, self.most_bytes()))
    }

    /// As many of the cuts that are still to be told as fit into a message, and their resources.
    fn state(&mut self) -> Option<(Vec<String>, Vec<u8>)> {
        let most = self.most_bytes();
        let mut message = StateMessage::new(&self.id, self.instance);
        let mut told = Vec::new();
        while (self.alone == 0 || told.is_empty())
            && let Some(resource) = self.to_tell.pop_front()
        {
            // Another agent may have told it meanwhile.
            if self.trickle.as_ref().is_none_or(|trickle| trickle.is_covered(&resource)) {
                continue;
            }
            let Some(standing) = self.limiter.standing(&resource) else { continue };
            let cuts: Vec<_> = wire_cuts(&resource, &standing).collect();
            if cuts.is_empty() {
                continue;
            }
            match message.add(&cuts, most) {
                Ok(true) => told.push(resource),
                Ok(false) => {
                    self.to_tell.push_front(resource);
                    break;
                }
                Err(TooLarge { bytes }) => self.drop_message(&resource, bytes),
            }
        }
        self.alone = self.alone.saturating_sub(1);
        (!told.is_empty()).then(|| (told, message.encode()))
    }

    /// The most bytes of a message.
    fn most_bytes(&self) -> usize {
        let most = self.bus.max_payload();
        self.smaller.map_or(most, |(smaller, _)| smaller.min(most))
    }

    /// A message that will never be sent.
    fn drop_message(&self, resource: &str, bytes: usize) {
        if self.counters.dropped.add(1) {
            let most = self.bus.max_payload();
            tracing::warn!(
                resource,
                bytes,
                most,
                "a cut is not shared, because the bus takes no such message: use a shorter name"
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
                match error {
                    BusError::Disconnected => self.on_disconnected(sent.content, now),
                    BusError::Failed(_) => self.on_refused(sent.content, sent.bytes, now),
                }
                false
            }
        }
    }

    fn on_accepted(&mut self, content: Content, now: Instant) -> bool {
        self.counters.sent.add(1);
        self.accepted_at = Some(now);
        self.smaller = self.smaller.filter(|(_, until)| now < *until);
        let mut is_back = mem::take(&mut self.is_disconnected);
        match content {
            Content::Announcement(resource, attempts) => {
                is_back |= attempts.refused_for(now) >= OUTAGE;
                self.announcements.sent(&resource, attempts, now);
            }
            Content::Query => self.queries.asked(now),
            Content::State(_) => {}
        }
        is_back
    }

    fn on_disconnected(&mut self, content: Content, now: Instant) {
        (self.is_disconnected, self.retry_at) = (true, now + self.retry_delay);
        match content {
            Content::Announcement(resource, attempts) => {
                self.announcements.not_sent(&resource, attempts, now);
            }
            Content::Query => {}
            Content::State(_) => {
                self.to_tell.clear();
                self.trickle.iter_mut().for_each(|trickle| trickle.failed(now));
            }
        }
    }

    fn on_refused(&mut self, content: Content, bytes: usize, now: Instant) {
        let may_be_large = bytes > SMALL;
        if may_be_large {
            self.smaller = Some((SMALL.max(bytes / 2), now + SMALLER_FOR));
        }
        match content {
            Content::Announcement(resource, attempts) => {
                let (delay, accepted_at) = (self.retry_delay, self.accepted_at);
                if !self.announcements.refused(&resource, attempts, now, delay, accepted_at) {
                    self.drop_message(&resource, bytes);
                }
            }
            Content::Query => self.queries.failed(now + self.retry_delay),
            Content::State(resources) if may_be_large || resources.len() > 1 => {
                if !may_be_large {
                    self.alone = resources.len();
                }
                resources.into_iter().rev().for_each(|resource| self.to_tell.push_front(resource));
            }
            // It is told again with the next interval.
            Content::State(_) => {}
        }
    }

    /// Whether the bus has connected again since the last call.
    #[must_use]
    pub(super) fn has_reconnected(&mut self) -> bool {
        let connections = self.bus.connections();
        let before = mem::replace(&mut self.connections, connections);
        connections > before
    }

    /// The bus is back: what was said may not have been heard. `cut` are the resources with cuts that
    /// stand.
    pub(super) fn repeat_all<'a>(&mut self, cut: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        cut.for_each(|resource| self.announcements.repeat(resource, now));
        self.queries.start_again(now);
        self.trickle.iter_mut().for_each(|trickle| trickle.reset(now));
    }

    /// Sends the announcements that were never sent, and tries for as long as there is time.
    pub(super) async fn flush(&mut self, end: Instant) {
        self.retry_at = Instant::now();
        self.retry_delay = LAST_RETRY_DELAY;
        self.announcements.keep_unsent(self.retry_at);
        self.queries.stop();
        self.trickle = None;
        self.to_tell.clear();
        let sending = async {
            while self.sending.is_some() || self.announcements.has_unsent() {
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

fn wire_cuts<'a>(
    resource: &'a str,
    standing: &'a ActiveCuts,
) -> impl Iterator<Item = wire::Cut<'a>> + use<'a> {
    standing.cuts.iter().map(move |cut| wire::Cut {
        resource,
        id: cut.id,
        factor: cut.factor,
        plain: cut.plain,
        age: cut.age(standing.now),
        origin: &cut.origin,
    })
}
