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

/// Readings of the clock, and the tokens that had been admitted by then in all, which wrap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(VecDeque<(u64, u64)>);

impl Meter {
    /// Notes a sample, made with an admission.
    pub(crate) fn note(&mut self, now: u64, total: u64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, total));
    }

    /// Starts anew: what was admitted before counts no more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Tokens a second over the last second or the last 8 admissions, whichever is longer. `None` if there
    /// were fewer, or if that is longer than a minute.
    pub(crate) fn rate(&self, now: u64, total: u64) -> Option<f64> {
        let is_long = |(at, _): &&(u64, u64)| now.saturating_sub(*at) >= SECOND;
        Self::since(self.0.iter().rev().skip(SAMPLES - 1).find(is_long)?, now, total)
    }

    /// The same over all samples: about 5 seconds, or the last 42 admissions.
    pub(crate) fn longer_rate(&self, now: u64, total: u64) -> Option<f64> {
        Self::since(self.0.front().filter(|_| self.0.len() >= SAMPLES)?, now, total)
    }

    #[allow(clippy::cast_precision_loss)] // a rate
    fn since((at, before): &(u64, u64), now: u64, total: u64) -> Option<f64> {
        let elapsed = now.saturating_sub(*at);
        let tokens = total.wrapping_sub(*before);
        (1..=OLDEST).contains(&elapsed).then(|| tokens as f64 * SECOND as f64 / elapsed as f64)
    }
}
