//! The bus and the ledger over NATS, and a swarm on them. Each test runs a server of its own.

#[path = "../common/mod.rs"]
mod common;

mod bus;
mod jetstream;
mod ledger;
mod proxy;
mod quota;
mod server;
mod swarm;
