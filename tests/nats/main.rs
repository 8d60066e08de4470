//! The bus over NATS, and a swarm on it. Each test runs a server of its own.

#[path = "../common/mod.rs"]
mod common;

mod bus;
mod server;
mod swarm;
