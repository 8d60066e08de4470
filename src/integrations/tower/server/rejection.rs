//! Answers to requests that are refused.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::decisions::{Cause, Decisions};
use crate::integrations::http::grpc_status;
use crate::limiter::TryAcquireError;

/// A request that is refused, for an answer of your own: see
/// [`on_rejection`](super::RateLimitLayerBuilder::on_rejection).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Rejection<'a> {
    /// The name of the rule: if several refuse, of the one that does for longest.
    pub rule: &'a str,
    /// Why it refuses.
    pub cause: Cause,
    /// The status of the default answer.
    ///
    /// | cause | status | gRPC |
    /// | --- | --- | --- |
    /// | too few tokens | 429 | `RESOURCE_EXHAUSTED` |
    /// | too many requests of the key in flight | 429 | `RESOURCE_EXHAUSTED` |
    /// | too many requests in flight, of a rule without a key: the server is busy | 503 | `UNAVAILABLE` |
    /// | more than the burst: no wait helps | 413 | `RESOURCE_EXHAUSTED` |
    /// | too many keys; the limiter was closed, or the rule's resource removed from it | 503 | `UNAVAILABLE` |
    /// | no key | 400 | `INVALID_ARGUMENT` |
    pub status: StatusCode,
    /// When the same request may be admitted: the longest wait of all rules that refuse it. `None` if one of
    /// them cannot say when.
    pub retry_after: Option<Duration>,
    /// What each rule said.
    pub decisions: &'a Decisions,
    /// The request's head.
    pub request: &'a Parts,
}

/// An answer of the user's.
pub(super) type OnRejection = Arc<dyn Fn(&Rejection<'_>) -> Response<Bytes> + Send + Sync>;

impl<'a> Rejection<'a> {
    pub(super) fn new(
        rule: &'a str,
        cause: Cause,
        is_keyed: bool,
        decisions: &'a Decisions,
        request: &'a Parts,
    ) -> Self {
        let status = match cause {
            Cause::Limit(TryAcquireError::Exhausted { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Cause::Limit(TryAcquireError::TooManyInFlight) if is_keyed => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Cause::Limit(TryAcquireError::ExceedsCapacity { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Cause::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
            Cause::MissingKey => StatusCode::BAD_REQUEST,
        };
        let waits = decisions.iter().filter_map(|rule| match rule.refusal()? {
            Cause::Limit(error) => Some(error.retry_after()),
            Cause::MissingKey => Some(None),
        });
        // `None` if one of them is.
        let waits: Option<Vec<_>> = waits.collect();
        let retry_after = waits.and_then(|waits| waits.into_iter().max());
        Self { rule, cause, status, retry_after, decisions, request }
    }

    /// What is wrong, and what to do next, in a sentence or two for the client.
    #[must_use]
    pub fn detail(&self) -> String {
        let rule = self.rule;
        let mut text = match self.cause {
            Cause::Limit(TryAcquireError::Exhausted { .. }) => {
                format!("The limit {rule:?} is exhausted.")
            }
            Cause::Limit(TryAcquireError::TooManyInFlight)
                if self.status == StatusCode::TOO_MANY_REQUESTS =>
            {
                format!(
                    "As many requests of yours are being handled as the limit {rule:?} allows: wait until one ends."
                )
            }
            Cause::Limit(TryAcquireError::TooManyInFlight) => {
                format!(
                    "The server is handling as many requests as the limit {rule:?} allows: try again later."
                )
            }
            Cause::Limit(TryAcquireError::ExceedsCapacity { capacity }) => {
                format!(
                    "The request costs more than the {capacity} that the limit {rule:?} ever admits at once: make it smaller."
                )
            }
            Cause::Limit(TryAcquireError::TooManyKeys { .. }) => {
                format!(
                    "The server has no room for another client in the limit {rule:?}: try again later."
                )
            }
            Cause::Limit(_) => {
                format!(
                    "The server takes no more requests under the limit {rule:?}: try again later."
                )
            }
            Cause::MissingKey => {
                format!(
                    "The request lacks what the limit {rule:?} counts by, such as an API key, or has several: send one."
                )
            }
        };
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            let unit = if seconds > 1.0 { "seconds" } else { "second" };
            let _ = write!(text, " Try again in {seconds} {unit}.");
        }
        let has_key = self.decisions.get(rule).is_none_or(|rule| rule.has_key);
        if !has_key && self.cause != Cause::MissingKey {
            text.push_str(
                " The request has no key of its own, and shares the limit with all such requests.",
            );
        }
        text
    }

    /// The default answer: `application/problem+json` (RFC 9457), of the types of the IETF's `RateLimit`
    /// draft where it has one. The layer adds the headers.
    #[must_use]
    pub fn problem(&self) -> Response<Bytes> {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            _ => "about:blank",
        };
        let refusing = self.decisions.iter().filter(|rule| rule.refusal().is_some());
        let refusing: Vec<&str> = refusing.map(|rule| &*rule.rule).collect();
        let title = self.status.canonical_reason().unwrap_or_default();
        let status = self.status.as_u16();
        let (detail, refusing) = (json!(self.detail()), json!(refusing));
        let problem = format!(
            r#"{{"type":"{kind}","title":"{title}","status":{status},"detail":{detail},"violated-policies":{refusing}}}"#
        );
        let mut response = Response::new(Bytes::from(problem));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    /// The user's answer, or the default. A gRPC client gets a status without a body, in any case.
    pub(super) fn answer(&self, on_rejection: Option<&OnRejection>) -> Response<Bytes> {
        let content_type = self.request.headers.get(CONTENT_TYPE);
        // All calls of gRPC are a POST. A cache may store the answer to a GET, as its status is 200.
        let is_post = self.request.method == Method::POST;
        if let Some(content_type) = content_type.filter(|kind| is_post && is_grpc(kind)) {
            return self.grpc_status(content_type.clone());
        }
        on_rejection.map_or_else(|| self.problem(), |answer| answer(self))
    }

    fn grpc_status(&self, content_type: HeaderValue) -> Response<Bytes> {
        let code = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => grpc_status::UNAVAILABLE,
            StatusCode::BAD_REQUEST => grpc_status::INVALID_ARGUMENT,
            _ => grpc_status::RESOURCE_EXHAUSTED,
        };
        let mut response = Response::new(Bytes::new());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        grpc_status::write(code, &self.detail(), self.retry_after, response.headers_mut());
        response
    }
}

/// Without the request: its headers and its URI may hold secrets, and refusals are logged.
impl fmt::Debug for Rejection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("rule", &self.rule)
            .field("cause", &self.cause)
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("decisions", &self.decisions)
            .finish_non_exhaustive()
    }
}

/// `application/grpc`, and `application/grpc+proto`, `application/grpc-web` and the like.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let name = b"application/grpc";
    content_type.as_bytes().split_at_checked(name.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(name) && rest.first().is_none_or(|next| b"+-; ".contains(next))
    })
}
