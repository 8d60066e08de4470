//! What an answer says of its upstream's limits.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::reader::{self, Read};
use super::types::{Outcome, Profile, Quota, Scope};
use super::values::MAX_WAIT;
use super::{body, grpc};

/// What an answer says of its upstream's limits. See [the module](crate::http).
///
/// The fields are public, so that a function of your own can correct what was read, for example for an
/// upstream that says in the body of a 400 that it throttles:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tollgate::http::{Feedback, Outcome, Profile};
///
/// let body = br#"{"__type":"ThrottlingException"}"#;
/// let mut feedback = Feedback::new(Profile::Auto, StatusCode::BAD_REQUEST, &HeaderMap::new());
/// if body.windows(10).any(|word| word == b"Throttling") {
///     feedback.outcome = Outcome::Throttled;
/// }
/// ```
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
    is_github: bool,
    /// Whether a header said how long to wait.
    has_told: bool,
}

/// Where a refusal says `Retry-After: 0`: the wait was less than a second and was rounded down, as
/// `tower_governor` does. Less would be a busy loop.
const ROUNDED_DOWN: Duration = Duration::from_millis(500);
/// What GitHub asks for where a secondary limit comes without a time.
const SECONDARY: Duration = Duration::from_secs(60);

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
            retry_after: told,
            scope,
            quotas,
            bucket,
            cost,
            status,
            is_github,
            has_told: told.is_some(),
        };
        if let Some((outcome, wait)) = grpc::refusal(headers) {
            feedback.outcome = outcome;
            feedback.retry_after = told.or(Some(wait));
        }
        // 202 says when the work is done, and 3xx when it has moved.
        if status.is_redirection() || status == StatusCode::ACCEPTED {
            feedback.retry_after = None;
        }
        if status == StatusCode::FORBIDDEN && is_github && feedback.may_be_limit() {
            feedback.outcome = Outcome::Throttled;
        }
        feedback.conclude();
        feedback
    }

    /// Adds what the body of a refusal says: how long to wait, where Gemini and other Google APIs put it
    /// (`RetryInfo`), unless a header said so; and whether a 403 of GitHub is a limit or a lack of permission.
    /// Without the body a 403 of GitHub with all three figures of its limit is taken for a secondary limit.
    ///
    /// Takes time linear in the size of the body, which may be cut off.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        if self.status.is_success() {
            return self;
        }
        if self.status == StatusCode::FORBIDDEN && self.is_github {
            if body::tells_of_limit(body) {
                self.outcome = Outcome::Throttled;
            } else if !self.has_told && !self.is_exhausted() {
                (self.outcome, self.retry_after) = (Outcome::Passed, None);
            }
        }
        if !self.has_told
            && let Some(wait) = body::retry_delay(body)
        {
            self.retry_after = Some(wait);
        }
        self.conclude();
        self
    }

    /// The same some time later: waits are shorter by it, and what has ended says nothing more. For an answer
    /// that is not applied at once.
    #[must_use]
    pub fn after(mut self, elapsed: Duration) -> Self {
        let rest = |time: Duration| time.saturating_sub(elapsed);
        self.retry_after = self.retry_after.map(rest).filter(|wait| !wait.is_zero());
        for quota in &mut self.quotas {
            quota.reset = quota.reset.map(rest);
        }
        self
    }

    fn is_exhausted(&self) -> bool {
        self.quotas.iter().any(|quota| quota.remaining == Some(0))
    }

    /// Whether a 403 of GitHub may be one, by its headers alone.
    fn may_be_limit(&self) -> bool {
        let is_complete = |quota: &Quota| {
            quota.limit.is_some() && quota.remaining.is_some() && quota.reset.is_some()
        };
        self.has_told || self.is_exhausted() || self.quotas.iter().any(is_complete)
    }

    /// The wait, from what was read.
    fn conclude(&mut self) {
        let is_refused = self.outcome != Outcome::Passed;
        self.retry_after = match self.retry_after {
            Some(Duration::ZERO) if is_refused => Some(ROUNDED_DOWN),
            Some(Duration::ZERO) => None, // go on
            None if self.outcome == Outcome::Throttled => self.reset_of_exhausted(),
            told => told.map(|wait| wait.min(MAX_WAIT)),
        };
    }

    /// The last reset of the quotas that have nothing left, or that do not tell what is left.
    fn reset_of_exhausted(&self) -> Option<Duration> {
        let exhausted =
            self.quotas.iter().filter(|quota| quota.remaining.is_none_or(|left| left == 0));
        let reset =
            exhausted.filter_map(|quota| quota.reset).max().filter(|reset| !reset.is_zero());
        reset.or(self.is_github.then_some(SECONDARY))
    }
}
