//! Which buckets are hot, so that their [stripes](super::stripes) pay.

use super::atomic::Bucket;
use crate::sync::{IS_MODEL, Ordering};

/// One take in this many, by the clock, is a sample, if its reading differs from the last sample's:
/// time that stands still in a test makes no bucket hot. A take that lost a CAS is a sample, too.
pub(super) const SAMPLE: u64 = 1 << SAMPLE_BITS;
const SAMPLE_BITS: u32 = 10;
/// Hot after this many samples in 2^23 ns: some 2 million takes a second, or threads that contend.
const HOT: u64 = 16;
const PERIOD_BITS: u32 = 23 - SAMPLE_BITS;

/// The word has the last sample's reading, in units of [`SAMPLE`], above the count of samples.
const COUNT_BITS: u32 = 8;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Bucket {
    /// Notes an uncontended take. Relaxed here and below: a hint, of which some may be lost.
    #[cold]
    #[inline(never)]
    pub(super) fn note_sample(&self, now: u64) {
        let last = self.hot.demand.load(Ordering::Relaxed) >> COUNT_BITS;
        if last != now >> SAMPLE_BITS {
            self.note_demand(now);
        }
    }

    /// Notes a sample, and opens the stripes of a bucket that is hot.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_demand(&self, now: u64) {
        let demand = self.hot.demand.load(Ordering::Relaxed);
        let (at, last) = (now >> SAMPLE_BITS, demand >> COUNT_BITS);
        let is_same_period = at >> PERIOD_BITS == last >> PERIOD_BITS;
        let count = if is_same_period { (demand & COUNT) + 1 } else { 1 };
        self.hot.demand.store(at << COUNT_BITS | count & COUNT, Ordering::Relaxed);
        // A model opens them itself.
        if count.is_multiple_of(HOT) && !IS_MODEL {
            self.open_stripes(now);
        }
    }
}
