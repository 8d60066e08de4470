//! Middleware for servers and clients. Feature `tower`.
//!
//! * [`server::RateLimitLayer`] limits the requests that a server accepts.
//! * [`client::ClientLayer`] keeps a client within the limits of its upstream.

pub mod client;
pub mod server;
