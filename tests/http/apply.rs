//! What an answer does to the limit of its resource.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tollgate::http::{Feedback, Outcome, Profile, Unit};
use tollgate::{Limit, ManualClock, MemoryLimiter, Recovery, Resource};

use crate::headers;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", limit.recovery(Recovery::default())).unwrap();
    (time, limiter, api)
}

fn answer(status: u16, lines: &[&str]) -> Feedback {
    let status = StatusCode::from_u16(status).unwrap();
    Feedback::new(Profile::Auto, status, &headers(lines.iter().copied()))
}

#[test]
fn a_refusal_cuts_once_and_pauses() {
    let (time, _limiter, api) = limiter(Limit::per_second(100));
    let (first, second) = (api.try_acquire().unwrap(), api.try_acquire().unwrap());
    let refused = answer(429, &["retry-after: 2"]);
    refused.apply_to(&api, &first);
    refused.apply_to(&api, &second);
    assert_eq!(api.capacity().burst, 75);
    assert_eq!(api.check().unwrap_err().retry_after().map(|wait| wait >= 2 * SECOND), Some(true));
    time.advance(3 * SECOND);
    assert!(api.check().is_ok());
}

#[test]
fn the_reason_of_a_cut_is_the_status() {
    let (_time, limiter, api) = limiter(Limit::per_second(100));
    let (reasons, told) = std::sync::mpsc::channel();
    limiter.on_capacity_change(move |update| reasons.send(update.reason.clone()).unwrap());
    answer(429, &[]).apply(&api);
    assert_eq!(told.try_recv().unwrap(), "429 Too Many Requests");
}

#[test]
fn a_refusal_of_a_limit_that_others_share_pauses_only() {
    let (_time, _limiter, api) = limiter(Limit::per_second(100));
    answer(429, &["retry-after: 2", "x-ratelimit-scope: shared"]).apply(&api);
    assert_eq!(api.capacity().burst, 100);
    assert!(api.check().is_err());
}

#[test]
fn an_answer_that_tells_nothing_does_nothing() {
    let (_time, _limiter, api) = limiter(Limit::per_second(100));
    let before = api.capacity();
    for feedback in [
        answer(200, &[]),
        answer(200, &["retry-after: 0"]),
        answer(200, &["x-ratelimit-limit: 5"]),
        answer(200, &["x-ratelimit-remaining: -1", "x-ratelimit-reset: -1"]),
        answer(200, &["x-ratelimit-remaining: 5000"]),
        answer(200, &["x-ratelimit-remaining-tokens: 1"]),
        answer(
            200,
            &[
                "ratelimit: \"bytes\";r=1",
                "ratelimit-policy: \"bytes\";q=9;w=1;qu=\"content-bytes\"",
            ],
        ),
        answer(404, &["x-ratelimit-remaining: 100"]),
    ] {
        feedback.apply(&api);
        assert_eq!(api.capacity(), before, "{feedback:?}");
    }
}

#[test]
fn what_is_left_bounds_what_may_be_sent() {
    let (_time, _limiter, api) = limiter(Limit::per_hour(100));
    answer(200, &["x-ratelimit-remaining: 60"]).apply(&api);
    assert_eq!(api.capacity().available, 60);
    answer(200, &["x-ratelimit-remaining: 90"]).apply(&api);
    assert_eq!(api.capacity().available, 60, "never raised");
}

#[test]
fn requests_without_an_answer_are_subtracted() {
    let (_time, _limiter, api) = limiter(Limit::per_hour(100));
    let permits: Vec<_> = (0..10).map(|_| api.try_acquire().unwrap()).collect();
    answer(200, &["x-ratelimit-remaining: 60"]).apply_to(&api, &permits[0]);
    assert_eq!(api.capacity().available, 60 - 9);
    answer(200, &["x-ratelimit-remaining: 4"]).apply_to(&api, &permits[1]);
    assert_eq!(api.capacity().available, 0);
}

