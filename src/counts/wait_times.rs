//! How long waits took, in buckets whose width is a quarter of a power of two.
//!
//! # Orderings
//!
//! Relaxed: the numbers publish nothing. A reader may see a wait without its time, or a time without
//! its wait.

use std::array;

use crate::sync::{AtomicU64, Ordering};

/// Of one power of two.
const PARTS: u32 = 4;
/// Waits of less than 2^10 ns, a microsecond, count in the first bucket, those of more than 2^47 ns, 39 hours, in the
/// last.
const FIRST: u32 = 10;
const LAST: u32 = 47;
const BUCKETS: usize = ((LAST - FIRST) * PARTS) as usize;

#[derive(Debug)]
pub(crate) struct WaitTimes([Bucket; BUCKETS]);

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// Waits of about one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitTime {
    pub(crate) count: u64,
    /// Of all together; wraps.
    pub(crate) nanos: u64,
}

impl Default for WaitTimes {
    fn default() -> Self {
        Self(array::from_fn(|_| Bucket::default()))
    }
}

fn index(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << FIRST, (1 << LAST) - 1);
    let power = nanos.ilog2();
    let part = (nanos >> (power - 2)) as u32 - PARTS; // the two bits below the first
    ((power - FIRST) * PARTS + part) as usize
}

impl WaitTimes {
    pub(super) fn add(&self, nanos: u64) {
        let bucket = &self.0[index(nanos)];
        bucket.nanos.fetch_add(nanos, Ordering::Relaxed);
        bucket.count.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) fn read(&self) -> impl Iterator<Item = WaitTime> {
        self.0.iter().map(|bucket| WaitTime {
            count: bucket.count.load(Ordering::Relaxed),
            nanos: bucket.nanos.load(Ordering::Relaxed),
        })
    }
}
