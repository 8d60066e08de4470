//! What the rules said of a request.

use std::sync::Arc;

use http::Extensions;
use smallvec::SmallVec;

use crate::limiter::{Decision, TryAcquireError};

/// What the rules of the layer said of a request, in their order, without those that did not apply to it.
///
/// It is in the request's extensions, for the handler, also if no rule applied. With
/// [`decisions_in_responses`](super::RateLimitLayerBuilder::decisions_in_responses) it is also in those of the
/// response, for layers outside of this one. Behind several layers of this kind it holds the rules of all of them,
/// from the outermost on; in a response, of those that add theirs.
///
/// ```
/// use tollgate::tower::server::Decisions;
///
/// fn handler(request: http::Request<()>) {
///     if let Some(decisions) = request.extensions().get::<Decisions>() {
///         for rule in decisions.iter() {
///             println!("{}: {:?}", rule.rule, rule.decision.map(|decision| decision.remaining));
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Decisions(Arc<Decided>);

/// Few layers have more rules.
pub(super) type Decided = SmallVec<[RuleDecision; 2]>;

/// What one rule said of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuleDecision {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The outcome for the rule alone, and what was left. If another rule refused the request, nothing was
    /// taken, also where the outcome is `Ok`. `None` if the request has no key, and the rule rejects such.
    pub decision: Option<Decision>,
    /// Whether the request has a key. One without may share the bucket of all such requests: see
    /// [`MissingKey::Share`](super::MissingKey::Share). Of a rule for all requests alike it is true.
    pub has_key: bool,
    /// Whether the rule [only observes](super::Rule::observe_only).
    pub is_observed: bool,
    /// Of the rule in its layer.
    pub(super) index: usize,
}

/// Why a rule refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// By its limit.
    Limit(TryAcquireError),
    /// The request has no key, and the rule [rejects](super::MissingKey::Reject) such requests.
    MissingKey,
}

impl RuleDecision {
    /// Why the rule refuses the request, or would refuse it if it did not only observe; `None` if it admits
    /// it.
    #[must_use]
    pub fn refusal(&self) -> Option<Cause> {
        match &self.decision {
            Some(decision) => decision.outcome.err().map(Cause::Limit),
            None => Some(Cause::MissingKey),
        }
    }
}

impl Decisions {
    pub(super) fn new(rules: Decided) -> Self {
        Self(Arc::new(rules))
    }

    /// One for each rule that applied.
    pub fn iter(&self) -> impl Iterator<Item = &RuleDecision> {
        self.0.iter()
    }

    /// That of the rule of this name.
    #[must_use]
    pub fn get(&self, rule: &str) -> Option<&RuleDecision> {
        self.iter().find(|decision| *decision.rule == *rule)
    }

    /// Adds them to a request, which has those of outer layers.
    pub(super) fn add_to_request(&self, extensions: &mut Extensions) {
        let all = match extensions.get::<Self>() {
            Some(outer) => Self::new(outer.iter().chain(self.iter()).cloned().collect()),
            None => self.clone(),
        };
        extensions.insert(all);
    }

    /// Adds them to a response, which has those of inner layers.
    pub(super) fn add_to_response(self, extensions: &mut Extensions) {
        let all = match extensions.get::<Self>() {
            Some(inner) => Self::new(self.iter().chain(inner.iter()).cloned().collect()),
            None => self,
        };
        extensions.insert(all);
    }
}
