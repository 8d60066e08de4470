//! A bus between machines: core NATS.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subject, Subscriber};
use futures_core::Stream;
use tokio::time::timeout;

use super::{BusError, BusFuture, Delivery, MessageBus, Subscription};
use crate::sync::{AtomicU64, Ordering};

/// What any call may wait for the server.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts to connect, at most; and at most before the first, doubled with each.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// A server is asked this often whether it is there. The third question without an answer ends the
/// connection.
const PING: Duration = Duration::from_secs(2);

/// What the client may have taken but not sent yet. When a connection ends, it keeps that for the next.
const QUEUE: usize = 64;

/// What a subscriber may be behind, as on the bus in memory. Each message may have 1 MiB, and the
/// client's own default is 65,536 of them.
const BUFFER: usize = 256;

/// A server ends a connection that sends it a line of more than 4 KiB, and a subscription to such a
/// subject would be restored only to end the next one.
const LONGEST_SUBJECT: usize = 1_024;

/// A bus over [NATS](https://nats.io): core NATS, without `JetStream`. Cheap to clone; clones share
/// one connection.
///
/// ```no_run
/// use tollgate::{MessageBus, NatsBus};
///
/// # async fn example() -> Result<(), tollgate::BusError> {
/// let bus = NatsBus::connect("nats://localhost:4222").await?;
/// let mut news = bus.subscribe("news").await?;
/// bus.publish("news", b"hello".to_vec()).await?;
/// println!("{:?}", news.next().await);
/// # Ok(())
/// # }
/// ```
///
/// * **Outages.** The connection comes back by itself, and the subscriptions with it. Until then
///   publishing is [`BusError::Disconnected`]. What fails was not sent and will not be.
/// * **Losses.** What was accepted may be lost without an error: that a connection has ended is
///   noticed a little later, 6 s later where only silence tells of it. Of what is published in
///   between, some may arrive once the connection is back: of what the client had not begun to send,
///   at most 64 messages.
/// * **Subscribing** waits until the server has the subscription, a second or two at most. If it has
///   not by then, or there is no connection, the subscription begins when the server has it. Other
///   servers of a cluster hear of it a moment later.
/// * **A slow subscriber** loses the newest messages once 256 of its own wait for it
///   (`ConnectOptions::subscription_capacity`). It is not told: [`Delivery::Lost`] never comes, but
///   `tracing` has a warning, of the 1st, 2nd, 4th ... that is lost.
/// * **Subjects** are those of NATS: tokens between dots, without white space, at most 1,024 bytes;
///   anything else is an error. `*` and `>` in a subscription are its wildcards.
/// * **Payloads** are as large as the server allows, 1 MiB by default; a larger one is an error.
/// * **Permissions.** Besides its subjects, a user needs to publish and subscribe to `_INBOX.>`, or
///   each subscribing takes the full second. What a server forbids is told to `tracing` alone.
///
/// It works within a tokio runtime with `net` and `time` enabled, and lives as long as the one that it
/// was connected in. Where tokio's time is paused, what waits for the server may give up at once.
#[derive(Clone)]
pub struct NatsBus(Client);

impl NatsBus {
    /// Connect, with [`options`](Self::options). Several servers of one cluster are separated by
    /// commas: it takes any, and another when that one goes away.
    ///
    /// # Errors
    ///
    /// There is no such server, or it will not have us. That takes at most 5 s for each address.
    pub async fn connect(url: &str) -> Result<Self, BusError> {
        Self::connect_with(url, Self::options()).await
    }

    /// Connect with credentials, TLS or another name.
    ///
    /// ```no_run
    /// use tollgate::NatsBus;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = NatsBus::options()
    ///     .name("billing")
    ///     .require_tls(true)
    ///     .credentials_file("billing.creds")
    ///     .await?;
    /// let bus = NatsBus::connect_with("nats://localhost:4222", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Leave the echo on: a limiter hears itself.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect). Credentials in a URL are an error too, for the client would
    /// not use them.
    pub async fn connect_with(url: &str, options: ConnectOptions) -> Result<Self, BusError> {
        let mut servers = Vec::new();
        for url in url.split(',') {
            let server: ServerAddr = url.trim().parse().map_err(|error| failed(&error))?;
            if server.username().is_some() || server.password().is_some() {
                return Err(failed(&"credentials belong into ConnectOptions, not into the URL"));
            }
            servers.push(server);
        }
        let connected = options.connect(servers).await;
        connected.map(Self).map_err(|error| failed(&format_args!("{url}: {error}")))
    }

