//! Feedback applied to a resource.

use std::time::Duration;

use super::feedback::Feedback;
use super::types::{Outcome, Quota, Scope, Unit};
use crate::limiter::{Permit, Resource};

impl Feedback {
    /// Applies the answer of a request whose permit has ended, or that had none, to the resource of its
    /// requests. As [`apply_to`](Self::apply_to), which is better as it knows when the request was sent.
    pub fn apply(&self, resource: &Resource) {
        self.apply_as(Unit::Requests, resource, None, resource.capacity().in_flight);
    }

    /// Applies the answer of the permit's request to its resource. It must still be in flight, and the others
    /// in flight are taken for requests that the upstream has not counted yet.
    ///
    /// See [`apply_as`](Self::apply_as).
    pub fn apply_to(&self, resource: &Resource, permit: &Permit<'_>) {
        let unanswered = resource.capacity().in_flight.saturating_sub(1);
        self.apply_as(Unit::Requests, resource, Some(permit), unanswered);
    }

    /// Applies what the answer says of one unit to the resource that limits it.
    ///
    /// * A refusal cuts the limit once for each incident, unless the limit is one that others share.
    /// * `retry_after` pauses it.
    /// * What is left, less what is `unanswered`, bounds the tokens in the bucket; and where the upstream tells
    ///   when its window ends, the rate until then. An overloaded upstream's figures, and those of windows that
    ///   have ended, are not used.
    ///
    /// It never raises a limit or ends a pause, so that answers may come late, twice and in any order.
    ///
    /// `unanswered` is how much, in the unit, was sent and not answered yet, without this request. Of a resource
    /// that counts other things than requests only the caller knows it.
    pub fn apply_as(
        &self,
        unit: Unit,
        resource: &Resource,
        permit: Option<&Permit<'_>>,
        unanswered: u64,
    ) {
        // First: nothing is admitted between the two.
        if let Some(wait) = self.retry_after {
            resource.pause_for(wait);
        }
        if self.outcome != Outcome::Passed && self.scope != Scope::Shared {
            let reason = self.status.to_string();
            match permit {
                Some(permit) => permit.throttled(&reason),
                None => resource.announce_reduced(&reason),
            }
        }
        if self.outcome != Outcome::Overloaded {
            let standing = Standing::of(&self.quotas, unit, unanswered);
            if let Some(left) = standing.left {
                resource.observe_remaining(left);
            }
            if let Some((left, until)) = standing.paced {
                resource.observe_remaining_until(left, until);
            }
        }
    }
}

/// The tightest of the quotas of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Standing {
    /// What is left of the one with the least, where no window's end is known.
    left: Option<u64>,
    /// What is left and until when, of the one that allows the lowest rate.
    paced: Option<(u64, Duration)>,
}

impl Standing {
    fn of(quotas: &[Quota], unit: Unit, unanswered: u64) -> Self {
        let mut standing = Self::default();
        for quota in quotas.iter().filter(|quota| quota.unit == unit) {
            let Some(remaining) = quota.remaining else { continue };
            let left = remaining.saturating_sub(unanswered);
            match quota.reset {
                Some(Duration::ZERO) => {}
                Some(until) if quota.ends_window => {
                    let slower = |(of, than): &(u64, Duration)| {
                        u128::from(*of) * until.as_nanos() <= u128::from(left) * than.as_nanos()
                    };
                    standing.paced = standing.paced.filter(slower).or(Some((left, until)));
                }
                _ => standing.left = Some(standing.left.map_or(left, |known| known.min(left))),
            }
        }
        standing
    }
}
