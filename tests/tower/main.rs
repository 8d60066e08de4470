//! The feature `tower`: the layer for servers, on a clock that a test moves.

#[path = "../common/mod.rs"]
mod common;

mod server;