#[test]
fn until_the_window_ends_the_rate_is_what_is_left() {
    let (time, _limiter, api) = limiter(Limit::per_second(100));
    answer(200, &["ratelimit: \"default\";r=50;t=10"]).apply(&api);
    let mut sent = 0;
    for _ in 0..99 {
        time.advance(SECOND / 10);
        sent += (0..100).take_while(|_| api.check().is_ok()).count();
    }
    assert!((49..=50).contains(&sent), "{sent} of 50 in the rest of the window");
    time.advance(2 * SECOND);
    let sent = (0..200).take_while(|_| api.check().is_ok()).count();
    assert!((90..=100).contains(&sent), "{sent} in the next window");
}

#[test]
fn a_quota_whose_reset_has_passed_is_ignored() {
    let (_time, _limiter, api) = limiter(Limit::per_hour(100));
    let ended = [
        "x-ratelimit-remaining: 1",
        "x-ratelimit-reset: 1700000000",
        "date: Tue, 14 Nov 2023 22:13:20 GMT",
    ];
    answer(200, &ended).apply(&api);
    answer(200, &["ratelimit: \"a\";r=1;t=10"]).after(10 * SECOND).apply(&api);
    assert_eq!(api.capacity().available, 100);
}

#[test]
fn an_overloaded_upstream_slows_and_does_not_clamp() {
    let (_time, _limiter, api) = limiter(Limit::per_hour(100));
    answer(529, &["x-ratelimit-remaining: 3"]).apply(&api);
    assert_eq!(api.capacity().burst, 75);
    assert!(api.capacity().available > 3);
}

#[test]
fn each_unit_has_its_resource() {
    let (_time, limiter, api) = limiter(Limit::per_hour(100));
    let tokens = limiter.configure("tokens", Limit::per_hour(10_000)).unwrap();
    let feedback =
        answer(200, &["x-ratelimit-remaining-requests: 20", "x-ratelimit-remaining-tokens: 5000"]);
    feedback.apply(&api);
    feedback.apply_as(Unit::Tokens, &tokens, None, 1_000);
    assert_eq!((api.capacity().available, tokens.capacity().available), (20, 4_000));
}

#[test]
fn a_function_of_the_users_classifies() {
    let (_time, _limiter, api) = limiter(Limit::per_second(100));
    let feedback = Feedback::new(Profile::Auto, StatusCode::BAD_REQUEST, &HeaderMap::new());
    let mut feedback = feedback.with_outcome(Outcome::Throttled);
    feedback.retry_after = Some(SECOND);
    feedback.apply(&api);
    assert_eq!(api.capacity().burst, 75);
    assert!(api.check().is_err());
}

/// The wait follows from what was told, whoever classified.
#[test]
fn a_function_of_the_users_may_change_its_mind() {
    let lines = ["x-ratelimit-remaining: 0", "x-ratelimit-reset: 7"];
    let passed = answer(400, &lines);
    assert_eq!(passed.retry_after, None);
    let throttled = passed.clone().with_outcome(Outcome::Throttled);
    assert_eq!(throttled.retry_after, Some(7 * SECOND));
    assert_eq!(throttled.with_outcome(Outcome::Passed), passed);
    let told = answer(503, &["retry-after: 2"]).with_outcome(Outcome::Passed);
    assert_eq!(told.retry_after, Some(2 * SECOND));
}

/// The reset of such a quota is the time until it is full: 100 requests in 5 minutes.
#[test]
fn a_refusal_without_a_time_pauses_until_there_is_a_request() {
    let (time, _limiter, api) = limiter(Limit::per_second(100));
    let lines = [
        "x-ratelimit-limit-requests: 100",
        "x-ratelimit-remaining-requests: 0",
        "x-ratelimit-reset-requests: 5m0s",
    ];
    answer(429, &lines).apply(&api);
    time.advance(3 * SECOND);
    assert!(api.check().is_err());
    time.advance(SECOND);
    assert!(api.check().is_ok());
}
