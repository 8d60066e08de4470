//! Waiting in `poll_ready`: what a service that is ready holds, and that no permit is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::noop_waker_ref;
use http::Request;
use tollgate::http::Unit;
use tollgate::tower::client::ClientLayer;
use tollgate::{AcquireError, Limit, MemoryLimiter, OnRelease, Resource};
use tower::{Layer, Service, ServiceExt};

use crate::{
    SECOND, answer, available, client, is_ready, limiter, poll, request, resource, send,
    with_tokens,
};

#[test]
fn a_service_is_ready_when_it_has_a_permit() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut first, server) = client(&ClientLayer::new(api.clone()).backpressure());
    let mut second = first.clone();
    assert!(is_ready(&mut first));
    assert!(is_ready(&mut first), "it still is, and takes no other");
    assert_eq!(api.capacity().in_flight, 1);
    assert!(!is_ready(&mut second));
    time.advance(SECOND);
    assert!(is_ready(&mut second));
    let _sent = [send(&mut first, 0), send(&mut second, 0)];
    assert_eq!(server.received(), 2);
    assert!(!is_ready(&mut first), "the permit was for one call");
}

#[test]
fn a_ready_service_that_is_dropped_gives_its_permit_to_the_next() {
    let (api, _time) = resource(Limit::per_second(1));
    let (mut first, _server) = client(&ClientLayer::new(api.clone()).backpressure());
    let mut second = first.clone();
    assert!(is_ready(&mut first));
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    assert!(second.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(is_ready(&mut second));
    drop(second);
    assert_eq!((api.capacity().available, api.capacity().in_flight), (1, 0));
}

#[derive(Default)]
struct Woken(AtomicU64);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_clone_of_a_ready_service_is_not_ready() {
    let (api, _time) = resource(Limit::per_second(1));
    let (mut first, _server) = client(&ClientLayer::new(api.clone()).backpressure());
    assert!(is_ready(&mut first));
    assert!(!is_ready(&mut first.clone()));
    assert!(is_ready(&mut first));
    assert_eq!((api.capacity().in_flight, api.capacity().waiting), (1, 0));
}

#[test]
fn a_service_that_waits_and_is_dropped_delays_nobody() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut first, _server) = client(&ClientLayer::new(api.clone()).backpressure());
    let _sent = send(&mut first, 0);
    let (mut second, mut third) = (first.clone(), first.clone());
    assert!(!is_ready(&mut second) && !is_ready(&mut third));
    drop(second);
    time.advance(SECOND);
    assert!(is_ready(&mut third));
}

#[test]
fn services_become_ready_in_their_order() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut first, _server) = client(&ClientLayer::new(api).backpressure());
    let _sent = send(&mut first, 0);
    let mut services: Vec<_> = (0..5).map(|_| first.clone()).collect();
    assert!(services.iter_mut().all(|service| !is_ready(service)));
    for n in 0..5 {
        time.advance(SECOND);
        let ready: Vec<_> = services.iter_mut().map(is_ready).collect();
        let expected: Vec<_> = (0..5).map(|other| other <= n).collect();
        assert_eq!(ready, expected);
    }
}

#[test]
fn a_request_of_a_higher_cost_waits_in_the_call_for_the_rest() {
    let (limiter, time) = limiter();
    let layer = with_tokens(&limiter, Limit::per_second(1), Limit::per_second(10)).backpressure();
    let (mut client, server) = client(&layer);
    let _sent = send(&mut client, 8);
    assert_eq!((available(&limiter, "requests"), available(&limiter, "tokens")), (0, 2));
    time.advance(SECOND / 10);
    assert!(!is_ready(&mut client), "there is no request");
    time.advance(SECOND * 9 / 10);
    assert!(is_ready(&mut client));
    assert_eq!(available(&limiter, "tokens"), 9);

    let mut costly = Box::pin(client.call(request(10)));
    assert!(poll(&mut costly).is_pending());
    assert_eq!(server.tokens(), [8, 10], "its own token counts");
    time.advance(SECOND);
    assert_eq!(available(&limiter, "requests"), 1);
    assert!(is_ready(&mut client));
    let mut free = Box::pin(client.call(request(0)));
    assert!(poll(&mut free).is_pending());
    assert_eq!(server.tokens(), [8, 10, 0]);
    assert_eq!(available(&limiter, "tokens"), 10, "its token was given back");
}

#[test]
fn a_wait_in_the_call_holds_nothing() {
    let (limiter, time) = limiter();
    let layer = with_tokens(&limiter, Limit::per_second(5), Limit::per_second(10)).backpressure();
    let (mut client, server) = client(&layer);
    let _sent = send(&mut client, 8);
    let waiting = send(&mut client, 5);
    assert_eq!((server.received(), limiter.capacity("requests").unwrap().in_flight), (1, 1));
    drop(waiting);
    assert_eq!((available(&limiter, "requests"), available(&limiter, "tokens")), (4, 2));
    let mut waiting = send(&mut client, 5);
    time.advance(SECOND);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(server.tokens(), [8, 5]);
}

