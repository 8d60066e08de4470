//! How a resource reacts when its upstream refuses requests ("too many requests"): cuts, incidents
//! and recovery. Pure state; time is passed in.
//!
//! # Cuts
//!
//! A cut is the factor that it left of the limit, and its date. With the recovery these give the
//! factor at any later time. A resource is scaled by the lowest of its cuts. So agents that know
//! the same cuts are at the same factor at the same time, in whatever order and however often they
//! received them, and one more cut never raises a limit. Nor does a known cut that is received
//! again: a factor replaces its own only if it is lower, a date only if it is much later.
//!
//! An agent of another kind (Go) announces tokens instead of a factor. They are another factor of each
//! limit, but no less than one refusal leaves: a floor. Which of such cuts count follows from tokens and
//! floors alone, and is the same on every agent, whatever its limit.
//!
//! # Incidents
//!
//! An overloaded upstream refuses many requests at once. All these refusals are one incident, which
//! is worth one cut. An incident begins with a cut that takes effect here, our own or another
//! agent's, at the date of that cut. A refusal belongs to it if the cooldown has not passed, or if
//! its request was sent before the cut, however long that took. It cuts only if the incident has
//! not yet cut as far as our own cut goes, and then from the level before the incident.
//!
//! # What is not shared
//!
//! An [adaptive] limit is scaled by what it has found itself, and by no cut.
//!
//! A refusal of a request of our own also sets a [ceiling], from the rate that was really admitted. If
//! [nothing gets through](blocked), a refusal opens a pause instead.

mod adaptive;
mod allotment;
mod blocked;
mod ceiling;
mod cut;
mod meter;
mod pacing;
mod pause;
#[cfg(feature = "swarm")]
mod remote;

use std::collections::VecDeque;
use std::time::Duration;

use adaptive::Adaptive;
pub(crate) use adaptive::{Range, Usage};
pub(crate) use allotment::{Allotment, Segment};
use blocked::SinceCut;
use ceiling::Ceiling;
#[cfg(feature = "swarm")]
pub(crate) use cut::Plain;
use cut::RecoveryCurve;
pub(crate) use cut::{Cut, Origin};
pub(crate) use meter::{Meter, SPACING};
pub(crate) use pacing::Pacing;
pub(crate) use pause::{Pause, Pauses};

/// How a limit recovers after a cut.
///
/// Every `interval` after a cut the limit is multiplied by `factor`: exactly, not by the displayed
/// whole tokens, so a limit always recovers in full, even from 1 token. Recovery is lazy: a step
/// takes effect, as of the time it was due, when the resource is next used or queried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// Time between two steps, and from a cut to the first: at least 1 ms.
    pub interval: Duration,
    /// The factor by which each step multiplies the limit: above 1, and finite.
    pub factor: f64,
    /// Whether recovery stops at the original limit. **Without a cap the limit grows beyond the
    /// configured one**, step by step, up to 1,024 times of it.
    pub cap: bool,
}

impl Default for Recovery {
    /// 10 % every 30 seconds, up to the original limit.
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), factor: 1.1, cap: true }
    }
}

/// Far longer than applying a step takes, so that a caller that catches up on due steps finishes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

impl Recovery {
    pub(crate) fn is_valid(&self) -> bool {
        self.factor.is_finite() && self.factor > 1.0 && self.interval >= SHORTEST_INTERVAL
    }
}

/// How a limiter reacts to refusals, unless a limit says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policy {
    /// The factor by which a cut multiplies a limit.
    pub(crate) reduce: f64,
    pub(crate) recovery: Option<Recovery>,
    /// How long an incident lasts, for requests that were sent after its cut.
    pub(crate) cooldown: Duration,
    /// The lowest factor that cuts of any agent leave here.
    pub(crate) floor: f64,
}

/// The factor at which a recovery without a cap ends.
const CEILING: f64 = 1024.0;
/// Most cuts kept. None covers another, so their factors lie within one step of the recovery.
/// Agents with one policy have one or two.
pub(crate) const MOST_CUTS: usize = 8;
/// Most cuts remembered that no longer count. A cut that was forgotten and is received again
/// appears younger, by the time that messages take.
const MOST_SPENT: usize = 64;

