//! What changes a resource: time, its owner, its upstream, and its neighbours.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::capacity::{CapacityUpdate, UpdateKind};
use super::entry::Entry;
use super::error::ConfigError;
use super::limit::Limit;
use super::settings::{PendingChange, Settings};
use crate::adapt::{Cut, CutTarget, Origin};
use crate::bucket::SlotState;
use crate::sync::{Ordering, seeded};
use crate::wait::FairBucket;

/// A neighbour's cut, as it told of it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteCut {
    pub(crate) id: u64,
    pub(crate) size: CutTarget,
    /// In nanoseconds.
    pub(crate) age: u64,
    pub(crate) origin: Arc<Origin>,
}

impl RemoteCut {
    #[cfg(loom)]
    pub(super) fn of_a_model(id: u64, factor: f64) -> Self {
        let (agent_id, reason) = ("neighbour".to_string(), "429".to_string());
        let timestamp = SystemTime::UNIX_EPOCH;
        let origin = Arc::new(Origin { agent_id, reason, timestamp, is_ours: false });
        Self { id, size: CutTarget::Factor(factor), age: 0, origin }
    }

    fn cut(&self, limit: &Limit, now: u64) -> Cut {
        let (factor, tokens) = match self.size {
            CutTarget::Factor(factor) => (factor, None),
            CutTarget::Tokens(tokens) => (limit.factor_of(tokens), Some(tokens)),
        };
        let origin = Arc::clone(&self.origin);
        Cut::new(self.id, factor, now, self.age, origin).told_in(tokens)
    }
}

/// The cuts of a resource that stand at `now`.
#[derive(Clone, Debug)]
pub(crate) struct ActiveCuts {
    pub(crate) cuts: Vec<Cut>,
    pub(crate) now: u64,
    /// When the next step of the recovery is due.
    pub(crate) due: Option<u64>,
    /// What of the limit's tokens is left at present.
    pub(crate) tokens: u64,
}

/// What came of a neighbour's telling.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MergeOutcome {
    /// It changed something here.
    pub(crate) is_news: bool,
    /// It is of an incident that was not known here, and cut about as far as our own would.
    pub(crate) is_incident: bool,
    /// The neighbour does not know of a cut that stands here.
    pub(crate) is_behind: bool,
}

impl Entry {
    /// SlotChange the settings by `act`, which tells what observers should know, or `None` where it
    /// changed nothing. The line and the observers learn of it without locks. Whether it changed
    /// anything.
    fn change(&self, act: impl FnOnce(&mut Settings) -> Option<Option<CapacityUpdate>>) -> bool {
        let mut settings = self.settings.lock();
        let recovered = self.catch_up(&mut settings);
        let changed = act(&mut settings);
        drop(settings);
        if changed.is_some() || recovered.is_some() {
            self.serve_queue(FairBucket::reconfigured);
        }
        let is_changed = changed.is_some();
        for update in recovered.into_iter().chain(changed.flatten()) {
            self.context.observers.tell(&update);
        }
        is_changed
    }

    /// Do what has become due: the end of a pause, steps of a recovery, a fresh anchor.
    #[cold]
    pub(super) fn bring_up_to_date(&self) {
        self.change(|settings| {
            if settings.current.is_past_horizon(self.now()) {
                self.gate.reanchor(&mut settings.current);
            }
            None
        });
    }

    /// What became due of itself; the update, if anybody could see it.
    fn catch_up(&self, settings: &mut Settings) -> Option<CapacityUpdate> {
        let before = settings.shown();
        settings.catch_up(&self.gate, self.now());
        let after = settings.shown();
        let origin = || self.ours("recovery");
        (after != before).then(|| self.update(after, &origin(), UpdateKind::Recovery))
    }

    fn install(&self, settings: &mut Settings, change_quietly: PendingChange<'_>) {
        settings.install(&self.gate, change_quietly, || self.now());
    }

    /// Another limit, live. The factor of a cut stays, tokens held are clipped, a pause goes on.
    /// `None` where the resource was removed.
    pub(crate) fn configure(&self, limit: &Limit) -> Option<Result<(), ConfigError>> {
        self.configure_if(limit, || true)
    }

    /// The same, if that is still what is wanted when nobody else changes anything.
    pub(super) fn configure_if(
        &self,
        limit: &Limit,
        is_wanted: impl FnOnce() -> bool,
    ) -> Option<Result<(), ConfigError>> {
        if let Err(error) = limit.terms(1.0) {
            return Some(Err(error));
        }
        let mut result = Some(Ok(()));
        self.change(|settings| {
            match settings.current.kind {
                SlotState::Removed => result = None,
                SlotState::Closed => result = Some(Err(ConfigError::Closed)),
                SlotState::Open | SlotState::Paused => {}
            }
            if settings.is_over() || !is_wanted() {
                return None;
            }
            let (before, old) = (settings.shown(), settings.limit);
            settings.limit = *limit;
            settings.cuts.react_by(limit.policy(self.context.policy), self.now());
            self.refunds.store(limit.refunds(), Ordering::Relaxed);
            self.most_waiting.store(limit.most_waiting(), Ordering::Relaxed);
            self.gate.bucket.set_most_in_flight(limit.most_in_flight());
            self.install(
                settings,
                PendingChange { before: Some(&old), ..PendingChange::default() },
            );
            let after = settings.shown();
            let is_seen = after != before || !limit.windows().eq(old.windows());
            let origin = || self.ours("configured");
            Some(is_seen.then(|| self.update(after, &origin(), UpdateKind::Config)))
        });
        result
    }

