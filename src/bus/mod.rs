//! Message buses: bytes by subject, to those subscribed at the time.

mod inbox;
mod memory;
#[cfg(feature = "nats")]
mod nats;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use memory::MemoryBus;
#[cfg(feature = "nats")]
pub use nats::NatsBus;

/// A boxed future, which makes the traits of a bus object-safe.
pub type BusFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The message bus of a swarm's agents. Implement it for the bus that you have.
///
/// A bus may lose, delay, repeat and reorder messages: limiters repeat the cuts that still stand.
/// It should not keep messages for later. A message tells a cut's age at sending, so a cut that was
/// kept during an outage would arrive younger than it is; the sender repeats it anyway.
pub trait MessageBus: Send + Sync {
    /// Send `payload` to all subscribers of `subject`, without waiting for them.
    ///
    /// # Errors
    ///
    /// The message was not sent. The caller decides whether to retry: after
    /// [`Disconnected`](BusError::Disconnected) a limiter waits before it sends anything, and after
    /// [`Failed`](BusError::Failed) it continues with its other messages, because the cause may lie in this one.
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>>;

    /// Subscribe to `subject`. Messages published after the future has resolved are received, the
    /// subscriber's own included.
    ///
    /// # Errors
    ///
    /// Nothing was subscribed.
    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>>;

    /// Wait until all published messages have left this process. The default returns at once.
    ///
    /// # Errors
    ///
    /// Some may not have left.
    fn flush(&self) -> BusFuture<'_, Result<(), BusError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The largest payload that the bus takes at present, in bytes. Limiters split and shorten what they
    /// have to say to fit. The default is no limit.
    fn max_payload(&self) -> usize {
        usize::MAX
    }

    /// How many connections there have been. When the number grows, messages may have been lost, and
    /// limiters repeat what they have announced. The default is always 0, for a bus that has none or does
    /// not know: then they go by what the bus accepts after it has failed for a second or more.
    fn connections(&self) -> u64 {
        0
    }
}

/// A subject's messages. Dropping it ends the subscription.
pub trait Subscription: Send {
    /// The next message; `None` once the bus has ended this subscription. Cancel-safe: dropping the
    /// future loses no message.
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>>;
}

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message's payload.
    Message(Vec<u8>),
    /// This many messages were dropped before the next one because this subscriber was slow.
    Lost(u64),
}

/// Why an operation on a bus failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusError {
    /// There is no connection at present. It may come back.
    Disconnected,
    /// Any other failure, in the words of the bus.
    Failed(String),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the bus is not connected at present"),
            Self::Failed(why) => write!(f, "the bus failed: {why}"),
        }
    }
}

impl Error for BusError {}
