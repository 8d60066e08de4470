//! Middleware for servers and clients. Feature `tower`.

pub mod client;
pub mod server;
