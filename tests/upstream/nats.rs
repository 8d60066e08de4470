//! The scenarios of a swarm over a NATS server, in real time: ten minutes. `scripts/deep.sh swarm` runs them.

#[path = "../nats/server.rs"]
#[allow(dead_code)]
mod server;

use crate::report::Table;
use crate::swarm::{Over, hold, share};
use server::Server;

const SEED: u64 = 3; // Poisson's law, and a time for each request

fn shares(least: f64, times: f64) {
    let (server, mut table) = (Server::start(), Table::default());
    share(&Over::Nats(server.url()), &mut table, SEED, least, times, 120);
    table.judge("ten agents over NATS");
}

#[test]
#[ignore = "takes ten minutes"]
fn small_and_equal_demands_over_nats() {
    shares(4.0, 1.0);
}

#[test]
#[ignore = "takes ten minutes"]
fn small_and_unequal_demands_over_nats() {
    shares(4.0, 10.0);
}

#[test]
#[ignore = "takes ten minutes"]
fn equal_demands_over_nats() {
    shares(20.0, 1.0);
}

#[test]
#[ignore = "takes ten minutes"]
fn unequal_demands_over_nats() {
    shares(20.0, 10.0);
}

#[test]
#[ignore = "takes most of a minute"]
fn a_retry_after_over_nats() {
    let (server, mut table) = (Server::start(), Table::default());
    for status in [429, 503] {
        hold(&Over::Nats(server.url()), &mut table, SEED, 20.0, 10, status);
    }
    table.judge("a Retry-After of two seconds, over NATS");
}
