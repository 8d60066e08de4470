//! Several rules, what they charge, and what only observes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tollgate::tower::server::{
    BuildError, Cause, Decisions, Key, MissingKey, RateLimitLayer, Rule,
};
use tollgate::{Limit, TryAcquireError};

use super::{Server, from, limiter, with};

const OK: StatusCode = StatusCode::OK;
const LIMITED: StatusCode = StatusCode::TOO_MANY_REQUESTS;

#[test]
fn clones_share_the_limiter() {
    let (_time, limiter) = limiter();
    let builder = RateLimitLayer::builder(&limiter).rule(Rule::new("all", Limit::per_minute(3)));
    let server = Server::new(builder);
    let clone = Server(server.0.clone());
    assert_eq!(server.status(from("192.0.2.1")), OK);
    assert_eq!(clone.status(from("192.0.2.2")), OK);
    assert_eq!(limiter.capacity("all").unwrap().available, 1);
}

#[test]
fn a_request_takes_the_tokens_of_all_rules_or_of_none() {
    let (_time, limiter) = limiter();
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .rule(Rule::new("per-ip", Limit::per_minute(2)).per(Key::peer_ip()))
            .rule(Rule::new("all", Limit::per_minute(3))),
    );
    assert_eq!(server.admitted(&from("192.0.2.1")), 2);
    assert_eq!(limiter.capacity("all").unwrap().available, 1);
    assert_eq!(server.admitted(&from("192.0.2.2")), 1);
    assert_eq!(limiter.capacity("per-ip:192.0.2.2").unwrap().available, 1);
    assert_eq!(server.status(from("192.0.2.3")), LIMITED);
    assert_eq!(limiter.capacity("per-ip:192.0.2.3").unwrap().available, 2);
}

