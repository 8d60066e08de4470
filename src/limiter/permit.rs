//! Permits: what an admission hands out, and what its end does.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::entry::Entry;

/// Tokens that were granted, and a place in flight. Dropping it ends it by the limit's
/// [`OnRelease`](crate::OnRelease); so does a panic or a cancelled task that drops it.
pub struct Permit<'a> {
    /// `None` once it has ended otherwise.
    entry: Option<Holder<'a>>,
    n: u64,
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
    pub(crate) fn borrowed(entry: &'a Arc<Entry>, n: u64) -> Self {
        Self { entry: Some(Holder::Borrowed(entry)), n }
    }

    /// How many tokens were granted.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.n
    }

    /// End it and leave its tokens spent, whatever the policy.
    pub fn spend(mut self) {
        self.finish(|entry, n| entry.end_by(n, false));
    }

    /// End it and give its tokens back, whatever the policy: the work did not happen.
    pub fn refund(mut self) {
        self.finish(|entry, n| entry.end_by(n, true));
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
        Permit { entry, n: mem::take(&mut self.n) }
    }

    #[inline]
    fn finish(&mut self, end: impl FnOnce(&Entry, u64)) {
        if let Some(holder) = self.entry.take()
            && self.n > 0
        {
            end(holder.entry(), self.n);
        }
    }
}

impl Permit<'static> {
    pub(crate) fn owned(entry: Arc<Entry>, n: u64) -> Self {
        Self { entry: Some(Holder::Owned(entry)), n }
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
        f.debug_struct("Permit").field("tokens", &self.n).finish_non_exhaustive()
    }
}
