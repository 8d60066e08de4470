//! A bus within one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::inbox::Inbox;
use super::{BusError, BusFuture, Delivery, MessageBus, Subscription};
use crate::sync::Mutex;

/// A bus within one process: for tests, and for several limiters in one program. Clones share it.
///
/// Publishing never waits. A subscriber that falls behind by more than 16 MiB, which are tens of thousands
/// of announcements, loses the oldest messages and is told how many: [`Delivery::Lost`].
#[derive(Clone, Default)]
pub struct MemoryBus(Arc<Mutex<HashMap<String, Vec<Weak<Inbox>>>>>);

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
        let payload: Arc<[u8]> = payload.into();
        let mut wakers = Vec::new();
        // One lock for all of them, so that they receive messages in the same order.
        if let Some(subscribers) = self.0.lock().get_mut(subject) {
            subscribers.retain(|subscriber| {
                let inbox = subscriber.upgrade();
                wakers.extend(inbox.as_ref().and_then(|inbox| inbox.push(Arc::clone(&payload))));
                inbox.is_some()
            });
        }
        wakers.into_iter().for_each(Waker::wake);
        // No subscriber is no error, as on any bus.
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
    ) -> BusFuture<'a, Result<Box<dyn Subscription>, BusError>> {
        let inbox = Arc::new(Inbox::default());
        let mut subjects = self.0.lock();
        subjects.retain(|_, subscribers| subscribers.iter().any(|weak| weak.strong_count() > 0));
        subjects.entry(subject.to_string()).or_default().push(Arc::downgrade(&inbox));
        drop(subjects);
        let subscription: Box<dyn Subscription> = Box::new(Subscriber(inbox));
        Box::pin(std::future::ready(Ok(subscription)))
    }
}

struct Subscriber(Arc<Inbox>);

impl Subscription for Subscriber {
    fn next(&mut self) -> BusFuture<'_, Option<Delivery>> {
        Box::pin(self.0.next())
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryBus").field(&self.0.lock().len()).finish()
    }
}
