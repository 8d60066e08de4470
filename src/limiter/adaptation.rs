//! What changes a resource: time, its owner, and its upstream. Neighbours: see `remote.rs`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::capacity::{CapacityUpdate, UpdateKind};
use super::entry::Entry;
use super::error::ConfigError;
use super::limit::Limit;
use super::seen::incidents_of;
use super::settings::{PendingChange, Settings};
use crate::adapt::{Cut, Origin, Reaction, nanos};
use crate::bucket::{Level, SlotState};
use crate::sync::Ordering;
use crate::wait::FairBucket;

/// The longest pace.
const MAX_PACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of a reason that a cut keeps.
const MAX_KEPT_REASON: usize = 1_024;

impl Entry {
    /// Changes the settings by `act`, which returns what to tell observers, or `None` if it changed
    /// nothing. The queue is served and the observers are told without locks. Returns whether anything
    /// changed.
    pub(super) fn change(
        &self,
        act: impl FnOnce(&mut Settings) -> Option<Option<CapacityUpdate>>,
    ) -> bool {
        let mut settings = self.settings.lock();
        let (recovered, resumed) = self.catch_up(&mut settings);
        let changed = act(&mut settings);
        drop(settings);
        if changed.is_some() || recovered.is_some() || resumed.is_some() {
            self.serve_queue(FairBucket::reconfigured);
        }
        let is_changed = changed.is_some();
        for update in recovered.into_iter().chain(resumed).chain(changed.flatten()) {
            self.note_update(&update);
            self.context.observers.tell(&update);
        }
        is_changed
    }

    /// Does what is due: the end of a pause, steps of a recovery, a fresh anchor; and what a call has asked
    /// for: the plan of the recovery.
    #[cold]
    pub(super) fn bring_up_to_date(&self) {
        self.change(|settings| {
            if settings.current.is_past_horizon(self.now()) {
                self.bucket.reanchor(&mut settings.current);
            }
            if self.bucket.wants_recovery_plan() {
                self.bucket.plan_recovery(&settings.current, settings.recovery_steps());
            }
            None
        });
    }

    /// Does what time has made due. Returns the update if its effect on the capacity can be seen, and that
    /// of a pause which has ended.
    fn catch_up(
        &self,
        settings: &mut Settings,
    ) -> (Option<CapacityUpdate>, Option<CapacityUpdate>) {
        let (before, now) = (settings.shown(), self.now());
        self.note_usage(settings, now);
        settings.catch_up(&self.bucket, now);
        if settings.share.is_some() {
            self.seen.store(settings.seen(), Ordering::Release);
        }
        let after = settings.shown();
        let origin = || self.local_origin("recovery");
        let recovered =
            (after != before).then(|| self.update(after, &origin(), UpdateKind::Recovery));
        let has_resumed = !settings.is_over() && settings.pauses.has_ended(now);
        (recovered, has_resumed.then(|| self.resumed(settings)))
    }

    pub(super) fn install(&self, settings: &mut Settings, change: PendingChange<'_>) {
        // Time may have passed since what was due was done. A share earns nothing after its end, which is due then.
        let end = settings.share_end();
        settings.install(&self.bucket, change, || self.now().min(end));
    }

    /// Installs another limit. The factor of a cut stays, the level is clipped, a pause continues. `None`
    /// if the resource was removed.
    pub(crate) fn configure(&self, limit: &Limit) -> Option<Result<(), ConfigError>> {
        self.configure_if(limit, || true)
    }

    /// The same, if `is_wanted` still holds under the lock.
    pub(super) fn configure_if(
        &self,
        limit: &Limit,
        is_wanted: impl FnOnce() -> bool,
    ) -> Option<Result<(), ConfigError>> {
        if let Err(error) = limit.full_terms() {
            return Some(Err(error));
        }
        let mut result = Some(Ok(()));
        self.change(|settings| {
            match settings.current.state {
                SlotState::Removed => result = None,
                SlotState::Closed => result = Some(Err(ConfigError::Closed)),
                SlotState::Open | SlotState::Paused => {}
            }
            if settings.share.is_some() {
                result = Some(Err(ConfigError::Shared));
                return None;
            }
            if settings.is_over() || !is_wanted() {
                return None;
            }
            let (before, old) = (settings.shown(), settings.limit);
            settings.limit = *limit;
            settings.cuts.react_by(limit.policy(self.context.policy), self.now());
            let ratio = limit.first().rate() / old.first().rate();
            settings.cuts.rebase_ceiling(ratio, self.now());
            settings.cuts.adapt(limit.range(), ratio, self.now());
            self.watch(settings);
            // Relaxed: publishes nothing.
            self.max_waiting.store(limit.max_waiting_or_none(), Ordering::Relaxed);
            self.bucket.set_max_in_flight(limit.max_in_flight_or_none());
            let change = PendingChange { before: Some(&old), ..PendingChange::default() };
            self.install(settings, change);
            let after = settings.shown();
            let is_seen = after != before || !limit.windows().eq(old.windows());
            let origin = || self.local_origin("configured");
            Some(is_seen.then(|| self.update(after, &origin(), UpdateKind::Config)))
        });
        result
    }

