//! How long permits are held.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tollgate::tower::server::{Hold, Key, RateLimitLayer, RateLimitLayerBuilder, Rule};
use tollgate::{Limit, MemoryLimiter, OnRelease};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::{Answer, Server, from, limiter};

/// Frames one by one, and an error instead of the last if it is to fail.
struct Frames {
    left: Vec<Frame<Bytes>>,
    fails: bool,
    says_its_end: bool,
}

impl Frames {
    fn new(n: usize) -> Self {
        let left = (0..n).map(|_| Frame::data(Bytes::from("part"))).collect();
        Self { left, fails: false, says_its_end: false }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let frame = self.left.pop();
        let is_failure = self.fails && self.left.is_empty();
        Poll::Ready(frame.map(|frame| if is_failure { Err("broken") } else { Ok(frame) }))
    }

    fn is_end_stream(&self) -> bool {
        self.says_its_end && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.left.len() as u64);
        hint
    }
}

fn bounded(limiter: &MemoryLimiter) -> RateLimitLayerBuilder {
    let limit = Limit::per_minute(100).max_in_flight(10);
    RateLimitLayer::builder(limiter).rule(Rule::new("api", limit))
}

fn in_flight(limiter: &MemoryLimiter) -> u64 {
    limiter.capacity("api").unwrap().in_flight
}

/// The answer of a service whose body is this one.
fn answer<B: Body<Data = Bytes> + 'static>(
    layer: &RateLimitLayer,
    body: B,
) -> Response<tollgate::tower::server::ResponseBody<B>> {
    let body = std::cell::Cell::new(Some(body));
    let service = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
    });
    let Ok(response) = pollster::block_on(layer.layer(service).oneshot(from("192.0.2.1")));
    response
}

#[test]
fn the_permit_is_held_until_the_body_has_ended() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let mut response = answer(&layer, Frames::new(2));
    assert_eq!(response.body().size_hint().lower(), 2);
    for _ in 0..2 {
        let frame = pollster::block_on(response.body_mut().frame()).unwrap();
        assert!(frame.unwrap().is_data());
        assert_eq!(in_flight(&limiter), 1);
    }
    assert!(pollster::block_on(response.body_mut().frame()).is_none());
    assert_eq!(in_flight(&limiter), 0, "though the response still exists");
}

#[test]
fn a_body_that_says_that_it_has_ended_need_not_be_polled_again() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let mut response = answer(&layer, Frames { says_its_end: true, ..Frames::new(1) });
    assert_eq!((in_flight(&limiter), response.body().is_end_stream()), (1, false));
    pollster::block_on(response.body_mut().frame()).unwrap().unwrap();
    assert_eq!((in_flight(&limiter), response.body().is_end_stream()), (0, true));

    let response = answer(&layer, Empty::<Bytes>::new());
    assert_eq!((in_flight(&limiter), response.status()), (0, StatusCode::OK));
}

#[test]
fn trailers_pass_and_are_part_of_the_body() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let left = vec![Frame::trailers(trailers), Frame::data(Bytes::from("part"))];
    let mut response = answer(&layer, Frames { left, ..Frames::new(0) });
    pollster::block_on(response.body_mut().frame()).unwrap().unwrap();
    assert_eq!(in_flight(&limiter), 1);
    let last = pollster::block_on(response.body_mut().frame()).unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
    assert!(pollster::block_on(response.body_mut().frame()).is_none());
    assert_eq!(in_flight(&limiter), 0);
}

#[test]
fn a_body_that_fails_or_is_dropped_ends_the_permit() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let mut response = answer(&layer, Frames { fails: true, ..Frames::new(1) });
    assert_eq!(pollster::block_on(response.body_mut().frame()).unwrap().unwrap_err(), "broken");
    assert_eq!(in_flight(&limiter), 0);

    let mut response = answer(&layer, Frames::new(2));
    pollster::block_on(response.body_mut().frame()).unwrap().unwrap();
    assert_eq!(in_flight(&limiter), 1);
    drop(response);
    assert_eq!(in_flight(&limiter), 0);
}

#[test]
fn a_permit_can_end_with_the_head() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).hold(Hold::Head).build().unwrap();
    let _response = answer(&layer, Frames::new(2));
    assert_eq!(in_flight(&limiter), 0);
}

async fn panics(_: Request<()>) -> Result<Answer, Infallible> {
    panic!("a handler's")
}

#[test]
fn a_request_that_is_dropped_or_panics_ends_its_permit() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let pending = service_fn(|_: Request<()>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let mut future = Box::pin(layer.layer(pending).oneshot(from("192.0.2.1")));
    assert!(future.as_mut().now_or_never().is_none());
    assert_eq!(in_flight(&limiter), 1);
    drop(future);
    assert_eq!(in_flight(&limiter), 0);

    let future = layer.layer(service_fn(panics)).oneshot(from("192.0.2.1"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = pollster::block_on(future);
    }));
    assert!(caught.is_err());
    assert_eq!(in_flight(&limiter), 0);
}

