//! Groups that share one resource and lack another: those that lack nothing pass, and the head loses nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tollgate::{Limit, ManualClock, MemoryLimiter};

const MS: Duration = Duration::from_millis(1);
/// Debug builds crawl a fifth, at a fifth of the rate.
const PARTS: u64 = if cfg!(debug_assertions) { 5 } else { 1 };
const HOSTS: u64 = 5_000 / PARTS;
const PAGES: u64 = 4;

/// Drives the futures on manual time, a millisecond at a time. Returns the time that they took.
fn drive(time: &ManualClock, mut all: FuturesUnordered<BoxFuture<'_, ()>>) -> Duration {
    let mut cx = Context::from_waker(Waker::noop());
    let start = time.now();
    while !all.is_empty() {
        while let Poll::Ready(Some(())) = all.poll_next_unpin(&mut cx) {}
        time.advance(MS);
    }
    Duration::from_nanos(time.now() - start)
}

fn crawl(order: &[(u64, u64)], as_group: bool) -> Duration {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.configure("global", Limit::per_second(2_000 / PARTS).burst(50 / PARTS)).unwrap();
    limiter.per_key("host:", Limit::per_second(1)).unwrap();
    let page = |(host, _): &(u64, u64)| -> BoxFuture<'_, ()> {
        let (limiter, host) = (&limiter, format!("host:{host}"));
        Box::pin(async move {
            if as_group {
                drop(limiter.acquire_all(&[("global", 1), (&host, 1)]).await.unwrap());
            } else {
                drop(limiter.acquire(&host).await.unwrap());
                drop(limiter.acquire("global").await.unwrap());
            }
        })
    };
    drive(&time, order.iter().map(page).collect())
}

#[test]
fn a_crawl_is_as_fast_as_by_host_and_then_globally() {
    let in_order: Vec<_> =
        (0..HOSTS).flat_map(|host| (0..PAGES).map(move |page| (host, page))).collect();
    let reversed: Vec<_> = in_order.iter().rev().copied().collect();
    let interleaved: Vec<_> =
        (0..PAGES).flat_map(|page| (0..HOSTS).map(move |host| (host, page))).collect();
    for (name, order) in
        [("host order", in_order), ("reversed", reversed), ("interleaved", interleaved)]
    {
        let (alone, group) = (crawl(&order, false), crawl(&order, true));
        println!("{name}: {alone:?} by host and then globally, {group:?} as a group");
        assert!(group.as_secs_f64() <= 1.1 * alone.as_secs_f64(), "{name}: {group:?}, {alone:?}");
    }
}

/// A group that wants 40 of 50 global tokens and one of a slow host, beside 64 callers that take single
/// tokens as fast as they can: it is served at most 40 tokens' time after its host's token is due.
#[test]
fn a_group_is_not_delayed_by_those_that_pass_it() {
    for waits in [true, false] {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let global = limiter.configure("global", Limit::per_second(1_000).burst(50)).unwrap();
        let host = limiter.configure("host", Limit::per_second(1)).unwrap();
        host.check().unwrap();
        let wanted = [("global", 40), ("host", 1)];
        let mut group = Box::pin(limiter.acquire_all(&wanted));
        let mut cx = Context::from_waker(Waker::noop());
        let mut is_served = |cx: &mut Context<'_>| match Pin::new(&mut group).poll(cx) {
            Poll::Ready(granted) => Some(granted.unwrap()),
            Poll::Pending => None,
        };
        assert!(is_served(&mut cx).is_none());
        let mut greedy: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut passed = 0_u64;
        let served_at = loop {
            if is_served(&mut cx).is_some() {
                break time.now();
            }
            if waits {
                while greedy.len() < 64 {
                    let global = &global;
                    greedy.push(Box::pin(async move { drop(global.acquire().await.unwrap()) }));
                }
                while let Poll::Ready(Some(())) = greedy.poll_next_unpin(&mut cx) {
                    passed += 1;
                }
            } else {
                passed += (0..64).filter(|_| global.check().is_ok()).count() as u64;
            }
            time.advance(MS / 10);
            assert!(time.now() < 5_000_000_000, "it starves");
        };
        let late = Duration::from_nanos(served_at - 1_000_000_000);
        assert!(late <= 40 * MS, "{late:?} late, {passed} passed");
        // The others had what accrued meanwhile, less what it wants.
        assert!(passed >= 950, "{passed}");
    }
}
