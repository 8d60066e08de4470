//! A bucket on a share, in plain integers: rule 6 as it is written.

use crate::member::Segment;
use crate::quota::{BURST_UNITS, Quota};
use crate::{DROPPED, Premise};

/// The parts of rule 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    StartsAtZero,
    /// At the share's burst, when that shrinks.
    IsClipped,
    IsVoidWithoutLease,
    /// What accrued under a lower share accrued at its rate, however late one looks.
    AccruesAtEachShare,
}

fn is_dropped(level: Level) -> bool {
    DROPPED.get() == Some(Premise::Level(level))
}

/// Levels count in this part of a token: what accrues in a nanosecond is whole.
pub(crate) const TOKEN: u128 = 1_000_000_000_000_000_000;

/// A burst as a level.
pub(crate) fn level_of(burst: u32) -> u128 {
    u128::from(burst) * (TOKEN / u128::from(BURST_UNITS))
}

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    level: u128,
    at: u64,
    segment: Segment,
}

impl Bucket {
    pub(crate) fn new(now: u64) -> Self {
        Self { level: 0, at: now, segment: Segment { quota: Quota::ZERO, until: None } }
    }

    /// What the clock made due, up to `now`. `rules` says what may be spent from a time on.
    pub(crate) fn advance(&mut self, rules: impl Fn(u64) -> Segment, now: u64) {
        while let Some(end) = self.segment.until.filter(|end| *end <= now) {
            self.accrue(end);
            self.enter(rules(end));
        }
        self.accrue(now);
    }

    /// The rules say something else, from now on.
    pub(crate) fn change(&mut self, rules: impl Fn(u64) -> Segment, now: u64) {
        self.enter(rules(now.max(self.at)));
    }

    fn accrue(&mut self, now: u64) {
        if is_dropped(Level::AccruesAtEachShare) && self.segment.until.is_some_and(|end| end == now)
        {
            return; // with what comes, at the rate that is then
        }
        let gained = u128::from(now.saturating_sub(self.at)) * u128::from(self.segment.quota.rate);
        let most = level_of(self.segment.quota.burst).max(self.level);
        self.level = (self.level + gained).min(most);
        self.at = self.at.max(now);
    }

    fn enter(&mut self, segment: Segment) {
        let (before, after) = (self.segment.quota, segment.quota);
        self.segment = segment;
        let is_void = after == Quota::ZERO;
        let is_kept =
            is_dropped(if is_void { Level::IsVoidWithoutLease } else { Level::IsClipped });
        if !is_kept {
            self.level = self.level.min(level_of(after.burst));
        }
        if is_dropped(Level::StartsAtZero) && before == Quota::ZERO {
            self.level = level_of(after.burst);
        }
    }

    /// Whole tokens.
    pub(crate) fn tokens(&self) -> u64 {
        (self.level / TOKEN) as u64
    }

    pub(crate) fn take(&mut self, tokens: u64) {
        self.level -= u128::from(tokens) * TOKEN;
    }

    pub(crate) fn quota(&self) -> Quota {
        self.segment.quota
    }

    /// When it holds `tokens`, or there is another segment.
    pub(crate) fn next(&self, tokens: u64) -> Option<u64> {
        let lacking = (u128::from(tokens) * TOKEN).saturating_sub(self.level);
        let fits = u128::from(tokens) * TOKEN <= level_of(self.segment.quota.burst);
        let rate = u128::from(self.segment.quota.rate);
        let full = (fits && rate > 0).then(|| self.at + lacking.div_ceil(rate) as u64);
        [full, self.segment.until].into_iter().flatten().min()
    }
}