/// Two layers that take of the same two pools, more of the one or more of the other.
#[test]
fn requests_that_need_more_of_two_pools_do_not_wait_for_each_other() {
    let (limiter, _time) = limiter();
    let pool = || Limit::per_hour(1).burst(2).on_release(OnRelease::Refund);
    let (a, b) = (limiter.configure("a", pool()).unwrap(), limiter.configure("b", pool()).unwrap());
    let layer = |first: &Resource, second: &Resource| {
        ClientLayer::new(first.clone())
            .and(second.clone(), Unit::Other, |request: &Request<u64>| *request.body())
            .backpressure()
    };
    let (mut one, first_server) = client(&layer(&a, &b));
    let (mut two, second_server) = client(&layer(&b, &a));
    assert!(is_ready(&mut one) && is_ready(&mut two));
    let mut calls = [Box::pin(one.call(request(2))), Box::pin(two.call(request(2)))];
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    let [first, mut second] = calls;
    assert_eq!((first_server.received(), second_server.received()), (1, 0));
    drop(first);
    assert!(poll(&mut second).is_pending());
    assert_eq!(second_server.received(), 1);
}

#[test]
fn an_error_is_told_by_the_call() {
    let (limiter, _time) = limiter();
    let api = limiter.configure("api", Limit::per_second(1)).unwrap();
    let (mut client, server) = client(&ClientLayer::new(api).backpressure());
    limiter.remove("api");
    for _ in 0..2 {
        let error = answer(&mut client, 0).unwrap_err();
        assert_eq!(error.limited().unwrap().cause, AcquireError::UnknownResource);
    }
    assert_eq!(server.received(), 0);
}

#[test]
fn a_full_queue_is_no_end_of_the_service() {
    let (api, time) = resource(Limit::per_second(1).max_waiting(1));
    let (mut client, server) = client(&ClientLayer::new(api).backpressure());
    let _sent = send(&mut client, 0);
    let mut waiting = client.clone();
    assert!(!is_ready(&mut waiting));
    let error = answer(&mut client, 0).unwrap_err();
    assert_eq!(error.limited().unwrap().cause, AcquireError::QueueFull);
    time.advance(SECOND);
    assert!(is_ready(&mut waiting));
    assert!(!is_ready(&mut client));
    time.advance(SECOND);
    let _sent = send(&mut client, 0);
    assert_eq!(server.received(), 2);
}

#[test]
fn without_poll_ready_the_call_waits() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut client, server) = client(&ClientLayer::new(api).backpressure());
    let mut calls = [(); 2].map(|()| Box::pin(client.call(request(0))));
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(server.received(), 1);
    time.advance(SECOND);
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(server.received(), 2);
}

/// Places in flight are all that there is, so that a permit or a wake-up that is lost stops the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_use_all_permits_and_lose_none() {
    const TASKS: u64 = 32;
    const CALLS: u64 = 60;
    let limiter = MemoryLimiter::new();
    let pool = Limit::per_hour(1).burst(3).on_release(OnRelease::Refund);
    let api = limiter.configure("api", pool).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let server = tower::service_fn(move |_: Request<u64>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::task::yield_now().await;
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }
    });
    let client = ClientLayer::new(api.clone()).backpressure().layer(server);
    let task = |seed: u64| {
        let mut client = client.clone();
        async move {
            for n in 0..CALLS {
                match (n + seed) % 5 {
                    // A ready service that is dropped.
                    0 => drop(client.clone().ready_oneshot().await.unwrap()),
                    // One that waits, maybe, and is dropped.
                    1 => {
                        let mut other = client.clone();
                        let _ = other.poll_ready(&mut Context::from_waker(noop_waker_ref()));
                        tokio::task::yield_now().await;
                    }
                    // A call that is cancelled.
                    2 => {
                        let mut call = Box::pin(client.ready().await.unwrap().call(request(0)));
                        assert!(poll(&mut call).is_pending());
                    }
                    _ => drop(client.ready().await.unwrap().call(request(0)).await.unwrap()),
                }
            }
        }
    };
    let tasks: tokio::task::JoinSet<()> = (0..TASKS).map(task).collect();
    let all = tokio::time::timeout(Duration::from_secs(300), tasks.join_all());
    all.await.expect("no permit and no wake-up is lost");
    assert_eq!(sent.load(Ordering::Relaxed), TASKS * CALLS * 3 / 5);
    let capacity = api.capacity();
    assert_eq!((capacity.available, capacity.in_flight, capacity.waiting), (3, 0, 0));
}
