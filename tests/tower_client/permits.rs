//! How long permits are held, and who ends them.

use http_body_util::BodyExt;
use tollgate::tower::client::{ClientLayer, HeldPermits, Hold};
use tollgate::{Limit, Resource};

use crate::server::{Frames, Sender, Server, response};
use crate::{Client, answer, available, client, limiter, ready, resource, send, with_tokens};

fn api() -> (Client, Server, Resource) {
    let (api, _time) = resource(Limit::per_second(100));
    let (client, server) = client(&ClientLayer::new(api.clone()));
    (client, server, api)
}

fn reply(server: &Server) -> Sender {
    let (body, frames) = Frames::new();
    server.reply(Ok(response(200, &[], frames)));
    body
}

#[test]
fn a_permit_is_held_until_the_body_has_been_read() {
    let (mut client, server, api) = api();
    let sender = reply(&server);
    let mut body = answer(&mut client, 0).unwrap().into_body();
    sender.data("a");
    sender.data("b");
    ready(&mut body.frame()).unwrap().unwrap();
    assert_eq!(api.capacity().in_flight, 1);
    drop(sender);
    ready(&mut body.frame()).unwrap().unwrap();
    assert_eq!(api.capacity().in_flight, 0, "it knows that this was the last frame");
    assert!(ready(&mut body.frame()).is_none());
    assert_eq!(api.capacity().available, 99, "the tokens stay spent");
}

#[test]
fn a_permit_ends_when_the_answer_is_dropped() {
    let (mut client, server, api) = api();
    let _sender = reply(&server);
    let response = answer(&mut client, 0).unwrap();
    assert_eq!(api.capacity().in_flight, 1);
    drop(response);
    assert_eq!(api.capacity().in_flight, 0);

    let sender = reply(&server);
    let (head, body) = answer(&mut client, 0).unwrap().into_parts();
    drop(body);
    assert_eq!(api.capacity().in_flight, 0, "the head alone holds nothing");
    assert!(head.extensions.get().and_then(HeldPermits::take).is_none());
    assert!(sender.is_closed());
}

#[test]
fn a_permit_ends_when_the_body_fails() {
    let (mut client, server, api) = api();
    let sender = reply(&server);
    let mut body = answer(&mut client, 0).unwrap().into_body();
    sender.error();
    assert!(ready(&mut body.frame()).unwrap().is_err());
    assert_eq!(api.capacity().in_flight, 0);
}

#[test]
fn a_permit_ends_when_the_request_fails_or_is_cancelled() {
    let (mut client, server, api) = api();
    server.reply_error();
    let error = answer(&mut client, 0).unwrap_err();
    assert!(!error.is_limited());
    assert_eq!((error.to_string().as_str(), api.capacity().in_flight), ("connection reset", 0));
    let sent = send(&mut client, 0);
    assert_eq!(api.capacity().in_flight, 1);
    drop(sent);
    assert_eq!((api.capacity().in_flight, api.capacity().available), (0, 98));
}

#[test]
fn a_permit_may_end_with_the_head() {
    let (api, _time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()).hold(Hold::Head));
    let mut sent = send(&mut client, 0);
    let _sender = reply(&server);
    let response = ready(&mut sent);
    assert_eq!(api.capacity().in_flight, 0);
    assert!(response.unwrap().extensions().get::<HeldPermits>().is_none());
}

#[test]
fn permits_are_handed_out_once() {
    let (limiter, _time) = limiter();
    let (mut client, server) =
        client(&with_tokens(&limiter, Limit::per_hour(100), Limit::per_hour(10_000)));
    let sender = reply(&server);
    let response = answer(&mut client, 1_000).unwrap();
    let handle = response.extensions().get::<HeldPermits>().unwrap().clone();
    let permits = handle.take().unwrap();
    assert!(handle.clone().take().is_none());
    assert!(response.extensions().get::<HeldPermits>().unwrap().take().is_none());

    // They are the caller's, and outlive the body.
    drop((sender, response));
    assert_eq!(limiter.capacity("tokens").unwrap().in_flight, 1);
    permits.settle(&[("tokens", 300)]).unwrap();
    assert_eq!((available(&limiter, "requests"), available(&limiter, "tokens")), (99, 9_700));
    assert_eq!(limiter.capacity("tokens").unwrap().in_flight, 0);
}

#[test]
fn only_one_of_many_threads_gets_the_permits() {
    let (mut client, server, api) = api();
    for _ in 0..50 {
        let sender = reply(&server);
        let response = answer(&mut client, 0).unwrap();
        let handle = response.extensions().get::<HeldPermits>().unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let threads =
                [(); 3].map(|()| scope.spawn(|| handle.take().map(tollgate::Permits::refund)));
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).count()
        });
        assert_eq!(taken, 1);
        drop((sender, response));
    }
    assert_eq!((api.capacity().available, api.capacity().in_flight), (100, 0));
}
