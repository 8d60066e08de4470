//! Bodies: read ahead of refusals, and handed on as they came.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tollgate::http::Outcome;
use tollgate::tower::client::{ClientLayer, HeldPermits, Hold};
use tollgate::{Limit, Resource};
use tower::{Layer, Service, ServiceExt};

use crate::server::{Frames, response};
use crate::{SECOND, answer, client, poll, ready, request, resource, send};

const INFO: &str =
    r#"{"error":{"details":[{"@type":"google.rpc.RetryInfo","retryDelay":"45.5s"}]}}"#;

fn pause(api: &Resource) -> Option<Duration> {
    api.capacity().paused_until
}

#[test]
fn the_wait_in_a_refusals_body_counts_before_the_answer_is_there() {
    let (api, time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let mut future = send(&mut client, 0);
    let (body, frames) = Frames::new();
    server.reply(Ok(response(429, &[], frames)));
    body.data(&INFO[..30]);
    assert!(poll(&mut future).is_pending());
    assert_eq!(pause(&api), None);
    time.advance(SECOND / 2);
    body.data(&INFO[30..]);
    body.trailers(&["x-trailer: 1"]);
    let answer = ready(&mut future).unwrap();
    assert_eq!(pause(&api), Some(45 * SECOND), "from the head on");
    assert!(api.capacity().burst < 100);
    assert_eq!(api.capacity().in_flight, 1, "until the body ends");

    // The same bytes in the same frames, and then what comes.
    let mut answer = answer.into_body();
    let mut frame = || ready(&mut answer.frame()).unwrap().unwrap();
    assert_eq!(frame().into_data().unwrap(), &INFO[..30]);
    assert_eq!(frame().into_data().unwrap(), &INFO[30..]);
    assert_eq!(frame().into_trailers().unwrap()["x-trailer"], "1");
    drop(body);
    assert!(ready(&mut answer.frame()).is_none());
    assert_eq!(api.capacity().in_flight, 0);
    assert!(ready(&mut answer.frame()).is_none(), "also if it is asked again");
}

#[test]
fn the_length_of_a_body_that_was_read_stays_the_same() {
    let (api, _time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api));
    server.reply(Ok(response(429, &[], Frames::full(INFO))));
    let body = answer(&mut client, 0).unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(INFO.len() as u64));
    assert!(!body.is_end_stream());
    assert_eq!(ready(&mut body.collect()).unwrap().to_bytes(), INFO);
}

#[test]
fn bodies_of_other_answers_are_not_waited_for() {
    for (status, bytes) in [(200, 16), (404, 16), (500, 16), (429, 0)] {
        let (api, _time) = resource(Limit::per_second(100));
        let (mut client, server) = client(&ClientLayer::new(api).read_refusals(bytes));
        let (_body, frames) = Frames::new();
        server.reply(Ok(response(status, &[], frames)));
        assert_eq!(answer(&mut client, 0).unwrap().status(), status);
    }
}

#[test]
fn no_more_is_read_than_the_limit() {
    let (api, _time) = resource(Limit::per_second(100));
    let layer = ClientLayer::new(api.clone()).read_refusals(60);
    let (mut client, server) = client(&layer);
    let (body, frames) = Frames::new();
    body.data(&INFO[..40]);
    body.data(&INFO[40..]);
    server.reply(Ok(response(429, &[], frames)));
    let answer = answer(&mut client, 0).unwrap();
    assert_eq!(pause(&api), None, "the delay is beyond the limit");
    drop(body);
    assert_eq!(ready(&mut answer.into_body().collect()).unwrap().to_bytes(), INFO);
}

/// A slow body would hold back the pause, and others would send meanwhile.
#[test]
fn a_head_that_tells_the_wait_counts_at_once() {
    for status in [429, 503] {
        let (api, _time) = resource(Limit::per_second(100));
        let (mut client, server) = client(&ClientLayer::new(api.clone()));
        let (_body, frames) = Frames::new();
        server.reply(Ok(response(status, &["retry-after: 20"], frames)));
        assert_eq!(answer(&mut client, 0).unwrap().status(), status);
        assert_eq!(pause(&api), Some(20 * SECOND));
    }
}

