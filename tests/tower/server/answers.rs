//! Statuses, headers and bodies of answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use tollgate::http::{Feedback, Outcome, Profile};
use tollgate::tower::server::{Key, RateLimitLayer, RateLimitLayerBuilder, Rejection, Rule};
use tollgate::{Limit, MemoryLimiter};

use super::{Server, body, from, limiter, with};

#[test]
fn an_admitted_answer_lists_each_limit() {
    let (_time, limiter) = limiter();
    let rules = |builder: RateLimitLayerBuilder| {
        builder
            .rule(Rule::new("per-ip", Limit::per_minute(60).burst(2)).per(Key::peer_ip()))
            .rule(Rule::new("all", Limit::per_second(100)))
    };
    let server = Server::new(rules(RateLimitLayer::builder(&limiter)).legacy_headers());
    let headers = server.headers(from("192.0.2.1"));
    assert_eq!(headers["ratelimit-policy"], r#""per-ip";q=2;w=2, "all";q=100;w=1"#);
    assert_eq!(headers["ratelimit"], r#""per-ip";r=1;t=1, "all";r=99;t=1"#);
    assert_eq!(headers["x-ratelimit-limit"], "2");
    assert_eq!(headers["x-ratelimit-remaining"], "1");
    assert_eq!(headers["x-ratelimit-reset"], "1");
    assert!(!headers.contains_key("retry-after"));

    let quiet = Server::new(rules(RateLimitLayer::builder(&limiter)).no_headers());
    assert_eq!(quiet.headers(from("192.0.2.1")), HeaderMap::new());
    let refused = quiet.headers(from("192.0.2.1"));
    assert_eq!(refused["retry-after"], "1");
    assert!(!refused.contains_key("ratelimit"));
}

#[test]
fn who_obeys_the_headers_of_a_refusal_is_not_refused_again() {
    let (time, limiter) = limiter();
    let rules = [("a", Limit::per_second(7).burst(3)), ("b", Limit::per_minute(11).burst(5))];
    let mut builder = RateLimitLayer::builder(&limiter);
    for (name, limit) in rules {
        builder = builder.rule(Rule::new(name, limit).per(Key::peer_ip()));
    }
    let server = Server::new(builder);
    for step in 0..50 {
        server.admitted(&from("192.0.2.1"));
        let headers = server.headers(from("192.0.2.1"));
        let feedback = Feedback::new(Profile::Ietf, StatusCode::TOO_MANY_REQUESTS, &headers);
        let wait = feedback.retry_after.expect("a time");
        assert!(wait >= Duration::from_secs(1));
        time.advance(wait);
        assert_eq!(server.status(from("192.0.2.1")), StatusCode::OK, "step {step}, {headers:?}");
        time.advance(Duration::from_millis(137 * step));
    }
}

#[test]
fn a_refusal_is_a_problem_that_says_what_to_do() {
    let (_time, limiter) = limiter();
    let rule = Rule::new("per-ip", Limit::per_minute(20).burst(1)).per(Key::peer_ip());
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
    server.answer(from("192.0.2.1"));
    let refused = server.answer(from("192.0.2.1"));
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["retry-after"], "3");
    assert_eq!(refused.headers()["ratelimit"], r#""per-ip";r=0;t=3"#);
    let hint = refused.body().size_hint().exact();
    let text = body(refused);
    assert_eq!(hint, Some(text.len() as u64));
    let problem: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let expected = serde_json::json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "The limit \"per-ip\" is exhausted. Try again in 3 seconds.",
        "violated-policies": ["per-ip"],
    });
    assert_eq!(problem, expected);
}

type Prepare = fn(&MemoryLimiter);

/// A request as gRPC's.
fn post(content_type: &str) -> Request<()> {
    let mut request = with(from("192.0.2.1"), &[("content-type", content_type)]);
    *request.method_mut() = Method::POST;
    request
}

/// What the server says to a request that the first of its rules refuses, and the gRPC status of the same.
fn refusal(
    limiter: &MemoryLimiter,
    rule: Rule,
    prepare: impl Fn(),
) -> (StatusCode, HeaderMap, String, HeaderMap) {
    let server = Server::new(RateLimitLayer::builder(limiter).rule(rule));
    prepare();
    let refused = server.answer(from("192.0.2.1"));
    let (status, headers) = (refused.status(), refused.headers().clone());
    let problem: serde_json::Value = serde_json::from_slice(&body(refused)).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    let grpc = server.answer(post("application/grpc+proto"));
    assert_eq!(grpc.status(), StatusCode::OK);
    assert!(grpc.body().is_end_stream());
    let detail = problem["detail"].as_str().unwrap().to_string();
    (status, headers, detail, grpc.headers().clone())
}

