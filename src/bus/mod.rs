//! Message buses: bytes, by subject, to whoever listens at the time.

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

/// A boxed future, so that the traits of a bus are object-safe.
pub type BusFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What agents talk over. Implement it for the bus that you have; what a limiter needs is little.
///
/// A bus may lose, delay, repeat and reorder messages: the limiters repeat what still stands.
/// What it should not do is keep messages for later. A cut tells its age, and one that was kept
/// while the bus was away arrives younger than it is; the sender will say it again by itself.
pub trait MessageBus: Send + Sync {
    /// Hand `payload` to all who are subscribed to `subject`. Does not wait for them.
    ///
    /// # Errors
    ///
    /// It was not sent. The caller decides whether to say it again.
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>>;

    /// Listen. What is published once this has returned is received, also by who published it.
    ///
    /// # Errors
    ///
    /// There is no such subscription.
    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>>;

    /// Wait until what was published has left this process. By default it has.
    ///
    /// # Errors
    ///
    /// It may not have.
    fn flush(&self) -> BusFuture<'_, Result<(), BusError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// One subject's messages, as they come. Dropping it ends the subscription.
pub trait Subscription: Send {
    /// The next message; `None` once the bus has ended this subscription. Cancel-safe: dropping the
    /// future loses nothing.
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>>;
}

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message, as it was published.
    Message(Vec<u8>),
    /// So many messages were dropped before the next, because this subscriber was slow.
    Lost(u64),
}

/// Why a bus did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusError {
    /// There is no connection at present: it may come back.
    Disconnected,
    /// What else the bus says, in its words.
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
