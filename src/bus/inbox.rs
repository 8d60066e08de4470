//! The messages that wait for one subscriber.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::Delivery;
use crate::sync::Mutex;

/// A subscriber that is further behind loses its oldest messages. A burst of 10,000 announcements fits,
/// with a long reason in each.
pub(super) const MOST_BYTES: usize = 16 << 20;
/// What a message takes besides its payload.
const OVERHEAD: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    messages: VecDeque<Arc<[u8]>>,
    bytes: usize,
    lost: u64,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Inbox {
    /// Adds a message. Returns the subscriber's waker, to be called without locks.
    #[must_use]
    pub(super) fn push(&self, message: Arc<[u8]>) -> Option<Waker> {
        let mut pending = self.0.lock();
        pending.bytes += message.len() + OVERHEAD;
        pending.messages.push_back(message);
        while pending.bytes > MOST_BYTES && pending.messages.len() > 1 {
            pending.pop();
            pending.lost += 1;
        }
        pending.waker.take()
    }

    /// There will be no more messages.
    #[cfg(feature = "nats")]
    pub(super) fn close(&self) {
        let mut pending = self.0.lock();
        pending.is_closed = true;
        let waker = pending.waker.take();
        drop(pending);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The next delivery; `None` once it is closed. For one caller at a time. Cancel-safe.
    pub(super) async fn next(&self) -> Option<Delivery> {
        poll_fn(|context| {
            let mut pending = self.0.lock();
            if pending.lost > 0 {
                return Poll::Ready(Some(Delivery::Lost(mem::take(&mut pending.lost))));
            }
            if let Some(message) = pending.pop() {
                drop(pending);
                return Poll::Ready(Some(Delivery::Message(message.to_vec())));
            }
            if pending.is_closed {
                return Poll::Ready(None);
            }
            let replaced = pending.waker.replace(context.waker().clone());
            drop(pending);
            drop(replaced); // it may be the last owner of a task
            Poll::Pending
        })
        .await
    }
}

impl Pending {
    fn pop(&mut self) -> Option<Arc<[u8]>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len() + OVERHEAD;
        Some(message)
    }
}
