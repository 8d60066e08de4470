//! What comes in for a quota: entries of the ledger, and other agents' reports. Both are followed again when they
//! end; neither ends the task.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::bus::{Delivery, MessageBus};
use crate::ledger::{Ledger, LedgerEntry, LedgerItem};
use crate::swarm::guard::{caught, guarded, guarded_next};

/// The ledger or the bus has failed if it has not answered by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two attempts: it doubles up to the longest.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// What has come in.
#[derive(Debug)]
pub(super) enum Incoming {
    Item(LedgerItem),
    Report(Vec<u8>),
}

/// A task that ends with its owner.
pub(super) struct Owned(AbortHandle);

impl Owned {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the log of a resource, until nobody wants to hear of it.
pub(super) async fn follow(ledger: Arc<dyn Ledger>, resource: String, to: Sender<Incoming>) {
    let mut last: Option<LedgerEntry> = None;
    let mut delay = RETRY_DELAY;
    loop {
        match timeout(PATIENCE, caught(ledger.follow(&resource, last.clone()))).await {
            Ok(Some(Ok(mut follower))) => {
                while let Some(item) = caught(follower.next()).await.flatten() {
                    if let LedgerItem::Entry(entry) = &item {
                        (last, delay) = (Some(entry.clone()), RETRY_DELAY);
                    }
                    if to.send(Incoming::Item(item)).await.is_err() {
                        return;
                    }
                }
                // Nothing was read that the next follower could go on from: it begins at the newest entry.
                if last.is_none() && to.send(Incoming::Item(LedgerItem::Gap)).await.is_err() {
                    return;
                }
            }
            Ok(Some(Err(error))) => {
                tracing::warn!(resource, %error, "a quota cannot follow its ledger");
            }
            Ok(None) => tracing::warn!(resource, "a quota's ledger panicked"),
            Err(_) => tracing::warn!(resource, "a quota's ledger does not answer"),
        }
        sleep(delay).await;
        delay = (2 * delay).min(LONGEST_DELAY);
    }
}

/// Hears the reports on a subject, until nobody wants to.
pub(super) async fn hear(bus: Arc<dyn MessageBus>, subject: String, to: Sender<Incoming>) {
    let mut delay = RETRY_DELAY;
    loop {
        let subscribed = guarded(async { bus.subscribe(&subject).await });
        match timeout(PATIENCE, subscribed).await {
            Ok(Ok(mut subscription)) => {
                while let Some(delivery) = guarded_next(&mut *subscription).await {
                    delay = RETRY_DELAY;
                    if let Delivery::Message(bytes) = delivery
                        && to.send(Incoming::Report(bytes)).await.is_err()
                    {
                        return;
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(subject, %error, "a quota does not hear its agents"),
            Err(_) => tracing::warn!(subject, "a quota does not hear its agents: no answer"),
        }
        sleep(delay).await;
        delay = (2 * delay).min(LONGEST_DELAY);
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
