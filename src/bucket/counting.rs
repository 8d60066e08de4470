//! What a bucket counts: see [`counts`](crate::counts).

use super::atomic::Bucket;
#[cfg(feature = "metrics")]
use super::batch::STRIPES;
#[cfg(feature = "metrics")]
use super::rate::CARRY_BITS;
#[cfg(feature = "metrics")]
use super::slot::SlotConfig;
use super::slot::SlotState;
use crate::counts::{Count, Counts};

/// Looks at stripes that are opened and closed meanwhile.
#[cfg(any(feature = "metrics", loom))]
const ATTEMPTS: u32 = 8;

impl Bucket {
    #[inline]
    pub(crate) fn count(&self, count: Count, n: u64) {
        self.hot.counts.add(count, n);
    }

    /// Whether the slot in force is a pause.
    pub(crate) fn is_paused(&self) -> bool {
        self.slots[self.word().parity()].kind().0 == SlotState::Paused
    }

    #[inline]
    pub(crate) fn counts(&self) -> &Counts {
        &self.hot.counts
    }

    /// What calls have of the tokens of the open stripes, as far as that is not counted yet: see [`Prepaid`]. Wraps if
    /// a count is yet to come.
    ///
    /// Stripe 0 is the first to be closed. If it is open in one epoch, before and after, no stripe was emptied
    /// between, and what was added before has reached the stripes. If it is closed, what they held is counted
    /// elsewhere. It was opened again only if its epoch is another one.
    ///
    /// [`Prepaid`]: crate::counts::Prepaid
    #[cfg(any(feature = "metrics", loom))]
    pub(crate) fn handed_out(&self) -> u64 {
        let Some(stripes) = self.hot.stripes.get() else { return 0 };
        for _ in 0..ATTEMPTS {
            let epoch = stripes.epoch();
            let got = stripes.prepaid.get();
            let held = stripes.held();
            if stripes.epoch() == epoch {
                return got.wrapping_sub(held);
            }
        }
        0 // too few, for now
    }

    /// Whole tokens that the first window holds at `now`, those in the stripes included, and those that it lacks.
    /// Under the configuration lock.
    #[cfg(feature = "metrics")]
    pub(crate) fn balance(&self, current: &SlotConfig, now: u64) -> (u64, u64) {
        let (word, unit) = (self.word(), i128::from(current.terms.unit));
        let level = current.level(word.position(current.origin), now);
        let reserved = if word.is_striped() { STRIPES as u64 * current.terms.batch } else { 0 };
        let beside = i128::from(self.tokens_in_stripes()) - i128::from(reserved);
        let tokens = (level.0 >> CARRY_BITS).div_euclid(unit) + beside;
        let whole = |tokens: i128| u64::try_from(tokens).unwrap_or(0);
        (whole(tokens), whole(-tokens))
    }
}
