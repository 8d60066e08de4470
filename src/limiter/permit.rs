//! Permits: what an admission hands out, and what its end does.

use std::fmt;
use std::sync::Arc;

use super::entry::{Entry, Grant};

/// Tokens that were granted, and a place in flight. Dropping it ends it by the limit's
/// [`OnRelease`](crate::OnRelease); so does a panic or a cancelled task that drops it.
pub struct Permit<'a> {
    /// `None` once it has ended otherwise.
    entry: Option<Holder<'a>>,
    grant: Grant,
}

enum Holder<'a> {
    Borrowed(&'a Arc<Entry>),
    Owned(Arc<Entry>),
}

impl Holder<'_> {
    #[inline]
    fn entry(&self) -> &Entry {
        match self {
            Self::Borrowed(entry) => entry,
            Self::Owned(entry) => entry,
        }
    }
}

impl<'a> Permit<'a> {
    #[inline]
    pub(crate) fn borrowed(entry: &'a Arc<Entry>, grant: Grant) -> Self {
        Self { entry: Some(Holder::Borrowed(entry)), grant }
    }

    /// The name of the resource.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.entry.as_ref().map_or("", |holder| &holder.entry().name)
    }

    /// How many tokens were granted.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.grant.n
    }

    /// The upstream said "too many requests" to this one: cut the limit, unless it has been cut since
    /// this permit was granted, or within the cooldown. A thousand requests that are refused in
    /// one incident so make one cut, however late some of the answers are. The permit goes on.
    ///
    /// See [`MemoryLimiter::announce_reduced`](crate::MemoryLimiter::announce_reduced) for what a
    /// cut is, and for refusals whose permit is not at hand.
    pub fn throttled(&self, reason: &str) {
        if let Some(holder) = &self.entry {
            holder.entry().refused(Some(self.grant.seen), reason);
        }
    }

    /// End it and leave its tokens spent, whatever the policy.
    pub fn spend(mut self) {
        self.finish(|entry, n| entry.end_by(n, false));
    }

    /// End it and give its tokens back, whatever the policy: the work did not happen.
    pub fn refund(mut self) {
        self.finish(|entry, n| entry.end_by(n, true));
    }

    /// End it at its actual cost, whatever the policy: the rest of what was granted is given back, or
    /// what it cost more is charged. The charge may put the bucket in debt, which delays whoever comes
    /// next. For calls whose cost is known only when they end: take an estimate, settle the count.
    ///
    /// By the limit as it is then, after a reconfiguration or a cut; a removed resource is not
    /// touched. A permit of nothing (n = 0) was never in flight, and is charged all the same.
    pub fn settle(mut self, actual: u64) {
        let granted = self.grant.n;
        if let Some(holder) = self.entry.take() {
            holder.entry().settle(granted, actual);
        }
    }

    /// Leave it in flight. [`MemoryLimiter::release`](crate::MemoryLimiter::release) ends it later.
    pub fn forget(mut self) {
        self.entry = None;
    }

    /// The same permit without the borrow of the handle that it came from.
    pub fn into_owned(mut self) -> Permit<'static> {
        let entry = self.entry.take().map(|holder| match holder {
            Holder::Borrowed(entry) => Holder::Owned(Arc::clone(entry)),
            Holder::Owned(entry) => Holder::Owned(entry),
        });
        Permit { entry, grant: self.grant }
    }

    #[inline]
    fn finish(&mut self, end: impl FnOnce(&Entry, u64)) {
        if let Some(holder) = self.entry.take()
            && self.grant.n > 0
        {
            end(holder.entry(), self.grant.n);
        }
    }
}

impl Permit<'static> {
    #[inline]
    pub(crate) fn owned(entry: Arc<Entry>, grant: Grant) -> Self {
        Self { entry: Some(Holder::Owned(entry)), grant }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.finish(Entry::end);
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("resource", &self.resource())
            .field("tokens", &self.grant.n)
            .finish_non_exhaustive()
    }
}
