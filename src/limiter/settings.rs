//! A resource's settings: its limit, how that is scaled, and the slot in force.

use super::admitted::{COUNTS, REFUNDS, WATCHES};
use super::limit::{EachWindow, Limit, Window};
use super::seen::seen_of;
use crate::adapt::{Allotment, CutState, Pacing, Pauses, nanos};
use crate::bucket::rate::Factor;
use crate::bucket::{Level, SlotChange, SlotConfig, SlotState, Terms};
use crate::wait::{FairBucket, RecoveryStep, WindowChange};

/// Steps of a recovery that are taken one by one.
const MAX_STEPS: usize = 1_000;

/// What only a change looks at. Its lock is taken before the queue's.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) limit: Limit,
    pub(super) cuts: CutState,
    pub(super) pauses: Pauses,
    /// The share of a swarm's quota, where the limit is one of a swarm.
    pub(super) share: Option<Allotment>,
    /// What the upstream says is left for some time.
    pub(super) pacing: Option<Pacing>,
    /// The slot in force of the first window.
    pub(super) current: SlotConfig,
}

/// What changes besides the limit and how it is scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingChange<'a> {
    pub(super) state: SlotState,
    pub(super) pause_until: u64,
    pub(super) charge: u64,
    /// The level that the first window keeps at most, in the units of the slot in force.
    pub(super) level: Level,
    /// Whether a pause ends.
    pub(super) resumes: bool,
    /// The limit before, if it changes.
    pub(super) before: Option<&'a Limit>,
}

impl Default for PendingChange<'_> {
    fn default() -> Self {
        Self {
            state: SlotState::Open,
            pause_until: 0,
            charge: 0,
            level: Level::MAX,
            resumes: false,
            before: None,
        }
    }
}

impl Settings {
    /// What observers see of a capacity: whole tokens of the first bucket, and of its window.
    pub(super) fn shown(&self) -> (u64, u64) {
        let per_window = self.per_window(self.limit.first());
        let burst = if self.lacks_share() { 0 } else { self.current.terms.capacity_tokens };
        (burst, per_window)
    }

    /// What accrues in a window at present, in tokens.
    pub(super) fn per_window(&self, window: &Window) -> u64 {
        let scale = self.cuts.scale();
        match &self.share {
            None => self.limit.per_window(window, scale),
            Some(allotment) => {
                allotment.share().map_or(0, |share| share.per_window(nanos(window.length), scale))
            }
        }
    }

    /// Whether there is no share at present of the quota that it is to have one of.
    pub(super) fn lacks_share(&self) -> bool {
        self.share.as_ref().is_some_and(|allotment| allotment.share().is_none())
    }

