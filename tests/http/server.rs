//! What a server writes, and what a client that obeys it gets.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use tollgate::http::{Feedback, Profile, RateLimitHeaders, retry_after};
use tollgate::{Limit, ManualClock, MemoryLimiter, Resource};

use crate::common::cases;

fn limiter(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", limit).unwrap();
    (time, limiter, api)
}

/// The headers after taking `n` tokens.
fn after(api: &Resource, tell: &RateLimitHeaders, n: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    tell.write(&api.decide(n), &mut headers);
    headers
}

#[test]
fn retry_after_is_never_zero_and_rounds_up() {
    for (wait, seconds) in [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_secs(1), "1"),
        (Duration::new(1, 1), "2"),
        (Duration::from_secs(86_400), "86400"),
        (Duration::MAX, "999999999999999"),
    ] {
        assert_eq!(retry_after(wait), seconds);
    }
}

#[test]
fn policies_say_the_rate_and_the_burst() {
    for (limit, policy) in [
        (Limit::per_second(10), r#""api";q=10;w=1"#),
        (Limit::per_second(1_000).burst(10), r#""api";q=1000;w=1"#),
        (Limit::per_second(10).burst(30), r#""api";q=30;w=3"#),
        (Limit::per_second(10).burst(31), r#""api";q=40;w=4"#),
        (Limit::per_minute(600).burst(1), r#""api";q=10;w=1"#),
        (Limit::per_minute(1).burst(1), r#""api";q=1;w=60"#),
        (Limit::per_hour(7), r#""api";q=7;w=3600"#),
        (Limit::new(1, Duration::from_millis(300)), r#""api";q=3;w=1"#),
        (Limit::at_most(100, Duration::from_secs(60)).burst(50), r#""api";q=50;w=59"#),
        (
            Limit::per_second(5).and(Limit::per_day(1_000)),
            r#""api";q=5;w=1, "api-2";q=1000;w=86400"#,
        ),
    ] {
        let (_time, _limiter, api) = limiter(limit);
        let tell = RateLimitHeaders::new("api", &limit);
        assert_eq!(after(&api, &tell, 1)["ratelimit-policy"], policy, "{limit}");
    }
}

#[test]
fn a_refusal_says_when_to_come_again() {
    let limit = Limit::per_second(10).burst(30);
    let (time, _limiter, api) = limiter(limit);
    let tell = RateLimitHeaders::new("api", &limit).legacy();
    let admitted = after(&api, &tell, 30);
    assert_eq!(admitted["ratelimit"], r#""api";r=0;t=1"#);
    assert!(!admitted.contains_key("retry-after"));
    let refused = after(&api, &tell, 15);
    assert_eq!(refused["ratelimit"], r#""api";r=0;t=2"#);
    assert_eq!(refused["retry-after"], "2");
    assert_eq!(refused["x-ratelimit-limit"], "30");
    assert_eq!(refused["x-ratelimit-remaining"], "0");
    assert_eq!(refused["x-ratelimit-reset"], "2");
    time.advance(Duration::from_secs(2));
    assert!(api.check_n(15).is_ok(), "a client that obeys is admitted");
    assert!(!after(&api, &tell, 31).contains_key("retry-after"), "no wait helps");
}

#[test]
fn legacy_headers_are_left_out_unless_asked_for() {
    let limit = Limit::per_second(10);
    let (_time, _limiter, api) = limiter(limit);
    let headers = after(&api, &RateLimitHeaders::new("api", &limit), 1);
    assert_eq!(headers.len(), 2, "{headers:?}");
}

#[test]
fn the_policy_follows_a_cut() {
    let limit = Limit::per_second(100).burst(200).and(Limit::per_hour(10_000));
    let (_time, limiter, api) = limiter(limit);
    limiter.announce_reduced("api", "429");
    let headers = after(&api, &RateLimitHeaders::new("api", &limit), 1);
    assert_eq!(headers["ratelimit-policy"], r#""api";q=150;w=2, "api-2";q=7500;w=3600"#);
}

#[test]
fn of_several_windows_the_tightest_is_told() {
    let limit = Limit::per_second(50).and(Limit::per_hour(20));
    let (_time, _limiter, api) = limiter(limit);
    let headers = after(&api, &RateLimitHeaders::new("api", &limit), 5);
    assert_eq!(headers["ratelimit"], r#""api-2";r=15;t=2700"#);
}

#[test]
fn a_limiter_that_is_closed_says_nothing() {
    let limit = Limit::per_second(10);
    let (_time, limiter, api) = limiter(limit);
    limiter.close();
    assert!(after(&api, &RateLimitHeaders::new("api", &limit), 1).is_empty());
}

#[test]
fn no_limit_is_too_large_or_too_small() {
    let (_time, _limiter, api) = limiter(Limit::per_second(10));
    for (capacity, window, burst) in [
        (u64::MAX, Duration::MAX, u64::MAX),
        (1, Duration::MAX, u64::MAX),
        (u64::MAX, Duration::from_nanos(1), 1),
        (0, Duration::ZERO, 0),
    ] {
        let limit = Limit::new(capacity, window).burst(burst);
        let headers = after(&api, &RateLimitHeaders::new("api", &limit).legacy(), 0);
        let feedback = Feedback::new(Profile::Ietf, StatusCode::OK, &headers);
        assert!(feedback.quotas[0].limit.is_some(), "{headers:?}");
    }
}

#[test]
fn any_name_is_a_string_of_a_structured_field() {
    let limit = Limit::per_second(10);
    let (_time, _limiter, api) = limiter(limit);
    for name in ["", "a\"b\\c", "ключ\r\nx: y", "a;q=1, b"] {
        let headers = after(&api, &RateLimitHeaders::new(name, &limit), 0);
        let feedback = Feedback::new(Profile::Ietf, StatusCode::OK, &headers);
        let quota = &feedback.quotas[0];
        assert_eq!((quota.remaining, quota.limit), (Some(10), Some(10)), "{headers:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64) as u32))]

    /// A client that spreads `q` over `w`, or after each answer `r` over `t` where there is one, is not refused,
    /// and is served at half of the limit's rate at least: so much may whole seconds take away.
    #[test]
    fn who_obeys_is_served_at_the_rate_of_the_limit(
        tokens in 1..2_000_u32,
        seconds in 1..100_u32,
        burst in 1..2_000_u32,
    ) {
        let window = Duration::from_secs(seconds.into());
        let limit = Limit::new(tokens.into(), window).burst(burst.into());
        let tell = RateLimitHeaders::new("api", &limit);
        let (time, _limiter, api) = limiter(limit);
        let read = |headers: &HeaderMap| {
            let quotas = Feedback::new(Profile::Ietf, StatusCode::OK, headers).quotas;
            let [quota] = &quotas[..] else { panic!("{quotas:?}") };
            quota.clone()
        };
        let quota = read(&after(&api, &tell, 0));
        let (q, w) = (u32::try_from(quota.limit.unwrap()).unwrap(), quota.window.unwrap());
        prop_assert!(q >= burst && w >= Duration::from_secs(1));
        let rate = f64::from(tokens) / f64::from(seconds);
        let told = f64::from(q) / w.as_secs_f64();
        prop_assert!(told <= rate + 1e-9, "{told} of {rate}");
        prop_assert!(told >= rate / 2.0, "{told} of {rate}");

        // From an empty bucket on.
        prop_assert!(api.check_n(burst.into()).is_ok());
        let calls = 2_000;
        let (mut gap, mut elapsed) = (w / q, Duration::ZERO);
        for _ in 0..calls {
            let gap_rounded_up = gap + Duration::from_nanos(1);
            time.advance(gap_rounded_up);
            elapsed += gap_rounded_up;
            let headers = after(&api, &tell, 1);
            prop_assert!(!headers.contains_key("retry-after"), "{headers:?}");
            let quota = read(&headers);
            gap = match (u32::try_from(quota.remaining.unwrap()).unwrap(), quota.reset) {
                (_, None) => w / q,
                (r, Some(t)) => t / r.max(1),
            };
        }
        let served = f64::from(calls) / elapsed.as_secs_f64();
        prop_assert!(served >= rate / 2.0, "{served} of {rate}");
    }
}
