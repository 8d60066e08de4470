//! Prepaid batches: the stripes of a bucket that is in great demand.

#[path = "../common/mod.rs"]
mod common;

mod concurrent;
mod in_flight;
mod sequential;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Only the first eight threads of a process have a stripe each of their own. So a test of many threads
/// runs alone: beside it another test's thread would have none, and prove nothing.
static THREADS: RwLock<()> = RwLock::new(());

fn few_threads() -> RwLockReadGuard<'static, ()> {
    THREADS.read().unwrap_or_else(PoisonError::into_inner)
}

fn many_threads() -> RwLockWriteGuard<'static, ()> {
    THREADS.write().unwrap_or_else(PoisonError::into_inner)
}