    /// The upstream refused a request. `seen` is [`Entry::seen`] when it was sent, if that is known. Then it is a request of a permit, and nothing is left for others.
    pub(crate) fn refused(&self, seen: Option<u64>, reason: &str) {
        let seen = seen.map(incidents_of);
        let mut is_cut = false;
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let whole = self.local_origin(reason);
            // What is kept for other agents. A reason may be a whole page.
            let reason = whole.reason.chars().take(MAX_KEPT_REASON).collect();
            let is_measured = seen.is_some();
            let origin = Arc::new(Origin { reason, is_measured, ..whole.clone() });
            let (now, least) = (self.now(), settings.limit.least_factor());
            let make = |factor| Cut::new(new_id(), factor, now, 0, Arc::clone(&origin));
            let (before, is_stale) = (settings.cuts.scale(), settings.cuts.is_stale(seen));
            let part_through = if is_stale { 1.0 } else { self.part_through(settings, seen) };
            let reaction = settings.cuts.refused(seen, least, now, make);
            is_cut = reaction == Reaction::Cut;
            let level = if seen.is_some() { Level::ZERO } else { Level::MAX };
            let mut change = PendingChange { level, ..PendingChange::default() };
            match reaction {
                Reaction::Nothing if is_stale || seen.is_none() => return None,
                Reaction::Nothing => {
                    self.install(settings, change);
                    return Some(None);
                }
                Reaction::Cut => self.slow_down(settings, seen.is_some(), before, part_through),
                Reaction::Pause(length) => {
                    change.pause_until = now.saturating_add(length);
                    self.hold_to_lately(settings, now);
                }
            }
            let cut = self.take_effect(settings, before, &whole, change);
            Some(self.begin_pause(settings, change, &whole).or(cut))
        });
        if is_cut && let Some(on_cut) = &self.context.on_cut {
            on_cut(&self.name);
        }
    }

    /// After a cut, lowers what only this agent is scaled by. `in_force` is the factor in force before;
    /// `part_through` of the requests got through.
    pub(super) fn slow_down(
        &self,
        settings: &mut Settings,
        is_measured: bool,
        in_force: f64,
        part_through: f64,
    ) {
        if settings.share.is_some() {
            return; // what was sent says more of the share than of the upstream
        }
        let now = self.now();
        let lately = if is_measured { self.take_lately(settings, in_force, now) } else { in_force };
        // An agent that sends nothing is cut by its own cut, and by others', alone.
        let is_known = lately < in_force || settings.cuts.has_ceiling();
        if !settings.cuts.cut_adaptive(lately * part_through, now) && is_measured && is_known {
            let least = settings.limit.least_factor();
            settings.cuts.set_ceiling(settings.cuts.reduction(), lately, least, now);
        }
    }

    /// Installs a changed factor, which was `before`. Returns the update if it fell.
    pub(super) fn take_effect(
        &self,
        settings: &mut Settings,
        before: f64,
        origin: &Origin,
        change: PendingChange<'_>,
    ) -> Option<CapacityUpdate> {
        self.install(settings, change);
        self.watch(settings);
        if incidents_of(self.seen()) != settings.cuts.full_incidents() {
            self.forget_through();
        }
        // After the slot: a take that follows a load of this was granted under the new factor.
        self.seen.store(settings.seen(), Ordering::Release);
        let fell = settings.cuts.scale() < before;
        fell.then(|| self.update(settings.shown(), origin, UpdateKind::Cut))
    }

    /// The upstream says that `left` tokens are left: the first window keeps no more.
    pub(crate) fn observe_remaining(&self, left: u64) {
        if self.bucket.lower(left).is_err() {
            self.change_quietly(|settings| PendingChange {
                level: Level::MAX.min_tokens(left, settings.current.terms.unit),
                ..PendingChange::default()
            });
        }
    }

    /// The upstream says that `left` tokens are left for the time of `until`: no more are admitted before it is
    /// over.
    pub(crate) fn observe_remaining_until(&self, left: u64, until: Duration) {
        if until.is_zero() {
            return self.observe_remaining(left);
        }
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let now = self.now();
            let end = now.saturating_add(nanos(until.min(MAX_PACE)));
            let change = settings.pace(&self.bucket, left, now, end)?;
            self.install(settings, change);
            // What permits give back meanwhile is kept.
            let change = PendingChange { level: Level::MAX, ..change };
            Some(self.begin_pause(settings, change, &self.local_origin("nothing left")))
        });
    }

    /// Takes `n` tokens whose debt does not fit on the ring of the slot in force. Returns those that were
    /// dropped.
    pub(super) fn charge_slow(&self, n: u64) -> u64 {
        let mut charge = n;
        self.change_quietly(|settings| {
            charge = n.min(self.bucket.charge_room(&settings.current));
            PendingChange { charge, ..PendingChange::default() }
        });
        n - charge
    }

    /// Closes the resource for good, and notifies every waiter.
    pub(crate) fn shut(&self, state: SlotState) {
        self.change_quietly(|_| PendingChange { state, ..PendingChange::default() });
    }

    /// A change that observers are not told of. It is made under the lock.
    fn change_quietly(&self, change: impl FnOnce(&mut Settings) -> PendingChange<'static>) {
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let change = change(settings);
            self.install(settings, change);
            Some(None)
        });
    }

    pub(super) fn local_origin(&self, reason: &str) -> Origin {
        Origin {
            agent_id: self.context.agent_id.clone(),
            reason: reason.to_string(),
            timestamp: SystemTime::now(),
            is_ours: true,
            is_measured: false,
        }
    }

    pub(super) fn update(
        &self,
        (new_capacity, per_window): (u64, u64),
        origin: &Origin,
        kind: UpdateKind,
    ) -> CapacityUpdate {
        let Origin { agent_id, reason, timestamp, is_ours, .. } = origin.clone();
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

/// A random number, from the standard library's randomly keyed hasher.
pub(super) fn new_id() -> u64 {
    RandomState::new().build_hasher().finish()
}
