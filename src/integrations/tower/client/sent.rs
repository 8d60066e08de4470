//! A request on its way, from its permits to its answer.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use http_body::Body;

use super::body::{Content, End, ResponseBody};
use super::held::HeldPermits;
use super::upstream::{Costs, Hold, Upstream};
use crate::integrations::http::Feedback;
use crate::limiter::Permits;

/// Permits of a request that is not sent yet. Dropping them gives their tokens back.
pub(super) struct Unsent(Option<Permits>);

impl Unsent {
    pub(super) fn new(permits: Permits) -> Self {
        Self(Some(permits))
    }

    pub(super) fn into_permits(mut self) -> Permits {
        self.0.take().unwrap_or_else(Permits::new)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.refund();
        }
    }
}

/// A request that is sent. Dropped before the answer it is no longer unanswered, and its permits end; its
/// tokens stay spent, as the upstream may have counted them.
pub(super) struct Sent {
    upstream: Arc<Upstream>,
    costs: Costs,
    permits: Option<Permits>,
    is_answered: bool,
}

impl Sent {
    pub(super) fn new(upstream: Arc<Upstream>, costs: Costs, permits: Permits) -> Self {
        upstream.note_sent(&costs);
        Self { upstream, costs, permits: Some(permits), is_answered: false }
    }

    /// The head of the answer is there.
    pub(super) fn note_answered(&mut self) {
        if !self.is_answered {
            self.is_answered = true;
            self.upstream.note_answered(&self.costs);
        }
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// A reading of the limiter's clock, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        self.upstream.budgets.first().map_or(0, |budget| budget.resource.now())
    }

    /// Applies an answer whose head came at the reading `at`. `body` is the start of its body.
    pub(super) fn apply(&self, feedback: Feedback, parts: &Parts, body: &[u8], at: u64) {
        let elapsed = Duration::from_nanos(self.now().saturating_sub(at));
        let feedback = self.upstream.complete(feedback, parts, body).after(elapsed);
        self.upstream.apply(&feedback, self.permits.as_ref(), &self.costs);
    }

    /// The answer for the caller. Its body holds the permits, or they end now.
    pub(super) fn into_response<B: Body>(
        mut self,
        mut parts: Parts,
        content: Content<B>,
    ) -> Response<ResponseBody<B>> {
        let permits = self.permits.take();
        let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let witnesses = permits.as_ref().filter(|_| is_grpc).map(Permits::witnesses).map(Box::new);
        let permits = permits.filter(|_| self.upstream.hold == Hold::Body);
        let held = permits.map(HeldPermits::new);
        if let Some(held) = &held {
            parts.extensions.insert(held.clone());
        }
        let (upstream, costs) = (Arc::clone(&self.upstream), self.costs.clone());
        let body = ResponseBody::new(content, End { upstream, costs, held, witnesses });
        Response::from_parts(parts, body)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.note_answered();
    }
}
