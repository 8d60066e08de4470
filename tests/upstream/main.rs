//! Limiters that call an upstream whose limit is below theirs, in simulated time: what the upstream
//! refuses, and how much of what it allows is used.
//!
//! * `upstreams.rs` is what an upstream allows: a rate, fixed windows, an outage, `Retry-After`.
//! * `clients.rs` is who calls it, through a limiter's public API, and the queue of events.
//! * `report.rs` is what a run did, second by second, and the table of what all runs reached.
//! * `local.rs`, `adaptive.rs` and `swarm.rs` are the scenarios, `nats.rs` is the last in real time, and
//!   `pictures.rs` is what the docs show.
//!
//! A run is a seed: the same one does the same again. `cargo test --test upstream -- --nocapture` prints
//! what each scenario reached: the least, the mean and the most of all seeds, and the line that they must hold.
//! `TOLLGATE_UPSTREAM_SEEDS` is the number of seeds of each scenario (8, in debug builds 2),
//! `TOLLGATE_UPSTREAM_SEED` runs one alone, and `TOLLGATE_UPSTREAM_TRACE=1` prints each second of each run.

#![cfg_attr(not(feature = "swarm"), allow(dead_code))]
#![allow(clippy::cast_precision_loss)] // counts and times of a few hours

#[path = "../common/mod.rs"]
mod common;

mod adaptive;
mod clients;
mod local;
#[cfg(feature = "nats")]
mod nats;
mod pictures;
mod report;
#[cfg(feature = "swarm")]
mod swarm;
mod upstreams;
