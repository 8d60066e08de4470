//! Waiting in `call`, and shedding.

use std::error::Error;

use tollgate::tower::client::ClientLayer;
use tollgate::{AcquireError, Limit};

use crate::{SECOND, answer, client, limiter, poll, ready, resource, send};

#[test]
fn a_request_waits_for_its_permit_and_is_sent_then() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut client, server) = client(&ClientLayer::new(api));
    let mut first = send(&mut client, 0);
    let mut second = send(&mut client, 0);
    assert_eq!(server.received(), 1);
    time.advance(SECOND);
    assert!(poll(&mut second).is_pending());
    assert_eq!(server.received(), 2);
    for future in [&mut first, &mut second] {
        server.reply_head(200, &[]);
        assert!(poll(future).is_ready());
    }
}

#[test]
fn requests_of_all_clones_are_sent_in_their_order() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut client, server) = client(&ClientLayer::new(api));
    let mut other = client.clone();
    let mut sent: Vec<_> = (0..6)
        .map(|n| if n % 2 == 0 { send(&mut client, n) } else { send(&mut other, n) })
        .collect();
    for n in 1..6 {
        time.advance(SECOND);
        // The last first: a request that is not first in the queue gets nothing.
        sent.iter_mut().rev().for_each(|future| assert!(poll(future).is_pending()));
        assert_eq!(server.received(), n + 1);
    }
    assert_eq!(server.tokens(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_wait_that_is_dropped_takes_nothing_and_delays_nobody() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let _first = send(&mut client, 0);
    let cancelled = send(&mut client, 1);
    let mut third = send(&mut client, 2);
    drop(cancelled);
    time.advance(SECOND);
    assert!(poll(&mut third).is_pending());
    assert_eq!(server.tokens(), [0, 2]);
    assert_eq!((api.capacity().waiting, api.capacity().in_flight), (0, 2));
}

#[test]
fn a_timeout_ends_the_wait_with_the_time_to_try_again() {
    let (api, time) = resource(Limit::per_second(1).max_in_flight(1));
    let layer = ClientLayer::new(api).timeout(SECOND);
    let (mut client, server) = client(&layer);
    let _first = send(&mut client, 0);
    let mut second = send(&mut client, 0);
    time.advance(SECOND);
    let error = ready(&mut second).unwrap_err();
    let limited = error.limited().expect("it was not sent");
    assert_eq!(&*limited.resource, "api");
    assert!(matches!(limited.cause, AcquireError::TimedOut { .. }));
    assert_eq!(error.retry_after(), None, "time alone does not help");
    assert_eq!(server.received(), 1);
}

#[test]
fn a_timeout_that_the_rate_rules_out_fails_at_once() {
    let (api, _time) = resource(Limit::per_second(1));
    let layer = ClientLayer::new(api).timeout(SECOND / 2);
    let (mut client, _server) = client(&layer);
    let _first = send(&mut client, 0);
    assert_eq!(answer(&mut client, 0).unwrap_err().retry_after(), Some(SECOND));
}

#[test]
fn a_layer_that_sheds_fails_at_once() {
    let (api, time) = resource(Limit::per_second(1));
    let (mut client, server) = client(&ClientLayer::new(api).shed());
    let _first = send(&mut client, 0);
    let error = answer(&mut client, 0).unwrap_err();
    assert!(error.is_limited());
    assert_eq!(error.retry_after(), Some(SECOND));
    assert_eq!(error.to_string(), r#"request not sent: no permit of "api", retry after 1s"#);
    assert!(matches!(error.limited().unwrap().cause, AcquireError::TimedOut { .. }));
    assert!(error.source().is_none(), "it is in the text");
    time.advance(SECOND);
    let _third = send(&mut client, 0);
    assert_eq!(server.received(), 2);
}

#[test]
fn shedding_tells_what_no_wait_helps() {
    let (limiter, _time) = limiter();
    let api = limiter.configure("api", Limit::per_second(5).max_in_flight(1)).unwrap();
    let layer = ClientLayer::new(api).shed().cost(|request: &http::Request<u64>| *request.body());
    let (mut client, _server) = client(&layer);
    let cause = |answer: crate::Answer| answer.unwrap_err().limited().unwrap().cause;
    let text = |answer: crate::Answer| answer.unwrap_err().to_string();
    let _sent = send(&mut client, 1);
    assert!(matches!(
        cause(answer(&mut client, 1)),
        AcquireError::TimedOut { retry_after: None, .. }
    ));
    assert_eq!(
        text(answer(&mut client, 1)),
        r#"request not sent: no permit of "api", too many are in flight: retry when one has ended"#
    );
    assert_eq!(cause(answer(&mut client, 6)), AcquireError::ExceedsCapacity { capacity: 5 });
    limiter.remove("api");
    assert_eq!(cause(answer(&mut client, 1)), AcquireError::UnknownResource);
    let told = text(answer(&mut client, 1));
    assert!(
        told.starts_with(r#"request not sent: "api": unknown resource: configure it"#),
        "{told}"
    );
}
