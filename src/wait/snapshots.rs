//! A snapshot of all windows of a resource: what is least, or latest, among them.

use smallvec::SmallVec;

use crate::bucket::{Deficit, Refused, Snapshot, worse};

/// Snapshots at one clock reading, that of the first window first. There is at least one.
#[derive(Debug)]
pub(crate) struct WindowSnapshots(pub(super) SmallVec<[Snapshot; 1]>);

impl WindowSnapshots {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        self.0.iter()
    }

    pub(crate) fn first(&self) -> &Snapshot {
        &self.0[0]
    }

    /// Whether the slots answer for this reading.
    pub(crate) fn status(&self) -> Result<(), Refused> {
        self.iter().map(Snapshot::status).fold(Ok(()), worse)
    }

    pub(super) fn now(&self) -> u64 {
        self.first().now()
    }

    /// Whole tokens that could be taken now.
    pub(crate) fn available(&self) -> u64 {
        self.least(Snapshot::available)
    }

    /// The most that can be taken at once.
    pub(super) fn capacity_tokens(&self) -> u64 {
        self.least(Snapshot::capacity_tokens)
    }

    /// Nanoseconds until the first slot ends.
    pub(super) fn remaining(&self) -> u64 {
        self.least(Snapshot::remaining)
    }

    pub(super) fn slack(&self, most: u64) -> u64 {
        self.least(|snapshot| snapshot.slack(most))
    }

    /// What `n` tokens are short of, in the window where that takes longest.
    pub(super) fn deficit(&self, n: u64) -> Deficit {
        let deficits = self.iter().map(|snapshot| snapshot.deficit(n));
        deficits.max_by_key(Deficit::wait).unwrap_or_else(|| self.first().deficit(n))
    }

    /// Nanoseconds until `n` tokens are available.
    pub(super) fn wait(&self, n: u64) -> u64 {
        self.deficit(n).wait()
    }

    fn least(&self, of: impl Fn(&Snapshot) -> u64) -> u64 {
        self.iter().map(of).fold(u64::MAX, u64::min)
    }
}
