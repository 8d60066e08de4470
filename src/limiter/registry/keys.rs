//! The names of the keys, and the lock that guards them.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::entry::Entry;
use super::Registry;
use crate::sync::MutexGuard;

/// The names of all keys, in the order in which they are visited.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Each is the very `Arc` in the map; any other is left of a key that was removed.
    pub(super) names: VecDeque<Arc<str>>,
    /// The latest reading at which a key was evicted.
    pub(super) evicted: u64,
    /// The reading up to which all were visited often enough.
    pub(super) swept: u64,
    /// The number of keys when this round of visits began, and the visits left in it. The number of keys
    /// now would not do: the more go, the fewer would be visited, and the last would wait too long.
    pub(super) round: usize,
    left: usize,
}

impl Keys {
    pub(super) fn count_visit(&mut self) {
        if self.left == 0 {
            (self.round, self.left) = (self.names.len(), self.names.len());
        }
        self.left = self.left.saturating_sub(1);
    }
}

/// The lock of the keys, and a clock reading made under it.
pub(super) struct KeysGuard<'a> {
    pub(super) registry: &'a Registry,
    pub(super) keys: MutexGuard<'a, Keys>,
    pub(super) now: u64,
    /// Promoted keys in which something is due, of which observers may have to be told.
    pub(super) due: SmallVec<[Arc<Entry>; 4]>,
    /// A key that was created, if somebody is to be told.
    pub(super) created: Option<Arc<str>>,
}

impl KeysGuard<'_> {
    /// Unlocks, and does what is due in promoted keys; returns whether anything was. Not under another
    /// lock: observers may be told.
    pub(super) fn finish(self) -> bool {
        let Self { registry, keys, due, created, .. } = self;
        drop(keys);
        if let Some(name) = created {
            registry.context.tell_new(&name);
        }
        due.iter().for_each(|entry| entry.bring_up_to_date());
        !due.is_empty()
    }
}
