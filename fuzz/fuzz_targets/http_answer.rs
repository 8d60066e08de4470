//! Any answer of an upstream is read. Nothing panics, no wait is longer than a day, and few quotas with short
//! names are kept.
//!
//! The input is an answer as text: a line with a digit for the profile and the status (`0429`), a header a line
//! (`name: value`), an empty line, and the body.
#![no_main]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use tollgate::http::{Feedback, MAX_WAIT, Profile};

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

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

fn check(feedback: &Feedback) {
    assert_ne!(feedback.retry_after, Some(Duration::ZERO));
    let resets = feedback.quotas.iter().map(|quota| quota.reset);
    assert!(resets.chain([feedback.retry_after]).flatten().all(|wait| wait <= MAX_WAIT));
    assert!(feedback.quotas.len() <= 16);
    assert!(feedback.quotas.iter().all(|quota| quota.name.len() <= 64));
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (profile, status) = first.split_first().unwrap_or((&b'0', b"429"));
    let profile = PROFILES[usize::from(profile.wrapping_sub(b'0')) % PROFILES.len()];
    let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let mut headers = HeaderMap::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = header(line) {
            let _ = headers.try_append(name, value);
        }
    }
    let body = lines.collect::<Vec<_>>().join(&b'\n');
    let feedback = Feedback::new(profile, status, &headers);
    check(&feedback);
    check(&feedback.with_body(&body));
});
