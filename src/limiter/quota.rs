//! Sharing a swarm's quota: what the agent's task does to a resource. Only a swarm has quotas.

use std::sync::Arc;

use super::capacity::UpdateKind;
use super::entry::Entry;
use super::error::ConfigError;
use super::limit::Limit;
use super::memory::MemoryLimiter;
use super::resource::Resource;
use super::settings::{PendingChange, Settings};
use crate::adapt::{Allotment, Segment};
use crate::bucket::SlotState;
use crate::sync::Ordering;

/// What the use of a share looks like at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// See [`Snapshot::moved`](crate::bucket::Snapshot::moved).
    pub(crate) moved: (u64, u64),
    pub(crate) is_full: bool,
    /// Whether callers lack tokens: some wait, or were denied without a share, or the share has less than a token.
    pub(crate) is_short: bool,
    /// Tokens that calls wait for, and the most that one of them does.
    pub(crate) waiting: u64,
    pub(crate) largest: u64,
    /// Whether the resource was removed or closed.
    pub(crate) is_over: bool,
}

impl Entry {
    /// How the share is used.
    pub(crate) fn look_at_share(&self) -> Use {
        let now = self.now();
        let settings = self.settings.lock();
        let (is_over, lacks_share) = (settings.is_over(), settings.lacks_share());
        drop(settings);
        let missed = self.admitted.missed.swap(false, Ordering::Relaxed); // publishes nothing
        let snapshots = self.bucket.window_snapshots(now);
        let (waiting, largest) = self.bucket.wanted();
        let first = snapshots.first();
        let is_short = waiting > 0 || missed || !lacks_share && first.available() == 0;
        Use { moved: first.moved(), is_full: first.is_full(), is_short, waiting, largest, is_over }
    }

    /// From now on this resource admits what is allotted to it of the quota `limit`: nothing at first. While
    /// nothing is, those that wait look again every `patience` nanoseconds. A resource that is shared already has
    /// another quota. `None` if it was removed.
    pub(crate) fn share(&self, limit: &Limit, patience: u64) -> Option<Result<(), ConfigError>> {
        let mut result = Some(Ok(()));
        self.change(|settings| {
            match settings.current.state {
                SlotState::Removed => result = None,
                SlotState::Closed => result = Some(Err(ConfigError::Closed)),
                SlotState::Open | SlotState::Paused => {}
            }
            if settings.is_over() {
                return None;
            }
            let before = settings.shown();
            self.begin_share(settings, limit, patience);
            let (after, origin) = (settings.shown(), self.local_origin("shared"));
            Some((after != before).then(|| self.update(after, &origin, UpdateKind::Share)))
        });
        result
    }

    /// The same for a resource that nobody has seen yet.
    fn share_new(&self, limit: &Limit, patience: u64) {
        self.begin_share(&mut self.settings.lock(), limit, patience);
    }

    fn begin_share(&self, settings: &mut Settings, limit: &Limit, patience: u64) {
        let now = self.now();
        settings.limit = *limit;
        settings.cuts.react_by(limit.policy(self.context.policy), now);
        settings.cuts.adapt(None, 1.0, now); // a quota is of a limit that is known
        settings.share.get_or_insert_with(|| Allotment::none(now, patience));
        self.max_waiting.store(limit.max_waiting_or_none(), Ordering::Relaxed); // publishes nothing
        self.bucket.set_max_in_flight(limit.max_in_flight_or_none());
        self.watch(settings);
        self.install(settings, PendingChange::default());
        self.seen.store(settings.seen(), Ordering::Release);
    }

    /// What is allotted from now on, until it is something else.
    pub(crate) fn allot(&self, segments: &[Segment]) {
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let before = settings.shown();
            // As `install`: of the new segments those count that have not ended when this one does.
            let now = self.now().min(settings.share_end());
            settings.share.as_mut()?.replace(segments, now);
            self.install(settings, PendingChange::default());
            // After the slot: what was granted by an earlier share is not given back in this one.
            self.seen.store(settings.seen(), Ordering::Release);
            let (after, origin) = (settings.shown(), self.local_origin("share"));
            Some((after != before).then(|| self.update(after, &origin, UpdateKind::Share)))
        });
    }
}

impl MemoryLimiter {
    /// Adds a resource with a share of the quota `limit`, or makes it one.
    pub(crate) fn share_resource(
        &self,
        name: &str,
        limit: &Limit,
        patience: u64,
    ) -> Result<Resource, ConfigError> {
        let begin = |entry: &Entry| entry.share_new(limit, patience);
        let change = |entry: &Entry| entry.share(limit, patience);
        self.0.configure_by(name, limit, begin, change).map(Resource)
    }
}

impl Resource {
    /// See [`Entry::allot`].
    pub(crate) fn allot(&self, segments: &[Segment]) {
        self.0.allot(segments);
    }

    /// Whether both are handles to one resource.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The quota's limit; `None` if the resource was removed or closed.
    pub(crate) fn shared_limit(&self) -> Option<Limit> {
        let settings = self.0.settings.lock();
        (!settings.is_over()).then_some(settings.limit)
    }

    /// Nothing will be allotted any more: closes it.
    pub(crate) fn end_share(&self) {
        self.0.shut(SlotState::Closed);
    }

    /// How the share is used.
    pub(crate) fn look_at_share(&self) -> Use {
        self.0.look_at_share()
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