    /// See [`Entry::seen`](super::entry::Entry::seen).
    pub(super) fn seen(&self) -> u64 {
        let changes = self.share.as_ref().map_or(0, Allotment::changes);
        seen_of(self.cuts.full_incidents(), changes)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.current.state, SlotState::Closed | SlotState::Removed)
    }

    /// Whether all that can be due are steps of an adaptive limit that leave it as it is.
    pub(super) fn is_idle(&self) -> bool {
        let is_open = self.current.state == SlotState::Open;
        is_open && self.pacing.is_none() && self.share.is_none() && self.cuts.is_idle()
    }

    /// When the slot in force of a shared resource ends. A change that takes effect later counts from then on, because
    /// the next share may be less. Takes in the slot had earlier readings.
    pub(super) fn share_end(&self) -> u64 {
        self.share.as_ref().and(self.current.until).unwrap_or(u64::MAX)
    }

    /// When the next step of a recovery takes effect, or a pace or a share ends.
    pub(super) fn due(&self) -> Option<u64> {
        let pace_ends = self.pacing.map(|pacing| pacing.end());
        let share_ends = self.share.as_ref().map(Allotment::due);
        [self.cuts.due(), pace_ends, share_ends].into_iter().flatten().min()
    }

    /// The upstream says that `left` tokens are left until `end`. Returns what is to be installed; `None` if the
    /// report changes nothing.
    pub(super) fn pace(
        &mut self,
        bucket: &FairBucket,
        left: u64,
        now: u64,
        end: u64,
    ) -> Option<PendingChange<'static>> {
        let unit = self.current.terms.unit;
        // Read after `now`. If it holds more by the time that this takes effect, the rest is not kept.
        let level = bucket.level(&mut self.current).min_tokens(left, unit);
        let pacing = Pacing::new(left, level, unit, now, end);
        let replaced = self.pacing.map_or(Some(pacing), |known| known.replaced_by(pacing));
        self.pacing = Some(replaced?);
        let pause_until = if left == 0 { end } else { 0 };
        Some(PendingChange { pause_until, level, ..PendingChange::default() })
    }

    /// Does what is due at `now`, each step at its own time and at the rate of that time. After
    /// [`MAX_STEPS`] steps the rest is taken as one, at `now`.
    pub(super) fn catch_up(&mut self, bucket: &FairBucket, now: u64) {
        let mut steps = if self.is_idle() { MAX_STEPS } else { 0 };
        while !self.is_over() {
            let is_paused = self.current.state == SlotState::Paused;
            let pause_ends = is_paused.then_some(self.current.anchor);
            let step = self.due();
            let next = [pause_ends, step].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= now) else { return };
            steps += 1;
            // A share that ends meanwhile earns nothing from then on.
            let at = if steps < MAX_STEPS { at } else { now.min(self.share_end()).max(at) };
            if self.cuts.due().is_some_and(|step| step <= at) {
                self.cuts.advance(at);
            }
            self.pacing = self.pacing.filter(|pacing| pacing.end() > at);
            if let Some(share) = &mut self.share {
                share.advance(at, now);
            }
            // Void again what permits that ended in the pause have given back.
            let ends = pause_ends.is_some_and(|end| end <= at);
            let level = if ends { self.level_after_pause() } else { Level::MAX };
            self.install(bucket, PendingChange { level, ..PendingChange::default() }, || at);
        }
    }

    /// The level that the first window keeps at most when the pause in force ends.
    pub(super) fn level_after_pause(&self) -> Level {
        if self.pauses.ends_empty() { Level::ZERO } else { Level::MAX }
    }

    /// Installs the limit as it is scaled at present.
    pub(super) fn install(
        &mut self,
        bucket: &FairBucket,
        change: PendingChange<'_>,
        clock: impl Fn() -> u64,
    ) {
        let PendingChange { state, pause_until, charge, level, resumes, before } = change;
        let Some(mut terms) = self.terms() else { return };
        let pacing = self.pacing;
        terms[0] = pacing.map_or(terms[0], |pacing| pacing.slow(terms[0]));
        let lacks_share = self.lacks_share();
        let until = self.due();
        let from = before.map(|before| self.limit.windows_from(before));
        let window_change = |(index, (terms, window)): (usize, (&Terms, &Window))| {
            let from = from.as_ref().map_or(Some(index), |from| from[index]);
            let old = from.and_then(|from| before?.windows().nth(from));
            // Tokens by which it is smaller than before, whatever the cut, count as spent.
            let lost = old.map_or(0, |old| window.lost_depth(old));
            let lost = charge.saturating_add(lost);
            let terms = *terms;
            // A refusal says nothing of what is left of a day.
            let level = match index {
                // Another window than the one that is paced: how much of it was spent is unknown.
                0 if pacing.is_some() && from != Some(0) => Level::ZERO,
                _ if lacks_share => level.min(Level::ZERO),
                0 => level,
                _ => Level::MAX,
            };
            let to = SlotChange {
                state,
                is_share: self.share.is_some(),
                terms,
                pause_until,
                resumes,
                until,
                charge: lost,
                level,
            };
            WindowChange { to, from }
        };
        let windows: EachWindow<WindowChange> =
            terms.iter().zip(self.limit.windows()).enumerate().map(window_change).collect();
        let recovers_to = self.recovers_to();
        bucket.reconfigure(&mut self.current, &windows, recovers_to, clock);
    }

    /// Tokens that can be taken at once when the limit has recovered; 0 if nothing is to recover.
    fn recovers_to(&self) -> u64 {
        // An agent's share of the burst may be less than a call wants: then it waits for its turn.
        if self.share.is_some() {
            return self.limit.first().depth();
        }
        // An adaptive limit grows by what is used: when it will hold more is not known.
        let (is_cut, steps) = (self.cuts.scale() < 1.0, self.cuts.due().is_some());
        let is_recovering = is_cut && steps && !self.cuts.is_adaptive();
        if is_recovering { self.limit.windows().map(Window::depth).min().unwrap_or(0) } else { 0 }
    }

    /// The steps of the recovery to come, and the end of a pace: at most [`MAX_STEPS`].
    pub(super) fn recovery_steps(&self) -> Vec<RecoveryStep> {
        if let Some(allotment) = &self.share {
            // When the share will be larger is not known: look again when this one ends.
            let at = allotment.end().unwrap_or(allotment.due());
            return self.limit.terms(1.0).map_or_else(
                |_| Vec::new(),
                |terms| vec![RecoveryStep { at, terms: terms.into_iter().collect() }],
            );
        }
        let (mut cuts, mut pacing) = (self.cuts.outlook(), self.pacing);
        let mut steps = Vec::new();
        while steps.len() < MAX_STEPS {
            let pace_ends = pacing.map(|pacing| pacing.end());
            let Some(at) = [cuts.due(), pace_ends].into_iter().flatten().min() else { break };
            if cuts.due().is_some_and(|step| step <= at) {
                cuts.advance(at);
            }
            pacing = pacing.filter(|pacing| pacing.end() > at);
            // Without a cap it may grow beyond what fits.
            let Ok(mut terms) = self.limit.terms(cuts.scale()) else { break };
            terms[0] = pacing.map_or(terms[0], |pacing| pacing.slow(terms[0]));
            steps.push(RecoveryStep { at, terms: terms.into_iter().collect() });
        }
        steps
    }

    /// The factor in force at `now`, and the terms of the first window, as after all steps that are due by then.
    #[cfg(feature = "metrics")]
    pub(super) fn outlook(&self, now: u64) -> (f64, Terms) {
        let (scale, current) = (self.cuts.scale(), self.current.terms);
        if self.due().is_none_or(|due| due > now) {
            return (scale, current);
        }
        let mut cuts = self.cuts.outlook();
        for _ in 0..MAX_STEPS {
            let Some(due) = cuts.due().filter(|due| *due <= now) else { break };
            cuts.advance(due);
        }
        let terms = self.limit.first().terms(cuts.scale()).unwrap_or(current);
        let pacing = self.pacing.filter(|pacing| pacing.end() > now);
        (cuts.scale(), pacing.map_or(terms, |pacing| pacing.slow(terms)))
    }

    /// What the end of a permit does, as flags.
    pub(super) fn on_end(&self) -> u64 {
        let refunds = if self.limit.refunds() { REFUNDS } else { 0 };
        let watches = if self.cuts.is_adaptive() {
            WATCHES | COUNTS
        } else if self.cuts.watches_ends() {
            WATCHES
        } else {
            0
        };
        refunds | watches
    }

    fn terms(&mut self) -> Option<EachWindow<Terms>> {
        if let Some(allotment) = &self.share {
            return share_terms(allotment, &self.limit, self.cuts.scale());
        }
        // At a factor of one they fit: `configure` has checked that.
        loop {
            match self.limit.terms(self.cuts.scale()) {
                Ok(terms) => return Some(terms),
                Err(_) if self.cuts.factor() > 1.0 => self.cuts.halve(),
                Err(_) => return None,
            }
        }
    }
}

/// The terms of a share, scaled. Without one nothing accrues in a bucket of the whole quota, so that a call is told
/// whether it can ever succeed, and when it may.
fn share_terms(allotment: &Allotment, limit: &Limit, factor: f64) -> Option<EachWindow<Terms>> {
    let factor = factor.min(1.0);
    let mut terms = EachWindow::new();
    terms.push(match allotment.share() {
        Some(share) => Terms::of_share(share.rate, share.burst, Factor::new(factor))?,
        None => Terms { batch: 0, ..*limit.terms(1.0).ok()?.first()? }.paced(0, 1),
    });
    Some(terms)
}
