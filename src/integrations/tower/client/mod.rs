//! A layer that keeps a client within the limits of its upstream.
//!
//! [`ClientLayer`] takes a permit for each request before it is sent, and reads the answer as
//! [`Feedback`](crate::http::Feedback) does. A refusal pauses and cuts the limit. If the upstream says that less is
//! left than the bucket holds, the bucket is lowered to that.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tollgate::http::{Profile, Unit};
//! use tollgate::tower::client::{ClientError, ClientLayer, HeldPermits};
//! use tollgate::{Limit, MemoryLimiter};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = MemoryLimiter::new();
//! let requests = limiter.configure("requests", Limit::per_minute(500))?;
//! let tokens = limiter.configure("tokens", Limit::per_minute(30_000))?;
//!
//! // A request takes one of the requests, and as many tokens as it may cost: both or none.
//! let layer = ClientLayer::new(requests)
//!     .and(tokens, Unit::Tokens, |prompt: &Request<String>| prompt.body().len() as u64 + 1_000)
//!     .profile(Profile::OpenAi);
//!
//! # let http_client = service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())));
//! let client = layer.layer(http_client); // any `Service` that answers with an `http::Response`
//! match client.oneshot(Request::new("What is a token bucket?".to_string())).await {
//!     Ok(response) => {
//!         let permits = response.extensions().get().and_then(HeldPermits::take);
//!         // ... read the body, which says that the request has cost 830 tokens ...
//!         if let Some(permits) = permits {
//!             permits.settle(&[("tokens", 830)])?;
//!         }
//!     }
//!     Err(ClientError::Limited(limited)) => println!("not sent: {limited}"),
//!     Err(error) => println!("no answer: {error}"),
//! }
//! assert_eq!(limiter.capacity("tokens").unwrap().available, 30_000 - 830);
//! # Ok(())
//! # }
//! ```
//!
//! # Where a request waits
//!
//! | | a request that cannot be admitted now | choose it |
//! | --- | --- | --- |
//! | by default | waits in `call`, first come, first served; at most for [`timeout`](ClientLayer::timeout) | in tasks that must send their request |
//! | [`shed`](ClientLayer::shed) | fails at once | if a late answer is useless, or another upstream can be asked |
//! | [`backpressure`](ClientLayer::backpressure) | is not accepted: `poll_ready` is pending | inside of layers that act on it: `load_shed`, `buffer`, load balancers |
//!
//! # What an answer does
//!
//! The layer reads the head by a [`Profile`](crate::http::Profile), and applies to each resource the figures of its
//! unit. From what the upstream says is left, it subtracts the other requests that are sent and not answered yet,
//! because the upstream may not have counted them. The layer counts their tokens itself: send all requests to an
//! upstream through clones of one layer.
//!
//! * A refusal (429) cuts all resources of the layer. If the answer says which of them had too little left, it cuts
//!   only those. `Retry-After` pauses all.
//! * Some providers say in the body of a refusal how long to wait. If the head does not, the layer reads
//!   [up to 16 KiB](ClientLayer::read_refusals) of the body before it returns the response, with the whole body.
//!   So the pause begins before a retry layer sends the next attempt. If the caller drops the future meanwhile, what
//!   was read so far is applied. The layer does not read other bodies, nor what is compressed.
//! * It reads the trailers of gRPC as they pass.
//!
//! # Permits
//!
//! A permit counts as in flight until the answer's body has been read or dropped, or, with [`Hold::Head`], until the
//! head arrives. [`HeldPermits`], in the response's extensions, hands the permits out for settling.
//!
//! The tokens of a request that was sent stay spent, even if it fails or its future is dropped: the upstream
//! may have counted it. A future that is dropped while it waits takes nothing.
//!
//! # Order of layers
//!
//! The first layer of a `ServiceBuilder` is the outermost.
//!
//! * **Retries:** put this layer inside of the retry layer. Then each attempt takes permits, waits for the pause
//!   that the attempt before it has caused, and has its answer read. Outside of the retry layer all attempts count
//!   as one request.
//! * **Timeouts:** a timeout outside of this layer includes the wait for permits. One inside covers the request alone.
//! * **Load shedding:** `load_shed` outside of this layer needs [`backpressure`](ClientLayer::backpressure),
//!   because it sheds when the service is not ready. The error of [`shed`](ClientLayer::shed) says when to retry.
//! * **Concurrency limits** and buffers: a request that waits for permits in `call` takes up one of their places. Use
//!   [`Limit::max_in_flight`](crate::Limit::max_in_flight) instead of a second layer.

mod body;
mod error;
mod future;
mod held;
mod layer;
mod refusal;
mod sent;
mod service;
mod settings;
mod upstream;

pub use body::ResponseBody;
pub use error::ClientError;
pub use future::ResponseFuture;
pub use held::HeldPermits;
pub use layer::ClientLayer;
pub use service::ClientService;
pub use upstream::Hold;
