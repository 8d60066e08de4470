//! All rules of a layer, applied to a request.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use http::request;
use smallvec::SmallVec;

use super::decisions::{Cause, Decided, Decisions, RuleDecision};
use super::held::{Held, HeldPermit};
use super::key::{NoKey, PeerAddr};
use super::rule::{ForRequest, MissingKey, Rule};
use crate::limiter::{Decision, MemoryLimiter, Permit};

pub(super) type Inspect = Arc<dyn Fn(&request::Parts, &Decisions) + Send + Sync>;

pub(super) struct Rules {
    pub(super) limiter: MemoryLimiter,
    pub(super) list: Vec<Rule>,
    pub(super) peer_addr: Option<ForRequest<Option<SocketAddr>>>,
    pub(super) skip_if: Option<ForRequest<bool>>,
    pub(super) inspect: Option<Inspect>,
}

/// What becomes of a request.
pub(super) enum Verdict {
    Admitted(Held, Decisions),
    Refused(Refusal),
}

pub(super) struct Refusal {
    /// The index of the rule that refuses for longest.
    pub(super) rule: usize,
    pub(super) cause: Cause,
    pub(super) decisions: Decisions,
}

/// What a rule wants of a resource.
struct Wanted<'a> {
    index: usize,
    rule: &'a Rule,
    /// Where its name is.
    name: Range<usize>,
    tokens: u64,
    has_key: bool,
}

impl Wanted<'_> {
    fn is_refused_unseen(&self) -> bool {
        !self.has_key && self.rule.missing == MissingKey::Reject
    }

    fn decided(&self, decision: Option<Decision>) -> RuleDecision {
        RuleDecision {
            rule: Arc::clone(&self.rule.name),
            decision,
            has_key: self.has_key,
            is_observed: self.rule.is_observed,
            index: self.index,
        }
    }
}

/// What is wanted of a request's resources.
#[derive(Default)]
struct AllWanted<'a> {
    /// Their names, one after the other.
    names: String,
    enforced: SmallVec<[Wanted<'a>; 2]>,
    observed: Vec<Wanted<'a>>,
}

impl AllWanted<'_> {
    fn name(&self, wanted: &Wanted<'_>) -> &str {
        &self.names[wanted.name.clone()]
    }
}

impl Rules {
    pub(super) fn apply(&self, request: &request::Parts) -> Verdict {
        let is_skipped = self.skip_if.as_ref().is_some_and(|skip| skip(request));
        let all = if is_skipped { AllWanted::default() } else { self.wanted(request) };
        if all.enforced.is_empty() && all.observed.is_empty() {
            // Without decisions a handler that extracts them would fail, whenever a client has no key.
            return Verdict::Admitted(Held::default(), Decisions::new(Decided::new()));
        }
        let mut held = Held::default();
        let mut decided = Decided::new();
        let refused = self.enforce(&all, &mut held, &mut decided).err();
        if refused.is_none() && !all.observed.is_empty() {
            for wanted in &all.observed {
                let take = || self.take(wanted, all.name(wanted), &mut held);
                let decision = (!wanted.is_refused_unseen()).then(take);
                decided.push(wanted.decided(decision));
            }
            decided.sort_by_key(|decision| decision.index);
        }
        let decisions = Decisions::new(decided);
        if let Some(inspect) = &self.inspect {
            inspect(request, &decisions);
        }
        match refused {
            Some((rule, cause)) => Verdict::Refused(Refusal { rule, cause, decisions }),
            None => Verdict::Admitted(held, decisions),
        }
    }

    /// What the rules that apply want.
    fn wanted(&self, request: &request::Parts) -> AllWanted<'_> {
        let find = || match &self.peer_addr {
            Some(find) => find(request).or_else(|| PeerAddr::find(&request.extensions)),
            None => PeerAddr::find(&request.extensions),
        };
        let peer = find().map(|peer| peer.ip().to_canonical());
        let mut all = AllWanted { names: String::with_capacity(128), ..AllWanted::default() };
        let names = &mut all.names;
        for (index, rule) in self.list.iter().enumerate() {
            if rule.skip_if.as_ref().is_some_and(|skip| skip(request)) {
                continue;
            }
            let start = names.len();
            let written = rule.write_resource(request, peer, names);
            if written == Err(NoKey::Absent) && rule.missing == MissingKey::Skip {
                names.truncate(start);
                continue;
            }
            let has_key = written.is_ok();
            let tokens = rule.cost.as_ref().map_or(1, |cost| cost(request));
            let wanted = Wanted { index, rule, name: start..names.len(), tokens, has_key };
            if rule.is_observed {
                all.observed.push(wanted);
            } else {
                all.enforced.push(wanted);
            }
        }
        all
    }

    /// Takes the tokens of all that are enforced, or of none.
    fn enforce(
        &self,
        all: &AllWanted<'_>,
        held: &mut Held,
        decided: &mut Decided,
    ) -> Result<(), (usize, Cause)> {
        let enforced = &all.enforced;
        if let Some(wanted) = enforced.iter().find(|wanted| wanted.is_refused_unseen()) {
            decided.push(wanted.decided(None));
            return Err((wanted.index, Cause::MissingKey));
        }
        if let [wanted] = &enforced[..] {
            let decision = self.take(wanted, all.name(wanted), held);
            decided.push(wanted.decided(Some(decision)));
            return decision.outcome.map_err(|error| (wanted.index, Cause::Limit(error)));
        }
        let asked: SmallVec<[(&str, u64); 4]> =
            enforced.iter().map(|wanted| (all.name(wanted), wanted.tokens)).collect();
        let (result, decisions) = match self.limiter.admit_all(&asked) {
            Ok((permits, decisions)) => (Ok(permits), decisions),
            Err((error, decisions)) => (Err(error), decisions),
        };
        let each = enforced.iter().zip(decisions);
        decided.extend(each.map(|(wanted, decision)| wanted.decided(Some(decision))));
        let of_resource = |name: &str| enforced.iter().find(|wanted| all.name(wanted) == name);
        let permits = result.map_err(|error| {
            let index = of_resource(&error.resource).map_or(0, |wanted| wanted.index);
            (index, Cause::Limit(error.cause))
        })?;
        for permit in permits.into_parts() {
            if let Some(wanted) = of_resource(permit.resource()) {
                hold(wanted.rule, permit, held);
            }
        }
        Ok(())
    }

    /// Takes the tokens of one rule.
    fn take(&self, wanted: &Wanted<'_>, name: &str, held: &mut Held) -> Decision {
        if !wanted.rule.needs_permit() {
            return self.limiter.decide(name, wanted.tokens);
        }
        match self.limiter.admit(name, wanted.tokens) {
            Ok((permit, decision)) => {
                hold(wanted.rule, permit, held);
                decision
            }
            Err(denied) => denied,
        }
    }
}

fn hold(rule: &Rule, permit: Permit<'static>, held: &mut Held) {
    if rule.needs_permit() {
        held.push(HeldPermit::new(permit, rule.charge_if.clone(), rule.holds()));
    }
}
