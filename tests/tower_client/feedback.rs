//! What the heads of answers do to the limits.

use std::time::Duration;

use http::Request;
use tollgate::http::{Outcome, Profile};
use tollgate::tower::client::ClientLayer;
use tollgate::{Limit, MemoryLimiter};

use crate::{SECOND, answer, available, client, limiter, ready, resource, send, with_tokens};

#[test]
fn a_refusal_cuts_and_pauses() {
    let (api, time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    server.reply_head(429, &["retry-after: 2"]);
    assert_eq!(answer(&mut client, 0).unwrap().status(), 429, "the caller sees it too");
    assert!(api.capacity().burst <= 75);
    let _waiting = send(&mut client, 0);
    assert_eq!(server.received(), 1);
    time.advance(2 * SECOND);
    assert!(api.capacity().paused_until.is_none());
}

#[test]
fn requests_that_are_refused_together_cut_once() {
    let (api, _time) = resource(Limit::per_second(100));
    let (mut client, server) = client(&ClientLayer::new(api.clone()));
    let mut sent: Vec<_> = (0..10).map(|_| send(&mut client, 0)).collect();
    let mut bursts = Vec::new();
    for future in &mut sent {
        server.reply_head(429, &[]);
        ready(future).unwrap();
        bursts.push(api.capacity().burst);
    }
    assert!(bursts[0] < 100);
    bursts.dedup();
    assert_eq!(bursts.len(), 1, "{bursts:?}");
}

#[test]
fn what_is_unanswered_is_subtracted_from_what_is_left() {
    let (limiter, _time) = limiter();
    let layer = with_tokens(&limiter, Limit::per_hour(100), Limit::per_hour(10_000));
    let (mut client, server) = client(&layer);
    let mut sent: Vec<_> = (1..=4).map(|n| send(&mut client, 100 * n)).collect();
    let head = ["x-ratelimit-remaining-requests: 50", "x-ratelimit-remaining-tokens: 5000"];
    server.reply_head(200, &head);
    let first = ready(&mut sent[0]).unwrap();
    let left = || (available(&limiter, "requests"), available(&limiter, "tokens"));
    assert_eq!(left(), (50 - 3, 5_000 - 900));

    // The first is answered, though its body is not at its end, and the second is cancelled.
    drop(sent.remove(1));
    server.reply(Err(std::io::Error::other("nobody hears of it")));
    let head = ["x-ratelimit-remaining-requests: 40", "x-ratelimit-remaining-tokens: 4000"];
    server.reply_head(200, &head);
    let third = ready(&mut sent[1]).unwrap();
    assert_eq!(left(), (40 - 1, 4_000 - 400));
    assert_eq!(limiter.capacity("requests").unwrap().in_flight, 3);

    // An error is an end too.
    server.reply_error();
    ready(&mut sent[2]).unwrap_err();
    let head = ["x-ratelimit-remaining-requests: 30", "x-ratelimit-remaining-tokens: 3000"];
    server.reply_head(200, &head);
    answer(&mut client, 100).unwrap();
    assert_eq!(left(), (30, 3_000));
    drop((first, third));
}

#[test]
fn all_clones_of_a_layer_count_what_is_unanswered_together() {
    let (limiter, _time) = limiter();
    let layer = with_tokens(&limiter, Limit::per_hour(100), Limit::per_hour(10_000));
    let (mut first, _) = client(&layer);
    let (mut other, server) = client(&layer.clone().shed().profile(Profile::OpenAi));
    let _sent = [send(&mut first, 100), send(&mut first.clone(), 200)];
    server.reply_head(200, &["x-ratelimit-remaining-tokens: 5000"]);
    answer(&mut other, 0).unwrap();
    assert_eq!(available(&limiter, "tokens"), 5_000 - 300);
}

#[test]
fn requests_that_wait_are_not_unanswered() {
    let (limiter, _time) = limiter();
    let layer = with_tokens(&limiter, Limit::per_hour(2), Limit::per_hour(10_000));
    let (mut client, server) = client(&layer);
    let mut sent: Vec<_> = (0..5).map(|_| send(&mut client, 100)).collect();
    assert_eq!(server.received(), 2);
    server.reply_head(200, &["x-ratelimit-remaining-tokens: 5000"]);
    ready(&mut sent[0]).unwrap();
    drop(sent);
    assert_eq!(available(&limiter, "tokens"), 5_000 - 100);
}

#[test]
fn only_the_limit_that_was_exceeded_is_cut() {
    let bursts = |lines: &[&str]| {
        let (limiter, _time) = limiter();
        let layer = with_tokens(&limiter, Limit::per_hour(100), Limit::per_hour(10_000));
        let (mut client, server) = client(&layer);
        server.reply_head(429, lines);
        answer(&mut client, 1_000).unwrap();
        let is_paused = |capacity: &tollgate::Capacity| capacity.paused_until.is_some();
        let [requests, tokens] = ["requests", "tokens"].map(|name| limiter.capacity(name).unwrap());
        assert_eq!((is_paused(&requests), is_paused(&tokens)), (true, true), "{lines:?}");
        (requests.burst < 100, tokens.burst < 10_000)
    };
    let wait = "retry-after: 2";
    assert_eq!(bursts(&[wait]), (true, true));
    let requests = ["x-ratelimit-remaining-requests: 0", "x-ratelimit-remaining-tokens: 5000"];
    assert_eq!(bursts(&[wait, requests[0], requests[1]]), (true, false));
    // Of the tokens some are left, but too few for the request.
    let tokens = ["x-ratelimit-remaining-requests: 50", "x-ratelimit-remaining-tokens: 999"];
    assert_eq!(bursts(&[wait, tokens[0], tokens[1]]), (false, true));
    let none = ["x-ratelimit-remaining-requests: 50", "x-ratelimit-remaining-tokens: 5000"];
    assert_eq!(bursts(&[wait, none[0], none[1]]), (true, true));
    assert_eq!(bursts(&[wait, "x-ratelimit-remaining-tokens: 5000"]), (true, true));
    // The reset has passed.
    let ended = "x-ratelimit-reset-requests: 0s";
    assert_eq!(bursts(&[wait, requests[0], requests[1], ended]), (true, true));
}

#[test]
fn a_profile_reads_its_provider_alone_and_none_reads_nothing() {
    let head = ["x-ratelimit-remaining: 5", "retry-after: 9"];
    let left = |layer: fn(ClientLayer<Request<u64>>) -> ClientLayer<Request<u64>>| {
        let (api, _time) = resource(Limit::per_hour(100));
        let (mut client, server) = client(&layer(ClientLayer::new(api.clone())));
        server.reply_head(200, &head);
        answer(&mut client, 0).unwrap();
        let capacity = api.capacity();
        (capacity.paused_until, capacity.windows[0].burst, {
            api.resume();
            api.capacity().available
        })
    };
    let paused = Some(Duration::from_secs(9));
    assert_eq!(left(|layer| layer), (paused, 100, 5));
    assert_eq!(left(|layer| layer.profile(Profile::Anthropic)), (paused, 100, 99));
    assert_eq!(left(ClientLayer::without_feedback), (None, 100, 99));
}

#[test]
fn an_unread_refusal_does_nothing() {
    let (api, _time) = resource(Limit::per_second(100));
    let layer = ClientLayer::new(api.clone()).without_feedback();
    let (mut client, server) = client(&layer);
    server.reply_head(429, &["retry-after: 2"]);
    answer(&mut client, 0).unwrap();
    assert_eq!((api.capacity().available, api.capacity().paused_until), (99, None));
}

#[test]
fn a_classifier_corrects_what_was_read() {
    let (api, _time) = resource(Limit::per_second(100));
    let layer = ClientLayer::new(api.clone()).classify(|head, body, mut feedback| {
        assert!(body.is_empty());
        if head.headers.contains_key("x-slow-down") {
            feedback.outcome = Outcome::Throttled;
        } else {
            feedback.outcome = Outcome::Passed;
            feedback.retry_after = None;
        }
        feedback
    });
    let (mut client, server) = client(&layer);
    server.reply_head(429, &["retry-after: 2"]);
    answer(&mut client, 0).unwrap();
    assert_eq!((api.capacity().burst, api.capacity().paused_until), (100, None));
    server.reply_head(200, &["x-slow-down: 1"]);
    answer(&mut client, 0).unwrap();
    assert!(api.capacity().burst < 100);
}

#[test]
fn resources_of_two_limiters_are_refused() {
    let [one, two] = [MemoryLimiter::new(), MemoryLimiter::new()];
    let requests = one.configure("requests", Limit::per_second(1)).unwrap();
    let tokens = two.configure("tokens", Limit::per_second(1)).unwrap();
    let layer = ClientLayer::new(requests).and(tokens, tollgate::http::Unit::Tokens, |_| 1);
    let (mut client, _server) = client(&layer);
    let error = answer(&mut client, 0).unwrap_err();
    assert_eq!(&*error.limited().unwrap().resource, "tokens");
}