#[test]
fn any_number_of_empty_frames_is_not_kept() {
    let (api, _time) = resource(Limit::per_second(100));
    let polled = Arc::new(AtomicUsize::new(0));
    let frames = {
        let polled = Arc::clone(&polled);
        move || {
            let polled = Arc::clone(&polled);
            let empty = stream::iter(0..100_000).map(move |_| {
                polled.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Frame::data(Bytes::new()))
            });
            StreamBody::new(empty)
        }
    };
    let client = ClientLayer::new(api.clone()).layer(service(frames));
    ready(&mut client.oneshot(request(0))).unwrap();
    assert!(api.capacity().burst < 100);
    assert_eq!(polled.load(Ordering::Relaxed), 1_024);
}

#[test]
fn a_refusal_that_is_dropped_while_it_is_read_counts_all_the_same() {
    let (api, time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let mut future = send(&mut client, 0);
    let (body, frames) = Frames::new();
    server.reply(Ok(response(429, &[], frames)));
    body.data(INFO);
    assert!(poll(&mut future).is_pending());
    time.advance(5 * SECOND);
    drop(future); // a timeout
    assert!(body.is_closed());
    assert_eq!(pause(&api), Some(SECOND * 81 / 2));
    assert!(api.capacity().burst < 100);
    assert_eq!(api.capacity().in_flight, 0);
}

#[test]
fn an_error_of_a_body_that_is_read_is_handed_on() {
    let (api, _time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let (body, frames) = Frames::new();
    body.data(INFO);
    body.error();
    server.reply(Ok(response(429, &[], frames)));
    let mut answer = answer(&mut client, 0).unwrap().into_body();
    assert_eq!(pause(&api), Some(SECOND * 91 / 2));
    assert_eq!(ready(&mut answer.frame()).unwrap().unwrap().into_data().unwrap(), INFO);
    assert_eq!(api.capacity().in_flight, 1);
    assert!(ready(&mut answer.frame()).unwrap().is_err());
    assert_eq!(api.capacity().in_flight, 0);
}

#[test]
fn a_403_of_github_is_told_apart_by_its_body() {
    let head =
        ["x-ratelimit-limit: 30", "x-ratelimit-remaining: 14", "x-ratelimit-reset: 1655120964"];
    let is_cut = |encoding: &str, message: &'static str| {
        let (api, _time) = resource(Limit::per_second(100));
        let layer = ClientLayer::new(api.clone()).profile(tollgate::http::Profile::GitHub);
        let (mut client, server) = client(&layer);
        let encoding = format!("content-encoding: {encoding}");
        let head: Vec<_> = head.into_iter().chain([&*encoding]).collect();
        server.reply(Ok(response(403, &head, Frames::full(message))));
        answer(&mut client, 0).unwrap();
        api.capacity().burst < 100
    };
    assert!(is_cut("identity", "You have exceeded a secondary rate limit"));
    assert!(!is_cut("identity", "Must have admin rights to Repository"));
    assert!(is_cut("gzip", "compressed"), "the head alone counts");
}

#[test]
fn a_classifier_sees_the_bodies_of_all_errors() {
    let (api, _time) = resource(Limit::per_second(100));
    let layer = ClientLayer::new(api.clone()).classify(|_, body, mut feedback| {
        if body == br#"{"error":"quota_exceeded"}"# {
            feedback.outcome = Outcome::Throttled;
        }
        feedback
    });
    let (mut client, server) = client(&layer);
    server.reply(Ok(response(404, &[], Frames::full(r#"{"error":"quota_exceeded"}"#))));
    answer(&mut client, 0).unwrap();
    assert!(api.capacity().burst < 100);
}

#[test]
fn the_trailers_of_grpc_are_read_as_they_pass() {
    let (api, _time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let (body, frames) = Frames::new();
    server.reply(Ok(response(200, &[], frames)));
    let mut answer = answer(&mut client, 0).unwrap().into_body();
    body.data("a message");
    assert!(ready(&mut answer.frame()).unwrap().unwrap().is_data());
    // `RetryInfo` with 2 seconds.
    let info = "grpc-status-details-bin: CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg";
    body.trailers(&["grpc-status: 8", info]);
    assert_eq!(pause(&api), None);
    assert!(ready(&mut answer.frame()).unwrap().unwrap().is_trailers());
    assert_eq!(pause(&api), Some(2 * SECOND));
    assert!(api.capacity().burst < 100);
    assert_eq!(api.capacity().in_flight, 0);
}

/// As many calls are refused together, however long their streams go on, and wherever their permits are.
#[test]
fn trailers_of_one_incident_cut_once() {
    let info = "grpc-status-details-bin: CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg";
    for (hold, takes) in [(Hold::Body, false), (Hold::Body, true), (Hold::Head, false)] {
        let (api, time) = resource(Limit::per_second(100));
        let (mut client, server) = client(&ClientLayer::new(api.clone()).hold(hold));
        let calls = [(); 3].map(|()| {
            let (body, frames) = Frames::new();
            server.reply(Ok(response(200, &["content-type: application/grpc"], frames)));
            let answer = answer(&mut client, 0).unwrap();
            let taken = answer.extensions().get().filter(|_| takes).and_then(HeldPermits::take);
            assert_eq!(taken.is_some(), takes);
            (body, answer.into_body(), taken)
        });
        for (body, mut answer, _taken) in calls {
            body.trailers(&["grpc-status: 8", info]);
            assert!(ready(&mut answer.frame()).unwrap().unwrap().is_trailers());
            assert_eq!(api.capacity().burst, 75, "{hold:?} {takes}");
            time.advance(6 * SECOND); // past the cooldown
        }
        assert_eq!(api.capacity().in_flight, 0);
    }
}

fn service<B: Body>(
    body: impl Fn() -> B + Clone,
) -> impl Service<Request<u64>, Response = Response<B>, Error = Infallible, Future: Unpin> + Clone {
    tower::service_fn(move |_: Request<u64>| {
        let mut response = Response::new(body());
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        std::future::ready(Ok(response))
    })
}

/// Of data in two pieces only the first can be seen without taking it, and nothing after it.
#[test]
fn data_in_pieces_is_handed_on_whole() {
    let (api, _time) = resource(Limit::per_second(100));
    let end = INFO.find("5.5s").unwrap();
    let frames = || {
        let [start, rest] = [&INFO[..end], "1h"].map(|part| Bytes::from_static(part.as_bytes()));
        let next = Bytes::from_static(&INFO.as_bytes()[end..]);
        let frames = [start.chain(rest), next.chain(Bytes::new())];
        StreamBody::new(stream::iter(frames.map(|data| Ok::<_, Infallible>(Frame::data(data)))))
    };
    let client = ClientLayer::new(api.clone()).layer(service(frames));
    let response = ready(&mut client.oneshot(request(0))).unwrap();
    assert!(api.capacity().burst < 100);
    assert_eq!(pause(&api), None, "and not 45.5 s");
    let body = ready(&mut response.into_body().collect()).unwrap().to_bytes();
    assert_eq!(body, [&INFO[..end], "1h", &INFO[end..]].concat());
}

#[test]
fn a_body_that_was_read_to_its_end_is_not_polled_again() {
    let (api, _time) = resource(Limit::per_second(100));
    // It panics after its end.
    let once = || {
        let frames = stream::unfold(Some(INFO), |rest| {
            let data = rest.map(|rest| Frame::data(Bytes::from_static(rest.as_bytes())));
            std::future::ready(data.map(|data| (Ok::<_, Infallible>(data), None)))
        });
        StreamBody::new(frames)
    };
    let client = ClientLayer::new(api).layer(service(once));
    let response = ready(&mut client.oneshot(request(0))).unwrap();
    assert_eq!(ready(&mut response.into_body().collect()).unwrap().to_bytes(), INFO);
}
