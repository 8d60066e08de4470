//! Streams and sinks that take tokens for their items. Feature `stream`.
//!
//! [`rate_limited`](RateLimitedStreamExt::rate_limited) yields an item once a token was taken for it,
//! [`rate_limited_by`](RateLimitedStreamExt::rate_limited_by) once as many tokens were taken as the item costs.
//! [`rate_limited_sink`](RateLimitedSinkExt::rate_limited_sink) and
//! [`rate_limited_sink_by`](RateLimitedSinkExt::rate_limited_sink_by) pass items on in the same way. They
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
//! An item is there before its tokens are taken: it is held until then, and handed on in the moment in which
//! they are taken. So tokens are taken for items that are handed on, and for nothing else: not for the end of a
//! stream, not for one that has nothing at present, and not while nobody polls. The tokens stay spent, and are in
//! one queue with all other waits for the resource, first come, first served: see
//! [`UntilReady`](crate::UntilReady).
//!
//! As a source is polled before the tokens of its item are taken, put the work behind the adaptor:
//! `urls.rate_limited(&api).map_ok(fetch)`, not `urls.then(fetch).rate_limited(&api)`.
//!
//! # Errors
//!
//! An item that gets no tokens is handed back: [`ItemError`]. Its stream or sink continues with the next one. So
//! if the limiter was closed each further item comes with an error, and if an item costs more than the bucket
//! ever holds, only this one.
//!
//! A sink tells the error of an item in the next call. So a `feed`, or a `send` after it, may fail for the item
//! before. Then the sink has not taken the new one, and `feed`, `send` and `forward` drop it. Where no item may be
//! lost, wait for `poll_ready`, and then call `start_send`.
//!
//! # Cancel safety
//!
//! A `next()` or a `send()` that is dropped, in a `select!` or a timeout, loses neither an item nor tokens: the
//! item and its place in the queue stay in the adaptor. Only a `send()` that still waits for an earlier item drops
//! its own. One that is not polled for more than 10 ms after its tokens are there lets others pass, until it is
//! polled again. An adaptor that is dropped takes no tokens, and drops the item that it holds; `into_parts`
//! returns it.

mod error;
mod held;
mod sinks;
mod streams;

pub use error::{ItemError, SinkError};
pub use sinks::{RateLimitedSink, RateLimitedSinkExt};
pub use streams::{RateLimited, RateLimitedStreamExt};
