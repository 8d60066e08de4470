//! The pauses of one resource. Overlapping pauses are one, up to the latest of their ends.
//!
//! Agents of a swarm tell each other of pauses. A pause that is told has an id, and agents remember ids: its
//! end, once heard, never moves, in whatever order and however often it is told. It ends empty, and on each
//! agent later by a random part of its [spread](Pause::spread), so that the agents do not all start at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Origin;

/// The most pauses that are remembered, ended ones included. A forgotten pause that is told again starts anew.
const MOST_KNOWN: usize = 64;
/// Nanoseconds of the longest spread.
const LONGEST_SPREAD: u64 = 1_000_000_000;
/// Nanoseconds. Ends that are no further apart need no message of their own.
const NOTICEABLE: u64 = 100_000_000;

/// A pause that is told in a swarm, as this agent knows it.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "swarm"), allow(dead_code))] // only a swarm tells of it
pub(crate) struct Pause {
    pub(crate) id: u64,
    /// In nanoseconds.
    pub(crate) length: u64,
    /// By this agent's clock, without the agent's part of the spread.
    end: u64,
    pub(crate) origin: Arc<Origin>,
}

/// What is known of a resource's pauses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses {
    /// When the pause in force ends; `None` once observers have to know that there is none.
    until: Option<u64>,
    ends_empty: bool,
    /// If a pause that is told is in force: the part of its spread that this agent adds.
    part: Option<f64>,
    known: VecDeque<Pause>,
}

/// A pause that is told, and goes beyond those that were told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinedPause {
    /// When it ends on this agent.
    pub(crate) until: u64,
    /// Whether other agents should hear of it at once.
    pub(crate) is_urgent: bool,
}

impl Pause {
    /// A pause of `length` that began `age` ago, in nanoseconds.
    pub(crate) fn new(id: u64, length: u64, age: u64, now: u64, origin: Arc<Origin>) -> Self {
        Self { id, length, end: now.saturating_add(length.saturating_sub(age)), origin }
    }

    #[cfg(feature = "swarm")]
    pub(crate) fn age(&self, now: u64) -> u64 {
        self.length.saturating_sub(self.end.saturating_sub(now))
    }

    /// Within this time after the end the agents start again.
    fn spread(&self) -> u64 {
        (self.length / 10).min(LONGEST_SPREAD)
    }
}

impl Pauses {
    /// When the pause in force ends.
    #[cfg(feature = "swarm")]
    pub(crate) fn until(&self) -> Option<u64> {
        self.until
    }

    /// How long nothing is admitted from now on.
    pub(crate) fn left(&self, now: u64) -> Option<Duration> {
        let left = self.until?.saturating_sub(now);
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Whether the pause in force leaves no tokens.
    pub(crate) fn ends_empty(&self) -> bool {
        self.ends_empty
    }

    /// Nothing is admitted before `until`. Whether a pause begins by that.
    pub(crate) fn extend(&mut self, until: u64, ends_empty: bool) -> bool {
        let begins = self.until.is_none();
        self.until = self.until.max(Some(until));
        self.ends_empty |= ends_empty;
        begins
    }

    /// Joins a pause that is told. `part` of its spread is added unless such a pause is in force, which has
    /// its own part. `None` if that changes nothing: it is known, or ends no later than others.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // at most a second
    pub(crate) fn join(&mut self, pause: Pause, now: u64, part: f64) -> Option<JoinedPause> {
        if self.known.iter().any(|known| known.id == pause.id) {
            return None;
        }
        let told_until = self.standing(now).map_or(now, |standing| standing.end);
        let (end, spread) = (pause.end, pause.spread());
        self.known.push_back(pause);
        if self.known.len() > MOST_KNOWN {
            let ends = self.known.iter().enumerate().min_by_key(|(_, known)| known.end);
            ends.map(|(first, _)| first).and_then(|first| self.known.remove(first));
        }
        if end <= told_until {
            return None;
        }
        let part = *self.part.get_or_insert(part);
        Some(JoinedPause {
            until: end.saturating_add((spread as f64 * part) as u64),
            is_urgent: told_until == now || end - told_until > NOTICEABLE,
        })
    }

    /// The told pause that ends last, unless it has ended.
    pub(crate) fn standing(&self, now: u64) -> Option<&Pause> {
        self.known.iter().filter(|known| known.end > now).max_by_key(|known| known.end)
    }

    /// Whether an agent that knows the pauses `theirs` lacks one that stands here.
    #[cfg(feature = "swarm")]
    pub(crate) fn is_ahead_of(&self, theirs: &[Pause], now: u64) -> bool {
        self.standing(now).is_some_and(|ours| {
            let knows = |theirs: &Pause| {
                theirs.id == ours.id || theirs.end.saturating_add(NOTICEABLE) >= ours.end
            };
            !theirs.iter().any(knows)
        })
    }

    /// Whether the pause in force has ended by `now`. Returns `true` once for each.
    pub(crate) fn has_ended(&mut self, now: u64) -> bool {
        let has_ended = self.until.take_if(|until| *until <= now).is_some();
        if has_ended {
            (self.ends_empty, self.part) = (false, None);
        }
        has_ended
    }

    /// Ends all pauses for this agent. Whether one was in force.
    pub(crate) fn resume(&mut self, now: u64) -> bool {
        self.known.iter_mut().for_each(|known| known.end = known.end.min(now));
        (self.ends_empty, self.part) = (false, None);
        self.until.take().is_some()
    }
}

#[cfg(all(test, feature = "swarm"))]
#[path = "pause_tests.rs"]
mod tests;
