//! Waiting without a permit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::{AcquireError, Limit, ManualClock, MemoryLimiter, OnRelease, RateLimiter, Resource};

const SECOND: Duration = Duration::from_secs(1);

fn manual(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resource = limiter.configure("api", limit).unwrap();
    (limiter, resource, time)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn its_tokens_stay_spent_and_nothing_is_in_flight() {
    // A permit's tokens would come back.
    let (limiter, api, time) = manual(Limit::per_second(2).on_release(OnRelease::Refund));
    assert_eq!(poll(&mut api.until_ready()), Poll::Ready(Ok(())));
    assert_eq!(poll(&mut limiter.until_ready("api")), Poll::Ready(Ok(())));
    assert_eq!((api.capacity().available, api.capacity().in_flight), (0, 0));
    let mut waits = api.until_ready_n(2);
    assert_eq!(poll(&mut waits), Poll::Pending);
    assert_eq!(api.capacity().waiting, 1);
    time.advance(SECOND);
    assert_eq!(poll(&mut waits), Poll::Ready(Ok(())));
    let shown = api.capacity();
    assert_eq!((shown.available, shown.in_flight, shown.waiting), (0, 0, 0));
    assert_eq!(poll(&mut limiter.until_ready_n("api", 0)), Poll::Ready(Ok(())));
}

/// One queue with those that want permits, in the order of arrival.
#[test]
fn first_in_first_out_with_permits() {
    let (_, api, time) = manual(Limit::per_second(1));
    api.check().unwrap();
    let mut first = api.acquire();
    assert!(poll(&mut first).is_pending());
    let mut second = api.until_ready();
    assert!(poll(&mut second).is_pending());
    let mut third = api.acquire();
    assert!(poll(&mut third).is_pending());
    time.advance(SECOND);
    assert!(poll(&mut third).is_pending() && poll(&mut second).is_pending());
    let Poll::Ready(Ok(permit)) = poll(&mut first) else { panic!("the head") };
    time.advance(SECOND);
    assert!(poll(&mut third).is_pending());
    assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
    // Dropped, it gives its place up.
    let mut fourth = api.until_ready();
    assert!(poll(&mut fourth).is_pending());
    drop(third);
    time.advance(SECOND);
    assert_eq!(poll(&mut fourth), Poll::Ready(Ok(())));
    drop(permit);
}

/// It does not wait for a place in flight, but it does wait behind a call that does.
#[test]
fn places_in_flight_are_not_looked_at() {
    let (_, api, time) = manual(Limit::per_second(1).max_in_flight(1));
    let held = api.try_acquire().unwrap();
    let mut first = api.until_ready();
    assert!(poll(&mut first).is_pending());
    time.advance(SECOND);
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())), "there are tokens, and no place in flight");
    let mut wants_a_place = api.acquire();
    assert!(poll(&mut wants_a_place).is_pending());
    let mut behind = api.until_ready();
    assert!(poll(&mut behind).is_pending());
    time.advance(SECOND);
    assert!(poll(&mut behind).is_pending());
    drop(held);
    let Poll::Ready(Ok(permit)) = poll(&mut wants_a_place) else { panic!("it has its place") };
    time.advance(SECOND);
    assert_eq!(poll(&mut behind), Poll::Ready(Ok(())));
    drop(permit);
    assert_eq!(api.capacity().in_flight, 0);
}

#[test]
fn timeouts_and_closing() {
    let (limiter, api, time) = manual(Limit::per_second(1));
    api.check().unwrap();
    let hopeless = poll(&mut api.until_ready().timeout(SECOND / 2));
    let Poll::Ready(Err(error)) = hopeless else { panic!("it cannot end in time") };
    assert_eq!(error.retry_after(), Some(SECOND));
    let dynamic: &dyn RateLimiter = &limiter;
    assert_eq!(
        dynamic.blocking_until_ready_n("api", 1, Some(SECOND / 2)).unwrap_err().retry_after(),
        Some(SECOND)
    );
    assert_eq!(api.capacity().waiting, 0);
    let mut waits = api.until_ready().timeout(SECOND);
    assert!(poll(&mut waits).is_pending());
    time.advance(SECOND);
    assert_eq!(poll(&mut waits), Poll::Ready(Ok(())));
    let mut waits = api.until_ready();
    assert!(poll(&mut waits).is_pending());
    limiter.close();
    assert_eq!(poll(&mut waits), Poll::Ready(Err(AcquireError::Closed)));
    assert_eq!(api.blocking_until_ready(), Err(AcquireError::Closed));
    assert_eq!(poll(&mut limiter.until_ready("nobody")), Poll::Ready(Err(AcquireError::Closed)));
}

#[test]
fn a_thread_waits_without_a_runtime() {
    let limiter = MemoryLimiter::new();
    let api = limiter.configure("api", Limit::per_second(200).burst(1)).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..5 {
        api.blocking_until_ready().unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(20));
}
