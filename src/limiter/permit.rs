//! Permits: what an admission hands out, and what its end does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Grant};
use crate::sync::{AtomicBool, Ordering};

/// Granted tokens, and a place in flight. Dropping a permit ends it by the limit's
/// [`OnRelease`](crate::OnRelease); so does a panic or a cancelled task that drops it.
///
/// Keep it for as long as the work takes: `let permit = ...?`. A call whose permit would be dropped at
/// once wants [`check`](crate::MemoryLimiter::check) instead, or `until_ready` to wait.
///
/// Only a permit of [`Resource::try_acquire`](crate::Resource::try_acquire) borrows; all others are
/// `Permit<'static>`, as is what [`into_owned`](Self::into_owned) returns. In a struct write
/// `Permit<'static>`.
#[must_use = "dropping it ends the permit at once, and so does `let _ =`: keep it (`let permit = ...`), or call \
              `check`, `until_ready` or `blocking_until_ready`, which take no permit"]
pub struct Permit<'a> {
    /// `None` once it has ended otherwise.
    entry: Option<Holder<'a>>,
    grant: Grant,
    /// Whether its request was refused. Relaxed: whoever ends the permit owns it, and so comes after.
    is_refused: AtomicBool,
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
        Self { entry: Some(Holder::Borrowed(entry)), grant, is_refused: AtomicBool::new(false) }
    }

    /// The name of the resource.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.entry.as_ref().map_or("", |holder| &holder.entry().name)
    }

    /// The number of tokens that were granted.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.grant.n
    }

    /// How long this agent's share of the swarm's quota stands, from now on: send the request before it is over. It is
    /// longer when the share is prolonged, which it is about twice a second. `Some(ZERO)` if there is no share any
    /// more: do not send. `None` if the resource is not shared.
    ///
    /// If the share was lost and is back, it is the new share's time: a permit from before the loss is too old.
    ///
    /// A task that is stopped between the grant and the sending, by a long collection of garbage in its process or
    /// by its scheduler, may send after others have been given what it had.
    #[must_use]
    pub fn valid_until(&self) -> Option<Duration> {
        self.entry.as_ref()?.entry().share_left()
    }

    /// Reports that the upstream answered "too many requests" to this permit's request. This cuts the
    /// limit, unless it was cut since the permit was granted, or within the cooldown. So a thousand
    /// requests that are refused in one incident cause one cut, however late some answers are. The
    /// permit stays in flight.
    ///
    /// * The limit is cut as by [`announce_reduced`](crate::MemoryLimiter::announce_reduced), which takes
    ///   refusals without a permit, and to no more than the same part of the rate that permits were lately
    ///   granted: over the last second or the last 8 grants since the last cut, whichever is longer. If there
    ///   were fewer, or in more than a minute, or if an
    ///   [upstream's window](crate::MemoryLimiter::observe_remaining_until) paces them, the rate in force counts.
    ///   That ceiling recovers too, faster above the rate that it was cut from; a limit with
    ///   [no recovery](crate::Limit::no_recovery) has none.
    /// * The first window is emptied, also where the limit is not cut again: a refusal means that nothing is
    ///   left. A debt stays. Only a refusal of a request that was sent before the last cut has no effect.
    /// * If at least 3 requests that were sent since the last cut were refused, and none ended otherwise, the
    ///   next refusal after the cooldown opens a pause instead of a cut: 5 seconds, then 10, 20 and 30, until
    ///   one gets through. It ends with an empty bucket.
    ///
    /// An [adaptive](crate::Limit::adaptive) limit is cut by its own rule. In a swarm the other agents are told
    /// of the cut; the ceiling and the pause are this agent's own.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Limit, ManualClock, MemoryLimiter};
    /// # let time = ManualClock::new();
    /// # let limiter = MemoryLimiter::with_clock(time.clone());
    /// let api = limiter.configure("api", Limit::per_second(100))?;
    /// for _ in 0..20 {
    ///     time.advance(Duration::from_millis(100));
    ///     drop(api.try_acquire()?); // 10 a second are sent
    /// }
    /// api.try_acquire()?.throttled("received 429");
    /// let capacity = api.capacity();
    /// assert!(capacity.per_window < 10); // not 75
    /// assert_eq!(capacity.available, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn throttled(&self, reason: &str) {
        if let Some(holder) = &self.entry {
            self.is_refused.store(true, Ordering::Relaxed);
            holder.entry().refused(Some(self.grant.seen), reason);
        }
    }

    /// Ends it and leaves its tokens spent, whatever the policy.
    pub fn spend(mut self) {
        self.note_end();
        self.finish(|entry, grant| entry.end_by(grant.n, grant.counted, None));
    }

    /// Ends it and gives its tokens back, whatever the policy: the work did not happen.
    pub fn refund(mut self) {
        self.finish(|entry, grant| entry.end_by(grant.n, grant.counted, Some(grant.seen)));
    }

    /// Ends it at its actual cost in tokens, whatever the policy: an unused rest is given back, an excess
    /// is charged. A charge may put the bucket in debt, which delays later calls. For calls whose cost is
    /// known when they end: acquire an estimate, settle the actual cost.
    ///
    /// A debt is at most what the limit earns in 24 hours, or its burst if that is more. The rest of the
    /// charge is dropped, and counted in [`Capacity::dropped_charges`](crate::Capacity::dropped_charges).
    ///
    /// The limit at that time counts, after a reconfiguration or a cut. A removed resource is not
    /// touched. A permit of 0 tokens was never in flight, and is charged all the same.
    pub fn settle(mut self, actual: u64) {
        self.note_end();
        if let Some(holder) = self.entry.take() {
            holder.entry().settle(&self.grant, actual);
        }
    }

    /// Leaves it in flight. [`MemoryLimiter::release`](crate::MemoryLimiter::release) ends it later.
    pub fn forget(mut self) {
        self.finish(Entry::forget);
    }

    /// The same permit, without the borrow of the handle that it came from.
    pub fn into_owned(mut self) -> Permit<'static> {
        let entry = self.entry.take().map(|holder| match holder {
            Holder::Borrowed(entry) => Holder::Owned(Arc::clone(entry)),
            Holder::Owned(entry) => Holder::Owned(entry),
        });
        Permit {
            entry,
            grant: self.grant,
            is_refused: AtomicBool::new(self.is_refused.load(Ordering::Relaxed)),
        }
    }

    #[inline(never)]
    fn end(&mut self) {
        self.note_end();
        self.finish(Entry::end);
    }

    /// Its request ends, and was sent.
    fn note_end(&self) {
        if let Some(holder) = &self.entry
            && self.grant.n > 0
            && holder.entry().watches_ends()
            && !self.is_refused.load(Ordering::Relaxed)
        {
            holder.entry().got_through(&self.grant);
        }
    }

    #[inline]
    fn finish(&mut self, end: impl FnOnce(&Entry, &Grant)) {
        if let Some(holder) = self.entry.take()
            && self.grant.n > 0
        {
            end(holder.entry(), &self.grant);
        }
    }
}

impl Permit<'static> {
    #[inline]
    pub(crate) fn owned(entry: Arc<Entry>, grant: Grant) -> Self {
        Self { entry: Some(Holder::Owned(entry)), grant, is_refused: AtomicBool::new(false) }
    }

    /// A permit of 0 tokens, which is not in flight, to [report](Self::throttled) the same request as refused
    /// when this one has ended.
    #[cfg(feature = "tower")]
    pub(crate) fn witness(&self) -> Option<Self> {
        let Some(Holder::Owned(entry)) = &self.entry else { return None };
        Some(Self::owned(Arc::clone(entry), Grant { n: 0, ..self.grant }))
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.grant.n > 0
            && let Some(holder) = &self.entry
            && !holder.entry().end_own(&self.grant)
        {
            self.end();
        }
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
