//! Futures that were polled once and are held: each is skipped, and costs the others little.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[cfg(feature = "tokio")]
use futures_util::StreamExt;
use tollgate::{Acquire, Limit, ManualClock, MemoryLimiter, Resource};

use crate::child;

const MS: Duration = Duration::from_millis(1);

/// On a busy machine tokens may be there for some: those are not held.
fn hold(resource: &Resource, k: usize) -> Vec<Pin<Box<Acquire>>> {
    let mut held = Vec::new();
    while held.len() < k {
        let mut future = Box::pin(resource.acquire());
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            held.push(future);
        }
    }
    held
}

/// How long a fresh waiter waits behind `k` held ones, on manual time.
fn delay(k: usize) -> Duration {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(1_000)).unwrap();
    api.check_n(1_000).unwrap();
    let held = hold(&api, k);
    let mut fresh = Box::pin(api.acquire());
    for waited in 0..10_000 {
        if let Poll::Ready(granted) = fresh.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            drop((granted.unwrap(), held));
            return waited * MS;
        }
        time.advance(MS);
    }
    panic!("{k}: it is not served");
}

#[test]
fn a_fresh_waiter_behind_held_ones() {
    let delays = [1, 7, 256, 5_000].map(delay);
    println!("{delays:?}");
    assert!(delays.iter().all(|delay| *delay < 100 * MS), "{delays:?}");
    assert!(delays[2] < 2 * delays[1] + 20 * MS, "{delays:?}");
}

/// On real executors it is served at all, and those that were held are served when they are polled.
#[test]
fn held_futures_on_executors() {
    let kinds = ["tokio current_thread", "tokio multi_thread", "smol", "pollster", "thread"];
    child::each("held::held_futures_on_executors", &kinds, |kind| {
        let limiter = MemoryLimiter::new();
        let api = limiter.configure("api", Limit::per_second(2_000).burst(20)).unwrap();
        api.check_n(20).unwrap();
        let held = hold(&api, 256);
        let fresh = api.clone();
        let work = async move { fresh.until_ready().await.unwrap() };
        let rest = async move {
            for future in held {
                drop(future.await.unwrap());
            }
        };
        match kind {
            "tokio current_thread" => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(work);
                runtime.block_on(rest);
            }
            "tokio multi_thread" => {
                let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
                runtime.block_on(async { tokio::spawn(work).await.unwrap() });
                runtime.block_on(async { tokio::spawn(rest).await.unwrap() });
            }
            "smol" => {
                smol::block_on(work);
                smol::block_on(rest);
            }
            "pollster" => {
                pollster::block_on(work);
                pollster::block_on(rest);
            }
            _ => {
                api.blocking_until_ready().unwrap();
                pollster::block_on(rest);
            }
        }
    });
}

/// A stream whose futures acquire, and whose consumer acquires again while they are held. Returns the
/// share of the rate that it delivers, in per cent, on tokio's paused time.
#[cfg(feature = "tokio")]
async fn delivered(burst: u64) -> u64 {
    let limiter = MemoryLimiter::with_clock(tollgate::Clock::tokio());
    let api = limiter.configure("api", Limit::per_second(200).burst(burst)).unwrap();
    api.check_n(burst).unwrap();
    let start = tokio::time::Instant::now();
    let items = 400_u64;
    let fetch = |_| {
        let api = api.clone();
        async move { drop(api.acquire().await.unwrap()) }
    };
    let mut stream = futures_util::stream::iter(0..items).map(fetch).buffer_unordered(20);
    while stream.next().await == Some(()) {
        drop(api.acquire().await.unwrap());
    }
    let ideal = 2 * items * 1_000 / 200;
    ideal * 100 / u64::try_from(start.elapsed().as_millis()).unwrap()
}

#[cfg(feature = "tokio")]
#[test]
fn a_buffered_stream_whose_consumer_waits() {
    let share = |burst| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(delivered(burst))
    };
    let (ten, one) = (share(10), share(1));
    println!("burst 10: {ten} %, burst 1: {one} %");
    assert!(ten >= 90, "{ten} %");
}