    /// The upstream refused a request, which was sent when `seen` incidents had been cut for, if
    /// that is known.
    pub(crate) fn refused(&self, seen: Option<u64>, reason: &str) {
        let cut = self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let origin = Arc::new(self.ours(reason));
            let (now, least) = (self.now(), settings.limit.least_factor());
            let make = |factor| Cut::new(new_id(), factor, now, 0, Arc::clone(&origin));
            let before = settings.cuts.factor();
            let cut = settings.cuts.refused(seen, least, now, make);
            cut.then(|| self.take_effect(settings, before, &origin))
        });
        if cut && let Some(on_cut) = &self.context.on_cut {
            on_cut(&self.name);
        }
    }

    /// A neighbour told of all its cuts.
    pub(crate) fn hear_all(&self, told: &[RemoteCut]) -> MergeOutcome {
        let before = self.settings.lock().cuts.full_incidents();
        let is_news = told.iter().fold(false, |is_news, heard| self.hear(heard) | is_news);
        let settings = self.settings.lock();
        let now = self.now();
        let told: Vec<Cut> = told.iter().map(|heard| heard.cut(&settings.limit, now)).collect();
        MergeOutcome {
            is_news,
            is_incident: is_news && settings.cuts.full_incidents() > before,
            is_behind: settings.cuts.is_ahead_of(&told, now),
        }
    }

    /// A neighbour cut. Whether that changed anything here.
    pub(crate) fn hear(&self, heard: &RemoteCut) -> bool {
        let early = seeded("limit-before-lock").then(|| self.settings.lock().limit);
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            if let Some(early) = early {
                settings.limit = early;
            }
            let (now, before) = (self.now(), settings.cuts.factor());
            let cut = heard.cut(&settings.limit, now);
            let counts = match heard.size {
                CutTarget::Factor(_) => settings.cuts.merge(cut, now),
                CutTarget::Tokens(_) => settings.cuts.merge_untracked(cut, now),
            };
            // A step of the recovery that fell due since it was caught up with is taken all the same,
            // and must be in force: the slot has ended for everybody, and none is due any more.
            let is_behind = settings.cuts.due() != settings.current.until;
            if !counts && is_behind && !seeded("step-without-slot") {
                self.install(settings, PendingChange::default());
            }
            counts.then(|| self.take_effect(settings, before, &heard.origin))
        })
    }

    /// Install a changed factor, which was `before`; the update, if it fell.
    fn take_effect(
        &self,
        settings: &mut Settings,
        before: f64,
        origin: &Origin,
    ) -> Option<CapacityUpdate> {
        if seeded("incident-before-cut") {
            self.incidents.store(settings.cuts.full_incidents(), Ordering::Release);
        }
        self.install(settings, PendingChange::default());
        // Only now: who reads this was granted its tokens under the new factor.
        self.incidents.store(settings.cuts.full_incidents(), Ordering::Release);
        let fell = settings.cuts.factor() < before;
        fell.then(|| self.update(settings.shown(), origin, UpdateKind::Cut))
    }

    /// Admit nothing for `how_long`, or as long as an earlier pause lasts.
    pub(crate) fn pause_for(&self, how_long: Duration) {
        if !how_long.is_zero() {
            self.change_quietly(|| PendingChange {
                pause_until: self.deadline(how_long),
                ..PendingChange::default()
            });
        }
    }

    /// Take `n` tokens that no slot's line has room for, or whose slot has ended.
    pub(super) fn charge_slowly(&self, charge: u64) {
        self.change_quietly(|| PendingChange { charge, ..PendingChange::default() });
    }

    /// Close for good, and let every waiter know.
    pub(crate) fn shut(&self, kind: SlotState) {
        self.change_quietly(|| PendingChange { kind, ..PendingChange::default() });
    }

    /// What observers need not know; made under the lock.
    fn change_quietly<'a>(&self, change_quietly: impl FnOnce() -> PendingChange<'a>) {
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            self.install(settings, change_quietly());
            Some(None)
        });
    }

    /// The cuts that stand, after all steps that are due.
    pub(crate) fn standing(&self) -> ActiveCuts {
        self.bring_up_to_date();
        let settings = self.settings.lock();
        let now = self.now();
        ActiveCuts {
            cuts: settings.cuts.cuts(now).cloned().collect(),
            now,
            due: settings.cuts.due(),
            tokens: settings.limit.tokens(settings.cuts.factor()),
        }
    }

    fn ours(&self, reason: &str) -> Origin {
        Origin {
            agent_id: self.context.agent_id.clone(),
            reason: reason.to_string(),
            timestamp: SystemTime::now(),
            is_ours: true,
        }
    }

    fn update(
        &self,
        (new_capacity, per_window): (u64, u64),
        origin: &Origin,
        kind: UpdateKind,
    ) -> CapacityUpdate {
        let Origin { agent_id, reason, timestamp, is_ours } = origin.clone();
        CapacityUpdate {
            resource: self.name.to_string(),
            agent_id,
            is_ours,
            new_capacity,
            per_window,
            reason,
            timestamp,
            kind,
        }
    }
}

/// A number that no other cut has: from the standard library's randomly keyed hasher.
fn new_id() -> u64 {
    RandomState::new().build_hasher().finish()
}
