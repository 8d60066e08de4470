//! The permits of an all-or-nothing acquisition.

use std::fmt;

use smallvec::SmallVec;

use super::error::UnknownName;
use super::permit::Permit;

/// One permit per resource, granted all or none. Dropping it, also by a panic or a cancelled task,
/// ends each permit by its limit's [`OnRelease`](crate::OnRelease).
///
/// ```
/// use tollgate::{Limit, MemoryLimiter};
///
/// let limiter = MemoryLimiter::new();
/// limiter.configure("requests", Limit::per_minute(500))?;
/// limiter.configure("tokens", Limit::per_minute(30_000))?;
///
/// let permits = limiter.try_acquire_all(&[("requests", 1), ("tokens", 1_200)])?;
/// // ... the call used fewer tokens than was estimated ...
/// permits.settle(&[("tokens", 830)])?;
/// assert_eq!(limiter.capacity("tokens").unwrap().available, 30_000 - 830);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the permits at once: keep it, or call `check_all`, which takes no permits"]
pub struct Permits(SmallVec<[Permit<'static>; 4]>);

impl Permits {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(SmallVec::new())
    }

    #[inline]
    pub(crate) fn push(&mut self, permit: Permit<'static>) {
        self.0.push(permit);
    }

    /// The witnesses of all: see [`Permit::witness`].
    #[cfg(feature = "tower")]
    pub(crate) fn witnesses(&self) -> Self {
        Self(self.iter().filter_map(Permit::witness).collect())
    }

    /// One permit per resource, whatever the order in which and how often the request named it.
    pub fn iter(&self) -> impl Iterator<Item = &Permit<'static>> {
        self.0.iter()
    }

    /// The permits, to be ended one by one.
    pub fn into_parts(self) -> impl Iterator<Item = Permit<'static>> {
        self.0.into_iter()
    }

    /// The permit of a resource, for example to report a [refusal](Permit::throttled).
    #[must_use]
    pub fn get(&self, resource: &str) -> Option<&Permit<'static>> {
        self.iter().find(|permit| permit.resource() == resource)
    }

    /// Ends the named permits at their actual costs, in tokens, as [`Permit::settle`] does, and the
    /// others by their limits' policies. Costs of the same name add up.
    ///
    /// Fails with the first name that no permit has, after all permits have ended.
    pub fn settle(self, actual: &[(&str, u64)]) -> Result<(), UnknownName> {
        let unknown = actual.iter().find(|(name, _)| self.get(name).is_none());
        let result = unknown.map_or(Ok(()), |(name, _)| {
            let known = self.iter().map(|permit| permit.resource().to_string()).collect();
            Err(UnknownName { name: (*name).to_string(), known })
        });
        for permit in self.into_parts() {
            let mut named = actual.iter().filter(|(name, _)| *name == permit.resource()).peekable();
            if named.peek().is_some() {
                let cost = named.fold(0_u64, |cost, (_, more)| cost.saturating_add(*more));
                permit.settle(cost);
            }
        }
        result
    }

    /// Ends all permits and leaves their tokens spent, whatever the policy.
    pub fn spend(self) {
        self.into_parts().for_each(Permit::spend);
    }

    /// Ends all permits and gives their tokens back, whatever the policy: the work did not happen.
    pub fn refund(self) {
        self.into_parts().for_each(Permit::refund);
    }

    /// Leaves all permits in flight: see [`Permit::forget`].
    pub fn forget(self) {
        self.into_parts().for_each(Permit::forget);
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
