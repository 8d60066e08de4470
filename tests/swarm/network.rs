//! A bus that loses, delays, repeats and reorders messages, between members that may be parted; and
//! keeps a log of the cuts that are announced on it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tollgate::{BusError, BusFuture, Delivery, MessageBus, Subscription};

/// In seconds from the start.
pub(crate) type At = f64;

/// For how long two sides do not hear each other.
pub(crate) struct Parting {
    pub(crate) from: At,
    pub(crate) to: At,
    pub(crate) is_left: Vec<bool>,
    /// The bus fails for those on the left, instead of losing what they say.
    pub(crate) fails: bool,
}

/// An announcement, as it was published.
pub(crate) struct Announced {
    pub(crate) by: usize,
    pub(crate) at: At,
    pub(crate) message: String,
    /// Whether somebody else will hear it.
    pub(crate) is_heard: bool,
}

pub(crate) struct Network {
    random: fastrand::Rng,
    start: Instant,
    loss: f64,
    twice: f64,
    longest_delay: Duration,
    pub(crate) partings: Vec<Parting>,
    /// Since when a member hears and says nothing.
    pub(crate) crashed: Vec<Option<At>>,
    pub(crate) log: Vec<Announced>,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    member: usize,
    subject: String,
    inbox: mpsc::UnboundedSender<Vec<u8>>,
}

/// A member's end of the network.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) member: usize,
    pub(crate) network: Arc<Mutex<Network>>,
}

impl Network {
    pub(crate) fn new(members: usize, mut random: fastrand::Rng) -> Self {
        let longest_delay = [5, 200, 2_000][random.usize(..3)];
        Self {
            loss: 0.25 * random.f64(),
            twice: 0.2 * random.f64(),
            longest_delay: Duration::from_millis(longest_delay),
            random,
            start: Instant::now(),
            partings: Vec::new(),
            crashed: vec![None; members],
            log: Vec::new(),
            subscribers: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> At {
        self.start.elapsed().as_secs_f64()
    }

    /// For how long at a time `a` and `b` hear each other between two moments, at most.
    pub(crate) fn together(&self, a: usize, b: usize, from: At, to: At) -> At {
        let (mut longest, mut since) = (0.0_f64, from);
        for parting in self.partings.iter().filter(|p| p.is_left[a] != p.is_left[b]) {
            longest = longest.max(parting.from.min(to) - since);
            since = since.max(parting.to);
        }
        longest.max(to - since)
    }

    fn hears(&self, a: usize, b: usize) -> bool {
        let now = self.now();
        let apart = |p: &Parting| (p.from..p.to).contains(&now) && p.is_left[a] != p.is_left[b];
        self.crashed[b].is_none() && !self.partings.iter().any(apart)
    }

    fn fails(&self, by: usize) -> bool {
        let now = self.now();
        self.partings.iter().any(|p| p.fails && p.is_left[by] && (p.from..p.to).contains(&now))
    }

    fn publish(&mut self, by: usize, subject: &str, payload: &[u8]) {
        if self.crashed[by].is_some() {
            return;
        }
        let mut is_heard = false;
        for i in 0..self.subscribers.len() {
            let to = self.subscribers[i].member;
            let is_lost = to != by && self.random.f64() < self.loss;
            if is_lost || self.subscribers[i].subject != subject || !self.hears(by, to) {
                continue;
            }
            is_heard |= to != by;
            for _ in 0..if self.random.f64() < self.twice { 2 } else { 1 } {
                let delay = self.longest_delay.mul_f64(self.random.f64());
                let (inbox, payload) = (self.subscribers[i].inbox.clone(), payload.to_vec());
                tokio::spawn(async move {
                    sleep(delay).await;
                    let _ = inbox.send(payload);
                });
            }
        }
        if subject == "ratelimit.capacity" {
            let message = String::from_utf8_lossy(payload).into_owned();
            self.log.push(Announced { by, at: self.now(), message, is_heard });
        }
    }
}

impl End {
    pub(crate) fn of(member: usize, network: &Arc<Mutex<Network>>) -> Self {
        Self { member, network: Arc::clone(network) }
    }

    pub(crate) fn say(&self, subject: &str, message: &str) {
        self.lock().publish(self.member, subject, message.as_bytes());
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Network> {
        self.network.lock().expect("no panic while it is held")
    }
}

impl MessageBus for End {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        let mut network = self.lock();
        // It is logged as announced even so: the agent has cut.
        network.publish(self.member, subject, &payload);
        let failed = network.fails(self.member).then_some(BusError::Disconnected);
        Box::pin(std::future::ready(failed.map_or(Ok(()), Err)))
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        let (inbox, messages) = mpsc::unbounded_channel();
        let (member, subject) = (self.member, subject.to_string());
        self.lock().subscribers.push(Subscriber { member, subject, inbox });
        let subscription: Box<dyn Subscription> = Box::new(Messages(messages));
        Box::pin(std::future::ready(Ok(subscription)))
    }
}

struct Messages(mpsc::UnboundedReceiver<Vec<u8>>);

impl Subscription for Messages {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(async { self.0.recv().await.map(Delivery::Message) })
    }
}
