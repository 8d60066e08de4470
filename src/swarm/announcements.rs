//! The cuts that are to be announced, each by its resource, and when. Time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Schedule;

/// After a reconnection each is repeated this many times: agents whose client is back later than ours may
/// know of cuts only by their announcement, and do not ask. Over 15 seconds.
const REPEATS: u32 = 5;
const FIRST_REPEAT: Duration = Duration::from_millis(500);

/// A bus that refuses a message this often, and takes others meanwhile, will never take it.
const MOST_REFUSALS: u32 = 8;
const LONGEST_DELAY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Announcements {
    due: Schedule<Instant>,
    attempts: HashMap<String, Attempts>,
    is_closing: bool,
}

/// What is known of one announcement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    /// How often the bus refused it, and when first.
    refusals: u32,
    refused_at: Option<Instant>,
    /// How often it is to be repeated.
    repeats: u32,
    /// It has been sent before.
    is_repeat: bool,
}

impl Attempts {
    /// For how long the first announcement of a cut has been refused; a repeat says nothing of an outage.
    pub(super) fn refused_for(&self, now: Instant) -> Duration {
        let since = self.refused_at.filter(|_| !self.is_repeat);
        since.map_or(Duration::ZERO, |refused_at| now - refused_at)
    }
}

impl Announcements {
    pub(super) fn new() -> Self {
        Self { due: Schedule::new(), attempts: HashMap::new(), is_closing: false }
    }

    /// There is a new cut to announce.
    pub(super) fn add(&mut self, resource: &str, now: Instant) {
        let before = self.attempts.get(resource).copied().unwrap_or_default();
        self.put(resource, now, Attempts { repeats: before.repeats, ..Attempts::default() });
    }

    /// What was announced may not have been heard.
    pub(super) fn repeat(&mut self, resource: &str, now: Instant) {
        let unsent = self.attempts.get_mut(resource).filter(|attempts| !attempts.is_repeat);
        if let Some(unsent) = unsent {
            unsent.repeats = REPEATS;
        } else {
            let repeats = REPEATS - 1;
            let again = Attempts { repeats, is_repeat: true, ..Attempts::default() };
            self.put(resource, now + FIRST_REPEAT, again);
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next()
    }

    /// Takes out one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(String, Attempts)> {
        let resource = self.due.take_due(now)?;
        let attempts = self.attempts.remove(&resource).unwrap_or_default();
        Some((resource, attempts))
    }

    /// It was sent.
    pub(super) fn sent(&mut self, resource: &str, attempts: Attempts, now: Instant) {
        if attempts.repeats > 0 {
            let delay = FIRST_REPEAT * (1 << (REPEATS - attempts.repeats));
            let repeats = attempts.repeats - 1;
            let again = Attempts { repeats, is_repeat: true, ..Attempts::default() };
            self.put_unless_pending(resource, now + delay, again);
        }
    }

    /// The bus did not take it, and last took a message at `accepted_at`. It is tried again after `delay`,
    /// longer each time. Returns `false` if it is given up instead, which needs `is_refusal`: another
    /// connection might take it.
    pub(super) fn failed(
        &mut self,
        resource: &str,
        mut attempts: Attempts,
        is_refusal: bool,
        now: Instant,
        delay: Duration,
        accepted_at: Option<Instant>,
    ) -> bool {
        let refused_at = *attempts.refused_at.get_or_insert(now);
        attempts.refusals += 1;
        let others_were_taken = accepted_at.is_some_and(|accepted_at| accepted_at > refused_at);
        if is_refusal && attempts.refusals >= MOST_REFUSALS && others_were_taken {
            return false;
        }
        let is_whole_bus = self.is_closing || !is_refusal && !others_were_taken;
        let doublings = if is_whole_bus { 0 } else { attempts.refusals.min(MOST_REFUSALS) - 1 };
        let due = now + (delay * (1 << doublings)).min(LONGEST_DELAY);
        self.put_unless_pending(resource, due, attempts);
        true
    }

    /// The bus is back: all that it has not taken is due.
    pub(super) fn retry_all(&mut self, now: Instant) {
        for (resource, attempts) in &self.attempts {
            if attempts.refused_at.is_some() {
                self.due.set(resource, now);
            }
        }
    }

    /// Whether there is one that was never sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.attempts.values().any(|attempts| !attempts.is_repeat)
    }

    /// Drops those that were sent before, and makes the others due.
    pub(super) fn keep_unsent(&mut self, now: Instant) {
        self.attempts.retain(|_, attempts| !attempts.is_repeat);
        self.due = Schedule::new();
        for (resource, attempts) in &mut self.attempts {
            *attempts = Attempts::default();
            self.due.set(resource, now);
        }
        self.is_closing = true;
    }

    fn put(&mut self, resource: &str, due: Instant, attempts: Attempts) {
        self.due.set(resource, due);
        self.attempts.insert(resource.to_string(), attempts);
    }

    /// A cut that was made meanwhile is announced in its place.
    fn put_unless_pending(&mut self, resource: &str, due: Instant, attempts: Attempts) {
        if self.due.get(resource).is_none() {
            self.put(resource, due, attempts);
        }
    }
}
