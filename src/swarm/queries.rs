//! When to ask for the cuts that stand. Time is passed in.
//!
//! Answers go to all agents. So an agent that hears another's query leaves out its own: a thousand agents
//! that join at once, or that lost the same messages, ask a few times together.

use std::time::Duration;

use tokio::time::Instant;

/// An agent that joins asks this many times, because messages are lost.
const TIMES: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(250);
/// The longest delay after a loss: it doubles with each, because what overran the inbox may be the answers.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Queries {
    left: u32,
    at: Instant,
    delay: Duration,
    lost_at: Option<Instant>,
}

impl Queries {
    /// Those of an agent that joins.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: TIMES, at: now, delay: FIRST_DELAY, lost_at: None }
    }

    /// This agent has heard nothing for a while, perhaps with all others.
    pub(super) fn start_again(&mut self, now: Instant) {
        let at = now + FIRST_DELAY.mul_f64(fastrand::f64());
        (self.left, self.at) = (TIMES, at);
    }

    /// When to ask next.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.at)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// Messages were lost in which cuts may have been.
    pub(super) fn lost(&mut self, now: Instant) {
        if self.left > 0 {
            return;
        }
        if self.lost_at.is_none_or(|lost_at| now - lost_at > LONGEST_DELAY) {
            self.delay = FIRST_DELAY;
        }
        (self.left, self.at) = (1, now + self.delay.mul_f64(fastrand::f64()));
        (self.delay, self.lost_at) = ((self.delay * 2).min(LONGEST_DELAY), Some(now));
    }

    /// This agent or another one has asked.
    pub(super) fn asked(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(1);
        self.at = self.at.max(now + INTERVAL);
    }

    /// The bus refused the query. It is tried again ever later, and given up after a minute or two.
    pub(super) fn refused(&mut self, now: Instant) {
        if self.delay >= LONGEST_DELAY {
            self.left = 0;
        }
        self.at = now + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    pub(super) fn stop(&mut self) {
        self.left = 0;
    }
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
