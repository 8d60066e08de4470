//! The task of one limiter: it receives other agents' cuts, announces its own, and repeats those
//! that stand. Nothing else talks to the bus.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::stats::Counters;
use super::task_queue::TaskQueue;
use super::trickle::Trickle;
use super::wire::{self, CAPACITY, Message, QUERY, STATE};
use crate::bus::{BusError, Delivery, MessageBus, Subscription};
use crate::clock::{Alarm, ArmError};
use crate::limiter::{ActiveCuts, MemoryLimiter};

/// The bus has failed if it has not accepted a message by then.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Nothing is sent to the bus for this long after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// An agent repeats its query this many times, because messages are lost.
const QUERIES: u32 = 3;
const QUERY_INTERVAL: Duration = Duration::from_millis(250);
/// How late a callback may learn of a step of recovery, in nanoseconds.
const SLACK: u64 = 1_000_000;
/// Flush timeout on close.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The three subjects' subscriptions.
pub(super) type Subscriptions = [SubjectSubscription; 3];

type SubjectSubscription = (&'static str, Option<Box<dyn Subscription>>);

pub(super) async fn subscribe(bus: &dyn MessageBus) -> Result<Subscriptions, BusError> {
    let mut subscriptions = [(STATE, None), (QUERY, None), (CAPACITY, None)];
    for (subject, subscription) in &mut subscriptions {
        *subscription = Some(bus.subscribe(subject).await?);
    }
    Ok(subscriptions)
}

pub(super) struct Agent {
    limiter: MemoryLimiter,
    bus: Arc<dyn MessageBus>,
    id: String,
    instance: u64,
    tasks: Arc<TaskQueue>,
    counters: Arc<Counters>,
    /// Resources with cuts that stand, or steps of recovery to come.
    cut: BTreeSet<String>,
    to_announce: BTreeSet<String>,
    /// While any cut stands.
    trickle: Option<Trickle>,
    queries_left: u32,
    query_at: Instant,
    /// Set by a failure: nothing is sent before.
    retry_at: Instant,
    sending: Option<Outgoing>,
    /// When the next step of recovery is due, and its timer. `None`: unknown.
    alarm: Option<(u64, Option<Alarm>)>,
    /// The bus has ended a subscription.
    needs_resubscribe: bool,
}

/// An announcement, a query, or all messages of a state, being sent.
type Outgoing = Pin<Box<dyn Future<Output = (OutgoingKind, bool)> + Send>>;

#[derive(Debug)]
enum OutgoingKind {
    Announcement(String),
    Query,
    State,
}

impl Agent {
    pub(super) fn new(
        limiter: MemoryLimiter,
        bus: Arc<dyn MessageBus>,
        id: String,
        tasks: Arc<TaskQueue>,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        Self {
            limiter,
            bus,
            id,
            instance: fastrand::u64(..),
            tasks,
            counters,
            cut: BTreeSet::new(),
            to_announce: BTreeSet::new(),
            trickle: None,
            queries_left: QUERIES,
            query_at: now,
            retry_at: now,
            sending: None,
            alarm: None,
            needs_resubscribe: false,
        }
    }

    /// Run until the limiter closes.
    pub(super) async fn run(mut self, mut subscriptions: Subscriptions) {
        while !self.take_pending() {
            self.recover();
            self.send();
            let tasks = Arc::clone(&self.tasks);
            let next = self.next();
            // Biased, so that a simulated swarm is reproducible. The subscriptions take turns at
            // being first, and the last two branches only start the loop again.
            subscriptions.rotate_left(1);
            let [first, second, third] = &mut subscriptions;
            tokio::select! {
                biased;
                sent = sent(&mut self.sending) => self.on_sent(sent),
                delivery = receive(first) => self.on_delivery(delivery, first),
                delivery = receive(second) => self.on_delivery(delivery, second),
                delivery = receive(third) => self.on_delivery(delivery, third),
                () = tasks.arrived() => {}
                () = sleep_until(next) => {}
            }
            self.resubscribe(&mut subscriptions).await;
        }
        let _ = timeout(FLUSH_TIMEOUT, self.flush()).await;
    }

    /// Whether to stop.
    fn take_pending(&mut self) -> bool {
        let pending = self.tasks.take();
        if pending.query {
            self.query(QUERIES);
        }
        for resource in pending.to_announce {
            self.cuts_changed(resource.clone());
            self.to_announce.insert(resource);
        }
        pending.stop
    }

    /// Query the cuts that stand, `times` times, at the same interval as before.
    fn query(&mut self, times: u32) {
        if self.queries_left == 0 {
            self.query_at = self.query_at.max(Instant::now());
        }
        self.queries_left = self.queries_left.max(times);
    }

    fn cuts_changed(&mut self, resource: String) {
        self.alarm = None; // the time of the next step has changed
        let now = Instant::now();
        match &mut self.trickle {
            Some(trickle) => trickle.inconsistent(&resource, now),
            None => self.trickle = Some(Trickle::new(now)),
        }
        self.cut.insert(resource);
    }

    /// Apply due steps, so that callbacks run even if nobody acquires, and arm the next timer.
    fn recover(&mut self) {
        let now = self.limiter.clock().now();
        if self.alarm.as_ref().is_some_and(|(at, _)| now < *at) {
            return;
        }
        let mut next = u64::MAX;
        let limiter = &self.limiter;
        self.cut.retain(|resource| {
            let Some(standing) = limiter.standing(resource) else { return false };
            next = next.min(standing.due.unwrap_or(u64::MAX));
            !standing.cuts.is_empty() || standing.due.is_some()
        });
        if self.cut.is_empty() {
            self.trickle = None;
        }
        let armed = (next < u64::MAX).then(|| {
            let waker = Waker::from(Arc::clone(&self.tasks));
            limiter.clock().arm(next, SLACK, waker)
        });
        if matches!(armed, Some(Err(ArmError::Due))) {
            Arc::clone(&self.tasks).wake(); // start the loop again
        }
        self.alarm = Some((next, armed.and_then(Result::ok)));
    }

    /// When there is something to send, if nothing happens before.
    fn next(&self) -> Instant {
        let query = (self.queries_left > 0).then_some(self.query_at);
        let state = self.trickle.as_ref().map(Trickle::next);
        let again =
            (self.needs_resubscribe || !self.to_announce.is_empty()).then_some(self.retry_at);
        let far = Instant::now() + Duration::from_secs(60 * 60);
        // One message is sent at a time.
        let next = [query, state, again].into_iter().flatten().min();
        next.filter(|_| self.sending.is_none()).map_or(far, |next| next.max(self.retry_at))
    }

    // ---- sending ------------------------------------------------------------------------------

    /// Send the next message that is due, unless one is being sent.
    fn send(&mut self) {
        let now = Instant::now();
        if self.sending.is_some() || now < self.retry_at {
            return;
        }
        while let Some(resource) = self.to_announce.pop_first() {
            if let Some(message) = self.announcement(&resource) {
                return self.start(OutgoingKind::Announcement(resource), CAPACITY, vec![message]);
            }
        }
        if self.queries_left > 0 && self.query_at <= now {
            let message = wire::query(&self.id, self.instance);
            return self.start(OutgoingKind::Query, QUERY, vec![message]);
        }
        if self.trickle.as_mut().is_some_and(|trickle| trickle.should_send(now)) {
            let messages = self.states();
            self.start(OutgoingKind::State, STATE, messages);
        }
    }

    fn start(&mut self, kind: OutgoingKind, subject: &'static str, messages: Vec<Vec<u8>>) {
        let (bus, counters) = (Arc::clone(&self.bus), Arc::clone(&self.counters));
        self.sending = Some(Box::pin(async move {
            for message in messages {
                match timeout(SEND_TIMEOUT, bus.publish(subject, message)).await {
                    Ok(Ok(())) => _ = counters.sent.add(1),
                    failed => {
                        if counters.not_sent.add(1) {
                            tracing::warn!(subject, ?failed, "the bus did not take a message");
                        }
                        return (kind, false);
                    }
                }
            }
            (kind, true)
        }));
    }

    fn on_sent(&mut self, (kind, is_sent): (OutgoingKind, bool)) {
        let now = Instant::now();
        match kind {
            OutgoingKind::Query if is_sent => {
                (self.queries_left, self.query_at) =
                    (self.queries_left.saturating_sub(1), now + QUERY_INTERVAL);
            }
            OutgoingKind::Announcement(resource) if !is_sent => {
                self.to_announce.insert(resource);
            }
            OutgoingKind::State if !is_sent => {
                self.trickle.iter_mut().for_each(|trickle| trickle.failed(now));
            }
            _ => {}
        }
        if !is_sent {
            self.retry_at = now + RETRY_DELAY;
        }
    }

    /// The announcement of our last cut of a resource, if the cut still stands.
    fn announcement(&self, resource: &str) -> Option<Vec<u8>> {
        let standing = self.limiter.standing(resource)?;
        let cuts = wire_cuts(resource, &standing);
        let ours = cuts.filter(|cut| cut.origin.is_ours).min_by_key(|cut| cut.age)?;
        wire::announcement(&ours, standing.tokens, self.instance)
    }

    fn states(&self) -> Vec<Vec<u8>> {
        let is_covered = |resource: &String| {
            self.trickle.as_ref().is_some_and(|trickle| trickle.is_covered(resource))
        };
        let all: Vec<(&String, ActiveCuts)> = (self.cut.iter())
            .filter(|resource| !is_covered(resource))
            .filter_map(|resource| Some((resource, self.limiter.standing(resource)?)))
            .collect();
        let cuts: Vec<_> =
            all.iter().flat_map(|(resource, standing)| wire_cuts(resource, standing)).collect();
        wire::states(&self.id, self.instance, &cuts)
    }

    /// Send the pending announcements.
    async fn flush(&mut self) {
        self.retry_at = Instant::now();
        (self.queries_left, self.trickle) = (0, None);
        loop {
            self.send();
            if self.sending.is_none() {
                break;
            }
            let sent = sent(&mut self.sending).await;
            if !sent.1 {
                break;
            }
        }
        let _ = timeout(SEND_TIMEOUT, self.bus.flush()).await;
    }

    // ---- receiving ----------------------------------------------------------------------------

    fn on_delivery(
        &mut self,
        delivery: Option<Delivery>,
        (subject, subscription): &mut SubjectSubscription,
    ) {
        let subject = *subject;
        match delivery {
            Some(Delivery::Message(payload)) => self.on_message(subject, &payload),
            Some(Delivery::Lost(n)) => {
                if self.counters.lost.add(n) {
                    tracing::warn!(subject, n, "too slow for the bus: messages were lost");
                }
                self.query(1); // for the cuts in them
            }
            None => {
                *subscription = None;
                self.needs_resubscribe = true;
            }
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
        if message.instance == Some(self.instance) {
            return; // our own
        }
        self.counters.received.add(1);
        if message.agent_id == self.id && self.counters.same_agent_id.add(1) {
            let agent_id = &self.id;
            tracing::warn!(agent_id, "another limiter uses this agent_id: give each its own");
        }
        if subject == QUERY {
            self.trickle.iter_mut().for_each(|trickle| trickle.reset(Instant::now()));
        } else {
            self.merge(subject, message);
        }
    }

    fn merge(&mut self, subject: &'static str, mut message: Message) {
        // All cuts of a resource at once.
        message.cuts.sort_by(|a, b| a.0.cmp(&b.0));
        for group in message.cuts.chunk_by(|a, b| a.0 == b.0) {
            let resource = &group[0].0;
            let cuts: Vec<_> = group.iter().map(|(_, cut)| cut.clone()).collect();
            let Some(outcome) = self.limiter.hear(resource, &cuts) else {
                if self.counters.unknown_resource.add(1) {
                    tracing::debug!(?resource, "a cut of a resource that is not configured here");
                }
                continue;
            };
            // Only incidents are logged: with cuts that hardly cut anybody could fill the log.
            if outcome.is_incident {
                tracing::info!(?resource, agent_id = ?message.agent_id, "a neighbour's cut");
            }
            if outcome.is_news {
                self.cuts_changed(resource.clone());
            }
            let Some(trickle) = &mut self.trickle else { continue };
            // An announcement has one cut only: it does not show what its sender knows.
            match subject {
                STATE if outcome.is_behind => trickle.inconsistent(resource, Instant::now()),
                STATE => trickle.consistent(resource),
                _ => {}
            }
        }
    }

    /// Renew the subscriptions that the bus has ended.
    async fn resubscribe(&mut self, subscriptions: &mut Subscriptions) {
        if !self.needs_resubscribe || Instant::now() < self.retry_at {
            return;
        }
        self.needs_resubscribe = false;
        for (subject, subscription) in
            subscriptions.iter_mut().filter(|(_, subscription)| subscription.is_none())
        {
            match timeout(SEND_TIMEOUT, self.bus.subscribe(subject)).await {
                Ok(Ok(renewed)) => *subscription = Some(renewed),
                _ => self.needs_resubscribe = true,
            }
        }
        if self.needs_resubscribe {
            self.retry_at = Instant::now() + RETRY_DELAY;
        } else {
            self.query(QUERIES);
        }
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

async fn receive((_, subscription): &mut SubjectSubscription) -> Option<Delivery> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => pending().await,
    }
}

async fn sent(sending: &mut Option<Outgoing>) -> (OutgoingKind, bool) {
    match sending {
        Some(outgoing) => {
            let sent = outgoing.await;
            *sending = None;
            sent
        }
        None => pending().await,
    }
}
