//! What the bus delivers: the four subjects, each subscribed again when its subscription ends. Whether
//! an agent hears has no influence on whether it is heard.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::guard::{guarded, guarded_next};
use super::wire::{CAPACITY, PAUSE, QUERY, STATE};
use crate::bus::{BusError, Delivery, MessageBus, Subscription};

/// The bus has failed if it has not subscribed by then.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts to subscribe again to a subject: it doubles until something is delivered.
const RETRY_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

pub(super) struct Inbound {
    bus: Arc<dyn MessageBus>,
    subjects: [Subject; 4],
    /// A subscription that is being renewed.
    renewing: Option<Renewing>,
}

struct Subject {
    name: &'static str,
    /// `None` once the bus has ended it.
    subscription: Option<Box<dyn Subscription>>,
    /// It is not renewed before.
    retry_at: Instant,
    delay: Duration,
}

type Renewing = Pin<Box<dyn Future<Output = (&'static str, Subscribed)> + Send>>;
type Subscribed = Result<Box<dyn Subscription>, BusError>;

/// What has come in.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(&'static str, Vec<u8>),
    /// The number of messages of a subject that were lost.
    Lost(&'static str, u64),
    /// After a time in which messages of a subject were not heard, all subjects are subscribed.
    Renewed,
}

impl Inbound {
    pub(super) async fn subscribe(bus: Arc<dyn MessageBus>) -> Result<Self, BusError> {
        let (retry_at, delay) = (Instant::now(), RETRY_DELAY);
        let mut subjects = [STATE, QUERY, PAUSE, CAPACITY].map(|name| Subject {
            name,
            subscription: None,
            retry_at,
            delay,
        });
        for subject in &mut subjects {
            let (_, subscribed) = subscribe(Arc::clone(&bus), subject.name).await;
            subject.subscription = Some(subscribed?);
        }
        Ok(Self { bus, subjects, renewing: None })
    }

    /// What comes in next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            self.renew();
            let ended = self.subjects.iter().filter(|subject| subject.subscription.is_none());
            let retry_at = ended.map(|subject| subject.retry_at).min();
            let retry_at = retry_at.filter(|_| self.renewing.is_none());
            // The subjects take turns at being first.
            self.subjects.rotate_left(1);
            let [first, second, third, fourth] = &mut self.subjects;
            // What ends a silence comes first: a flood on one subject must not keep another one deaf.
            let (name, delivery) = tokio::select! {
                biased;
                (name, subscribed) = renewed(&mut self.renewing) => {
                    if self.on_renewed(name, subscribed) {
                        return Incoming::Renewed;
                    }
                    continue;
                }
                () = until(retry_at) => continue,
                delivery = receive(first) => (first.name, delivery),
                delivery = receive(second) => (second.name, delivery),
                delivery = receive(third) => (third.name, delivery),
                delivery = receive(fourth) => (fourth.name, delivery),
            };
            let subject = self.subject(name);
            if delivery.is_some() {
                subject.delay = RETRY_DELAY;
            }
            match delivery {
                Some(Delivery::Message(payload)) => return Incoming::Message(name, payload),
                Some(Delivery::Lost(n)) => return Incoming::Lost(name, n),
                None => subject.subscription = None,
            }
        }
    }

    /// Starts to renew a subscription that has ended.
    fn renew(&mut self) {
        let now = Instant::now();
        let is_due =
            |subject: &&mut Subject| subject.subscription.is_none() && subject.retry_at <= now;
        if self.renewing.is_none()
            && let Some(subject) = self.subjects.iter_mut().find(is_due)
        {
            // Also one that is subscribed and ends at once is not renewed in a loop.
            subject.retry_at = now + subject.delay;
            subject.delay = (subject.delay * 2).min(LONGEST_DELAY);
            self.renewing = Some(Box::pin(subscribe(Arc::clone(&self.bus), subject.name)));
        }
    }

    /// Whether that was the last one missing.
    fn on_renewed(&mut self, name: &'static str, subscribed: Subscribed) -> bool {
        match subscribed {
            Ok(subscription) => {
                self.subject(name).subscription = Some(subscription);
                self.subjects.iter().all(|subject| subject.subscription.is_some())
            }
            Err(error) => {
                tracing::debug!(subject = name, %error, "the bus did not subscribe");
                false
            }
        }
    }

    fn subject(&mut self, name: &'static str) -> &mut Subject {
        let at = self.subjects.iter().position(|subject| subject.name == name);
        &mut self.subjects[at.unwrap_or(0)]
    }
}

async fn subscribe(bus: Arc<dyn MessageBus>, name: &'static str) -> (&'static str, Subscribed) {
    let subscribing = guarded(async { bus.subscribe(name).await });
    let subscribed = timeout(SUBSCRIBE_TIMEOUT, subscribing).await;
    (name, subscribed.unwrap_or(Err(BusError::Disconnected)))
}

async fn receive(subject: &mut Subject) -> Option<Delivery> {
    match &mut subject.subscription {
        Some(subscription) => guarded_next(&mut **subscription).await,
        None => pending().await,
    }
}

async fn renewed(renewing: &mut Option<Renewing>) -> (&'static str, Subscribed) {
    match renewing {
        Some(subscribing) => {
            let renewed = subscribing.await;
            *renewing = None;
            renewed
        }
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
