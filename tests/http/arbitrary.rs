//! Any status, headers and body: nothing panics, no wait is longer than a day, and what is kept is bounded.

use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::http::{Feedback, MAX_WAIT, Profile};

use crate::common::cases;
use crate::common::watchdog::Watchdog;

const NAMES: [&str; 25] = [
    "date",
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-ratelimit-retry-after",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-bucket",
    "x-ratelimit-scope",
    "x-ratelimit-resource",
    "x-ratelimit-limit-tokens-minute",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "anthropic-ratelimit-input-tokens-reset",
    "x-shopify-shop-api-call-limit",
    "x-amzn-errortype",
    "grpc-status",
    "grpc-status-details-bin",
];

const PROFILES: [Profile; 12] = [
    Profile::Auto,
    Profile::Generic,
    Profile::Ietf,
    Profile::OpenAi,
    Profile::Azure,
    Profile::Anthropic,
    Profile::GitHub,
    Profile::GitLab,
    Profile::Discord,
    Profile::Shopify,
    Profile::Mistral,
    Profile::Aws,
];

/// Bytes, or texts that are close to what is meant.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let like = concat!(
        r#"(-?[0-9]{1,25}(\.[0-9]{0,12})?(ms|s|m|h|us|d)?){1,3}"#,
        r#"|("[a-z]{0,3}"(;(r|t|a|w|q|qu)=(-?[0-9]{1,16}|"[a-z]"|:YQ==:|\?1)){0,4}, ?){0,3}"b";r=1;t=2"#,
        r#"|limit=[0-9]{1,16}, remaining=[0-9]{1,16}, reset=[0-9]{1,16}"#,
        r#"|[0-9]{4,6}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:00)"#,
        r#"|(Mon|Tue), [0-3][0-9] (Jan|Dec) [0-9]{4} [0-2][0-9]:[0-6][0-9]:[0-6][0-9] GMT"#,
        r#"|[0-9]{1,20}/[0-9]{1,20}|true|global|8|14|(a#)?ThrottlingException(:b)?|[A-Za-z0-9+/]{0,80}={0,2}"#,
    );
    prop_oneof![3 => like.prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..200)]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    vec((0..NAMES.len(), value()), 0..12).prop_map(|lines| {
        let lines = lines.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(NAMES[name]), HeaderValue::from_bytes(&value).ok()?))
        });
        let mut headers = HeaderMap::new();
        lines.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let like = r#"([\[\]{}:,"]|\\u[0-9a-f]{4}|null|1e9|"@type"|"type.googleapis.com/google.rpc.RetryInfo"|"retryDelay"|"[0-9]{1,20}(\.[0-9]{1,12})?s"|rate limit|"(retry_after|global|__type|code)":|-?[0-9]{1,20}(\.[0-9]{1,12})?(e-?[0-9]{1,3})?|true|"(a#)?SlowDown(:b)?"|<Code>SlowDown<){0,60}"#;
    prop_oneof![like.prop_map(String::into_bytes), vec(any::<u8>(), 0..200)]
}

fn is_bounded(feedback: &Feedback) {
    assert_ne!(feedback.retry_after, Some(Duration::ZERO));
    let resets = feedback.quotas.iter().map(|quota| quota.reset);
    for wait in resets.chain([feedback.retry_after]).flatten() {
        assert!(wait <= MAX_WAIT, "{wait:?}");
    }
    assert!(feedback.quotas.len() <= 16);
    let names = feedback.quotas.iter().map(|quota| &quota.name).chain(&feedback.bucket);
    assert!(names.map(String::len).all(|length| length <= 64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(300) as u32))]

    #[test]
    fn any_answer_is_read(
        status in 100..1_000_u16,
        which in 0..PROFILES.len(),
        headers in headers(),
        body in body(),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let feedback = Feedback::new(PROFILES[which], status, &headers);
        is_bounded(&feedback);
        let feedback = feedback.with_body(&body);
        is_bounded(&feedback);
        is_bounded(&feedback.after(Duration::from_secs(u64::from(status.as_u16()))));
    }
}

/// Values that a parser could take long for, or keep much of.
fn huge(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let list = r#""a";r=1;t=2;w=3,"#.repeat(size / 16) + r#""a""#;
    let many = |of: fn(usize) -> String| (0..size / 12).map(of).collect::<Vec<_>>().join(", ");
    let keys = many(|n| format!("k{n:06}=1"));
    let names = many(|n| format!("\"{n:06}\";r=1"));
    vec![
        ("ratelimit", list.into_bytes()),
        ("ratelimit", keys.into_bytes()),
        ("ratelimit", names.into_bytes()),
        ("ratelimit-policy", format!("\"{}\\\"\";q=1", "a".repeat(size)).into_bytes()),
        ("ratelimit-policy", format!("a;pk=:{}:", "YWFh".repeat(size / 4)).into_bytes()),
        ("ratelimit-policy", format!("({})", "a ".repeat(size / 2)).into_bytes()),
        ("x-ratelimit-limit", "1;w=1,".repeat(size / 6).into_bytes()),
        ("retry-after", b"9".repeat(size)),
        ("x-ratelimit-reset", "1s".repeat(size / 2).into_bytes()),
        ("x-ratelimit-bucket", b"b".repeat(size)),
        ("grpc-status-details-bin", b"GgAA".repeat(size / 4)),
    ]
}

