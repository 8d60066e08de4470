//! A bus between machines: core NATS.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, Message, ServerAddr, Subject, Subscriber};
use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::inbox::Inbox;
use super::{BusError, BusFuture, Delivery, MessageBus, Subscription};
use crate::sync::{AtomicU64, Ordering};

/// The longest that a call waits for the server.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest delay before any attempt to connect, and before the first: it doubles each time.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// Interval of pings to the server. The third without an answer ends the connection.
const PING: Duration = Duration::from_secs(2);

/// Messages that the client may hold unsent. When a connection ends it keeps them for the next.
const QUEUE: usize = 64;

/// Messages between the client and a subscription's task, which moves them to an [`Inbox`] at once. The
/// client reads many at a time, and drops what does not fit. This is its own default.
const BUFFER: usize = 65_536;

/// In bytes. A server ends a connection that sends it a line of more than 4 KiB. The client would
/// restore a subscription to such a subject, which ends the next connection too.
const LONGEST_SUBJECT: usize = 1_024;

/// A bus over [NATS](https://nats.io): core NATS, without `JetStream`. Clones share a connection.
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
/// * **Outages.** The client reconnects and restores the subscriptions. Until then publishing is
///   [`BusError::Disconnected`]. A message whose publishing failed will never be sent.
/// * **Losses.** An accepted message may be lost without an error, because the end of a connection
///   is noticed a little later: 6 s later if the only sign is silence. Of the messages published in
///   between, those that the client had not begun to send, at most 64, may arrive after the
///   reconnection.
/// * **Subscribing** waits until the server has the subscription, two seconds at most. If it has
///   not by then, or there is no connection, the subscription begins when the server has it. Other
///   servers of a cluster learn of it a moment later.
/// * **A slow subscriber** that falls behind by more than 16 MiB, which are tens of thousands of
///   announcements, loses the oldest messages and is told how many: [`Delivery::Lost`]. Besides that, the
///   client drops the newest if 65,536 messages come (`ConnectOptions::subscription_capacity`) before the
///   runtime runs any other task. Only `tracing` learns of that: of the 1st, 2nd, 4th ... lost message.
/// * **Subjects** are those of NATS: tokens separated by dots, without white space, at most 1,024
///   bytes; anything else is an error. `*` and `>` in a subscription are wildcards.
/// * **Payloads** may be as large as the server allows, 1 MiB by default; a larger one is an error.
/// * **Permissions.** Besides its subjects, a user needs to publish and subscribe to `_INBOX.>`;
///   otherwise each subscribing takes a full second. A message that the server forbids is published
///   without an error all the same: the server only tells the client later, and that `tracing`.
///
/// It needs a tokio runtime with `net` and `time` enabled, and lives as long as the one in which it
/// was connected. While tokio's time is paused, calls that wait for it may time out at once.
#[derive(Clone)]
pub struct NatsBus(Client);

impl NatsBus {
    /// Connect with [`options`](Self::options). Separate several servers of one cluster by commas:
    /// any of them is used, and another one if that fails.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses us. That takes at most 5 s for each address.
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
    /// Leave the echo on: a bus delivers a publisher's own messages, and subscribing waits for one.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). Credentials in a URL are an error too, because the client
    /// would not use them.
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

    /// The options of [`connect`](Self::connect), to build on. The client is named "tollgate",
    /// tries to reconnect without end and about once a second or more often, notices a silent
    /// server within 6 s, queues at most 64 messages to the server, and reports the connection's events to
    /// `tracing`.
    ///
    /// `ConnectOptions::new()` has other defaults: up to 4 s between attempts, up to 3 minutes
    /// until it gives up a silent server, and a queue of 2,048 messages.
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
                async move { log(&event, &lost) }
            })
    }

    pub(crate) fn into_client(self) -> Client {
        self.0
    }

    fn connected(&self) -> Result<(), BusError> {
        match self.0.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(BusError::Disconnected),
        }
    }

    /// A message to ourselves: when it is back, the server has handled what was sent before.
    async fn round_trip(&self) -> Result<(), BusError> {
        let inbox = self.0.new_inbox();
        let mut echo = self.0.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        self.0.publish(inbox, Vec::new().into()).await.map_err(|error| failed(&error))?;
        next(&mut echo).await.map(drop).ok_or(BusError::Disconnected)
    }
}

/// Use an existing client, with its options.
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
            // Without a connection the client would keep the message for the next one.
            self.connected()?;
            within(self.0.publish(subject, payload.into())).await
        })
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        Box::pin(async move {
            let runtime = Handle::try_current().map_err(|error| failed(&error))?;
            let subscriber = within(self.0.subscribe(valid(subject)?)).await?;
            let subscription = Received::start(&runtime, subscriber);
            // A flush is not enough: it waits for the socket, not for the server.
            if self.connected().is_ok() && timeout(CALL_TIMEOUT, self.round_trip()).await.is_err() {
                tracing::debug!(subject, "nats: subscribed without an answer as yet");
            }
            Ok(Box::new(subscription) as Box<dyn Subscription>)
        })
    }

    fn flush(&self) -> BusFuture<'_, Result<(), BusError>> {
        Box::pin(async {
            self.connected()?;
            within(self.0.flush()).await
        })
    }

    fn max_payload(&self) -> usize {
        self.0.max_payload()
    }

    fn connections(&self) -> u64 {
        self.0.statistics().connects.load(Ordering::Relaxed)
    }
}

/// A subscription's messages, which a task receives. So what waits is bounded in bytes, and what is lost is
/// counted.
struct Received {
    inbox: Arc<Inbox>,
    task: AbortHandle,
}

impl Received {
    fn start(runtime: &Handle, mut subscriber: Subscriber) -> Self {
        /// Closes the inbox also if the runtime drops the task.
        struct Filled(Arc<Inbox>);
        impl Drop for Filled {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        let inbox = Arc::new(Inbox::default());
        let filled = Filled(Arc::clone(&inbox));
        let task = runtime.spawn(async move {
            while let Some(message) = next(&mut subscriber).await {
                let waker = filled.0.push((*message.payload).into());
                waker.into_iter().for_each(Waker::wake);
            }
        });
        Self { inbox, task: task.abort_handle() }
    }
}

impl Subscription for Received {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(self.inbox.next())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsBus").field(&self.0.connection_state()).finish()
    }
}

async fn next(subscriber: &mut Subscriber) -> Option<Message> {
    poll_fn(|context| Pin::new(&mut *subscriber).poll_next(context)).await
}

fn failed(why: &impl ToString) -> BusError {
    BusError::Failed(why.to_string())
}

/// A subject that the server accepts.
fn valid(subject: &str) -> Result<Subject, BusError> {
    if subject.len() > LONGEST_SUBJECT {
        return Err(failed(&format_args!("a subject of more than {LONGEST_SUBJECT} bytes")));
    }
    Subject::validated(subject).map_err(|_| failed(&format_args!("no subject: {subject:?}")))
}

/// Run a call to the client with a timeout: while its queue is full it accepts nothing.
async fn within<T, E: ToString>(call: impl Future<Output = Result<T, E>>) -> Result<T, BusError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(_) => Err(BusError::Disconnected),
    }
}

/// The delay before an attempt to connect, the first included. Random, because other clients lost
/// their connection at the same time.
fn delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let most = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// `lost` counts messages that slow subscribers lost, an event each. Relaxed: it publishes nothing.
fn log(event: &Event, lost: &AtomicU64) {
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
