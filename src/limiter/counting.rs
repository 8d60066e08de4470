//! What a resource counts for metrics: see [`counts`](crate::counts).

use super::capacity::{CapacityUpdate, UpdateKind};
use super::entry::{DeniedAt, Entry};
use super::error::AllError;
use super::refusal::Refusal;
use crate::bucket::{Denied, Never};
use crate::counts::{Count, Counts};
use crate::trace::Change;

impl<'a> Refusal<DeniedAt<'a>> for AllError {
    const IS_FINAL: bool = true;

    #[inline]
    fn new(denied: DeniedAt<'a>) -> Self {
        denied.into()
    }
}

impl Refusal<Self> for DeniedAt<'_> {
    const IS_FINAL: bool = false;

    #[inline]
    fn new(denied: Self) -> Self {
        denied
    }
}

impl Entry {
    #[inline]
    pub(super) fn count(&self, count: Count, n: u64) {
        self.bucket.counts().add(count, n);
    }

    /// Counts to another tally from now on.
    pub(super) fn count_for(&self, counts: Counts) {
        let mut settings = self.settings.lock();
        self.bucket.count_for(&mut settings.current, counts);
    }

    /// The error of a call that is denied.
    #[inline]
    pub(super) fn refuse<E: Refusal<Denied>>(&self, denied: Denied) -> E {
        if E::IS_FINAL {
            self.count_denied(&denied);
        }
        E::new(denied)
    }

    /// A call on a resource that was closed or removed is no denial.
    #[inline]
    pub(super) fn count_denied(&self, denied: &Denied) {
        if !Counts::ARE_KEPT {
            return; // nor is the bucket looked at
        }
        let reason = match denied {
            Denied::Exhausted(_) if self.bucket.is_paused() => Count::Paused,
            Denied::Exhausted(_) => Count::Exhausted,
            Denied::TooManyInFlight => Count::InFlight,
            Denied::Never(Never::ExceedsCapacity(_)) => Count::ExceedsCapacity,
            Denied::Never(Never::Closed | Never::Removed) => return,
        };
        self.count(reason, 1);
    }

    /// Counts what observers are told, and says it in an event.
    pub(super) fn note_update(&self, update: &CapacityUpdate) {
        let CapacityUpdate { is_ours, new_capacity: burst, per_window, .. } = *update;
        let kind = match update.kind {
            UpdateKind::Cut => "cut",
            UpdateKind::Recovery => "recovery",
            UpdateKind::Config => "configured",
            UpdateKind::Share => "share",
            UpdateKind::Pause => "pause",
            UpdateKind::Resume => "resume",
        };
        let counted = match (update.kind, is_ours) {
            (UpdateKind::Cut, true) => Some(Count::Cuts),
            (UpdateKind::Cut, false) => Some(Count::SwarmCuts),
            (UpdateKind::Pause, true) => Some(Count::Pauses),
            (UpdateKind::Pause, false) => Some(Count::SwarmPauses),
            (UpdateKind::Recovery, _) => Some(Count::Recoveries),
            (UpdateKind::Config | UpdateKind::Share | UpdateKind::Resume, _) => None,
        };
        if let Some(count) = counted {
            self.count(count, 1);
        }
        let (resource, agent_id, reason) = (&*self.name, &*update.agent_id, &*update.reason);
        Change { resource, kind, agent_id, is_ours, reason, burst, per_window }.event();
    }

    /// Counts tokens that were taken for a call which is denied.
    pub(super) fn count_void(&self, n: u64) {
        self.count(Count::Voided, n);
    }
}

impl DeniedAt<'_> {
    /// The error of a call that wants several resources, and is denied here.
    #[inline]
    pub(super) fn refuse<E: Refusal<Self>>(self) -> E {
        if E::IS_FINAL {
            self.0.count_denied(&self.1);
        }
        E::new(self)
    }
}

/// Counts the denial of a compact key, which is never paused.
#[inline]
pub(super) fn count_denied(counts: &Counts, denied: &Denied) {
    match denied {
        Denied::Exhausted(_) => counts.add(Count::Exhausted, 1),
        Denied::Never(Never::ExceedsCapacity(_)) => counts.add(Count::ExceedsCapacity, 1),
        Denied::TooManyInFlight | Denied::Never(_) => {}
    }
}
