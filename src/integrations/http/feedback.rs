//! What an answer says of its upstream's limits.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::body::{self, Told};
use super::reader::{self, Read};
use super::types::{Outcome, Profile, Quota, Scope};
use super::values::MAX_WAIT;
use super::{aws, grpc};

/// What an answer says of its upstream's limits. See [the module](crate::http).
///
/// For an upstream that tells its refusals in a way of its own, a function of yours decides:
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, StatusCode};
/// use tollgate::http::{Feedback, Outcome, Profile};
///
/// fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Feedback {
///     let feedback = Feedback::new(Profile::Auto, status, headers).with_body(body);
///     if body.starts_with(br#"{"error":"quota_exceeded""#) {
///         return feedback.with_outcome(Outcome::Throttled);
///     }
///     feedback
/// }
///
/// let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, "2".parse()?)]);
/// let feedback = read(StatusCode::BAD_REQUEST, &headers, br#"{"error":"quota_exceeded"}"#);
/// assert_eq!(feedback.outcome, Outcome::Throttled);
/// assert_eq!(feedback.retry_after, Some(Duration::from_secs(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The fields are public too: set `retry_after` or `quotas` to what you know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feedback {
    /// How the upstream took the request.
    pub outcome: Outcome,
    /// How long to send nothing, from the answer on; at most [`MAX_WAIT`], never zero.
    pub retry_after: Option<Duration>,
    /// Whose limit was exceeded.
    pub scope: Scope,
    /// The upstream's limits, at most 16.
    pub quotas: Vec<Quota>,
    /// What the upstream calls the bucket that the request was counted in.
    pub bucket: Option<String>,
    /// What the request cost, in tokens.
    pub cost: Option<u64>,
    pub(super) status: StatusCode,
    profile: Profile,
    is_github: bool,
    /// How long to wait, where the upstream says so.
    told: Option<Duration>,
}

/// Where a refusal says `Retry-After: 0`: the wait was less than a second and was rounded down, as
/// `tower_governor` does. Less would be a busy loop.
const ROUNDED_DOWN: Duration = Duration::from_millis(500);
/// What GitHub asks for where a secondary limit comes without a time.
const SECONDARY: Duration = Duration::from_secs(60);

/// Bounds the memory: the JSON parser keeps a copy of a string with escapes, or of a long number.
const LONGEST_BODY: usize = 64 * 1024;

impl Feedback {
    /// Reads an answer's status and headers; of gRPC, its trailers.
    ///
    /// Takes time linear in the size of the headers.
    #[must_use]
    pub fn new(profile: Profile, status: StatusCode, headers: &HeaderMap) -> Self {
        let Read { told, quotas, scope, bucket, cost, is_github } = reader::read(profile, headers);
        let mut feedback = Self {
            outcome: match status.as_u16() {
                429 => Outcome::Throttled,
                503 | 529 => Outcome::Overloaded,
                _ => Outcome::Passed,
            },
            retry_after: None,
            scope,
            quotas,
            bucket,
            cost,
            status,
            profile,
            is_github,
            // 202 says when the work is done, and 3xx when it has moved.
            told: told.filter(|_| !status.is_redirection() && status != StatusCode::ACCEPTED),
        };
        if let Some((outcome, wait)) = grpc::refusal(headers) {
            feedback.outcome = outcome;
            feedback.told = feedback.told.or(Some(wait));
        }
        if feedback.may_be_of(Profile::Aws) && aws::throttles_in_headers(headers) {
            feedback.outcome = Outcome::Throttled;
        }
        if status == StatusCode::FORBIDDEN && is_github && feedback.may_be_limit() {
            feedback.outcome = Outcome::Throttled;
        }
        feedback.conclude();
        feedback
    }

