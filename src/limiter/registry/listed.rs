//! The entries of a registry, for metrics: without a walk over a million keys.

#[cfg(feature = "metrics")]
use std::sync::Weak;

use std::sync::Arc;

use super::super::entry::Entry;
#[cfg(feature = "metrics")]
use crate::sync::Mutex;

/// All entries in the map, and some that have left it. Its lock is taken where an entry is added, never by a call
/// that takes from it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    #[cfg(feature = "metrics")]
    entries: Mutex<Vec<Weak<Entry>>>,
}

#[cfg(feature = "metrics")]
impl Listed {
    pub(super) fn add(&self, entry: &Arc<Entry>) {
        let mut entries = self.entries.lock();
        if entries.len() == entries.capacity() {
            // Before it grows: so that it has at most twice as many as there are.
            entries.retain(|entry| entry.strong_count() > 0);
        }
        entries.push(Arc::downgrade(entry));
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.entries.lock();
        entries.retain(|entry| entry.strong_count() > 0);
        entries.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self)]
impl Listed {
    pub(super) fn add(&self, _: &Arc<Entry>) {}
}
