//! The cuts of other agents. Only a swarm has them.

use super::cut::{Cut, Plain, RecoveryCurve};
use super::{CutState, Incident, nanos};

/// Factors that are closer to each other than this part of them are equal: JSON parsers round.
const EQUAL: f64 = 1e-9;

/// Nanoseconds by which agents may disagree on a cut's date, because messages are delayed and
/// passed on; at most half the interval of the recovery.
const DATE_TOLERANCE: i128 = 10_000_000_000;
/// Nanoseconds. Agents whose steps of a recovery are no further apart need no message about it.
const NOTICEABLE: i128 = 1_000_000_000;

impl CutState {
    /// The cuts that still stand. Without a cap they are kept after they have recovered.
    pub(crate) fn cuts(&self, now: u64) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().filter(move |cut| cut.least_at(now, &self.curve) < 1.0)
    }

    /// Another agent that tracks incidents has cut. Whether the cut counts here.
    pub(crate) fn merge(&mut self, cut: Cut, now: u64) -> bool {
        let mut all = self.cuts.iter().chain(&self.spent);
        let update = match all.find(|known| known.id == cut.id) {
            Some(known) => known.amended(&cut, &self.curve),
            None => Some(cut),
        };
        // Without a cap a cut may leave more than the configured limit.
        let (curve, most) = (self.curve, self.factor.max(1.0));
        let is_of_use = |cut: &Cut| {
            cut.least_at(now, &curve) < most
                && (curve.ceiling <= 1.0 || cut.factor_at(now, &curve) < most)
        };
        let Some(cut) = update.filter(is_of_use) else { return false };
        self.cuts.retain(|known| known.id != cut.id);
        self.spent.retain(|known| known.id != cut.id);
        let (before, start) = (self.factor, cut.start);
        let soon = self.factor_soon(now);
        let counts = self.insert(cut, now);
        self.advance(now);
        if self.factor < before {
            self.note_incident(before, soon, start, now);
        }
        counts
    }

    /// The factor in a moment: an agent whose step of the recovery is due may hear the cut of one that has taken it.
    fn factor_soon(&self, now: u64) -> f64 {
        let at = now.saturating_add(NOTICEABLE as u64);
        let factors = self.cuts.iter().map(|cut| cut.factor_at(at, &self.curve));
        factors.reduce(f64::min).unwrap_or(1.0).max(self.factor)
    }

    /// An agent that tracks no incidents announces `tokens` a window, which are `factor` of the limit here.
    /// That is one refusal, and cuts no further than one of our own, because that agent may have cut for
    /// each request of an incident. Returns whether the cut counts here.
    pub(crate) fn merge_plain(&mut self, cut: Cut, tokens: u64, now: u64) -> bool {
        let known = self.cuts.iter().chain(&self.spent).find(|known| known.id == cut.id);
        let floor = known.and_then(|known| known.plain).map_or_else(
            || {
                // At its own date: it may have been heard before there was such a resource here.
                let cooldown = i128::from(nanos(self.policy.cooldown));
                let of_its_time = |last: &Incident| (cut.start - last.at).abs() < cooldown;
                let incident = self.incident.filter(of_its_time);
                let level = incident.map_or(self.factor, |incident| incident.level);
                level * self.policy.reduce
            },
            |plain| plain.floor,
        );
        self.merge(cut.announced_as(Plain { tokens, floor }), now)
    }

    /// The fewest tokens a window that an agent has now which tracks no incidents, by what it has announced
    /// and as far as it has recovered, while its cut stands.
    pub(crate) fn fewest_announced(&self, now: u64) -> Option<u64> {
        let tokens = |cut: &Cut| Some(cut.plain?.recovered(now, cut.start, &self.curve));
        self.cuts(now).filter_map(tokens).min()
    }

    /// Whether an agent that knows the cuts `theirs` lacks one that stands here.
    pub(crate) fn is_ahead_of(&self, theirs: &[Cut], now: u64) -> bool {
        let is_known =
            |cut: &Cut| theirs.iter().any(|known| known.stands_for(cut, now, &self.curve));
        !self.cuts(now).all(is_known)
    }

    /// Another agent's cut, made at `start`, has lowered the factor from `before`, which would have been `soon` in a
    /// moment.
    fn note_incident(&mut self, before: f64, soon: f64, start: i128, now: u64) {
        // This far is as good as our own cut: agents may be a step of the recovery apart.
        let enough = self.policy.reduce + (1.0 - self.policy.reduce) / 4.0;
        let joined = self.open_incident(now).filter(|_| self.factor > before * enough);
        // A cut that is received late does not end our incident early.
        let at = self.incident.map_or(start, |last| start.max(last.at));
        let mut incident = joined.unwrap_or(Incident { level: before, at, is_full: false });
        if !incident.is_full && self.factor <= incident.level.max(soon) * enough {
            incident.is_full = true;
            self.full_incidents += 1;
            self.since.restart(now);
        }
        self.incident = Some(incident);
    }
}

impl Cut {
    /// This cut, whose factor is that of the announced tokens here, at no lower than the floor.
    pub(crate) fn announced_as(self, plain: Plain) -> Self {
        Self { factor: self.factor.max(plain.floor), plain: Some(plain), ..self }
    }

    /// Whether it goes no less far than another message of the same cut: for every limit, if both are in
    /// tokens.
    fn goes_as_far_as(&self, other: &Self) -> bool {
        let most = 1.0 + EQUAL;
        match (self.plain, other.plain) {
            (Some(plain), Some(other)) => {
                plain.tokens <= other.tokens && plain.floor <= other.floor * most
            }
            _ => self.factor <= other.factor * most,
        }
    }

    /// This cut updated by another message of it, if that changes anything: the factor may become
    /// lower, and the date later, if by more than the tolerance. So no agent can bring the recovery
    /// forward, and a cut that is repeated does not get younger by the delay of each message.
    pub(super) fn amended(&self, other: &Self, curve: &RecoveryCurve) -> Option<Self> {
        let is_further = !self.goes_as_far_as(other);
        let is_later = other.start > self.start + curve.tolerance();
        let mut amended = self.clone();
        if is_further {
            amended.factor = other.factor.min(self.factor);
            amended.plain = match (self.plain, other.plain) {
                (Some(plain), Some(other)) => Some(Plain {
                    tokens: plain.tokens.min(other.tokens),
                    floor: plain.floor.min(other.floor),
                }),
                _ => other.plain,
            };
        }
        if is_later {
            amended.start = other.start;
        }
        (is_further || is_later).then_some(amended)
    }

    /// Whether an agent with this cut is not noticeably above `other`, now or later.
    pub(super) fn stands_for(&self, other: &Self, now: u64, curve: &RecoveryCurve) -> bool {
        if self.id == other.id {
            self.goes_as_far_as(other) && self.start + curve.tolerance() >= other.start
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