fn huge_bodies(size: usize) -> Vec<Vec<u8>> {
    let parts = [
        "[0,",
        r#"{"a":"#,
        r#"["\u0061","#,
        r#"[{"@type":"google.rpc.RetryInfo"},"#,
        r#"[{"code":"SlowDow"},"#,
        r#"{"global":true,"retry_after":1.5,"#,
        "<Code>SlowDow",
        "<Code><",
        "rate limi",
        "9",
    ];
    let mut bodies: Vec<_> =
        parts.iter().map(|part| part.repeat(size / part.len()).into_bytes()).collect();
    bodies.push(format!(r#"["{}","#, r"\n".repeat(size / 2)).into_bytes());
    bodies.push(format!(r#"["{}\n\n","#, "a".repeat(size)).into_bytes());
    bodies.push(format!(r#"{{"{}\n":1,"#, "a".repeat(size)).into_bytes());
    bodies
}

/// Headers with one of the huge values.
fn huge_headers(size: usize) -> impl Iterator<Item = (&'static str, HeaderMap)> {
    huge(size).into_iter().map(|(name, value)| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert(name, HeaderValue::from_bytes(&value).unwrap());
        (name, headers)
    })
}

fn of_headers(headers: &HeaderMap) -> Feedback {
    Feedback::new(Profile::Auto, StatusCode::TOO_MANY_REQUESTS, headers)
}

/// A 403 of GitHub, whose body is searched for words too.
fn forbidden() -> Feedback {
    let mut headers = HeaderMap::new();
    headers.insert("x-github-request-id", HeaderValue::from_static("1"));
    Feedback::new(Profile::Auto, StatusCode::FORBIDDEN, &headers)
}

#[test]
fn memory_is_bounded_by_the_input() {
    for size in [1_000, 4_000, 100_000] {
        for (name, headers) in huge_headers(size) {
            let length = headers[name].len();
            let counts = measure(|| is_bounded(&of_headers(&headers)));
            assert!(counts.bytes_max <= length as u64 + 16_384, "{name}: {counts:?} of {length}");
        }
        for body in huge_bodies(size) {
            let feedback = forbidden();
            let counts = measure(|| is_bounded(&feedback.clone().with_body(&body)));
            let start = String::from_utf8_lossy(&body[..9]);
            // The parser keeps a string with escapes, or a long number, in a vector that doubles: the old
            // one and the new.
            let most = 3 * body.len().min(64 * 1_024) as u64 + 256;
            assert!(counts.bytes_max <= most, "{start}: {counts:?}");
        }
    }
}

/// Twice the input allocates at most twice as much and twice as often, in all.
#[test]
fn allocations_are_linear_in_the_input() {
    let is_linear = |what: &dyn std::fmt::Debug, one: AllocationInfo, two: AllocationInfo| {
        assert!(two.bytes_total <= 2 * one.bytes_total + 1_024, "{what:?}: {one:?}, {two:?}");
        assert!(two.count_total <= 2 * one.count_total + 16, "{what:?}: {one:?}, {two:?}");
    };
    for size in [1_000, 2_000, 100_000] {
        for ((name, one), (_, two)) in huge_headers(size).zip(huge_headers(2 * size)) {
            let of = |headers| measure(|| is_bounded(&of_headers(headers)));
            is_linear(&name, of(&one), of(&two));
        }
        for (one, two) in huge_bodies(size).iter().zip(&huge_bodies(2 * size)) {
            let of = |body| measure(|| is_bounded(&forbidden().with_body(body)));
            is_linear(&String::from_utf8_lossy(&one[..9]), of(one), of(two));
        }
    }
}

/// A second or so; quadratic time would be an hour, which the watchdog ends.
#[test]
fn megabytes_are_read() {
    let _watchdog = Watchdog::new();
    let size = 2_000_000;
    for (_, headers) in huge_headers(size) {
        is_bounded(&of_headers(&headers));
    }
    for body in huge_bodies(size) {
        is_bounded(&forbidden().with_body(&body));
    }
}

#[test]
fn many_lines_leave_few_quotas() {
    let mut headers = HeaderMap::new();
    for n in 0..5_000 {
        let name: HeaderName = format!("x-ratelimit-remaining-{n}").parse().unwrap();
        headers.append(name, HeaderValue::from_static("1"));
        headers.append("ratelimit", format!("\"{n}\";r=1;t=1").parse().unwrap());
        headers.append("x-ratelimit-limit", HeaderValue::from_static("1;w=1, 2;w=3"));
    }
    is_bounded(&Feedback::new(Profile::Auto, StatusCode::OK, &headers));
}
