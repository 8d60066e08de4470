//! Which buckets are hot: those whose [stripes](super::stripes) are opened.

use super::Bucket;
use crate::sync::Ordering;

/// One take in so many, by the clock, is a sign of demand, if its reading is another than the last sign's:
/// time that stands still in a test makes no bucket hot. So is each take that meets another one.
pub(super) const SAMPLE: u64 = 1 << SAMPLE_BITS;
const SAMPLE_BITS: u32 = 10;
/// So many signs within 2^23 ns show a bucket that is hot: some 2 million takes a second, or threads
/// that contend.
const SIGNS: u64 = 16;
const SINCE_BITS: u32 = 23 - SAMPLE_BITS;

/// Of the word: the last sign's reading, in samples, above the signs since.
const COUNT_BITS: u32 = 8;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Bucket {
    /// A take without another one in between.
    #[cold]
    #[inline(never)]
    pub(super) fn note_sample(&self, now: u64) {
        let last = self.hot.demand.load(Ordering::Relaxed) >> COUNT_BITS; // a hint: some may be lost
        if last != now >> SAMPLE_BITS {
            self.note_demand(now);
        }
    }

    /// A sign of demand: open the stripes of a bucket that is hot.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_demand(&self, now: u64) {
        let demand = self.hot.demand.load(Ordering::Relaxed); // a hint, as above
        let (at, last) = (now >> SAMPLE_BITS, demand >> COUNT_BITS);
        let is_soon = at >> SINCE_BITS == last >> SINCE_BITS;
        let count = if is_soon { (demand & COUNT) + 1 } else { 1 };
        self.hot.demand.store(at << COUNT_BITS | count & COUNT, Ordering::Relaxed);
        // A model opens them where it means to.
        if count.is_multiple_of(SIGNS) && !cfg!(loom) {
            self.open(now);
        }
    }
}