#[test]
fn each_cause_has_a_status_and_says_what_helps() {
    let all = |limit| Rule::new("api", limit);
    let per_ip = |limit| Rule::new("api", limit).per(Key::peer_ip());
    let minute = Limit::per_minute(1);
    let one = minute.burst(1).max_in_flight(1);
    let cases: [(Rule, Prepare, u16, &str, &str); 7] = [
        (all(minute), |it| it.check("api").unwrap(), 429, "8", "Try again in 60 seconds"),
        (all(minute).cost(|_| 2), |_| {}, 413, "8", "make it smaller"),
        (
            all(one.burst(5)),
            |it| it.try_acquire("api").unwrap().forget(),
            503,
            "14",
            "try again later",
        ),
        (
            per_ip(one.burst(5)),
            |it| it.try_acquire("api:192.0.2.1").unwrap().forget(),
            429,
            "8",
            "wait until one ends",
        ),
        (
            per_ip(minute).max_keys(1),
            |it| it.check("api:192.0.2.2").unwrap(),
            503,
            "14",
            "no room for another client",
        ),
        (all(minute), MemoryLimiter::close, 503, "14", "takes no more requests"),
        (all(minute), |it| assert!(it.remove("api")), 503, "14", "takes no more requests"),
    ];
    for (rule, prepare, expected, code, words) in cases {
        let (_time, limiter) = limiter();
        let (status, headers, detail, grpc) = refusal(&limiter, rule, || prepare(&limiter));
        assert_eq!(status, expected, "{detail}");
        assert_eq!(grpc["grpc-status"], code, "{detail}");
        assert!(detail.contains(words) && detail.contains("\"api\""), "{detail}");
        let says_when = detail.contains("Try again in");
        assert_eq!(headers.contains_key("retry-after"), says_when, "{detail}");
        assert_eq!(grpc.contains_key("grpc-status-details-bin"), says_when, "{detail}");
    }
}

#[test]
fn several_rules_say_when_only_if_all_can() {
    let (_time, limiter) = limiter();
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .rule(Rule::new("a", Limit::per_minute(1)))
            .rule(Rule::new("b", Limit::per_minute(1)).cost(|_| 2)),
    );
    limiter.check("a").unwrap();
    let refused = server.answer(from("192.0.2.1"));
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!refused.headers().contains_key("retry-after"), "{:?}", refused.headers());
}

#[test]
fn grpc_clients_get_a_status_without_a_body() {
    let (_time, limiter) = limiter();
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .rule(Rule::new("50 %", Limit::per_minute(40).burst(1)))
            .on_rejection(|_| Response::new("for HTTP alone")),
    );
    let call = |kind: &str| server.answer(post(kind));
    assert_eq!(body(call("application/grpc")), "hello");
    for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC-web"] {
        let refused = call(kind);
        assert_eq!(refused.status(), StatusCode::OK);
        assert_eq!(refused.headers()["content-type"], kind);
        let message = "The limit \"50 %25\" is exhausted. Try again in 2 seconds.";
        assert_eq!(refused.headers()["grpc-message"], message);
        let feedback = Feedback::new(Profile::Auto, refused.status(), refused.headers());
        assert_eq!(feedback.outcome, Outcome::Throttled);
        assert_eq!(body(refused), Bytes::new());
    }
    for kind in ["application/json", "application/grp", "application/grpcs", ""] {
        assert_eq!(body(call(kind)), "for HTTP alone");
    }
}

/// A client could otherwise have an empty answer with the status 200 stored in a cache.
#[test]
fn what_a_cache_may_store_is_no_call_of_grpc() {
    let (_time, limiter) = limiter();
    let rule = Rule::new("all", Limit::per_minute(1));
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
    let get = || with(from("192.0.2.1"), &[("content-type", "application/grpc")]);
    assert_eq!(server.status(get()), StatusCode::OK);
    assert_eq!(server.status(get()), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn an_answer_of_ones_own_keeps_its_headers() {
    let (_time, limiter) = limiter();
    let answer = |retry_after: Option<&'static str>| {
        Server::new(
            RateLimitLayer::builder(&limiter)
                .rule(Rule::new("all", Limit::per_minute(1)))
                .on_rejection(move |rejection| {
                    let mut response = Response::new(rejection.detail());
                    *response.status_mut() = StatusCode::IM_A_TEAPOT;
                    if let Some(value) = retry_after {
                        response.headers_mut().insert("retry-after", value.parse().unwrap());
                    }
                    response
                }),
        )
    };
    let (plain, own) = (answer(None), answer(Some("7200")));
    plain.answer(from("192.0.2.1"));
    let refused = plain.answer(from("192.0.2.1"));
    assert_eq!(refused.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(refused.headers()["ratelimit"], r#""all";r=0;t=60"#);
    assert_eq!(own.headers(from("192.0.2.1"))["retry-after"], "7200");
}

#[test]
fn a_refusal_that_is_logged_holds_nothing_of_the_request() {
    let (_time, limiter) = limiter();
    let log = |rejection: &Rejection<'_>| Response::new(format!("{rejection:?}"));
    let rule = Rule::new("per-key", Limit::per_minute(1)).per(Key::header("x-api-key"));
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule).on_rejection(log));
    let request = || {
        let mut request = with(from("192.0.2.1"), &[("x-api-key", "secret")]);
        *request.uri_mut() = "/?token=secret".parse().unwrap();
        request
    };
    server.status(request());
    let logged = String::from_utf8(body(server.answer(request())).to_vec()).unwrap();
    assert!(logged.contains("per-key") && logged.contains("Exhausted"), "{logged}");
    assert!(!logged.contains("secret"), "{logged}");
}

#[test]
fn a_shared_bucket_says_that_it_is_shared() {
    let (_time, limiter) = limiter();
    let rule = Rule::new("per-ip", Limit::per_minute(1)).per(Key::peer_ip());
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
    assert_eq!(server.admitted(&Request::new(())), 1);
    let text = body(server.answer(Request::new(())));
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains("no key of its own"), "{text}");
}
