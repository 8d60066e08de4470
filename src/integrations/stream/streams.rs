//! The adaptor of streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use super::error::ItemError;
use super::held::Held;
use crate::limiter::Resource;

/// Streams whose items take tokens: see [the module](crate::stream).
pub trait RateLimitedStreamExt: Stream {
    /// Yields each item once a token was taken for it.
    fn rate_limited(self, resource: &Resource) -> RateLimited<Self>
    where
        Self: Sized,
    {
        RateLimited { stream: self, held: Held::new(resource, |_| 1) }
    }

    /// Yields each item once as many tokens were taken for it as `cost` says. An item that costs 0 does not wait.
    ///
    /// One that costs more than the bucket ever holds is handed back with
    /// [`ExceedsCapacity`](crate::AcquireError::ExceedsCapacity).
    ///
    /// ```
    /// use futures_util::{StreamExt, stream};
    /// use tollgate::stream::RateLimitedStreamExt;
    /// use tollgate::{AcquireError, Limit, ManualClock, MemoryLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = MemoryLimiter::with_clock(ManualClock::new());
    /// let bytes = limiter.configure("bytes", Limit::per_second(10))?;
    ///
    /// let parts = stream::iter(["four", "a part of 17 byte", "of six"]);
    /// let mut parts = parts.rate_limited_by(&bytes, |part| part.len() as u64);
    /// assert_eq!(parts.next().await.unwrap()?, "four");
    /// let error = parts.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.item, "a part of 17 byte");
    /// assert_eq!(error.cause, AcquireError::ExceedsCapacity { capacity: 10 });
    /// assert_eq!(parts.next().await.unwrap()?, "of six");
    /// # Ok(())
    /// # }
    /// ```
    fn rate_limited_by<F>(self, resource: &Resource, cost: F) -> RateLimited<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> u64,
    {
        RateLimited { stream: self, held: Held::new(resource, cost) }
    }
}

impl<S: Stream> RateLimitedStreamExt for S {}

pin_project! {
    /// A stream that takes tokens for its items: see [`RateLimitedStreamExt`].
    #[must_use = "streams do nothing unless polled"]
    pub struct RateLimited<S: Stream, F = fn(&<S as Stream>::Item) -> u64> {
        #[pin]
        stream: S,
        held: Held<S::Item, F>,
    }
}

impl<S: Stream, F> RateLimited<S, F> {
    /// The stream within.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream within. Items that are taken from it here take no tokens.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream within, and the item that it has yielded and for which no tokens were taken yet.
    pub fn into_parts(mut self) -> (S, Option<S::Item>) {
        let item = self.held.take();
        (self.stream, item)
    }
}

impl<S, F> Stream for RateLimited<S, F>
where
    S: Stream,
    F: FnMut(&S::Item) -> u64,
{
    type Item = Result<S::Item, ItemError<S::Item>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if this.held.is_empty() {
            let Some(item) = ready!(this.stream.poll_next(cx)) else { return Poll::Ready(None) };
            this.held.put(item);
        }
        let taken = ready!(this.held.poll_tokens(cx));
        Poll::Ready(match taken {
            Ok(()) => this.held.take().map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let held = usize::from(!self.held.is_empty());
        let (least, most) = self.stream.size_hint();
        (least.saturating_add(held), most.and_then(|most| most.checked_add(held)))
    }
}

impl<S, F> FusedStream for RateLimited<S, F>
where
    S: FusedStream,
    F: FnMut(&S::Item) -> u64,
{
    fn is_terminated(&self) -> bool {
        self.held.is_empty() && self.stream.is_terminated()
    }
}

impl<S: Stream + fmt::Debug, F> fmt::Debug for RateLimited<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimited").field("stream", &self.stream).finish_non_exhaustive()
    }
}
