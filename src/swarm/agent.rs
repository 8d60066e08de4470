//! The task of one limiter: it hears the others, tells them, and repeats what stands.
//! It is the only one that talks to the bus.

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

/// A bus that has not taken a message by then has not.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failure it is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// An agent asks what stands so often, because messages are lost.
const ASKS: u32 = 3;
const BETWEEN_ASKS: Duration = Duration::from_millis(250);
/// How late a step of a recovery may be told, in nanoseconds.
const SLACK: u64 = 1_000_000;
/// OutgoingKind is left to say when the limiter closes is said by then, or not.
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
    /// Resources with cuts that stand.
    cut: BTreeSet<String>,
    to_announce: BTreeSet<String>,
    /// While something stands.
    trickle: Option<Trickle>,
    asks: u32,
    ask_at: Instant,
    /// After a failure nothing is sent before.
    quiet_until: Instant,
    sending: Option<Outgoing>,
    /// When the next step is due, and its timer. `None`: to be found out.
    alarm: Option<(u64, Option<Alarm>)>,
    /// The bus has ended a subscription.
    needs_resubscribe: bool,
}

/// One message, or one state's, on its way.
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
            asks: ASKS,
            ask_at: now,
            quiet_until: now,
            sending: None,
            alarm: None,
            needs_resubscribe: false,
        }
    }

    /// Until the limiter closes.
    pub(super) async fn run(mut self, mut subscriptions: Subscriptions) {
        while !self.take_pending() {
            self.recover();
            self.send();
            let tasks = Arc::clone(&self.tasks);
            let next = self.next();
            // Which comes first is no matter of chance, so that a simulated swarm can be run again:
            // each subscription has its turn, and the last two only say that the loop has something to do.
            subscriptions.rotate_left(1);
            let [first, second, third] = &mut subscriptions;
            tokio::select! {
                biased;
                sent = sent(&mut self.sending) => self.sent(sent),
                heard = listen(first) => self.hear(heard, first),
                heard = listen(second) => self.hear(heard, second),
                heard = listen(third) => self.hear(heard, third),
                () = tasks.arrived() => {}
                () = sleep_until(next) => {}
            }
            self.resubscribe(&mut subscriptions).await;
        }
        let _ = timeout(FLUSH_TIMEOUT, self.flush()).await;
    }

    /// Whether to stop.
    fn take_pending(&mut self) -> bool {
        let left = self.tasks.take();
        if left.ask {
            self.ask(ASKS);
        }
        for resource in left.to_announce {
            self.stands(resource.clone());
            self.to_announce.insert(resource);
        }
        left.stop
    }

    /// Ask what stands, so many times: not more often than before.
    fn ask(&mut self, times: u32) {
        if self.asks == 0 {
            self.ask_at = self.ask_at.max(Instant::now());
        }
        self.asks = self.asks.max(times);
    }

    /// OutgoingKind stands of a resource has changed.
    fn stands(&mut self, resource: String) {
        // The date of the next step is another.
        self.alarm = None;
        let now = Instant::now();
        match &mut self.trickle {
            Some(trickle) => trickle.differ(&resource, now),
            None => self.trickle = Some(Trickle::new(now)),
        }
        self.cut.insert(resource);
    }

    /// Take the steps that are due, so that callbacks hear of them though nobody acquires, and wait
    /// for the next.
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
            Arc::clone(&self.tasks).wake(); // come again
        }
        self.alarm = Some((next, armed.and_then(Result::ok)));
    }

    /// When there is something to do, if nothing happens.
    fn next(&self) -> Instant {
        let ask = (self.asks > 0).then_some(self.ask_at);
        let speak = self.trickle.as_ref().map(Trickle::next);
        let again =
            (self.needs_resubscribe || !self.to_announce.is_empty()).then_some(self.quiet_until);
        let far = Instant::now() + Duration::from_hours(1);
        // While a message is on its way the next waits for it.
        let next = [ask, speak, again].into_iter().flatten().min();
        next.filter(|_| self.sending.is_none()).map_or(far, |next| next.max(self.quiet_until))
    }

    // ---- telling ------------------------------------------------------------------------------

    /// Send the next thing that is to be said, if nothing is on its way.
    fn send(&mut self) {
        let now = Instant::now();
        if self.sending.is_some() || now < self.quiet_until {
            return;
        }
        while let Some(resource) = self.to_announce.pop_first() {
            if let Some(message) = self.announcement(&resource) {
                return self.start(OutgoingKind::Announcement(resource), CAPACITY, vec![message]);
            }
        }
        if self.asks > 0 && self.ask_at <= now {
            let message = wire::query(&self.id, self.instance);
            return self.start(OutgoingKind::Query, QUERY, vec![message]);
        }
        if self.trickle.as_mut().is_some_and(|trickle| trickle.speaks(now)) {
            let messages = self.states();
            self.start(OutgoingKind::State, STATE, messages);
        }
    }

    fn start(&mut self, what: OutgoingKind, subject: &'static str, messages: Vec<Vec<u8>>) {
        let (bus, counters) = (Arc::clone(&self.bus), Arc::clone(&self.counters));
        self.sending = Some(Box::pin(async move {
            for message in messages {
                match timeout(SEND_TIMEOUT, bus.publish(subject, message)).await {
                    Ok(Ok(())) => _ = counters.sent.add(1),
                    failed => {
                        if counters.not_sent.add(1) {
                            tracing::warn!(subject, ?failed, "the bus did not take a message");
                        }
                        return (what, false);
                    }
                }
            }
            (what, true)
        }));
    }

    fn sent(&mut self, (what, is_sent): (OutgoingKind, bool)) {
        let now = Instant::now();
        match what {
            OutgoingKind::Query if is_sent => {
                (self.asks, self.ask_at) = (self.asks.saturating_sub(1), now + BETWEEN_ASKS);
            }
            OutgoingKind::Announcement(resource) if !is_sent => {
                _ = self.to_announce.insert(resource)
            }
            OutgoingKind::State if !is_sent => {
                self.trickle.iter_mut().for_each(|trickle| trickle.failed(now));
            }
            _ => {}
        }
        if !is_sent {
            self.quiet_until = now + RETRY_DELAY;
        }
    }

    /// Our last cut of a resource, if it still stands.
    fn announcement(&self, resource: &str) -> Option<Vec<u8>> {
        let standing = self.limiter.standing(resource)?;
        let told = told(resource, &standing);
        let ours = told.filter(|cut| cut.origin.is_ours).min_by_key(|cut| cut.age)?;
        wire::announcement(&ours, standing.tokens, self.instance)
    }

    fn states(&self) -> Vec<Vec<u8>> {
        let is_said = |resource: &String| {
            self.trickle.as_ref().is_some_and(|trickle| trickle.is_said(resource))
        };
        let all: Vec<(&String, ActiveCuts)> = (self.cut.iter())
            .filter(|resource| !is_said(resource))
            .filter_map(|resource| Some((resource, self.limiter.standing(resource)?)))
            .collect();
        let cuts: Vec<_> =
            all.iter().flat_map(|(resource, standing)| told(resource, standing)).collect();
        wire::states(&self.id, self.instance, &cuts)
    }

    /// OutgoingKind was announced and is not yet told.
    async fn flush(&mut self) {
        self.quiet_until = Instant::now();
        (self.asks, self.trickle) = (0, None);
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

    // ---- hearing ------------------------------------------------------------------------------

    fn hear(&mut self, heard: Option<Delivery>, (subject, subscription): &mut SubjectSubscription) {
        let subject = *subject;
        match heard {
            Some(Delivery::Message(payload)) => self.parse(subject, &payload),
            Some(Delivery::Lost(n)) => {
                if self.counters.lost.add(n) {
                    tracing::warn!(subject, n, "too slow for the bus: messages were lost");
                }
                self.ask(1); // what was in them
            }
            None => {
                *subscription = None;
                self.needs_resubscribe = true;
            }
        }
    }

    fn parse(&mut self, subject: &'static str, payload: &[u8]) {
        let Some(told) = wire::parse(subject, payload) else {
            self.counters.received.add(1);
            if self.counters.malformed.add(1) {
                let bytes = payload.len();
                tracing::warn!(subject, bytes, "a message that makes no sense was ignored");
            }
            return;
        };
        if told.instance == Some(self.instance) {
            return; // our own
        }
        self.counters.received.add(1);
        if told.agent_id == self.id && self.counters.same_agent_id.add(1) {
            let agent_id = &self.id;
            tracing::warn!(agent_id, "another limiter uses this agent_id: give each its own");
        }
        if subject == QUERY {
            self.trickle.iter_mut().for_each(|trickle| trickle.hurry(Instant::now()));
        } else {
            self.learn(subject, told);
        }
    }

    fn learn(&mut self, subject: &'static str, mut told: Message) {
        // By resource, in one piece.
        told.cuts.sort_by(|a, b| a.0.cmp(&b.0));
        for group in told.cuts.chunk_by(|a, b| a.0 == b.0) {
            let resource = &group[0].0;
            let cuts: Vec<_> = group.iter().map(|(_, heard)| heard.clone()).collect();
            let Some(hearing) = self.limiter.hear(resource, &cuts) else {
                if self.counters.unknown_resource.add(1) {
                    tracing::debug!(?resource, "a cut of a resource that is not configured here");
                }
                continue;
            };
            // One that hardly cuts is not worth a line: anybody could fill the log with them.
            if hearing.is_incident {
                tracing::info!(?resource, agent_id = ?told.agent_id, "a neighbour's cut");
            }
            if hearing.is_news {
                self.stands(resource.clone());
            }
            let Some(trickle) = &mut self.trickle else { continue };
            // An announcement is of one cut: what it lacks says nothing.
            match subject {
                STATE if hearing.is_behind => trickle.differ(resource, Instant::now()),
                STATE => trickle.agree(resource),
                _ => {}
            }
        }
    }

    /// Subscribe again where the bus ended a subscription.
    async fn resubscribe(&mut self, subscriptions: &mut Subscriptions) {
        if !self.needs_resubscribe || Instant::now() < self.quiet_until {
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
            self.quiet_until = Instant::now() + RETRY_DELAY;
        } else {
            self.ask(ASKS);
        }
    }
}

fn told<'a>(
    resource: &'a str,
    standing: &'a ActiveCuts,
) -> impl Iterator<Item = wire::Cut<'a>> + use<'a> {
    standing.cuts.iter().map(move |cut| wire::Cut {
        resource,
        id: cut.id,
        factor: cut.factor,
        tokens: cut.tokens,
        age: cut.age(standing.now),
        origin: &cut.origin,
    })
}

async fn listen((_, subscription): &mut SubjectSubscription) -> Option<Delivery> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => pending().await,
    }
}

async fn sent(sending: &mut Option<Outgoing>) -> (OutgoingKind, bool) {
    match sending {
        Some(on_its_way) => {
            let sent = on_its_way.await;
            *sending = None;
            sent
        }
        None => pending().await,
    }
}
