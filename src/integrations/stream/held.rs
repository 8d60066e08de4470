//! The one item that an adaptor holds until its tokens were taken.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::error::ItemError;
use crate::limiter::{Resource, UntilReady};

pub(super) struct Held<T, F> {
    resource: Resource,
    cost: F,
    item: Option<T>,
    /// For the item's tokens. `None` once they were taken.
    wait: Option<UntilReady>,
}

impl<T, F> Held<T, F> {
    pub(super) fn new(resource: &Resource, cost: F) -> Self {
        Self { resource: resource.clone(), cost, item: None, wait: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.item.is_none()
    }

    pub(super) fn take(&mut self) -> Option<T> {
        self.wait = None;
        self.item.take()
    }

    /// Ready when there is no item, or when the tokens of the one that there is were taken.
    pub(super) fn poll_tokens(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ItemError<T>>> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(Ok(())) };
        let taken = ready!(Pin::new(wait).poll(cx));
        self.wait = None;
        Poll::Ready(match (taken, self.item.take()) {
            (Err(cause), Some(item)) => Err(ItemError { item, cause }),
            (_, item) => {
                self.item = item;
                Ok(())
            }
        })
    }
}

impl<T, F: FnMut(&T) -> u64> Held<T, F> {
    /// Holds an item where there is none. It is in the queue from the next poll on.
    pub(super) fn put(&mut self, item: T) {
        self.wait = Some(self.resource.until_ready_n((self.cost)(&item)));
        self.item = Some(item);
    }
}
