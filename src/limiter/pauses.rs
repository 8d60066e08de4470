//! The pauses of a resource: this limiter's own, and those that the agents of a swarm tell each other.

use std::sync::Arc;
use std::time::Duration;

use super::adaptation::new_id;
use super::capacity::{CapacityUpdate, UpdateKind};
use super::entry::Entry;
use super::settings::{PendingChange, Settings};
use crate::adapt::{Origin, Pause, nanos};
use crate::bucket::Level;

impl Entry {
    /// Admits nothing for `how_long`, and tells the swarm if there is one.
    pub(crate) fn pause_for(&self, how_long: Duration) {
        let Some(on_pause) = &self.context.on_pause else { return self.pause_here_for(how_long) };
        if how_long.is_zero() {
            return;
        }
        let origin = Arc::new(self.local_origin("paused"));
        let make = |now| Pause::new(new_id(), nanos(how_long), 0, now, origin);
        if let Some(is_urgent) = self.join_pause(make) {
            on_pause(&self.name, is_urgent);
        }
    }

    /// Admits nothing for `how_long`, or until an earlier pause ends if that is later. Tokens are kept.
    pub(crate) fn pause_here_for(&self, how_long: Duration) {
        if how_long.is_zero() {
            return;
        }
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let pause_until = self.deadline(how_long);
            let change = PendingChange { pause_until, ..PendingChange::default() };
            self.install(settings, change);
            Some(self.begin_pause(settings, change, &self.local_origin("paused")))
        });
    }

    /// Joins a pause that is told in the swarm: it ends empty, and later by this agent's part of its spread.
    /// `None` if that changes nothing; otherwise, whether other agents should hear of it at once.
    pub(super) fn join_pause(&self, make: impl FnOnce(u64) -> Pause) -> Option<bool> {
        let mut is_urgent = None;
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let now = self.now();
            let pause = make(now);
            let origin = Arc::clone(&pause.origin);
            let part = if self.context.pause_spread { random_part() } else { 0.0 };
            let joined = settings.pauses.join(pause, now, part)?;
            is_urgent = Some(joined.is_urgent);
            Some(self.begin_told_pause(settings, joined.until, &origin))
        });
        is_urgent
    }

    /// Tokens are void from the beginning, so that times of retry are right, and once more at the end: see
    /// [`Settings::catch_up`].
    fn begin_told_pause(
        &self,
        settings: &mut Settings,
        pause_until: u64,
        origin: &Origin,
    ) -> Option<CapacityUpdate> {
        self.hold_to_lately(settings, self.now());
        let change = PendingChange { pause_until, level: Level::ZERO, ..PendingChange::default() };
        self.install(settings, change);
        self.begin_pause(settings, change, origin)
    }

    /// The rate after a pause is no higher than what was lately sent: those that waited would all go at once.
    pub(super) fn hold_to_lately(&self, settings: &mut Settings, now: u64) {
        if settings.share.is_some() {
            return;
        }
        let in_force = settings.cuts.scale();
        let lately = self.take_lately(settings, in_force, now);
        settings.cuts.set_ceiling(1.0, lately, settings.limit.least_factor(), now);
    }

    /// After a pause was installed, if `change` has one. It ends empty if it keeps nothing. Returns the update
    /// if one begins, not if one becomes longer.
    pub(super) fn begin_pause(
        &self,
        settings: &mut Settings,
        change: PendingChange<'_>,
        origin: &Origin,
    ) -> Option<CapacityUpdate> {
        let PendingChange { pause_until, level, .. } = change;
        if pause_until > 0 {
            self.admitted.meter.lock().pause(self.now(), pause_until);
        }
        let begins = pause_until > 0 && settings.pauses.extend(pause_until, level == Level::ZERO);
        begins.then(|| self.update(settings.shown(), origin, UpdateKind::Pause))
    }

    /// Ends a pause and a pace here. The swarm is not told, but the task need not tell of the pause any more.
    pub(crate) fn resume(&self) {
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            settings.pacing = None;
            let level = settings.level_after_pause();
            self.install(
                settings,
                PendingChange { resumes: true, level, ..PendingChange::default() },
            );
            self.admitted.meter.lock().resume(self.now());
            let was_paused = settings.pauses.resume(self.now());
            Some(was_paused.then(|| self.resumed(settings)))
        });
        if let Some(on_pause) = &self.context.on_pause {
            on_pause(&self.name, false);
        }
    }

    /// What observers are told of a pause that has ended.
    pub(super) fn resumed(&self, settings: &Settings) -> CapacityUpdate {
        self.update(settings.shown(), &self.local_origin("resumed"), UpdateKind::Resume)
    }
}

/// From 0 to 1.
#[allow(clippy::cast_precision_loss)]
fn random_part() -> f64 {
    new_id() as f64 / u64::MAX as f64
}
