//! What was admitted, against the bound: in every window, from the times alone.

use crate::bucket::{TOKEN, level_of};
use crate::quota::Quota;

/// One for each limit that the agents have had, from when the last of them knew it.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    limits: Vec<Window>,
    drift: u32,
    pub(crate) admitted: u64,
}

/// `excess` is the most by which any window that ends now exceeds what accrues in it.
#[derive(Debug)]
struct Window {
    limit: Quota,
    excess: u128,
    at: u64,
}

impl Judge {
    pub(crate) fn new(limit: Quota, drift: u32) -> Self {
        let window = Window { limit, excess: 0, at: 0 };
        Self { limits: vec![window], drift, admitted: 0 }
    }

    /// The largest limit of an agent is another from now on.
    pub(crate) fn limit(&mut self, limit: Quota, now: u64) {
        for window in &mut self.limits {
            window.drain(now, self.drift);
            window.limit.rate = window.limit.rate.max(limit.rate);
            window.limit.burst = window.limit.burst.max(limit.burst);
        }
        self.limits.push(Window { limit, excess: 0, at: now });
    }

    /// Tokens were spent at `now`, in real time. Returns by how much a bound is exceeded.
    pub(crate) fn admit(&mut self, tokens: u64, now: u64) -> Option<f64> {
        self.admitted += tokens;
        let mut worst = None;
        for window in &mut self.limits {
            window.drain(now, self.drift);
            window.excess += u128::from(tokens) * TOKEN;
            // Readings of clocks are whole nanoseconds: one may pass between two that show the same.
            let most = level_of(window.limit.burst) + u128::from(window.limit.rate);
            if window.excess > most {
                worst = worst.max(Some(window.excess - most));
            }
        }
        #[allow(clippy::cast_precision_loss)]
        worst.map(|excess| excess as f64 / TOKEN as f64)
    }
}

impl Window {
    fn drain(&mut self, now: u64, drift: u32) {
        let rate = u128::from(self.limit.rate) * u128::from(1_000_000 + drift);
        let accrued = (u128::from(now - self.at) * rate).div_ceil(1_000_000);
        self.excess = self.excess.saturating_sub(accrued);
        self.at = now;
    }
}
