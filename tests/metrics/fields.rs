//! Fields of answers that could not be read.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tollgate::http::{Feedback, Profile};

use crate::recorder::Kept;

fn ignored(profile: Profile, label: &str, fields: &[(&'static str, &str)]) -> u64 {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let kept = Kept::default();
    let read = || Feedback::new(profile, StatusCode::OK, &headers);
    metrics::with_local_recorder(&kept, read);
    let name = format!("tollgate_feedback_fields_ignored_total{{profile={label}}}");
    if kept.names().contains(&name) { kept.count(&name) } else { 0 }
}

#[test]
fn fields_that_make_no_sense_are_counted() {
    let fields = [
        ("retry-after", "soon"),
        ("x-ratelimit-remaining-requests", "many"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-reset-tokens", "1 parsec"),
        ("anthropic-ratelimit-requests-remaining", "of another profile"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(ignored(Profile::OpenAi, "openai", &fields), 3);
    assert_eq!(ignored(Profile::Auto, "auto", &fields), 4);
    let drafts = [("ratelimit", "\"a\";r=1;t=2"), ("ratelimit-policy", "((("), ("ratelimit", "")];
    assert_eq!(ignored(Profile::Ietf, "ietf", &drafts[..1]), 0);
    assert_eq!(ignored(Profile::Ietf, "ietf", &drafts[..2]), 1);
    assert_eq!(ignored(Profile::Shopify, "shopify", &drafts), 0);
    assert_eq!(ignored(Profile::Shopify, "shopify", &[("x-shopify-shop-api-call-limit", "32")]), 1);
}
