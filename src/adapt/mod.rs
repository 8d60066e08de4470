//! What a resource does after its upstream said "too many requests": cuts, incidents, and the curve
//! back. Pure state; time is passed in.
//!
//! # Cuts
//!
//! A cut is what it left of the limit, and its date. From these two and the recovery follows what it
//! scales the limit by at any later time. A resource is scaled by the lowest of its cuts. So agents
//! that know of the same cuts are at the same factor at the same time, in whatever order and however
//! often they heard of them, and hearing of one more never raises a limit. Of a cut that is told again
//! the lower factor counts, and the date only if it is much later: hearing never raises here either.
//!
//! # Incidents
//!
//! Many requests are refused at once when an upstream has had enough, and all of these refusals are
//! one incident, which is worth one cut. It begins with a cut that takes effect here, be it ours or a
//! neighbour's, at the date of that cut. A refusal belongs to it if the cooldown has not passed, or if its request was sent
//! before, however long that took. It cuts only where the incident has not cut as far yet, and then
//! from the level before it.

mod cut;

use std::collections::VecDeque;
use std::time::Duration;

use cut::RecoveryCurve;
pub(crate) use cut::{Cut, CutTarget, Origin};

/// How a limit that was cut recovers.
///
/// Every `interval` after a cut the limit is multiplied by `factor`, on the exact factor and not on
/// the whole tokens that are shown, so that it always arrives at the original: from 1 as well.
/// Recovery is lazy: a step takes effect, at the time it was due, when somebody next uses or asks
/// after the resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// Time between two steps, and from a cut to the first: at least 1 ms.
    pub interval: Duration,
    /// What each step multiplies the limit by: above 1, and finite.
    pub factor: f64,
    /// Stop at the original limit. **Without a cap the limit grows past what was configured**, a
    /// step at a time, up to 1,024 times of it.
    pub cap: bool,
}

impl Default for Recovery {
    /// 10 % every 30 seconds, up to the original.
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), factor: 1.1, cap: true }
    }
}

/// Far longer than a step takes, so that whoever catches up with what is due gets done.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

impl Recovery {
    pub(crate) fn is_valid(&self) -> bool {
        self.factor.is_finite() && self.factor > 1.0 && self.interval >= SHORTEST_INTERVAL
    }
}

/// How a limiter reacts to refusals, where a limit does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policy {
    /// What a cut multiplies a limit by.
    pub(crate) reduce: f64,
    pub(crate) recovery: Option<Recovery>,
    /// How long an incident lasts, for requests that were sent after its cut.
    pub(crate) cooldown: Duration,
}

/// Where a recovery without a cap ends.
const CEILING: f64 = 1024.0;
/// So many cuts are kept, of which none covers another: they lie within one step of the recovery.
/// Agents with one policy have one or two.
pub(crate) const MOST_CUTS: usize = 8;
/// So many that count no more are remembered. A cut that was forgotten and is told once more seems to
/// be younger, by what messages take.
const MOST_SPENT: usize = 64;

/// What a resource's limit is scaled by at present, and when that changes.
#[derive(Clone, Debug)]
pub(crate) struct CutState {
    policy: Policy,
    curve: RecoveryCurve,
    /// None of them covers another.
    cuts: Vec<Cut>,
    /// What another covers, or has recovered.
    spent: VecDeque<Cut>,
    factor: f64,
    due: Option<u64>,
    incident: Option<Incident>,
    /// How many incidents were cut for in full.
    full_incidents: u64,
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    /// The factor before it.
    level: f64,
    /// When its cut was made.
    at: i128,
    /// Whether it has been cut for about as far as our own cut goes.
    is_full: bool,
}

