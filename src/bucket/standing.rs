//! What a bucket has left, and when it has more: the figures of one look. And an upstream's word on it.

use super::atomic::Bucket;
use super::outcome::Retry;
use super::rate::Level;
use super::slot::SlotConfig;
use super::snapshot::Snapshot;

/// A bucket's figures at one clock reading. Times are in nanoseconds from it; `u64::MAX` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whole tokens that could be taken.
    pub(crate) remaining: u64,
    /// Whole tokens in a full bucket.
    pub(crate) burst: u64,
    /// Until there is one more token; 0 if there is none to come.
    pub(crate) until_next: u64,
    pub(crate) until_full: u64,
}

impl Standing {
    /// The one of two with fewer tokens, or that has its next token later.
    pub(crate) fn tighter(self, other: Self) -> Self {
        let key = |standing: &Self| (standing.remaining, u64::MAX - standing.until_next);
        if key(&other) < key(&self) { other } else { self }
    }
}

impl Snapshot {
    /// The figures, with the tokens that stripes hold.
    pub(crate) fn standing(&self, in_stripes: u64) -> Standing {
        let burst = self.capacity_tokens;
        let remaining = self.available().saturating_add(in_stripes).min(burst);
        // As if the word had what the stripes hold, and what they lack were spent.
        let missing = self.reserved.saturating_sub(in_stripes.saturating_mul(self.unit));
        let position = self.word.position(self.origin).max(self.accrued.floor);
        let position = position.saturating_add(missing); // what accrued past the horizon saturates
        let next = (remaining + 1).saturating_mul(self.unit);
        let full = self.capacity.saturating_add(self.reserved);
        let next = position.saturating_add(next).saturating_sub(full);
        let until = |need| self.deficit_of(need).wait();
        let until_full = until(position);
        let until_next = if remaining == burst {
            0
        } else if next == position {
            until_full // by the last token
        } else {
            until(next)
        };
        Standing { remaining, burst, until_next, until_full }
    }
}

impl Bucket {
    /// What it holds at `now`, with the stripes closed. Under the configuration lock.
    pub(crate) fn level(&self, current: &SlotConfig, now: u64) -> Level {
        current.level(self.word().position(current.origin), now)
    }

    /// Leaves at most `n` tokens; a level that is lower, and a debt, stay. `is_locked` as in
    /// [`Bucket::take_any`]. `Undecided` also if the stripes have a part of what is to go;
    /// `SlotExpired` also in the middle of a unit, so that [`Bucket::swing`] must do it.
    pub(crate) fn lower(&self, n: u64, now: u64, is_locked: bool) -> Result<(), Retry> {
        self.settle(now, is_locked, |snapshot| {
            let next = snapshot.lowered(n).ok_or(Retry::SlotExpired)?;
            let is_lower = next != snapshot.word.position(snapshot.origin);
            if is_lower && snapshot.is_striped() { Err(Retry::Undecided) } else { Ok(next) }
        })
    }
}
