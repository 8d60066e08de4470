//! When to repeat the cuts that stand: the Trickle algorithm (RFC 6206). Time is passed in.
//!
//! An agent with cuts that stand sends them once an interval, except those of resources that
//! another agent has just sent. Intervals grow while all agents agree, and are reset when one knows
//! less or more. So a lost message is made up for within a fraction of a second, and a swarm that
//! agrees sends almost nothing, however large it is.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(100);
/// The first interval of agents that have heard of a change: the one that made it tells of it before they
/// do, and so they need not.
const HEARD: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(5);
/// After a failure the agent sends again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Trickle {
    interval: Duration,
    /// When to send in this interval; `None` once that has passed.
    send_at: Option<Instant>,
    end: Instant,
    /// Resources of which another agent has sent all cuts in this interval.
    covered: BTreeSet<String>,
}

impl Trickle {
    pub(super) fn new(is_ours: bool, now: Instant) -> Self {
        Self::of(if is_ours { SHORTEST } else { HEARD }, now)
    }

    /// Sends in the second half of the interval: in the first all agents only listen.
    fn of(interval: Duration, now: Instant) -> Self {
        let send_at = Some(now + interval.mul_f64(0.5 + 0.5 * fastrand::f64()));
        Self { interval, send_at, end: now + interval, covered: BTreeSet::new() }
    }

    /// When to call [`should_send`](Self::should_send) next.
    pub(super) fn next(&self) -> Instant {
        self.send_at.unwrap_or(self.end)
    }

    /// Whether to send now. Begins the next interval when this one is over.
    pub(super) fn should_send(&mut self, now: Instant) -> bool {
        if self.send_at.is_some_and(|send_at| send_at <= now) {
            self.send_at = None;
            return true;
        }
        if self.end <= now {
            *self = Self::of((self.interval * 2).min(LONGEST), now);
        }
        false
    }

    pub(super) fn is_covered(&self, resource: &str) -> bool {
        self.covered.contains(resource)
    }

    /// Another agent has sent all cuts of `resource`.
    pub(super) fn consistent(&mut self, resource: &str) {
        self.covered.insert(resource.to_string());
    }

    /// The cuts of `resource` have changed, by this agent or by what it has heard.
    pub(super) fn changed(&mut self, resource: &str, is_ours: bool, now: Instant) {
        self.covered.remove(resource);
        let next = Self::new(is_ours, now);
        if next.interval < self.interval {
            *self = next;
        }
    }

    /// Another agent knew less of `resource`.
    pub(super) fn inconsistent(&mut self, resource: &str, now: Instant) {
        self.covered.remove(resource);
        self.reset(now);
    }

    /// Back to the shortest interval: also for a query.
    pub(super) fn reset(&mut self, now: Instant) {
        if self.interval > SHORTEST {
            *self = Self::new(true, now);
        }
    }

    /// The cuts could not be sent.
    pub(super) fn failed(&mut self, now: Instant) {
        (self.send_at, self.end) = (Some(now + RETRY_DELAY), now + RETRY_DELAY);
        self.covered.clear();
    }
}
