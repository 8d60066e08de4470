//! A bucket on a share, in plain integers: rule 6 as it is written.

use crate::member::Segment;
use crate::participant::Participant;
use crate::quota::{BURST_UNITS, Quota};

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

    /// What the clock made due, up to `now`.
    pub(crate) fn advance(&mut self, rules: &Participant, now: u64) {
        while let Some(end) = self.segment.until.filter(|end| *end <= now) {
            self.accrue(end);
            self.enter(rules.segment(end));
        }
        self.accrue(now);
    }

    /// The rules say something else, from `now` on.
    pub(crate) fn change(&mut self, rules: &Participant, now: u64) {
        self.enter(rules.segment(now.max(self.at)));
    }

    fn accrue(&mut self, now: u64) {
        let gained = u128::from(now.saturating_sub(self.at)) * u128::from(self.segment.quota.rate);
        self.level = (self.level + gained).min(level_of(self.segment.quota.burst));
        self.at = self.at.max(now);
    }

    fn enter(&mut self, segment: Segment) {
        self.segment = segment;
        self.level = self.level.min(level_of(segment.quota.burst));
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
