//! Calls to a user's bus. A panic in one is a failure of the bus, and not the end of the agent.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::bus::{BusError, Delivery, Subscription};

/// The result of a call.
pub(super) async fn guarded<T>(
    call: impl Future<Output = Result<T, BusError>>,
) -> Result<T, BusError> {
    let panicked = || Err(BusError::Failed("the bus panicked".to_string()));
    caught(call).await.unwrap_or_else(panicked)
}

/// The next delivery. A subscription that panics has ended.
pub(super) async fn guarded_next(subscription: &mut dyn Subscription) -> Option<Delivery> {
    caught(async { subscription.next().await }).await.flatten()
}

/// What the bus answers at once, or `otherwise`.
pub(super) fn asked<T>(otherwise: T, ask: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(otherwise)
}

/// The output of a future, or `None` if it panicked.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // After a panic the future is not polled again, so no broken state of it is seen.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}
