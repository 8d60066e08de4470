//! A bus within one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{BusError, BusFuture, Delivery, MessageBus, Subscription};
use crate::sync::Mutex;

/// A subscriber that is further behind loses its oldest messages.
const BUFFER: usize = 256;

/// A bus within one process: for tests, and for several limiters in one program. Clones share it.
///
/// Publishing never waits. A subscriber that falls behind by more than 256 messages loses the
/// oldest and is told how many: [`Delivery::Lost`].
#[derive(Clone, Default)]
pub struct MemoryBus(Arc<Mutex<HashMap<String, broadcast::Sender<Vec<u8>>>>>);

impl MemoryBus {
    /// A bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl MessageBus for MemoryBus {
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
    ) -> BusFuture<'a, Result<(), BusError>> {
        // No subscriber is no error, as on any bus.
        let _ = self.0.lock().get(subject).map(|subscribers| subscribers.send(payload));
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        let mut subjects = self.0.lock();
        subjects.retain(|_, subscribers| subscribers.receiver_count() > 0);
        let subscribers =
            subjects.entry(subject.to_string()).or_insert_with(|| broadcast::channel(BUFFER).0);
        let subscription: Box<dyn Subscription> = Box::new(subscribers.subscribe());
        drop(subjects);
        Box::pin(std::future::ready(Ok(subscription)))
    }
}

impl Subscription for broadcast::Receiver<Vec<u8>> {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(async {
            match self.recv().await {
                Ok(message) => Some(Delivery::Message(message)),
                Err(RecvError::Lagged(lost)) => Some(Delivery::Lost(lost)),
                Err(RecvError::Closed) => None,
            }
        })
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryBus").field(&self.0.lock().len()).finish()
    }
}
