//! A layer that keeps a client within the limits of its upstream.
//!
//! [`ClientLayer`] takes a permit for each request before it is sent, and reads the answer: a refusal pauses
//! and cuts the limit, and what the upstream says is left lowers it, as
//! [`Feedback`](crate::http::Feedback) does.
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
//! | by default | waits in `call`, first in, first out; at most for [`timeout`](ClientLayer::timeout) | in tasks that have to send their request |
//! | [`shed`](ClientLayer::shed) | fails at once | where late is useless, or another upstream can be asked |
//! | [`backpressure`](ClientLayer::backpressure) | is not accepted: `poll_ready` is pending | below layers that act on it: `load_shed`, `buffer`, load balancers |
//!
//! # What an answer does
//!
//! The head is read by a [`Profile`](crate::http::Profile), and each resource is told what it says of the
//! unit that the resource counts. The other requests that are sent and not answered yet are subtracted from
//! what is left, as the upstream may not have counted them. The layer counts their tokens itself: send all
//! requests to an upstream through clones of one layer.
//!
//! * A refusal (429) cuts all of the layer's resources; where it says that only some had too little left for
//!   the request, only those. Its `Retry-After` pauses all.
//! * Some providers tell in the body of a refusal how long to wait. If the head does not, the layer reads
//!   [up to 16 KiB](ClientLayer::read_refusals) of it before it hands the answer on, whole. So the pause stands
//!   before a retry layer sends the next attempt. If the caller gives up meanwhile, what was read until then
//!   counts. Bodies of other answers pass through untouched. A compressed body tells nothing.
//! * The trailers of gRPC are read as they pass.
//!
//! # Permits
//!
//! A permit counts as in flight until the answer's body has been read or dropped, or until its head is there
//! ([`Hold`]). [`HeldPermits`], in the response's extensions, hands them out for settling.
//!
//! The tokens of a request that was sent stay spent, also if it fails or its future is dropped: the upstream
//! may have counted it. A future that is dropped while it waits takes nothing.
//!
//! # Order of layers
//!
//! The first layer of a `ServiceBuilder` is the outermost.
//!
//! * **Retries:** put this layer inside, below the retry layer. Then each attempt takes permits, waits for
//!   the pause that its predecessor has caused, and is read. Outside of it all attempts count as one request.
//! * **Timeouts:** outside of this layer a timeout includes the wait for permits, inside it is of the request
//!   alone.
//! * **Load shedding:** `load_shed` outside of this layer sheds what is not ready, which takes
//!   [`backpressure`](ClientLayer::backpressure). [`shed`](ClientLayer::shed) alone tells when to try again.
//! * **Concurrency limits** and buffers inside: a request that waits for permits in `call` occupies a place
//!   of them.
//!   [`Limit::max_in_flight`](crate::Limit::max_in_flight) needs no second layer.

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
