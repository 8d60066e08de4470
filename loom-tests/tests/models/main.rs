//! Each model is explored by loom over every interleaving of its threads, up to a number of preemptions.
//! It runs the shipped code: a resource's handle and a manual clock.
//!
//! A model counts only if it can fail. `loom-tests/faults.toml` lists faults as mutations of the source,
//! each with a model that must catch it. `scripts/faults.py` applies them one by one.
#![cfg(loom)]

mod clock;
mod counts;
mod cuts;
mod in_flight;
mod keys;
mod multi;
mod shares;
mod stripes;
mod takes;
mod waiters;
mod windows;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tollgate::{Limit, ManualClock, Resource};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

fn model(f: impl Fn() + Send + Sync + 'static) {
    explore(3, f);
}

/// For a model of many steps: two preemptions suffice to show each of its faults.
fn long_model(f: impl Fn() + Send + Sync + 'static) {
    explore(2, f);
}

/// For a model of so many steps that one preemption is what there is time for.
fn longest_model(f: impl Fn() + Send + Sync + 'static) {
    explore(1, f);
}

fn explore(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 100_000;
    builder.check(f);
}

fn resource(limit: Limit) -> (Resource, ManualClock) {
    let time = ManualClock::new();
    (alone(0, limit, &time), time)
}

fn alone(id: u64, limit: Limit, time: &ManualClock) -> Resource {
    Resource::alone(id, limit, time.clone()).expect("a limit that fits")
}

/// Two resources of one clock.
fn two(one: Limit, other: Limit) -> (Resource, Resource, ManualClock) {
    let time = ManualClock::new();
    (alone(1, one, &time), alone(2, other, &time), time)
}

fn take(resource: &Resource, times: usize) -> u64 {
    (0..times).map(|_| u64::from(resource.check().is_ok())).sum()
}

/// Polls once, with a waker that does nothing. Returns whether the future is ready.
fn poll_once(future: std::pin::Pin<&mut impl Future>) -> bool {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    future.poll(&mut Context::from_waker(&waker)).is_ready()
}
