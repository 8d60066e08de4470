//! A tally as it was read for a scrape, and the sums derived from it.

use super::Count;

/// One number for each [`Count`]. Differences may wrap below 0 while calls run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals(pub(super) [u64; Count::ALL]);

#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
impl Totals {
    pub(crate) fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// Tokens of admitted calls. `handed_out` are those from stripes that are open.
    pub(crate) fn admitted(&self, handed_out: u64) -> u64 {
        let taken = self.get(Count::Taken).wrapping_add(handed_out);
        let admitted = taken.wrapping_add(self.get(Count::GivenBack));
        not_negative(admitted.wrapping_sub(self.get(Count::Voided)))
    }

    /// Tokens that calls gave back.
    pub(crate) fn refunded(&self) -> u64 {
        let given = self.get(Count::GivenBack).wrapping_add(self.get(Count::Refunded));
        not_negative(given.wrapping_sub(self.get(Count::Undone)))
    }

    /// Waits in progress.
    pub(crate) fn waiting(&self) -> u64 {
        let ended = [Count::Granted, Count::TimedOut, Count::Cancelled, Count::Closed];
        let ended = ended.iter().map(|count| self.get(*count)).sum();
        self.get(Count::Waits).saturating_sub(ended)
    }
}

fn not_negative(sum: u64) -> u64 {
    sum.cast_signed().max(0).cast_unsigned()
}