    /// What [`connect`](Self::connect) connects with, to build on: named "tollgate", tries to
    /// reconnect for ever and at least each second or so, notices a silent server within 6 s, queues
    /// at most 64 messages to the server and 256 to each subscriber, and tells `tracing` what happens to the connection.
    ///
    /// `ConnectOptions::new()` has other defaults: up to 4 s between attempts, up to 3 minutes until
    /// it gives a silent server up, and queues of 2,048 and 65,536.
    #[must_use]
    pub fn options() -> ConnectOptions {
        let lost = Arc::new(AtomicU64::new(0));
        ConnectOptions::new()
            .name("tollgate")
            .max_reconnects(None)
            .reconnect_delay_callback(delay)
            .ping_interval(PING)
            .client_capacity(QUEUE)
            .subscription_capacity(BUFFER)
            .event_callback(move |event| {
                let lost = Arc::clone(&lost);
                async move { tell(&event, &lost) }
            })
    }

    fn connected(&self) -> Result<(), BusError> {
        match self.0.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(BusError::Disconnected),
        }
    }

    /// To the server and back: a message to ourselves. What was sent before has been seen by then.
    async fn round_trip(&self) -> Result<(), BusError> {
        let inbox = self.0.new_inbox();
        let mut echo = self.0.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        self.0.publish(inbox, Vec::new().into()).await.map_err(|error| failed(&error))?;
        echo.next().await.map(drop).ok_or(BusError::Disconnected)
    }
}

/// A client that there is already. Its options stay as they are.
impl From<Client> for NatsBus {
    fn from(client: Client) -> Self {
        Self(client)
    }
}

impl MessageBus for NatsBus {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            let subject = valid(subject)?;
            // The client would keep it until there is a connection again.
            self.connected()?;
            within(self.0.publish(subject, payload.into())).await
        })
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move {
            let subscriber = within(self.0.subscribe(valid(subject)?)).await?;
            // Flushing does not do: it waits for the socket, not for the server.
            if self.connected().is_ok() && timeout(PATIENCE, self.round_trip()).await.is_err() {
                tracing::debug!(subject, "nats: subscribed without an answer as yet");
            }
            Ok(Box::new(subscriber) as Box<dyn Subscription>)
        })
    }

    fn flush(&self) -> BusFuture<'_, Result<(), BusError>> {
        Box::pin(async {
            self.connected()?;
            within(self.0.flush()).await
        })
    }
}

impl Subscription for Subscriber {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(async {
            let message = poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await?;
            Some(Delivery::Message(message.payload.into()))
        })
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsBus").field(&self.0.connection_state()).finish()
    }
}

fn failed(why: &impl ToString) -> BusError {
    BusError::Failed(why.to_string())
}

/// A subject that the server takes.
fn valid(subject: &str) -> Result<Subject, BusError> {
    if subject.len() > LONGEST_SUBJECT {
        return Err(failed(&format_args!("a subject of more than {LONGEST_SUBJECT} bytes")));
    }
    Subject::validated(subject).map_err(|_| failed(&format_args!("no subject: {subject:?}")))
}

/// Hand something to the client, which takes nothing more while it is stuck.
async fn within<T, E: ToString>(
    handing: impl Future<Output = Result<T, E>>,
) -> Result<T, BusError> {
    match timeout(PATIENCE, handing).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(_) => Err(BusError::Disconnected),
    }
}

/// What to wait before an attempt, the first included; unlike others, who lost it at the same time.
fn delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let most = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// `lost` counts the messages that slow subscribers lost, which are an event each. Relaxed: it
/// publishes nothing.
fn tell(event: &Event, lost: &AtomicU64) {
    match event {
        Event::Connected | Event::Draining | Event::Closed => tracing::info!("nats: {event}"),
        Event::SlowConsumer(_) => {
            let lost = lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::warn!(lost, "nats: {event}");
            }
        }
        event => tracing::warn!("nats: {event}"),
    }
}
