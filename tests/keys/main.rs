//! Keys of a template: limits of names that are made on first use.

#[path = "../common/mod.rs"]
mod common;

mod adapting;
mod expiry;
mod lifecycle;
mod limit_changes;
mod model;
