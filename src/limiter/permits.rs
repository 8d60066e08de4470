//! Permits of several resources that were granted together.

use std::fmt;

use smallvec::SmallVec;

use super::permit::Permit;

/// One permit for each of several resources, granted all or none. Dropping it ends each by its limit's
/// [`OnRelease`](crate::OnRelease); so does a panic or a cancelled task that drops it.
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
/// permits.settle(&[("tokens", 830)]);
/// assert_eq!(limiter.capacity("tokens").unwrap().available, 30_000 - 830);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the permits"]
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

    /// Each resource's permit, once each, whatever the order and number of times they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = &Permit<'static>> {
        self.0.iter()
    }

    /// Each permit by itself, to end as it likes.
    pub fn into_parts(self) -> impl Iterator<Item = Permit<'static>> {
        self.0.into_iter()
    }

    /// The permit of a resource, to say that its upstream [refused](Permit::throttled).
    #[must_use]
    pub fn get(&self, resource: &str) -> Option<&Permit<'static>> {
        self.iter().find(|permit| permit.resource() == resource)
    }

    /// End each: those that are named here by what they cost in the end, as
    /// [`Permit::settle`] does, the others by their limits' policy. Of a name that comes several times
    /// the costs are added up; one that is not among the permits is passed over.
    pub fn settle(self, actual: &[(&str, u64)]) {
        for permit in self.into_parts() {
            let mut named = actual.iter().filter(|(name, _)| *name == permit.resource()).peekable();
            if named.peek().is_some() {
                let cost = named.fold(0_u64, |cost, (_, more)| cost.saturating_add(*more));
                permit.settle(cost);
            }
        }
    }

    /// End each and leave its tokens spent, whatever the policy.
    pub fn spend(self) {
        self.into_parts().for_each(Permit::spend);
    }

    /// End each and give its tokens back, whatever the policy: the work did not happen.
    pub fn refund(self) {
        self.into_parts().for_each(Permit::refund);
    }

    /// Leave each in flight: see [`Permit::forget`].
    pub fn forget(self) {
        self.into_parts().for_each(Permit::forget);
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
