//! The adaptor of sinks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;
use pin_project_lite::pin_project;

use super::error::SinkError;
use super::held::Held;
use crate::limiter::Resource;

/// Sinks whose items take tokens: see [the module](crate::stream).
///
/// ```
/// use futures_util::{SinkExt, sink};
/// use tollgate::stream::RateLimitedSinkExt;
/// use tollgate::{Limit, ManualClock, MemoryLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = MemoryLimiter::with_clock(ManualClock::new());
/// let messages = limiter.configure("messages", Limit::per_second(10))?;
///
/// let mut sent = Vec::new().rate_limited_sink(&messages);
/// sent.send("hello").await?; // once a token was taken
/// assert_eq!(sent.get_ref(), &["hello"]);
/// assert_eq!(messages.capacity().available, 9);
/// # Ok(())
/// # }
/// ```
pub trait RateLimitedSinkExt<T>: Sink<T> {
    /// Passes each item on once a token was taken for it.
    fn rate_limited_sink(self, resource: &Resource) -> RateLimitedSink<Self, T>
    where
        Self: Sized,
    {
        RateLimitedSink { sink: self, held: Held::new(resource, |_| 1) }
    }

    /// Passes each item on once as many tokens were taken for it as `cost` says. An item that costs 0 does not
    /// wait.
    fn rate_limited_sink_by<F>(self, resource: &Resource, cost: F) -> RateLimitedSink<Self, T, F>
    where
        Self: Sized,
        F: FnMut(&T) -> u64,
    {
        RateLimitedSink { sink: self, held: Held::new(resource, cost) }
    }
}

impl<T, S: Sink<T>> RateLimitedSinkExt<T> for S {}

pin_project! {
    /// A sink that takes tokens for its items: see [`RateLimitedSinkExt`].
    ///
    /// It holds one item. `feed` waits for the tokens of the item before, `flush` and `close` for those of
    /// the last one. If it is dropped when the tokens were taken, and the sink within was not ready, they
    /// stay spent.
    ///
    /// # Panics
    ///
    /// `start_send` panics without a `poll_ready` before it that succeeded, as [`Sink`] allows.
    #[must_use = "sinks do nothing unless polled"]
    pub struct RateLimitedSink<S, T, F = fn(&T) -> u64> {
        #[pin]
        sink: S,
        held: Held<T, F>,
    }
}

impl<S, T, F> RateLimitedSink<S, T, F> {
    /// The sink within.
    pub fn get_ref(&self) -> &S {
        &self.sink
    }

    /// The sink within. Items that are sent to it here take no tokens.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The sink within, and the item that was not passed on yet.
    pub fn into_parts(mut self) -> (S, Option<T>) {
        let item = self.held.take();
        (self.sink, item)
    }
}

impl<S: Sink<T>, T, F> RateLimitedSink<S, T, F> {
    /// Ready when no item is held: the last one was passed on.
    fn poll_empty(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError<T, S::Error>>> {
        let mut this = self.project();
        if this.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.held.poll_tokens(cx)).map_err(SinkError::Limit)?;
        ready!(this.sink.as_mut().poll_ready(cx)).map_err(SinkError::Sink)?;
        if let Some(item) = this.held.take() {
            this.sink.start_send(item).map_err(SinkError::Sink)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, T, F> Sink<T> for RateLimitedSink<S, T, F>
where
    S: Sink<T>,
    F: FnMut(&T) -> u64,
{
    type Error = SinkError<T, S::Error>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_empty(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        let held = self.project().held;
        assert!(held.is_empty(), "`start_send` without a `poll_ready` that succeeded");
        held.put(item);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_empty(cx))?;
        self.project().sink.poll_flush(cx).map_err(SinkError::Sink)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_empty(cx))?;
        self.project().sink.poll_close(cx).map_err(SinkError::Sink)
    }
}

impl<S: fmt::Debug, T, F> fmt::Debug for RateLimitedSink<S, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitedSink").field("sink", &self.sink).finish_non_exhaustive()
    }
}
