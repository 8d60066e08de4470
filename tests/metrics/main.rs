//! What metrics tell of a limiter, against counts that the tests keep.
#![allow(clippy::float_cmp, clippy::cast_precision_loss)] // gauges are whole numbers here
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../common/mod.rs"]
mod common;

mod admitted;
#[cfg(feature = "http")]
mod fields;
mod keys;
mod recorder;
#[cfg(feature = "swarm")]
mod swarm;
mod table;
mod threads;
mod waits;
