//! The counts themselves.
//!
//! # Orderings
//!
//! A count is written after what it counts, by a Release store or an `AcqRel` RMW, and read by an Acquire load. So
//! a reader of a count sees the tokens that were placed before it: [`Bucket::handed_out`] reads what was given
//! back, and then the stripes, which by then hold those tokens or have handed them out. Only the thread that owns a
//! shard writes its `own` part. A thread that ends passes its index, and so its shard, on under a mutex: see
//! [`thread_index`].
//!
//! [`Bucket::handed_out`]: crate::bucket::Bucket::handed_out

use std::array;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use super::Count;
use super::totals::Totals;
use super::wait_times::WaitTimes;
use crate::sync::{AtomicU64, IS_MODEL, Ordering, thread_index};

/// As many as a bucket has stripes.
const SHARDS: usize = if IS_MODEL { 2 } else { 8 };

/// Where something counts.
#[derive(Default)]
pub(crate) struct Counts {
    tally: Arc<Tally>,
    /// Where it counts now, if that has changed: a key got another template, or a limit of its own. Such changes are
    /// rare.
    moved: OnceLock<Box<Self>>,
}

/// Nothing of what it counts, which is no state of a bucket.
impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

/// The counts of a resource, or of the keys of a template.
#[derive(Debug)]
pub(crate) struct Tally {
    shards: [CachePadded<Shard>; SHARDS],
    seldom: [AtomicU64; Count::ALL - Count::SHARDED],
    /// Of those that have waited.
    wait_times: OnceLock<Box<WaitTimes>>,
}

/// The counts of the thread that owns the shard, and of threads that own none: in one cache line, or two that are
/// fetched together.
#[derive(Debug, Default)]
struct Shard {
    /// Counted by the thread of this index alone.
    own: [AtomicU64; Count::SHARDED],
    /// Counted by threads that own no shard.
    shared: [AtomicU64; Count::SHARDED],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            shards: array::from_fn(|_| CachePadded::default()),
            seldom: array::from_fn(|_| AtomicU64::new(0)),
            wait_times: OnceLock::new(),
        }
    }
}

impl Counts {
    pub(crate) const ARE_KEPT: bool = true;

    /// Counts to the same tally.
    pub(crate) fn shared(&self) -> Self {
        Self { tally: Arc::clone(self.tally()), moved: OnceLock::new() }
    }

    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.tally(), other.tally())
    }

    /// Counts to another tally from now on. A count in progress may still go to the old one.
    pub(crate) fn move_to(&self, to: Self) {
        let mut last = self;
        let mut to = Box::new(to);
        while let Err(rest) = last.moved.set(to) {
            to = rest;
            last = last.next().unwrap_or(last);
        }
    }

    #[inline]
    fn next(&self) -> Option<&Self> {
        self.moved.get().map(|moved| &**moved)
    }

    #[inline]
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        let mut last = self;
        while let Some(next) = last.next() {
            last = next;
        }
        &last.tally
    }

    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        self.tally().add(count, n);
    }

    /// Counts a wait that ended with `result` after `nanos` nanoseconds.
    pub(crate) fn add_wait(&self, result: Count, nanos: u64) {
        let tally = self.tally();
        tally.add(result, 1);
        tally.wait_times.get_or_init(Box::default).add(nanos);
    }
}

impl Tally {
    #[inline]
    fn add(&self, count: Count, n: u64) {
        let index = count as usize;
        if let Some(seldom) = index.checked_sub(Count::SHARDED) {
            self.seldom[seldom].fetch_add(n, Ordering::AcqRel);
            return;
        }
        let thread = thread_index();
        if let Some(shard) = self.shards.get(thread) {
            let own = &shard.own[index];
            let before = own.load(Ordering::Relaxed); // written by this thread alone
            own.store(before.wrapping_add(n), Ordering::Release);
        } else {
            self.shards[thread % SHARDS].shared[index].fetch_add(n, Ordering::AcqRel);
        }
    }
}

/// What is read of it: by metrics and by models.
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
impl Tally {
    /// Read in the order of [`Count`]: what is void after what was taken.
    pub(crate) fn totals(&self) -> Totals {
        let count = |index: usize| {
            if let Some(seldom) = index.checked_sub(Count::SHARDED) {
                return self.seldom[seldom].load(Ordering::Acquire);
            }
            let parts =
                self.shards.iter().flat_map(|shard| [&shard.own[index], &shard.shared[index]]);
            parts.fold(0, |sum, part| sum.wrapping_add(part.load(Ordering::Acquire)))
        };
        Totals(array::from_fn(count))
    }

    pub(crate) fn wait_times(&self) -> Option<&WaitTimes> {
        self.wait_times.get().map(|times| &**times)
    }
}

/// Tokens that a bucket's stripes have received since they opened: the first reserve, and every batch since. What
/// calls have taken from the stripes is this number less what the stripes hold. When the stripes close, that
/// difference is counted in the tally, and this is 0 again.
///
/// Tokens are added once the stripes hold them, and subtracted before the stripes are emptied. So in any interleaving
/// the difference is never more than what calls have taken.
#[derive(Debug, Default)]
pub(crate) struct Prepaid {
    open: AtomicU64,
    closing: AtomicU64,
}

impl Prepaid {
    /// Stripes have got `n` tokens.
    pub(crate) fn add(&self, n: u64) {
        self.open.fetch_add(n, Ordering::AcqRel);
    }

    /// Stripes are about to be closed.
    pub(crate) fn begin_close(&self) {
        let open = self.open.swap(0, Ordering::AcqRel);
        self.closing.fetch_add(open, Ordering::AcqRel);
    }

    /// Returns what the stripes have handed out. All are closed, and held `drained` tokens. The result wraps below 0
    /// if a batch is not [added](Self::add) yet; its addition makes up for that.
    pub(crate) fn end_close(&self, drained: u64) -> u64 {
        self.closing.swap(0, Ordering::AcqRel).wrapping_sub(drained)
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) fn get(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }
}
