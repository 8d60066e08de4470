//! A layer that limits the requests a server accepts: for axum, hyper, tonic, and other servers that take a tower
//! layer.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tollgate::tower::server::{Key, PeerAddr, RateLimitLayer, Rule};
//! use tollgate::{Limit, MemoryLimiter};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = MemoryLimiter::new();
//! let layer = RateLimitLayer::builder(&limiter)
//!     .rule(Rule::new("per-ip", Limit::per_minute(60).burst(1)).per(Key::peer_ip()))
//!     .rule(Rule::new("all", Limit::per_second(1_000).max_in_flight(200)))
//!     .build()?;
//!
//! let handler = service_fn(|_: Request<()>| async {
//!     Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("hello")))
//! });
//! let mut service = layer.layer(handler);
//!
//! let mut request = Request::new(());
//! request.extensions_mut().insert(PeerAddr("192.0.2.7:4711".parse()?)); // your server does this
//! let response = service.ready().await?.call(request.clone()).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["ratelimit-policy"], r#""per-ip";q=1;w=1, "all";q=1000;w=1"#);
//!
//! let response = service.ready().await?.call(request).await?;
//! assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(response.headers()["retry-after"], "1");
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! * A request takes the tokens of all its [rules](Rule), or of none. Requests stay within each limit, as
//!   [exactly](crate::MemoryLimiter#exactness) as other calls of the limiter.
//! * The service adds no error: a refusal is a response, with a [status and headers](Rejection::status).
//! * A request never waits in the layer.
//! * A [permit](Rule#permits) ends with the answer's body, or when the client goes away, the handler panics, or a
//!   timeout drops the request.
//!
//! # Keys
//!
//! [`Key`] is what a rule counts by. Behind a proxy [`Key::peer_ip`] is the address of the proxy: use
//! [`Key::x_forwarded_for`] or [`Key::forwarded`], and say which [proxies you trust](TrustedProxies). Addresses
//! that the client itself writes into these headers are not used.
//!
//! # gRPC
//!
//! A `POST` whose `Content-Type` is `application/grpc`, or begins so, as `application/grpc+proto` does, is refused
//! with a gRPC status and the HTTP status 200: `RESOURCE_EXHAUSTED` with a `google.rpc.RetryInfo`, or
//! [another for other causes](Rejection::status).

mod body;
mod builder;
mod decisions;
mod forwarded;
mod held;
mod key;
mod rejection;
mod rule;
mod rules;
mod service;

pub use body::ResponseBody;
pub use builder::{BuildError, RateLimitLayerBuilder};
pub use decisions::{Cause, Decisions, RuleDecision};
pub use forwarded::TrustedProxies;
pub use held::Hold;
/// A network of a trusted proxy, of the crate `ipnet`.
pub use ipnet::IpNet;
pub use key::{Key, KeyValue, PeerAddr};
pub use rejection::Rejection;
pub use rule::{MissingKey, Rule};
pub use service::{RateLimitLayer, RateLimitService, ResponseFuture};
