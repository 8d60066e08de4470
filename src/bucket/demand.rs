//! Which buckets are hot: those whose [stripes](super::stripes) are opened.

use super::Bucket;
use crate::sync::Ordering;

/// One take in so many, by the clock, is a sign of demand; and so is each that meets another one.
pub(super) const SAMPLE: u64 = 1 << 10;
/// So many signs within 2^23 ns show a bucket that is hot: some 2 million takes a second, or threads
/// that contend.
const SIGNS: u64 = 16;
const SINCE: u32 = 23;

impl Bucket {
    /// A sign of demand: open the stripes of a bucket that is hot.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_demand(&self, now: u64) {
        const COUNT: u64 = 0xff;
        let demand = self.hot.demand.load(Ordering::Relaxed); // a hint: some may be lost
        let since = now >> SINCE << 8;
        let count = if demand & !COUNT == since { (demand + 1) & COUNT } else { 1 };
        self.hot.demand.store(since | count, Ordering::Relaxed);
        // A model opens them where it means to.
        if count.is_multiple_of(SIGNS) && !cfg!(loom) {
            self.open(now);
        }
    }
}