#[test]
fn requests_cost_what_a_function_says() {
    let (_time, limiter) = limiter();
    let cost = |request: &http::request::Parts| match request.uri.path() {
        "/free" => 0,
        "/export" => 4,
        "/all" => 11,
        _ => 1,
    };
    let server = Server::new(
        RateLimitLayer::builder(&limiter).rule(Rule::new("api", Limit::per_minute(10)).cost(cost)),
    );
    let status = |path: &str| {
        let mut request = from("192.0.2.1");
        *request.uri_mut() = path.parse().unwrap();
        server.status(request)
    };
    assert_eq!((status("/export"), status("/"), status("/export")), (OK, OK, OK));
    assert_eq!((status("/export"), status("/"), status("/")), (LIMITED, OK, LIMITED));
    assert_eq!(status("/free"), OK);
    assert_eq!(status("/all"), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn a_skipped_request_is_not_counted() {
    let (_time, limiter) = limiter();
    let is_health = |request: &http::request::Parts| request.uri.path() == "/health";
    let is_get = |request: &http::request::Parts| request.method == "GET";
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .skip_if(is_health)
            .rule(Rule::new("all", Limit::per_minute(2)))
            .rule(Rule::new("writes", Limit::per_minute(1)).skip_if(is_get)),
    );
    let mut health = from("192.0.2.1");
    *health.uri_mut() = "/health".parse().unwrap();
    let answer = server.handle(health, |request| {
        let decisions = request.extensions().get::<Decisions>().expect("extractors need them");
        assert_eq!(decisions.iter().count(), 0);
        Response::new(Full::default())
    });
    assert_eq!(answer.status(), OK);
    assert!(answer.headers().is_empty());
    let mut write = from("192.0.2.1");
    *write.method_mut() = http::Method::POST;
    assert_eq!(server.headers(from("192.0.2.1"))["ratelimit-policy"], r#""all";q=2;w=60"#);
    assert_eq!(server.admitted(&write), 1);
    assert_eq!(limiter.capacity("all").unwrap().available, 0);
}

fn logins(limiter: &tollgate::MemoryLimiter) -> Server {
    let failed = Rule::new("logins", Limit::per_minute(3))
        .per(Key::peer_ip())
        .charge_if(|response| response.status == StatusCode::UNAUTHORIZED);
    Server::new(RateLimitLayer::builder(limiter).rule(failed))
}

#[test]
fn only_responses_that_count_are_charged() {
    let (_time, limiter) = limiter();
    let server = logins(&limiter);
    let login = |status: StatusCode| {
        let answer = move |_| {
            let mut response = Response::new(Full::from("hello"));
            *response.status_mut() = status;
            response
        };
        server.handle(from("192.0.2.1"), answer).status()
    };
    let failed = StatusCode::UNAUTHORIZED;
    for _ in 0..10 {
        assert_eq!(login(OK), OK);
    }
    for _ in 0..3 {
        assert_eq!((login(OK), login(failed)), (OK, failed));
    }
    assert_eq!((login(OK), login(failed)), (LIMITED, LIMITED));
    let key = limiter.capacity("logins:192.0.2.1").unwrap();
    assert_eq!((key.available, key.in_flight), (0, 0));
}

/// An attacker sends many at once, before the first answer is there, and goes away before it comes.
#[test]
fn requests_at_once_are_charged_before_they_are_answered() {
    use tower::{Layer, Service};
    let (_time, limiter) = limiter();
    let server = logins(&limiter);
    let never = tower::service_fn(|_| {
        std::future::pending::<Result<Response<Full<Bytes>>, std::convert::Infallible>>()
    });
    let mut service = server.0.layer(never);
    let handled = std::cell::Cell::new(0);
    let futures: Vec<_> = (0..10).map(|_| service.call(from("192.0.2.1"))).collect();
    for future in futures {
        let answered = futures_util::FutureExt::now_or_never(future);
        handled.set(handled.get() + u32::from(answered.is_none()));
    }
    assert_eq!(handled.get(), 3);
    let key = limiter.capacity("logins:192.0.2.1").unwrap();
    assert_eq!((key.available, key.in_flight), (0, 0), "they went away, and are charged");
}

#[test]
fn a_rule_that_observes_refuses_nothing_and_tells() {
    let (_time, limiter) = limiter();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .rule(Rule::new("new", Limit::per_minute(2)).per(Key::peer_ip()).observe_only())
            .rule(Rule::new("all", Limit::per_minute(4)))
            .decisions_in_responses()
            .inspect({
                let seen = Arc::clone(&seen);
                move |_, decisions| {
                    let refusals = decisions.iter().filter(|rule| rule.refusal().is_some());
                    let names: Vec<_> = refusals.map(|rule| rule.rule.to_string()).collect();
                    seen.lock().unwrap().push(names);
                }
            }),
    );
    for n in 1..=5 {
        let answer = server.answer(from("192.0.2.1"));
        assert_eq!(answer.status(), if n <= 4 { OK } else { LIMITED });
        assert_eq!(answer.headers()["ratelimit-policy"], r#""all";q=4;w=60"#);
        let decisions = answer.extensions().get::<Decisions>().unwrap();
        let new = decisions.get("new").map(|rule| (rule.is_observed, rule.refusal().is_some()));
        assert_eq!(new, (n <= 4).then_some((true, n > 2)), "{decisions:?}");
    }
    let none: Vec<String> = Vec::new();
    let (new, all) = (vec!["new".to_string()], vec!["all".to_string()]);
    assert_eq!(*seen.lock().unwrap(), [none.clone(), none, new.clone(), new, all]);
}

#[test]
fn the_handler_sees_the_decisions() {
    let (_time, limiter) = limiter();
    let server =
        Server::new(RateLimitLayer::builder(&limiter).rule(Rule::new("all", Limit::per_minute(5))));
    let answer = server.handle(from("192.0.2.1"), |request| {
        let decisions = request.extensions().get::<Decisions>().expect("decisions");
        let left = decisions.get("all").and_then(|rule| rule.decision).map(|all| all.remaining);
        Response::new(Full::from(format!("{left:?} left")))
    });
    assert!(answer.extensions().get::<Decisions>().is_none(), "not asked for");
    assert_eq!(super::body(answer), "Some(4) left");
}

#[test]
fn a_limit_can_be_changed_while_the_server_runs() {
    let (time, limiter) = limiter();
    let rule = Rule::new("per-ip", Limit::per_minute(2)).per(Key::peer_ip());
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
    assert_eq!(server.admitted(&from("192.0.2.1")), 2);
    limiter.per_key("per-ip:", Limit::per_minute(60)).unwrap();
    time.advance(Duration::from_secs(60));
    assert_eq!(server.admitted(&from("192.0.2.1")), 60);
}

#[test]
fn a_request_without_a_key_shares_a_bucket_is_let_through_or_refused() {
    for (missing, expected) in [
        (MissingKey::Share, [OK, LIMITED, OK]),
        (MissingKey::Skip, [OK, OK, OK]),
        (MissingKey::Reject, [StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST, OK]),
    ] {
        let (_time, limiter) = limiter();
        let rule = Rule::new("per-key", Limit::per_minute(1))
            .per(Key::header("x-api-key"))
            .on_missing_key(missing);
        let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
        let statuses = [
            server.status(from("192.0.2.1")),
            server.status(from("192.0.2.2")),
            server.status(with(from("192.0.2.3"), &[("x-api-key", "abc")])),
        ];
        assert_eq!(statuses, expected, "{missing:?}");
    }
}

/// Otherwise whoever has a key would send it twice and not be counted.
#[test]
fn a_rule_is_not_skipped_because_a_header_is_sent_twice() {
    for key in [Key::header("x-api-key"), Key::peer_ip().and(Key::header("x-api-key"))] {
        let (_time, limiter) = limiter();
        let rule =
            Rule::new("per-key", Limit::per_minute(2)).per(key).on_missing_key(MissingKey::Skip);
        let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule));
        let twice = [("x-api-key", "abc"), ("x-api-key", "abc")];
        assert_eq!(server.admitted(&with(from("192.0.2.1"), &twice)), 2);
        assert_eq!(limiter.keys("per-key:")[0].resource, "per-key:anonymous");
    }
}

