//! Which buckets are hot, so that their [stripes](super::stripes) pay.

use crate::sync::{AtomicU64, IS_MODEL, Ordering};

/// One take in this many, by the clock, is a sample, if its reading differs from the last sample's:
/// time that stands still in a test makes no bucket hot. A take that lost a CAS is a sample, too.
const SAMPLE: u64 = 1 << SAMPLE_BITS;
const SAMPLE_BITS: u32 = 10;
/// Hot after this many samples in 2^23 ns: some 2 million takes a second, or threads that contend.
const HOT: u64 = 16;
const PERIOD_BITS: u32 = 23 - SAMPLE_BITS;

const COUNT_BITS: u32 = 8;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The last sample's reading, in units of [`SAMPLE`], above the count of samples. Relaxed throughout: a
/// hint, of which some may be lost.
#[derive(Debug, Default)]
pub(super) struct Demand(AtomicU64);

/// Whether a take at this reading is one.
#[inline]
pub(crate) fn is_sample(now: u64) -> bool {
    now.is_multiple_of(SAMPLE)
}

impl Demand {
    /// Notes a sample, unless time stands still. Returns whether the bucket is hot.
    pub(super) fn note_sample(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed) >> COUNT_BITS;
        last != now >> SAMPLE_BITS && self.note(now)
    }

    /// The same, even if time stands still. A model opens the stripes itself.
    pub(super) fn note(&self, now: u64) -> bool {
        let demand = self.0.load(Ordering::Relaxed);
        let (at, last) = (now >> SAMPLE_BITS, demand >> COUNT_BITS);
        let is_same_period = at >> PERIOD_BITS == last >> PERIOD_BITS;
        let count = if is_same_period { (demand & COUNT) + 1 } else { 1 };
        self.0.store(at << COUNT_BITS | count & COUNT, Ordering::Relaxed);
        count.is_multiple_of(HOT) && !IS_MODEL
    }
}