impl CutState {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            curve: RecoveryCurve::new(policy.recovery),
            cuts: Vec::new(),
            spent: VecDeque::new(),
            factor: 1.0,
            due: None,
            incident: None,
            full_incidents: 0,
        }
    }

    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// When the next step of the recovery takes effect.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    /// How many incidents were cut for in full: what a permit notes when it is granted.
    pub(crate) fn full_incidents(&self) -> u64 {
        self.full_incidents
    }

    /// The cuts that still stand: without a cap they are kept beyond.
    pub(crate) fn cuts(&self, now: u64) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().filter(move |cut| cut.factor_at(now, &self.curve) < 1.0)
    }

    /// Nothing is cut, and a refusal would cut.
    pub(crate) fn is_quiet(&self, now: u64) -> bool {
        self.cuts.is_empty() && self.lasting(now).is_none()
    }

    /// The upstream refused a request, which was sent when `seen` incidents had been cut for, if
    /// that is known. Cut, but not below `least`, unless it belongs to an incident that has been cut
    /// for. The cut is `make`s of its factor; whether there was one.
    pub(crate) fn refused(
        &mut self,
        seen: Option<u64>,
        least: f64,
        now: u64,
        make: impl FnOnce(f64) -> Cut,
    ) -> bool {
        let incident = self.lasting(now);
        let sent_before = seen.is_some_and(|seen| seen < self.full_incidents);
        if sent_before || incident.is_some_and(|incident| incident.is_full) {
            return false;
        }
        let shallow = incident.filter(|incident| !incident.is_full);
        let level = shallow.map_or(self.factor, |incident| incident.level);
        let target = (level * self.policy.reduce).max(least.min(self.factor));
        self.incident = Some(Incident { level, at: now.into(), is_full: true });
        self.full_incidents += 1;
        self.insert(make(target), now);
        self.advance(now);
        true
    }

    /// A neighbour that knows of incidents cut. Whether that counts here.
    pub(crate) fn merge(&mut self, cut: Cut, now: u64) -> bool {
        let mut all = self.cuts.iter().chain(&self.spent);
        let news = match all.find(|known| known.id == cut.id) {
            Some(known) => known.amended(&cut, &self.curve),
            None => Some(cut),
        };
        let Some(cut) = news.filter(|cut| cut.factor_at(now, &self.curve) < 1.0) else {
            return false;
        };
        self.cuts.retain(|known| known.id != cut.id);
        self.spent.retain(|known| known.id != cut.id);
        let (before, start) = (self.factor, cut.start);
        let counts = self.insert(cut, now);
        self.advance(now);
        if self.factor < before {
            self.took_effect(before, start, now);
        }
        counts
    }

    /// A neighbour that does not know of incidents cut: of one that we know of too it is heard as
    /// far as our own cut would go, for it may have cut for each of the refusals. Whether that
    /// counts here.
    pub(crate) fn merge_untracked(&mut self, cut: Cut, now: u64) -> bool {
        let cooldown = i128::from(nanos(self.policy.cooldown));
        let incident = self.incident.filter(|incident| (cut.start - incident.at).abs() < cooldown);
        let floor = incident.map_or(0.0, |incident| incident.level * self.policy.reduce);
        self.merge(cut.no_lower_than(floor), now)
    }

    /// Whether a neighbour that knows of the cuts `told` does not know of one that stands here.
    pub(crate) fn is_ahead_of(&self, told: &[Cut], now: u64) -> bool {
        let is_known = |cut: &Cut| told.iter().any(|known| known.stands_for(cut, now, &self.curve));
        !self.cuts(now).all(is_known)
    }

    /// A neighbour's cut that was made at `start` lowered the factor, from `before`.
    fn took_effect(&mut self, before: f64, start: i128, now: u64) {
        // As good as our own: agents may be a step of the recovery apart.
        let enough = self.policy.reduce + (1.0 - self.policy.reduce) / 4.0;
        let joined = self.lasting(now).filter(|_| self.factor > before * enough);
        // One that is heard of late does not end ours early.
        let at = self.incident.map_or(start, |last| start.max(last.at));
        let mut incident = joined.unwrap_or(Incident { level: before, at, is_full: false });
        if !incident.is_full && self.factor <= incident.level * enough {
            incident.is_full = true;
            self.full_incidents += 1;
        }
        self.incident = Some(incident);
    }

    /// The last incident, if its cooldown has not passed.
    fn lasting(&self, now: u64) -> Option<Incident> {
        let cooldown = i128::from(nanos(self.policy.cooldown));
        self.incident.filter(|incident| i128::from(now) - incident.at < cooldown)
    }

    /// Whether it counts, as no other covers it.
    fn insert(&mut self, cut: Cut, now: u64) -> bool {
        let curve = self.curve;
        let counts = !self.cuts.iter().any(|known| known.covers(&cut, now, &curve));
        if counts {
            self.spent.extend(self.cuts.extract_if(.., |known| cut.covers(known, now, &curve)));
            self.cuts.push(cut);
            self.combine_lowest(now);
        } else {
            self.spent.push_back(cut);
        }
        counts
    }

    /// Where there are too many cuts, the next to lowest takes the lowest's place. As neither covers
    /// the other, it steps later: so it scales by no more than either would have.
    fn combine_lowest(&mut self, now: u64) {
        if self.cuts.len() <= MOST_CUTS {
            return;
        }
        let curve = self.curve;
        self.cuts.sort_by(|a, b| a.factor_at(now, &curve).total_cmp(&b.factor_at(now, &curve)));
        let lowest = self.cuts.remove(0);
        self.cuts[0].lower_to(lowest.factor_at(now, &curve), now, &curve);
        self.spent.push_back(lowest);
    }

    /// Go by the factor of `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        let curve = self.curve;
        if curve.ceiling <= 1.0 {
            let is_over = |cut: &mut Cut| cut.factor_at(now, &curve) >= curve.ceiling;
            self.spent.extend(self.cuts.extract_if(.., is_over));
        }
        let surplus = self.spent.len().saturating_sub(MOST_SPENT);
        self.spent.drain(..surplus);
        let lowest = self.cuts.iter().map(|cut| cut.factor_at(now, &curve)).reduce(f64::min);
        self.factor = lowest.unwrap_or(1.0);
        self.due = self.cuts.iter().filter_map(|cut| cut.next_step(now, &curve)).min();
    }

    /// Another policy from now on; the factor stays.
    pub(crate) fn react_by(&mut self, policy: Policy, now: u64) {
        let curve = RecoveryCurve::new(policy.recovery);
        if self.policy.recovery != policy.recovery {
            for cut in self.cuts.iter_mut().chain(&mut self.spent) {
                cut.restart(cut.factor_at(now, &self.curve).min(curve.ceiling), now);
            }
        }
        (self.policy, self.curve) = (policy, curve);
        self.advance(now);
    }

    /// The limit has no room for so large a factor: only one without a cap is.
    pub(crate) fn halve(&mut self) {
        self.curve.ceiling = (self.factor / 2.0).max(1.0);
        self.factor = self.curve.ceiling;
    }
}

impl RecoveryCurve {
    fn new(recovery: Option<Recovery>) -> Self {
        let cap = recovery.is_none_or(|recovery| recovery.cap);
        Self { recovery, ceiling: if cap { 1.0 } else { CEILING } }
    }
}

/// A duration in whole nanoseconds, saturating after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
