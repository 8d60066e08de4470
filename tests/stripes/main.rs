//! Prepaid batches: the stripes of a bucket that is in great demand.

#[path = "../common/mod.rs"]
mod common;

mod concurrent;
mod in_flight;
mod sequential;
