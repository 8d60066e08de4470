//! Waiting for permits, of one resource and of several at once.

#[path = "../common/mod.rs"]
mod common;

mod backfilling;
mod crawler;
mod groups;
mod newcomers;
mod recovering;
mod single;
mod until_ready;
