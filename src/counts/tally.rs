//! The counts themselves.
//!
//! # Orderings
//!
//! A count is stored with Release, or added to by an `AcqRel` RMW, after what it counts, and loaded with Acquire.
//! So who reads a count sees the tokens that were placed before it: [`Bucket::handed_out`] reads what was given
//! back, and then the stripes, which have it by then, or have handed it out. A thread that owns a shard is the only
//! one to write its `own` part. A thread that ends hands its index, and so its shard, over under a mutex: see
//! [`thread_index`].
//!
//! [`Bucket::handed_out`]: crate::bucket::Bucket::handed_out

use std::array;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use super::Count;
use super::totals::Totals;
use super::wait_times::WaitTimes;
use crate::sync::{AtomicU64, IS_MODEL, Ordering, thread_index};

/// As many as a bucket has stripes.
const SHARDS: usize = if IS_MODEL { 2 } else { 8 };

/// Where something counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    tally: Arc<Tally>,
    /// Where it counts now, if that has changed: a key that has another template, or a limit of its own. Such
    /// changes are few.
    moved: OnceLock<Box<Self>>,
}

/// The counts of a resource, or of the keys of a template.
#[derive(Debug)]
pub(crate) struct Tally {
    shards: [CachePadded<Shard>; SHARDS],
    seldom: [AtomicU64; Count::ALL - Count::SHARDED],
    /// Of those that have waited.
    wait_times: OnceLock<Box<WaitTimes>>,
}

/// The part of some threads, in one cache line, or two that are fetched together.
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

    /// From now on counts to another tally. A count in progress may still go to this one.
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

    /// Counts a wait that ends by `result` after so many nanoseconds.
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

/// Tokens that are in the hands of a bucket's stripes, or were when they handed them out: what was reserved as they
/// opened, and every batch since. What calls have of it is this less what the stripes hold. As the stripes close, that
/// is counted in the tally, and this is 0 again.
///
/// Each step comes when the stripes hold what it adds, or before they are emptied of what it takes away. So the
/// difference is never more than what calls have, however the steps of several threads follow each other.
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

    /// All are closed, and held `drained` tokens: what they have handed out. A batch that is yet to be
    /// [added](Self::add) counts there; until then this may be negative, and wraps.
    pub(crate) fn end_close(&self, drained: u64) -> u64 {
        self.closing.swap(0, Ordering::AcqRel).wrapping_sub(drained)
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) fn get(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }
}
