//! When to repeat what stands: the Trickle algorithm (RFC 6206), without its clock.
//!
//! Whoever has cuts that stand says so in every interval once, but for those resources of which
//! somebody else just did. Intervals grow while all agree, and start small again when somebody knew less, or more. So a lost
//! message is made up for within a fraction of a second, and a swarm that agrees says next to
//! nothing, however large it is.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// Who failed to say it tries again after this.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Trickle {
    interval: Duration,
    /// When to speak in this interval; `None` once that has passed.
    speak: Option<Instant>,
    end: Instant,
    /// Resources of which somebody said in this interval all that there is to say.
    said: BTreeSet<String>,
}

impl Trickle {
    pub(super) fn new(now: Instant) -> Self {
        Self::of(SHORTEST, now)
    }

    /// The moment lies in the second half: in the first everyone listens.
    fn of(interval: Duration, now: Instant) -> Self {
        let speak = Some(now + interval.mul_f64(0.5 + 0.5 * fastrand::f64()));
        Self { interval, speak, end: now + interval, said: BTreeSet::new() }
    }

    /// When [`speaks`](Self::speaks) is to be asked next.
    pub(super) fn next(&self) -> Instant {
        self.speak.unwrap_or(self.end)
    }

    /// Whether now is the moment to speak.
    pub(super) fn speaks(&mut self, now: Instant) -> bool {
        if self.speak.is_some_and(|speak| speak <= now) {
            self.speak = None;
            return true;
        }
        if self.end <= now {
            *self = Self::of((self.interval * 2).min(LONGEST), now);
        }
        false
    }

    pub(super) fn is_said(&self, resource: &str) -> bool {
        self.said.contains(resource)
    }

    /// Somebody said of `resource` all that there is to say.
    pub(super) fn agree(&mut self, resource: &str) {
        self.said.insert(resource.to_string());
    }

    /// Somebody knew less of `resource`, or more.
    pub(super) fn differ(&mut self, resource: &str, now: Instant) {
        self.said.remove(resource);
        self.hurry(now);
    }

    /// Somebody asks.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.interval > SHORTEST {
            *self = Self::new(now);
        }
    }

    /// It could not be said.
    pub(super) fn failed(&mut self, now: Instant) {
        (self.speak, self.end) = (Some(now + RETRY_DELAY), now + RETRY_DELAY);
        self.said.clear();
    }
}