/// The factor that scales a resource's limit at present, and when it changes.
#[derive(Clone, Debug)]
pub(crate) struct CutState {
    policy: Policy,
    curve: RecoveryCurve,
    /// None of them covers another.
    cuts: Vec<Cut>,
    /// Covered by another, or recovered.
    spent: VecDeque<Cut>,
    factor: f64,
    due: Option<u64>,
    incident: Option<Incident>,
    /// Incidents that were cut for in full.
    full_incidents: u64,
    since: SinceCut,
    ceiling: Option<Ceiling>,
    /// That of the ceiling at present; infinite without one.
    ceiling_level: f64,
    adaptive: Option<Adaptive>,
    /// What was in use when a step came due.
    usage: Usage,
}

/// What a refusal leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It belongs to an incident that was cut for.
    Nothing,
    Cut,
    /// Nothing gets through: a pause of this many nanoseconds.
    Pause(u64),
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    /// The factor before it.
    level: f64,
    /// The date of its cut.
    at: i128,
    /// Whether its cuts go about as far as our own cut would.
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
            since: SinceCut::new(),
            ceiling: None,
            ceiling_level: f64::INFINITY,
            adaptive: None,
            usage: Usage::default(),
        }
    }

    /// The factor that the cuts leave of the limit, the same on every agent.
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// The factor in force here: the ceiling's, if that is lower.
    pub(crate) fn scale(&self) -> f64 {
        self.adaptive.map_or(self.factor.min(self.ceiling_level), |adaptive| adaptive.level)
    }

    /// When the next step of a recovery takes effect.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Incidents that were cut for in full. A permit stores this when it is granted.
    pub(crate) fn full_incidents(&self) -> u64 {
        self.full_incidents
    }

    /// Whether nothing is cut, and a refusal would cut.
    pub(crate) fn is_quiet(&self, now: u64) -> bool {
        self.cuts.is_empty() && self.ceiling.is_none() && self.open_incident(now).is_none()
    }

    /// The upstream refused a request. `seen` is [`full_incidents`](Self::full_incidents) when it
    /// was sent, if known. Cut, but not below `least`, unless the refusal belongs to an incident
    /// that was cut for in full, or nothing gets through. `make` makes the cut from its factor.
    pub(crate) fn refused(
        &mut self,
        seen: Option<u64>,
        least: f64,
        now: u64,
        make: impl FnOnce(f64) -> Cut,
    ) -> Reaction {
        if self.is_stale(seen) {
            return Reaction::Nothing;
        }
        let incident = self.open_incident(now);
        let pause = seen.and_then(|_| {
            let mut since = self.since;
            let pause = since.next_pause();
            self.since.refused();
            pause
        });
        if incident.is_some_and(|incident| incident.is_full) {
            return Reaction::Nothing;
        }
        let shallow = incident.filter(|incident| !incident.is_full);
        let level = shallow.map_or(self.factor, |incident| incident.level);
        self.incident = Some(Incident { level, at: now.into(), is_full: true });
        self.full_incidents += 1;
        if let Some(length) = pause {
            self.since.next_pause();
            return Reaction::Pause(length);
        }
        self.since.restart(now);
        let target = (level * self.policy.reduce).max(least.min(self.factor));
        self.insert(make(target), now);
        self.advance(now);
        Reaction::Cut
    }

    /// Whether a request was sent before the last incident was cut for.
    pub(crate) fn is_stale(&self, seen: Option<u64>) -> bool {
        seen.is_some_and(|seen| seen < self.full_incidents)
    }

    /// A request ended that was not refused. `seen` as in [`refused`](Self::refused).
    pub(crate) fn got_through(&mut self, seen: u64) {
        if seen >= self.full_incidents {
            self.since.got_through();
        }
    }

    /// Whether it matters that requests end: there was a cut, and nothing is known to get through since.
    pub(crate) fn watches_ends(&self) -> bool {
        self.full_incidents > 0 && self.since.is_open()
    }

    /// Sets a ceiling of `part` of what was sent before, `from`, as factors of the limit, but not below `least`:
    /// if that is lower than the factor in force.
    pub(crate) fn set_ceiling(&mut self, part: f64, from: f64, least: f64, now: u64) {
        let level = (from * part).max(least);
        if level < self.scale() && !self.is_adaptive() {
            self.ceiling = Ceiling::new(level, from.max(level), now, &self.curve);
            self.advance(now);
        }
    }

    /// Finds the limit within `range`, or no longer. The limit is `ratio` of what it was: a rate that was found
    /// stays, and that of a ceiling, which has been [rebased](Self::rebase_ceiling).
    pub(crate) fn adapt(&mut self, range: Option<Range>, ratio: f64, now: u64) {
        let in_force = self.scale();
        match (&mut self.adaptive, range) {
            (Some(adaptive), Some(range)) => adaptive.change(range, ratio),
            (adaptive, range) => {
                *adaptive = range.map(|range| Adaptive::new(range, in_force, now));
            }
        }
        self.advance(now);
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.adaptive.is_some()
    }

    /// A request was refused. `through` is the rate that got through, as a factor of the limit. Whether the limit
    /// is adaptive.
    pub(crate) fn cut_adaptive(&mut self, through: f64, now: u64) -> bool {
        let Some(adaptive) = &mut self.adaptive else { return false };
        adaptive.cut(through, now);
        self.advance(now);
        true
    }

    /// Whether steps of an adaptive limit that are due leave it as it is: nothing else is to recover.
    pub(crate) fn is_idle(&self) -> bool {
        let idles = self.adaptive.is_some_and(|adaptive| !adaptive.is_in_use(self.usage));
        idles && self.cuts.is_empty() && self.ceiling.is_none()
    }

    /// What is in use, before steps that are due are taken.
    pub(crate) fn set_usage(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// Refusals of requests that were sent since the last cut.
    pub(crate) fn refused_since(&self) -> u64 {
        self.since.count().into()
    }

    /// Whether a ceiling stands, in force or not.
    pub(crate) fn has_ceiling(&self) -> bool {
        self.ceiling.is_some()
    }

    /// The part of what was sent that a refusal leaves.
    pub(crate) fn reduction(&self) -> f64 {
        self.policy.reduce
    }

    /// The limit changes to `ratio` of what it was: a ceiling is a rate, and stays.
    pub(crate) fn rebase_ceiling(&mut self, ratio: f64, now: u64) {
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.rebase(ratio);
        }
        self.advance(now);
    }

    /// The last incident, if its cooldown has not passed.
    fn open_incident(&self, now: u64) -> Option<Incident> {
        let cooldown = i128::from(nanos(self.policy.cooldown));
        self.incident.filter(|incident| i128::from(now) - incident.at < cooldown)
    }

    /// Add a cut. Whether it counts: no other covers it.
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

    /// If there are too many cuts, the next to lowest takes the lowest's place, and its factor. As
    /// neither covers the other, it steps later, so it scales by no more than either would have.
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

    /// Set the factor to that of `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        let curve = self.curve;
        if curve.ceiling <= 1.0 {
            let is_over = |cut: &mut Cut| cut.least_at(now, &curve) >= curve.ceiling;
            self.spent.extend(self.cuts.extract_if(.., is_over));
        }
        let surplus = self.spent.len().saturating_sub(MOST_SPENT);
        self.spent.drain(..surplus);
        let lowest = self.cuts.iter().map(|cut| cut.factor_at(now, &curve)).reduce(f64::min);
        self.factor = lowest.map_or(1.0, |lowest| lowest.max(self.policy.floor));
        let level = |ceiling: &Ceiling| ceiling.level_at(now, 1.0, &curve);
        self.ceiling_level = self.ceiling.as_ref().map_or(f64::INFINITY, level);
        self.ceiling.take_if(|_| self.ceiling_level.is_infinite());
        let steps = self.cuts.iter().filter_map(|cut| cut.next_step(now, &curve));
        let step = self.ceiling.and_then(|ceiling| ceiling.next_step(now, &curve));
        self.due = steps.chain(step).min();
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.advance(now, self.usage);
            self.due = Some(self.due.map_or(adaptive.due, |due| due.min(adaptive.due)));
        }
    }

    /// The same state, to look ahead by [`advance`](Self::advance).
    pub(crate) fn outlook(&self) -> Self {
        let (cuts, spent) = (self.cuts.clone(), VecDeque::new());
        Self { cuts, spent, ..*self }
    }

    /// Use another policy from now on. The factor stays.
    pub(crate) fn react_by(&mut self, policy: Policy, now: u64) {
        let curve = RecoveryCurve::new(policy.recovery);
        if self.policy.recovery != policy.recovery {
            let level = self.ceiling_level;
            self.ceiling = self.ceiling.and_then(|ceiling| ceiling.restarted(level, now, &curve));
            for cut in self.cuts.iter_mut().chain(&mut self.spent) {
                cut.restart(now, &self.curve, curve.ceiling);
            }
        }
        (self.policy, self.curve) = (policy, curve);
        self.advance(now);
    }

    /// Halve a factor that is too large for the limit. Only a recovery without a cap reaches one.
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

#[cfg(all(test, feature = "swarm"))] // half of them are of other agents' cuts
mod tests;

#[cfg(test)]
mod local_tests;