    /// Adds what the body of a refusal says. A time counts unless a header told one.
    ///
    /// * How long to wait, where Google's APIs put it: `RetryInfo`.
    /// * The code by which AWS throttles, in JSON or in XML, such as `ThrottlingException`; and of a 429
    ///   the `retry_after` and `global` of Discord. Both with the profiles of these, and with `Auto`.
    /// * Whether a 403 of GitHub is a limit or a lack of permission. Only the body tells: without it, a 403 with
    ///   all three figures of a limit is taken for a secondary limit, one without for a lack of permission.
    ///
    /// Takes time linear in the size of the body. The first 64 KiB are read, and it may be cut off earlier.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        if self.status.is_success() {
            return self;
        }
        let body = &body[..body.len().min(LONGEST_BODY)];
        if self.status == StatusCode::FORBIDDEN && self.is_github {
            if body::tells_of_limit(body) {
                self.outcome = Outcome::Throttled;
            } else if self.told.is_none() && !self.is_exhausted() {
                self.outcome = Outcome::Passed;
            }
        }
        let told = Told::read(body);
        if self.may_be_of(Profile::Aws) && (told.is_throttled || aws::throttles_in_xml(body)) {
            self.outcome = Outcome::Throttled;
        }
        let mut wait = told.retry_delay;
        if self.may_be_of(Profile::Discord) && self.outcome == Outcome::Throttled {
            wait = wait.or(told.retry_after);
            if told.is_global {
                self.scope = Scope::Global;
            }
        }
        self.told = self.told.or(wait);
        self.conclude();
        self
    }

    /// The same with another outcome, by a rule of your own: see [`Feedback`]. The wait is what the upstream
    /// told, and of a refusal that told none the time until an exhausted quota has something again.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self.conclude();
        self
    }

    /// The same some time later: waits are shorter by it, and what has ended says nothing more. For an answer
    /// that is not applied at once.
    #[must_use]
    pub fn after(mut self, elapsed: Duration) -> Self {
        let rest = |time: Duration| time.saturating_sub(elapsed);
        for wait in [&mut self.retry_after, &mut self.told] {
            *wait = wait.map(rest).filter(|wait| !wait.is_zero());
        }
        for quota in &mut self.quotas {
            quota.reset = quota.reset.map(rest);
        }
        self
    }

    /// Whether a body would add nothing to the outcome and the wait.
    #[cfg(feature = "tower")]
    pub(crate) fn is_complete(&self) -> bool {
        self.outcome != Outcome::Passed && self.told.is_some()
    }

    /// Whether the rules of this provider apply.
    fn may_be_of(&self, provider: Profile) -> bool {
        let is_error = self.status.is_client_error() || self.status.is_server_error();
        is_error && (self.profile == provider || self.profile == Profile::Auto)
    }

    fn is_exhausted(&self) -> bool {
        self.quotas.iter().any(|quota| quota.remaining == Some(0))
    }

    /// Whether a 403 of GitHub may be a limit, by its headers alone.
    fn may_be_limit(&self) -> bool {
        let is_complete = |quota: &Quota| {
            quota.limit.is_some() && quota.remaining.is_some() && quota.reset.is_some()
        };
        self.told.is_some() || self.is_exhausted() || self.quotas.iter().any(is_complete)
    }

    /// The wait, from what was read.
    fn conclude(&mut self) {
        let is_refused = self.outcome != Outcome::Passed;
        self.retry_after = match self.told {
            Some(Duration::ZERO) if is_refused => Some(ROUNDED_DOWN),
            Some(Duration::ZERO) => None, // go on
            None if self.outcome == Outcome::Throttled => self.wait_of_exhausted(),
            told => told.map(|wait| wait.min(MAX_WAIT)),
        };
    }

    /// When the quotas that have nothing left, or that do not tell what is left, all have something again.
    fn wait_of_exhausted(&self) -> Option<Duration> {
        let exhausted =
            self.quotas.iter().filter(|quota| quota.remaining.is_none_or(|left| left == 0));
        let wait = exhausted.filter_map(wait_of).max().filter(|wait| !wait.is_zero());
        wait.or(self.is_github.then_some(SECONDARY))
    }
}

/// When an exhausted quota has something again: at the end of its window, or if it is full by its reset, after
/// the part of this time in which one of `limit` accrues. That is at least a second, or the reset, because a
/// request takes many tokens, and Anthropic tells whole seconds.
fn wait_of(quota: &Quota) -> Option<Duration> {
    let reset = quota.reset?;
    match quota.limit {
        Some(limit) if !quota.ends_window => {
            let one = reset.as_nanos().div_ceil(u128::from(limit.max(1)));
            let one = Duration::from_nanos(u64::try_from(one).unwrap_or(u64::MAX));
            Some(reset.min(one.max(Duration::from_secs(1))))
        }
        _ => Some(reset),
    }
}
