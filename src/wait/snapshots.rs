//! A look at all windows of a resource at once: what is least, or latest, among them.

use smallvec::SmallVec;

use super::{FairBucket, Queue};
use crate::bucket::{Deficit, Refusal, Snapshot};

impl FairBucket {
    /// Whether all windows hold all they can, with nothing in the stripes, which are closed.
    pub(crate) fn is_full(&self, now: u64) -> bool {
        let all =
            |queue: &mut Queue| self.snapshots(queue, now).views().iter().all(Snapshot::is_full);
        if self.bucket.is_striped() {
            // As of `now`, whenever they were closed. Not in vain: closing them adds nothing to the word.
            let has_all = self.bucket.snapshot(now).has_all();
            return has_all && self.alone(now, |queue, _, _| all(queue));
        }
        all(&mut self.queue.lock())
    }
}

/// Views of one clock reading, the first window's first.
#[derive(Debug)]
pub(crate) struct WindowSnapshots(pub(super) SmallVec<[Snapshot; 1]>);

impl WindowSnapshots {
    pub(crate) fn views(&self) -> &[Snapshot] {
        &self.0
    }

    /// Would `n` be admitted by each?
    pub(crate) fn would_admit(&self, n: u64) -> Result<(), Refusal> {
        self.0.iter().map(|snapshot| snapshot.would_admit(n)).reduce(worse).unwrap_or(Ok(()))
    }

    pub(super) fn now(&self) -> u64 {
        self.0.first().map_or(0, Snapshot::now)
    }

    /// Whole tokens that could be taken now.
    pub(crate) fn available(&self) -> u64 {
        self.least(Snapshot::available)
    }

    /// The most that could be taken at once.
    pub(crate) fn capacity_tokens(&self) -> u64 {
        self.least(Snapshot::capacity_tokens)
    }

    /// Nanoseconds until none of the slots has ended.
    pub(super) fn remaining(&self) -> u64 {
        self.least(Snapshot::remaining)
    }

    pub(super) fn slack(&self, most: u64) -> u64 {
        self.least(|snapshot| snapshot.slack(most))
    }

    /// What `n` tokens are short of, where that takes longest.
    pub(super) fn deficit(&self, n: u64) -> Option<Deficit> {
        self.0.iter().map(|snapshot| snapshot.deficit(n)).max_by_key(Deficit::wait)
    }

    /// Nanoseconds until `n` tokens are there.
    pub(super) fn wait(&self, n: u64) -> u64 {
        self.0.iter().map(|snapshot| snapshot.deficit(n).wait()).fold(0, u64::max)
    }

    fn least(&self, of: impl Fn(&Snapshot) -> u64) -> u64 {
        self.0.iter().map(of).fold(u64::MAX, u64::min)
    }
}

/// What two verdicts say together: what can never be before what takes time, and of two times the
/// later.
pub(super) fn worse(one: Result<(), Refusal>, other: Result<(), Refusal>) -> Result<(), Refusal> {
    use Refusal::{Closed, InLine, NoRoom, Removed, Short, Stale, TooBig};
    let rank = |refusal: &Refusal| match refusal {
        Stale => 6,
        Closed => 5,
        Removed => 4,
        TooBig(_) => 3,
        NoRoom => 2,
        InLine => 1,
        Short(_) => 0,
    };
    match (one, other) {
        (Ok(()), verdict) | (verdict, Ok(())) => verdict,
        (Err(TooBig(a)), Err(TooBig(b))) => Err(TooBig(a.min(b))),
        (Err(Short(a)), Err(Short(b))) => Err(Short(if a.wait() < b.wait() { b } else { a })),
        (Err(a), Err(b)) => Err(if rank(&a) < rank(&b) { b } else { a }),
    }
}
