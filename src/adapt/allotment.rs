//! What a swarm's quota allots to this agent, by the time. Pure state; time is passed in.
//!
//! An allotment is a list of segments: a share, and the reading at which it ends. After the last there is no share:
//! then nothing is admitted, and tokens are void. The limiter looks again after a while, so that those that wait
//! are told when.

use std::collections::VecDeque;

use crate::bucket::BURST_PARTS;

/// A share of a quota up to a reading. With less than a token of burst, or without a rate, it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Nanotokens a second.
    pub(crate) rate: u64,
    /// In 1/[`BURST_PARTS`] of a token.
    pub(crate) burst: u32,
    pub(crate) until: u64,
}

impl Segment {
    /// Tokens that accrue in `nanos`, scaled by `factor`, rounded down.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // a figure to show
    pub(crate) fn per_window(&self, nanos: u64, factor: f64) -> u64 {
        let tokens = self.rate as f64 / 1e9 * (nanos as f64 / 1e9) * factor.min(1.0);
        (tokens + 1e-9) as u64
    }

    fn is_usable(&self) -> bool {
        self.rate > 0 && self.burst >= BURST_PARTS
    }

    fn is_same_share(&self, other: &Self) -> bool {
        (self.rate, self.burst) == (other.rate, other.burst)
    }
}

/// The shares of an agent, from now on.
#[derive(Clone, Debug)]
pub(crate) struct Allotment {
    segments: VecDeque<Segment>,
    /// When to look again while there is no share, and how often.
    look: u64,
    patience: u64,
    /// Counts the changes of the share. Tokens of one are not given back in another.
    changes: u32,
}

impl Allotment {
    /// No share yet.
    #[cfg(feature = "swarm")]
    pub(crate) fn none(now: u64, patience: u64) -> Self {
        let look = now.saturating_add(patience);
        Self { segments: VecDeque::new(), look, patience, changes: 1 }
    }

    /// The share in force.
    pub(crate) fn share(&self) -> Option<&Segment> {
        self.segments.front().filter(|segment| segment.is_usable())
    }

    pub(crate) fn changes(&self) -> u32 {
        self.changes
    }

    /// When the share in force ends, or the next look is due.
    pub(crate) fn due(&self) -> u64 {
        self.segments.front().map_or(self.look, |segment| segment.until)
    }

    /// When there is no share any more, as far as is known.
    pub(crate) fn end(&self) -> Option<u64> {
        self.segments.iter().rfind(|segment| segment.is_usable()).map(|last| last.until)
    }

    /// When the share in force at `now` ends, as far as is known; `None` if there is none.
    pub(crate) fn stands_until(&self, now: u64) -> Option<u64> {
        let to_come = self.segments.iter().skip_while(|segment| segment.until <= now);
        let standing = to_come.take_while(|segment| segment.is_usable());
        standing.last().map(|last| last.until)
    }

    /// Other segments, from `now` on. They follow each other without a gap.
    #[cfg(feature = "swarm")]
    pub(crate) fn replace(&mut self, segments: &[Segment], now: u64) {
        let before = self.share().copied();
        self.segments = segments.iter().copied().filter(|segment| segment.until > now).collect();
        self.look = now.saturating_add(self.patience);
        self.note_change(before);
    }

    /// Ends the segments that have ended at `at`, seen at `now`.
    pub(crate) fn advance(&mut self, at: u64, now: u64) {
        let before = self.share().copied();
        while self.segments.front().is_some_and(|segment| segment.until <= at) {
            self.segments.pop_front();
        }
        if self.segments.is_empty() && self.look <= now {
            self.look = now.saturating_add(self.patience);
        }
        self.note_change(before);
    }

    fn note_change(&mut self, before: Option<Segment>) {
        let is_same = match (&before, self.share()) {
            (Some(before), Some(after)) => before.is_same_share(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !is_same {
            self.changes = self.changes.wrapping_add(1);
        }
    }
}
