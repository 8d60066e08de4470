//! Names, each with a time.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct Schedule<T> {
    by_name: BTreeMap<String, T>,
    by_time: BTreeSet<(T, String)>,
}

impl<T: Copy + Ord> Schedule<T> {
    pub(super) fn new() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All names, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    pub(super) fn get(&self, name: &str) -> Option<T> {
        self.by_name.get(name).copied()
    }

    /// Adds a name, or gives it another time.
    pub(super) fn set(&mut self, name: &str, at: T) {
        self.remove(name);
        self.by_name.insert(name.to_string(), at);
        self.by_time.insert((at, name.to_string()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some((name, at)) = self.by_name.remove_entry(name) {
            self.by_time.remove(&(at, name));
        }
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<T> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the first name, if its time has come.
    pub(super) fn take_due(&mut self, now: T) -> Option<String> {
        if self.next()? > now {
            return None;
        }
        let (_, name) = self.by_time.pop_first()?;
        self.by_name.remove(&name);
        Some(name)
    }
}
