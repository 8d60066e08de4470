//! The cuts of other agents. Only a swarm has them.

use super::cut::{Cut, RecoveryCurve};
use super::{CutState, Incident, nanos};

/// Nanoseconds by which agents may disagree on a cut's date, because messages are delayed and
/// passed on; at most half the interval of the recovery.
const DATE_TOLERANCE: i128 = 10_000_000_000;
/// Nanoseconds. Agents whose steps of a recovery are no further apart need no message about it.
const NOTICEABLE: i128 = 1_000_000_000;

/// How far a cut goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CutTarget {
    /// To this factor of the limit.
    Factor(f64),
    /// To this many tokens a window: from an agent that knows neither factors nor incidents.
    Tokens(u64),
}

impl CutState {
    /// The cuts that still stand. Without a cap they are kept after they have recovered.
    pub(crate) fn cuts(&self, now: u64) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().filter(move |cut| cut.factor_at(now, &self.curve) < 1.0)
    }

    /// Another agent that tracks incidents has cut. Whether the cut counts here.
    pub(crate) fn merge(&mut self, cut: Cut, now: u64) -> bool {
        let mut all = self.cuts.iter().chain(&self.spent);
        let update = match all.find(|known| known.id == cut.id) {
            Some(known) => known.amended(&cut, &self.curve),
            None => Some(cut),
        };
        let Some(cut) = update.filter(|cut| cut.factor_at(now, &self.curve) < 1.0) else {
            return false;
        };
        self.cuts.retain(|known| known.id != cut.id);
        self.spent.retain(|known| known.id != cut.id);
        let (before, start) = (self.factor, cut.start);
        let counts = self.insert(cut, now);
        self.advance(now);
        if self.factor < before {
            self.note_incident(before, start, now);
        }
        counts
    }

    /// Another agent that tracks no incidents has cut. If we know the incident too, the cut is
    /// applied only as far as our own would go, because that agent may have cut for each of the
    /// refusals. Whether the cut counts here.
    pub(crate) fn merge_untracked(&mut self, cut: Cut, now: u64) -> bool {
        let cooldown = i128::from(nanos(self.policy.cooldown));
        let incident = self.incident.filter(|incident| (cut.start - incident.at).abs() < cooldown);
        let floor = incident.map_or(0.0, |incident| incident.level * self.policy.reduce);
        self.merge(cut.no_lower_than(floor), now)
    }

    /// Whether an agent that knows the cuts `theirs` lacks one that stands here.
    pub(crate) fn is_ahead_of(&self, theirs: &[Cut], now: u64) -> bool {
        let is_known =
            |cut: &Cut| theirs.iter().any(|known| known.stands_for(cut, now, &self.curve));
        !self.cuts(now).all(is_known)
    }

    /// Another agent's cut, made at `start`, has lowered the factor from `before`.
    fn note_incident(&mut self, before: f64, start: i128, now: u64) {
        // This far is as good as our own cut: agents may be a step of the recovery apart.
        let enough = self.policy.reduce + (1.0 - self.policy.reduce) / 4.0;
        let joined = self.open_incident(now).filter(|_| self.factor > before * enough);
        // A cut that is received late does not end our incident early.
        let at = self.incident.map_or(start, |last| start.max(last.at));
        let mut incident = joined.unwrap_or(Incident { level: before, at, is_full: false });
        if !incident.is_full && self.factor <= incident.level * enough {
            incident.is_full = true;
            self.full_incidents += 1;
        }
        self.incident = Some(incident);
    }
}

impl Cut {
    pub(crate) fn told_in(self, tokens: Option<u64>) -> Self {
        Self { tokens, ..self }
    }

    /// This cut at no lower than `floor`, now and whenever it is received again. A cut in tokens is
    /// passed on in tokens, raised in proportion.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // one token more does not matter
    pub(super) fn no_lower_than(self, floor: f64) -> Self {
        let rise = (floor / self.factor).max(1.0);
        let tokens = self.tokens.map(|tokens| (tokens as f64 * rise).ceil() as u64);
        Self { floor, factor: self.factor * rise, tokens, ..self }
    }

    /// This cut updated by another message of it, if that changes anything: the factor may become
    /// lower, and the date later, if by more than the tolerance. So no agent can bring the recovery
    /// forward, and a cut that is repeated does not get younger by the delay of each message.
    pub(super) fn amended(&self, other: &Self, curve: &RecoveryCurve) -> Option<Self> {
        let mut amended = self.clone();
        if other.factor.max(self.floor) < self.factor {
            amended = Self { factor: other.factor, tokens: other.tokens, ..amended };
            amended = amended.no_lower_than(self.floor);
        }
        if other.start > self.start + curve.tolerance() {
            amended.start = other.start;
        }
        let has_changed = amended.factor < self.factor || amended.start > self.start;
        has_changed.then_some(amended)
    }

    /// Whether an agent with this cut is not noticeably above `other`, now or later.
    pub(super) fn stands_for(&self, other: &Self, now: u64, curve: &RecoveryCurve) -> bool {
        if self.id == other.id {
            self.factor <= other.factor && self.start + curve.tolerance() >= other.start
        } else {
            let start = self.start + NOTICEABLE.min(curve.tolerance());
            Self { start, ..self.clone() }.covers(other, now, curve)
        }
    }
}

impl RecoveryCurve {
    /// Two dates of a cut that are no further apart count as equal.
    fn tolerance(&self) -> i128 {
        let half = self.recovery.map(|recovery| i128::from(nanos(recovery.interval)) / 2);
        half.map_or(DATE_TOLERANCE, |half| half.min(DATE_TOLERANCE))
    }
}
