//! What all clones of a layer share: the resources, what of them is unanswered, and how answers are read.
//!
//! # Orderings
//!
//! The counts of unanswered tokens are `Relaxed`: each is a number by itself that publishes nothing. An
//! answer that reads it a moment too early or too late is one that came a moment earlier or later.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::integrations::http::{Feedback, Outcome, Profile, Quota, Unit};
use crate::limiter::{AcquireAll, AllError, Permits, Resource};
use crate::sync::{AtomicU64, Ordering};

/// Corrects what was read of an answer, from its head and, of a refusal, the start of its body.
pub(super) type Classifier = dyn Fn(&Parts, &[u8], Feedback) -> Feedback + Send + Sync;

/// Tokens of each resource, in their order.
pub(super) type Costs = SmallVec<[u64; 4]>;

/// How long a permit is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hold {
    /// Until the answer's head is there. Then nobody can settle them: the response has no
    /// [`HeldPermits`](super::HeldPermits).
    Head,
    /// Until the answer's body has been read, has failed, or is dropped: for upstreams that bound the number
    /// of requests in progress, of which a stream is one until it ends.
    #[default]
    Body,
}

#[derive(Clone)]
pub(super) struct Upstream {
    pub(super) budgets: SmallVec<[Budget; 2]>,
    /// `None` if answers are not read.
    pub(super) profile: Option<Profile>,
    pub(super) classifier: Option<Arc<Classifier>>,
    /// How much of a refusal's body is read, in bytes.
    pub(super) body_limit: usize,
    pub(super) hold: Hold,
}

/// A resource, and what it counts.
#[derive(Clone)]
pub(super) struct Budget {
    pub(super) resource: Resource,
    pub(super) unit: Unit,
    /// Tokens of requests that were sent and are not answered yet.
    unanswered: Arc<AtomicU64>,
}

impl Budget {
    pub(super) fn new(resource: Resource, unit: Unit) -> Self {
        Self { resource, unit, unanswered: Arc::default() }
    }
}

impl Upstream {
    fn wanted(&self, costs: &[u64]) -> SmallVec<[(&Resource, u64); 4]> {
        self.budgets.iter().map(|budget| &budget.resource).zip(costs.iter().copied()).collect()
    }

    pub(super) fn try_acquire(&self, costs: &[u64]) -> Result<Permits, AllError> {
        Resource::try_acquire_all(&self.wanted(costs))
    }

    pub(super) fn acquire(&self, costs: &[u64]) -> AcquireAll {
        Resource::acquire_all(&self.wanted(costs))
    }

    /// Whether the body of an answer with this head is of use. If it is not, nothing waits for it: other
    /// requests would be sent meanwhile.
    pub(super) fn wants_body(&self, parts: &Parts, feedback: &Feedback) -> bool {
        let is_of_use = if self.classifier.is_some() {
            parts.status.is_client_error() || parts.status.is_server_error()
        } else {
            let may_tell = matches!(parts.status.as_u16(), 400 | 403 | 429 | 503 | 529);
            may_tell && !feedback.is_complete() && is_readable(parts)
        };
        self.body_limit > 0 && is_of_use
    }

    /// What the head of an answer says; `None` if answers are not read.
    pub(super) fn read(&self, parts: &Parts) -> Option<Feedback> {
        Some(Feedback::new(self.profile?, parts.status, &parts.headers))
    }

    /// What gRPC's trailers say.
    pub(super) fn read_trailers(&self, trailers: &HeaderMap) -> Option<Feedback> {
        let profile = self.profile.filter(|_| trailers.contains_key("grpc-status"))?;
        Some(Feedback::new(profile, StatusCode::OK, trailers))
    }

    /// Adds the start of the body, and what the classifier says.
    pub(super) fn complete(&self, mut feedback: Feedback, parts: &Parts, body: &[u8]) -> Feedback {
        if !body.is_empty() && is_readable(parts) {
            feedback = feedback.with_body(body);
        }
        match &self.classifier {
            Some(classify) => classify(parts, body, feedback),
            None => feedback,
        }
    }

    /// Counts the tokens of a request that is sent.
    pub(super) fn note_sent(&self, costs: &[u64]) {
        for (budget, cost) in self.budgets.iter().zip(costs) {
            budget.unanswered.fetch_add(*cost, Ordering::Relaxed);
        }
    }

    /// Its answer is there, or will not come.
    pub(super) fn note_answered(&self, costs: &[u64]) {
        for (budget, cost) in self.budgets.iter().zip(costs) {
            budget.unanswered.fetch_sub(*cost, Ordering::Relaxed);
        }
    }

    /// Applies what an answer says of each unit to the resources that count it. Its request is no longer
    /// among the unanswered ones.
    pub(super) fn apply(&self, feedback: &Feedback, permits: Option<&Permits>, costs: &[u64]) {
        let is_exhausted = |(budget, cost): (&Budget, &u64)| {
            // What was left of a window that has ended says nothing.
            let counts = |quota: &&Quota| {
                quota.unit == budget.unit && quota.reset.is_none_or(|reset| !reset.is_zero())
            };
            let mut quotas = feedback.quotas.iter().filter(counts);
            quotas.any(|quota| quota.remaining.is_some_and(|left| left < *cost))
        };
        let budgets = || self.budgets.iter().zip(costs);
        // If the answer tells which limit was exceeded, the others are not cut.
        let names_exceeded = feedback.outcome == Outcome::Throttled && budgets().any(is_exhausted);
        let mut milder = feedback.clone();
        milder.outcome = Outcome::Passed;
        for (budget, cost) in budgets() {
            let feedback =
                if names_exceeded && !is_exhausted((budget, cost)) { &milder } else { feedback };
            let permit = permits.and_then(|permits| permits.get(budget.resource.name()));
            let unanswered = budget.unanswered.load(Ordering::Relaxed);
            feedback.apply_as(budget.unit, &budget.resource, permit, unanswered);
        }
    }
}

/// Whether the body is not compressed.
fn is_readable(parts: &Parts) -> bool {
    let encoding = parts.headers.get(CONTENT_ENCODING);
    encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
