//! What a layer and its services are set to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::upstream::{Costs, Upstream};

pub(super) type Cost<Req> = dyn Fn(&Req) -> u64 + Send + Sync;

/// Where a request waits for its permits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// In `call`, for at most this long.
    Wait(Option<Duration>),
    /// Nowhere.
    Shed,
    /// In `poll_ready`.
    Backpressure,
}

pub(super) struct Settings<Req> {
    pub(super) upstream: Arc<Upstream>,
    /// One for each of the upstream's budgets.
    pub(super) costs: SmallVec<[Arc<Cost<Req>>; 2]>,
    pub(super) mode: Mode,
}

impl<Req> Settings<Req> {
    pub(super) fn costs(&self, request: &Req) -> Costs {
        self.costs.iter().map(|cost| cost(request)).collect()
    }
}

impl<Req> Clone for Settings<Req> {
    fn clone(&self) -> Self {
        Self { upstream: Arc::clone(&self.upstream), costs: self.costs.clone(), mode: self.mode }
    }
}

impl<Req> fmt::Debug for Settings<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources: Vec<_> =
            self.upstream.budgets.iter().map(|budget| budget.resource.name()).collect();
        f.debug_struct("Settings")
            .field("resources", &resources)
            .field("mode", &self.mode)
            .field("profile", &self.upstream.profile)
            .field("hold", &self.upstream.hold)
            .finish_non_exhaustive()
    }
}
