//! The layer beside others, in each order that makes sense.

use std::future::{Ready, ready as now};
use std::io;
use std::task::Poll;

use http::{Request, Response};
use tollgate::Limit;
use tollgate::tower::client::{ClientError, ClientLayer};
use tower::load_shed::LoadShed;
use tower::load_shed::error::Overloaded;
use tower::retry::{Policy, Retry};
use tower::{Layer, Service, ServiceExt};

use crate::server::{Frames, Server, response};
use crate::{SECOND, limiter, poll, ready, request, resource, with_tokens};

/// Sends a request again while it is refused.
#[derive(Clone)]
struct Again(usize);

impl<B, E> Policy<Request<u64>, Response<B>, E> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<u64>,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Ready<()>> {
        let is_refused = result.as_ref().is_ok_and(|response| response.status() == 429);
        (is_refused && self.0 > 0).then(|| {
            self.0 -= 1;
            now(())
        })
    }

    fn clone_request(&mut self, request: &Request<u64>) -> Option<Request<u64>> {
        Some(Request::new(*request.body()))
    }
}

#[test]
fn inside_of_retries_each_attempt_is_charged_and_waits_for_the_pause() {
    for mode in [|layer| layer, ClientLayer::backpressure] {
        let (limiter, time) = limiter();
        let layer = with_tokens(&limiter, Limit::per_hour(100), Limit::per_hour(10_000));
        let layer: ClientLayer<Request<u64>> = mode(layer);
        let server = Server::default();
        let client = Retry::new(Again(2), layer.layer(server.clone()));
        server.reply_head(429, &["retry-after: 2", "x-ratelimit-remaining-tokens: 8000"]);
        // The wait is in the body, which the retry layer does not read.
        let info = r#"{"@type":"google.rpc.RetryInfo","retryDelay":"3s"}"#;
        server.reply(Ok(response(429, &[], Frames::full(info))));
        server.reply_head(200, &[]);

        let paused = || limiter.capacity("tokens").unwrap().paused_until;
        let mut answer = Box::pin(client.oneshot(request(10)));
        // A refusal empties the buckets: they need longer than the pause.
        for (attempt, pause) in [(1, 2 * SECOND), (2, 3 * SECOND)] {
            assert!(poll(&mut answer).is_pending());
            assert_eq!((server.received(), paused()), (attempt, Some(pause)));
            time.advance(pause);
            assert!(poll(&mut answer).is_pending());
            assert_eq!(server.received(), attempt);
            time.advance(200 * SECOND);
        }
        assert_eq!(ready(&mut answer).unwrap().status(), 200);
        assert_eq!((server.received(), limiter.capacity("tokens").unwrap().in_flight), (3, 0));
    }
}

#[test]
fn each_attempt_takes_its_tokens() {
    let taken = |is_inside: bool| {
        let (api, _time) = resource(Limit::per_hour(100));
        let layer = ClientLayer::new(api.clone()).without_feedback();
        let server = Server::default();
        for status in [429, 429, 200] {
            server.reply_head(status, &[]);
        }
        let status = if is_inside {
            ready(&mut Retry::new(Again(2), layer.layer(server)).oneshot(request(0)))
                .map(|response| response.status())
        } else {
            ready(&mut layer.layer(Retry::new(Again(2), server)).oneshot(request(0)))
                .map(|response| response.status())
        };
        assert_eq!(status.unwrap(), 200);
        100 - api.capacity().available
    };
    assert_eq!((taken(true), taken(false)), (3, 1));
}

#[test]
fn load_shed_sheds_what_is_not_ready() {
    let (api, time) = resource(Limit::per_second(1));
    let server = Server::default();
    let mut client = LoadShed::new(ClientLayer::new(api).backpressure().layer(server.clone()));
    let mut call = || {
        let mut ready = client.ready();
        let Poll::Ready(Ok(ready)) = poll(&mut ready) else { panic!("it is always ready") };
        Box::pin(ready.call(request(0)))
    };
    let mut first = call();
    assert!(poll(&mut first).is_pending());
    let shed = ready(&mut call()).unwrap_err();
    assert!(shed.is::<Overloaded>());
    time.advance(SECOND);
    let mut third = call();
    assert!(poll(&mut third).is_pending());
    assert_eq!(server.received(), 2);
}

#[test]
fn errors_that_are_boxed_pass_through() {
    let (api, _time) = resource(Limit::per_second(1));
    let server = Server::default();
    server.reply_error();
    let client = ClientLayer::new(api).layer(LoadShed::new(server));
    let error = ready(&mut client.oneshot(request(0))).unwrap_err();
    let ClientError::Service(error) = error else { panic!("{error:?}") };
    assert!(error.is::<io::Error>());
}