#[test]
fn the_error_of_the_service_passes_and_ends_the_permit() {
    let (_time, limiter) = limiter();
    let layer = bounded(&limiter).build().unwrap();
    let failing = service_fn(|_: Request<()>| async { Err::<Response<Full<Bytes>>, _>("failed") });
    let result = pollster::block_on(layer.layer(failing).oneshot(from("192.0.2.1")));
    assert_eq!(result.err(), Some("failed"));
    assert_eq!(in_flight(&limiter), 0);
}

#[test]
fn of_several_rules_each_holds_as_it_needs() {
    let (_time, limiter) = limiter();
    let layer = RateLimitLayer::builder(&limiter)
        .rule(Rule::new("api", Limit::per_minute(5).max_in_flight(2)))
        .rule(Rule::new("pool", Limit::per_minute(5).on_release(OnRelease::Refund)))
        .rule(Rule::new("rate", Limit::per_minute(5)).per(Key::peer_ip()))
        .rule(Rule::new("errors", Limit::per_minute(5)).charge_if(|_| false))
        .build()
        .unwrap();
    let standing = |name: &str| {
        let capacity = limiter.capacity(name).unwrap();
        (capacity.in_flight, capacity.available)
    };
    let all =
        || [standing("api"), standing("pool"), standing("rate:192.0.2.1"), standing("errors")];
    let response = answer(&layer, Frames::new(2));
    assert_eq!(all(), [(1, 4), (1, 4), (0, 4), (0, 5)]);
    drop(response);
    assert_eq!(all(), [(0, 4), (0, 5), (0, 4), (0, 5)]);
}

#[test]
fn a_rule_that_holds_and_charges_gives_back_at_the_end_of_the_body() {
    let (_time, limiter) = limiter();
    let limit = Limit::per_minute(5).max_in_flight(2);
    for (name, charges, left) in [("free", false, 5), ("charged", true, 4)] {
        let layer = RateLimitLayer::builder(&limiter)
            .rule(Rule::new(name, limit).charge_if(move |_| charges))
            .build()
            .unwrap();
        let response = answer(&layer, Frames::new(2));
        let at_the_head = limiter.capacity(name).unwrap();
        assert_eq!((at_the_head.in_flight, at_the_head.available), (1, 4));
        drop(response);
        let at_the_end = limiter.capacity(name).unwrap();
        assert_eq!((at_the_end.in_flight, at_the_end.available), (0, left));
    }
}

#[test]
fn a_bound_in_flight_refuses_what_is_beyond_it() {
    let (_time, limiter) = limiter();
    let limit = Limit::per_minute(100).max_in_flight(2);
    let layer = RateLimitLayer::builder(&limiter).rule(Rule::new("api", limit)).build().unwrap();
    let responses = [answer(&layer, Frames::new(1)), answer(&layer, Frames::new(1))];
    assert_eq!(answer(&layer, Frames::new(1)).status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(responses);
    assert_eq!(answer(&layer, Frames::new(1)).status(), StatusCode::OK);
}

/// Ready only where it was polled.
#[derive(Default)]
struct ReadyOnce {
    is_ready: bool,
    clones: Arc<AtomicUsize>,
}

impl Clone for ReadyOnce {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::Relaxed);
        Self { is_ready: false, clones: Arc::clone(&self.clones) }
    }
}

impl Service<Request<()>> for ReadyOnce {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without having been polled");
        std::future::ready(Ok(Response::new(Full::default())))
    }
}

#[test]
fn the_service_that_was_polled_is_the_one_that_is_called() {
    let (_time, limiter) = limiter();
    let inner = ReadyOnce::default();
    let clones = Arc::clone(&inner.clones);
    let mut service = bounded(&limiter).build().unwrap().layer(inner);
    for _ in 0..3 {
        let ready = pollster::block_on(service.ready()).unwrap();
        let Ok(response) = pollster::block_on(ready.call(from("192.0.2.1")));
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(clones.load(Ordering::Relaxed), 0);
}

/// Rules that only count keep their keys compact: see `MemoryLimiter::per_key`.
#[test]
fn a_rule_that_holds_nothing_counts_nothing_in_flight() {
    let (_time, limiter) = limiter();
    let rule = Rule::new("ip", Limit::per_minute(5)).per(Key::peer_ip());
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
    let _response = server.answer(from("192.0.2.1"));
    let key = limiter.capacity("ip:192.0.2.1").unwrap();
    assert_eq!((key.in_flight, key.available), (0, 4));
}