#[test]
fn a_missing_key_that_is_only_observed_is_told() {
    let (_time, limiter) = limiter();
    let rule = Rule::new("per-key", Limit::per_minute(1))
        .per(Key::header("x-api-key"))
        .on_missing_key(MissingKey::Reject)
        .observe_only();
    let server = Server::new(RateLimitLayer::builder(&limiter).rule(rule).decisions_in_responses());
    let answer = server.answer(from("192.0.2.1"));
    assert_eq!(answer.status(), OK);
    let decisions = answer.extensions().get::<Decisions>().unwrap();
    assert_eq!(decisions.get("per-key").unwrap().refusal(), Some(Cause::MissingKey));
}

#[test]
fn layers_behind_each_other_tell_of_both() {
    use tower::{Layer, ServiceExt};
    let (_time, limiter) = limiter();
    let layer = |name, n| {
        let rule = Rule::new(name, Limit::per_minute(n));
        let builder = RateLimitLayer::builder(&limiter).legacy_headers().decisions_in_responses();
        builder.rule(rule).build().unwrap()
    };
    for (outer, inner, legacy) in [(("a", 5), ("b", 2), "1"), (("c", 2), ("d", 5), "1")] {
        let handler = tower::service_fn(|request: http::Request<()>| async move {
            let decisions = request.extensions().get::<Decisions>().unwrap();
            let rules: Vec<_> = decisions.iter().map(|rule| rule.rule.to_string()).collect();
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(rules.join(","))))
        });
        let service = layer(outer.0, outer.1).layer(layer(inner.0, inner.1).layer(handler));
        let Ok(answer) = pollster::block_on(service.oneshot(from("192.0.2.1")));
        let lines = answer.headers().get_all("ratelimit").iter().count();
        assert_eq!(lines, 2, "{:?}", answer.headers());
        assert_eq!(answer.headers()["x-ratelimit-remaining"], legacy);
        let of_answer = answer.extensions().get::<Decisions>().unwrap().iter().count();
        assert_eq!(of_answer, 2);
        let collect = http_body_util::BodyExt::collect(answer.into_body());
        let Ok(collected) = pollster::block_on(collect);
        assert_eq!(collected.to_bytes(), format!("{},{}", outer.0, inner.0));
    }
}

#[test]
fn a_layer_that_makes_no_sense_is_not_built() {
    let (_time, limiter) = limiter();
    let limit = Limit::per_minute(1);
    let build = |rules: [Rule; 2]| {
        let [first, second] = rules;
        RateLimitLayer::builder(&limiter).rule(first).rule(second).build().map(drop)
    };
    let keyed = |name| Rule::new(name, limit).per(Key::peer_ip());
    let clash = |rules| matches!(build(rules), Err(BuildError::NameClash { .. }));
    assert!(clash([Rule::new("a", limit), Rule::new("a", limit)]));
    assert!(clash([keyed("a"), Rule::new("a:b", limit)]));
    assert!(clash([Rule::new("a:b", limit), keyed("a")]));
    let header = keyed("a").per(Key::peer_ip().and(Key::header("not a name")));
    let error = build([header, keyed("b")]).unwrap_err();
    assert!(matches!(error, BuildError::InvalidHeaderName { .. }), "{error}");
    for rule in [Rule::new("b", Limit::per_minute(0)), Rule::new("", limit), keyed("")] {
        let error = build([keyed("a"), rule]).unwrap_err();
        assert!(matches!(error, BuildError::Limit { .. }), "{error}");
    }
    assert!(build([keyed("a"), keyed("ab")]).is_ok());
}

#[test]
fn of_rules_that_refuse_the_one_that_does_for_longest_is_named() {
    let (time, limiter) = limiter();
    let server = Server::new(
        RateLimitLayer::builder(&limiter)
            .rule(Rule::new("a", Limit::per_second(1)))
            .rule(Rule::new("b", Limit::per_minute(20).burst(1)))
            .on_rejection(|rejection| {
                assert!(matches!(rejection.cause, Cause::Limit(TryAcquireError::Exhausted { .. })));
                Response::new(rejection.rule.to_string())
            }),
    );
    assert_eq!(super::body(server.answer(from("192.0.2.1"))), "hello");
    let refused = server.answer(from("192.0.2.1"));
    assert_eq!(refused.headers()["retry-after"], "3");
    assert_eq!(super::body(refused), "b");
    time.advance(Duration::from_secs(3));
    assert_eq!(super::body(server.answer(from("192.0.2.1"))), "hello", "who obeys is admitted");
}
