//! The rate lately admitted, from samples of how many tokens were admitted in all.

use std::collections::VecDeque;

/// Nanoseconds between two samples, at least.
pub(crate) const SPACING: u64 = 125_000_000;
/// A rate is measured over this many samples, and so over as many admissions, and over a second.
const SAMPLES: usize = 8;
/// Samples kept: those of 5 seconds.
const KEPT: usize = 42;
const SECOND: u64 = 1_000_000_000;
/// Older samples say nothing of the rate at present.
const OLDEST: u64 = 60 * SECOND;

/// Samples of what was admitted, in open time: that of pauses does not count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    /// Times, and the tokens that had been admitted by then in all, which wrap.
    samples: VecDeque<(u64, u64)>,
    /// The last pause: its first and last reading.
    pause: (u64, u64),
    /// Nanoseconds of the pauses before it.
    closed: u64,
}

impl Meter {
    /// Notes a sample, made with an admission.
    pub(crate) fn note(&mut self, now: u64, total: u64) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back((self.open_time(now), total));
    }

    /// Starts anew: what was admitted before counts no more.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Nothing is admitted until `until`, or until the pause that is on ends if that is later.
    pub(crate) fn pause(&mut self, now: u64, until: u64) {
        let (from, end) = self.pause;
        if now >= end {
            self.closed = self.closed.saturating_add(end - from);
            self.pause = (now, until.max(now));
        } else {
            self.pause.1 = end.max(until);
        }
    }

    /// The pause that is on ends.
    pub(crate) fn resume(&mut self, now: u64) {
        let (from, end) = self.pause;
        self.pause.1 = now.clamp(from, end);
    }

    fn open_time(&self, now: u64) -> u64 {
        let (from, end) = self.pause;
        now.saturating_sub(self.closed).saturating_sub(now.min(end).saturating_sub(from))
    }

    /// Tokens a second over the last second or the last 8 admissions, whichever is longer. `None` if there
    /// were fewer, or if that is longer than a minute.
    pub(crate) fn rate(&self, now: u64, total: u64) -> Option<f64> {
        let now = self.open_time(now);
        Self::since(self.last(now).filter(|sample| Self::is_recent(sample, now))?, now, total)
    }

    /// The same, however long ago that was: a limit that allows no 8 admissions a minute must be able to grow.
    pub(crate) fn slow_rate(&self, now: u64, total: u64) -> Option<f64> {
        let now = self.open_time(now);
        Self::since(self.last(now)?, now, total)
    }

    /// The same over all samples of the last minute, which are of 5 seconds or more, or the last 8.
    pub(crate) fn longer_rate(&self, now: u64, total: u64) -> Option<f64> {
        let now = self.open_time(now);
        let last = self.samples.len().checked_sub(SAMPLES)?;
        let recent = self.samples.iter().take(last).find(|sample| Self::is_recent(sample, now));
        Self::since(recent.unwrap_or(&self.samples[last]), now, total)
    }

    /// The sample from which on the last second counts, or the last 8 admissions.
    fn last(&self, now: u64) -> Option<&(u64, u64)> {
        let is_long = |(at, _): &&(u64, u64)| now.saturating_sub(*at) >= SECOND;
        self.samples.iter().rev().skip(SAMPLES - 1).find(is_long)
    }

    fn is_recent((at, _): &(u64, u64), now: u64) -> bool {
        now.saturating_sub(*at) <= OLDEST
    }

    #[allow(clippy::cast_precision_loss)] // a rate
    fn since((at, before): &(u64, u64), now: u64, total: u64) -> Option<f64> {
        let elapsed = now.saturating_sub(*at);
        let tokens = total.wrapping_sub(*before);
        (elapsed > 0).then(|| tokens as f64 * SECOND as f64 / elapsed as f64)
    }
}
