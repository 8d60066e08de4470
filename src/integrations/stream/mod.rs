//! Streams and sinks that take tokens for their items. Feature `stream`.
//!
//! [`rate_limited`](RateLimitedStreamExt::rate_limited) takes a token for each item before it yields the item.
//! [`rate_limited_by`](RateLimitedStreamExt::rate_limited_by) takes as many tokens as the item costs.
//! [`rate_limited_sink`](RateLimitedSinkExt::rate_limited_sink) and
//! [`rate_limited_sink_by`](RateLimitedSinkExt::rate_limited_sink_by) do the same before they send an item on. All
//! work on every executor.
//!
//! ```
//! use std::time::Duration;
//! use futures_util::StreamExt;
//! use tollgate::stream::RateLimitedStreamExt;
//! use tollgate::{Limit, MemoryLimiter};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = MemoryLimiter::new();
//! let api = limiter.configure("api", Limit::per_second(100).burst(1))?;
//!
//! let mut pages = futures_util::stream::iter(1..=3).rate_limited(&api);
//! let start = std::time::Instant::now();
//! while let Some(page) = pages.next().await {
//!     let page = page?; // an error holds its item
//!     println!("fetch page {page}");
//! }
//! assert!(start.elapsed() >= Duration::from_millis(20));
//! # Ok(())
//! # }
//! ```
//!
//! # Tokens and items
//!
//! An adaptor holds an item until its tokens are taken, and hands it on at that moment. So it takes tokens only for
//! items that are handed on: none for the end of a stream, for a source without an item, or while nobody polls. The
//! tokens stay spent. An adaptor waits in the queue of the resource with all other calls, first come, first served:
//! see [`UntilReady`](crate::UntilReady).
//!
//! The source is polled before the tokens of its item are taken. So do the work after the adaptor:
//! `urls.rate_limited(&api).map_ok(fetch)`, not `urls.then(fetch).rate_limited(&api)`.
//!
//! # Errors
//!
//! An item that gets no tokens is handed back in an [`ItemError`], and the stream or sink continues with the next
//! item. If one item costs more than the bucket ever holds, only that item fails. If the limiter was closed, every
//! further item fails.
//!
//! A sink returns the error of an item from the next call. So a `feed`, or a `send` after it, may fail for the item
//! before. Then the sink has not taken the new item, and `feed`, `send` and `forward` drop it. If no item may be
//! lost, wait for `poll_ready`, and then call `start_send`.
//!
//! # Cancel safety
//!
//! A `next()` or a `send()` that is dropped, by a `select!` or a timeout, loses neither an item nor tokens: the
//! item and its place in the queue stay in the adaptor. Only a `send()` that still waits for an earlier item drops
//! its own. An adaptor that is not polled within 10 ms after its tokens are available lets others pass until it is
//! polled again. An adaptor that is dropped takes no tokens, and drops the item that it holds; `into_parts`
//! returns the item.

mod error;
mod held;
mod sinks;
mod streams;

pub use error::{ItemError, SinkError};
pub use sinks::{RateLimitedSink, RateLimitedSinkExt};
pub use streams::{RateLimited, RateLimitedStreamExt};
