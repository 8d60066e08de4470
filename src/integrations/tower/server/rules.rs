//! All rules of a layer, applied to a request.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use http::request;
use smallvec::SmallVec;

use super::decisions::{Cause, Decisions, RuleDecision};
use super::held::{Held, HeldPermit};
use super::key::PeerAddr;
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
    /// No rule applies.
    Skipped,
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
        let (has_key, is_observed) = (self.has_key, self.rule.is_observed);
        RuleDecision { rule: Arc::clone(&self.rule.name), decision, has_key, is_observed }
    }
}

type AllWanted<'a> = SmallVec<[Wanted<'a>; 4]>;
type Decided = SmallVec<[(usize, RuleDecision); 4]>;

impl Rules {
    pub(super) fn apply(&self, request: &request::Parts) -> Verdict {
        if self.skip_if.as_ref().is_some_and(|skip| skip(request)) {
            return Verdict::Skipped;
        }
        let mut names = String::new();
        let all = self.wanted(request, &mut names);
        if all.is_empty() {
            return Verdict::Skipped;
        }
        let (observed, enforced): (AllWanted<'_>, AllWanted<'_>) =
            all.into_iter().partition(|wanted| wanted.rule.is_observed);
        let mut held = Held::default();
        let mut decided = Decided::new();
        let refused = self.enforce(&enforced, &names, &mut held, &mut decided).err();
        if refused.is_none() {
            for wanted in &observed {
                let decision =
                    (!wanted.is_refused_unseen()).then(|| self.take(wanted, &names, &mut held));
                decided.push((wanted.index, wanted.decided(decision)));
            }
            decided.sort_by_key(|(index, _)| *index);
        }
        let decisions = Decisions::new(decided.into_iter().map(|(_, decision)| decision));
        if let Some(inspect) = &self.inspect {
            inspect(request, &decisions);
        }
        match refused {
            Some((rule, cause)) => Verdict::Refused(Refusal { rule, cause, decisions }),
            None => Verdict::Admitted(held, decisions),
        }
    }

    /// What the rules that apply want, with the names one after the other in `names`.
    fn wanted(&self, request: &request::Parts, names: &mut String) -> AllWanted<'_> {
        let find = || match &self.peer_addr {
            Some(find) => find(request).or_else(|| PeerAddr::find(&request.extensions)),
            None => PeerAddr::find(&request.extensions),
        };
        let peer = find().map(|peer| peer.ip().to_canonical());
        let mut all = AllWanted::new();
        for (index, rule) in self.list.iter().enumerate() {
            if rule.skip_if.as_ref().is_some_and(|skip| skip(request)) {
                continue;
            }
            let start = names.len();
            let has_key = rule.write_resource(request, peer, names).is_some();
            if !has_key && rule.missing == MissingKey::Skip {
                names.truncate(start);
                continue;
            }
            let tokens = rule.cost.as_ref().map_or(1, |cost| cost(request));
            all.push(Wanted { index, rule, name: start..names.len(), tokens, has_key });
        }
        all
    }

    /// Takes the tokens of all, or of none.
    fn enforce(
        &self,
        all: &[Wanted<'_>],
        names: &str,
        held: &mut Held,
        decided: &mut Decided,
    ) -> Result<(), (usize, Cause)> {
        if let Some(wanted) = all.iter().find(|wanted| wanted.is_refused_unseen()) {
            decided.push((wanted.index, wanted.decided(None)));
            return Err((wanted.index, Cause::MissingKey));
        }
        if let [wanted] = all {
            let decision = self.take(wanted, names, held);
            decided.push((wanted.index, wanted.decided(Some(decision))));
            return decision.outcome.map_err(|error| (wanted.index, Cause::Limit(error)));
        }
        let name = |wanted: &Wanted<'_>| &names[wanted.name.clone()];
        let asked: SmallVec<[(&str, u64); 4]> =
            all.iter().map(|wanted| (name(wanted), wanted.tokens)).collect();
        let (result, decisions) = match self.limiter.admit_all(&asked) {
            Ok((permits, decisions)) => (Ok(permits), decisions),
            Err((error, decisions)) => (Err(error), decisions),
        };
        let each = all.iter().zip(decisions);
        decided
            .extend(each.map(|(wanted, decision)| (wanted.index, wanted.decided(Some(decision)))));
        let permits = result.map_err(|error| {
            let rule = all.iter().find(|wanted| *error.resource == *name(wanted));
            (rule.map_or(0, |wanted| wanted.index), Cause::Limit(error.cause))
        })?;
        for permit in permits.into_parts() {
            let rule = all.iter().find(|wanted| permit.resource() == name(wanted));
            if let Some(wanted) = rule {
                hold(wanted.rule, permit, held);
            }
        }
        Ok(())
    }

    /// Takes the tokens of one rule.
    fn take(&self, wanted: &Wanted<'_>, names: &str, held: &mut Held) -> Decision {
        let name = &names[wanted.name.clone()];
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
