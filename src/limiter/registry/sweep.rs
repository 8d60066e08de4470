//! Making room: keys that are as new go, a few at each key that is made, and a few from time to time.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::entry::Entry;
use super::super::memory::Inner;
use super::name::NameRef;
use super::{CompactKey, Registration, Template};
use crate::bucket::{MAX_SWEEP_AGE, SlotState};
use crate::sync::MutexGuard;

/// So many keys are looked at when one is made; two, so that they go faster than they come.
pub(super) const PER_KEY: usize = 2;
/// So many more where there is no room for it.
const FOR_ROOM: usize = 32;
/// So many are looked at from time to time, or more, so that each is within a quarter of the on_timer.
pub(super) const PER_TICK: usize = 256;

/// So much room for names is kept, however few there are.
const SPARE: usize = 1_024;

/// A key goes once it has been as new for so many nanoseconds, or where room is needed: one that is in use
/// stays, though its bucket fills up between two uses.
const REST: u64 = 10_000_000_000;

const HOUR: u64 = 3_600_000_000_000;

/// The names of all keys, in the order in which they are looked at.
#[derive(Debug, Default)]
pub(in crate::limiter) struct Keys {
    /// Each key's is the very `Arc` in the map; any other is left from one that was removed.
    pub(super) names: VecDeque<Arc<str>>,
    /// The latest reading at which one was evicted.
    pub(super) evicted: u64,
    /// The reading up to which all were looked at often enough.
    swept: u64,
    /// How many there were when this round of looks began, and how many of its looks are left. By the
    /// names that are left now the last ones of many would wait too long: the more go, the fewer are
    /// looked at.
    round: usize,
    left: usize,
}

impl Keys {
    fn count_look(&mut self) {
        if self.left == 0 {
            (self.round, self.left) = (self.names.len(), self.names.len());
        }
        self.left = self.left.saturating_sub(1);
    }
}

/// The lock of the keys, and the clock as it was read under it.
pub(in crate::limiter) struct KeysGuard<'a> {
    pub(super) inner: &'a Inner,
    pub(super) keys: MutexGuard<'a, Keys>,
    pub(super) now: u64,
    /// Promoted keys in which something is due, of which observers may have to hear.
    due: SmallVec<[Arc<Entry>; 4]>,
}

impl Inner {
    /// Take the lock; a sweep that is due comes first.
    pub(in crate::limiter) fn keys_guard(&self) -> KeysGuard<'_> {
        let keys = self.keys.lock();
        let mut keys_guard =
            KeysGuard { inner: self, keys, now: self.clock.now(), due: SmallVec::new() };
        let until = self.sweep_window.until();
        if keys_guard.now >= until && !self.is_closed() {
            keys_guard.catch_up();
            self.sweep_window.claim(until, keys_guard.now);
        }
        keys_guard
    }

    /// `now` is not covered by the sweep_window, which was seen to end at `until`.
    #[cold]
    pub(super) fn sweep(&self, until: u64, now: u64) {
        // Who is hours late waits for the sweep: keys may be a quarter of the on_timer behind. Else one sweeps,
        // and the others go on.
        let is_late = now.saturating_sub(until) >= HOUR;
        if !is_late && !self.sweep_window.claim(until, now) {
            return;
        }
        let mut keys_guard = self.keys_guard();
        if !is_late {
            keys_guard.catch_up();
        }
        keys_guard.finish();
    }

    /// The longest prefix of the name that has a template.
    pub(super) fn template_of(&self, name: &str) -> Option<Arc<Template>> {
        let templates = self.templates.pin();
        let fitting = templates.values().filter(|template| name.starts_with(&*template.prefix));
        fitting.max_by_key(|template| template.prefix.len()).map(Arc::clone)
    }
}

impl KeysGuard<'_> {
    /// Let go, and do what is due in whole keys; whether anything was. Not under another lock: observers
    /// may hear of it.
    pub(super) fn finish(self) -> bool {
        let Self { keys, due, .. } = self;
        drop(keys);
        due.iter().for_each(|entry| entry.bring_up_to_date());
        !due.is_empty()
    }

    /// Look at so many keys as the time since the last look asks for.
    fn catch_up(&mut self) {
        let elapsed = u128::from(self.now.saturating_sub(self.keys.swept));
        // Two rounds in a quarter: who is looked at first in one may be the last one in the next.
        let most = self.keys.round.max(self.keys.names.len()) as u128;
        let share = (2 * most * elapsed).div_ceil(u128::from(MAX_SWEEP_AGE));
        self.look_at(usize::try_from(share).unwrap_or(usize::MAX).max(PER_TICK), REST);
        self.keys.swept = self.keys.swept.max(self.now);
        let names = &mut self.keys.names;
        if names.capacity() > SPARE && names.len() < names.capacity() / 4 {
            names.shrink_to(names.len() * 2);
        }
    }

    /// Whether there is room for another key.
    pub(super) fn make_room(&mut self, template: &Template) -> bool {
        self.look_at(PER_KEY, REST);
        if template.count() >= template.most {
            self.look_at(FOR_ROOM, 0);
        }
        template.count() < template.most
    }

    /// Look at the first `most` keys; those that have been as new for `rest` go, the others to the end.
    fn look_at(&mut self, most: usize, rest: u64) {
        let since = self.now.saturating_sub(rest);
        for _ in 0..most.min(self.keys.names.len()) {
            self.keys.count_look();
            let Some(name) = self.keys.names.pop_front() else { return };
            if self.stays(&name, since) {
                self.keys.names.push_back(name);
            }
        }
    }

    fn stays(&mut self, name: &Arc<str>, since: u64) -> bool {
        let entries = self.inner.entries.pin();
        let Some((key, found)) = entries.get_key_value(&NameRef(name)) else { return false };
        if !Arc::ptr_eq(&key.0, name) {
            return false;
        }
        let template = match *found {
            Registration::Configured(_) => return false,
            Registration::CompactBucket(CompactKey { ref bucket, ref template }) => {
                let rate = template.rate.as_ref();
                let leaves =
                    rate.is_some_and(|rate| bucket.evict(rate, &self.inner.sweep_window, since));
                leaves.then(|| Arc::clone(template))
            }
            Registration::Promoted(ref whole) => {
                let leaves = whole.evict(|entry| {
                    let is_removed = entry.remove_if_as_new(self.now, since);
                    if is_removed.is_none() {
                        self.due.push(Arc::clone(entry));
                    }
                    is_removed == Some(true)
                });
                leaves.then(|| self.inner.template_of(name)).flatten()
            }
        };
        let Some(template) = template else { return true };
        self.keys.evicted = self.keys.evicted.max(since);
        template.lose();
        entries.remove(&NameRef(name));
        false
    }
}

impl Entry {
    /// Removed, if a new one would do: it has been full since `since`, nobody waits, and nothing is in
    /// flight, cut or paused. `None` where something is due first. For who alone knows of it.
    fn remove_if_as_new(&self, now: u64, since: u64) -> Option<bool> {
        let mut settings = self.settings.lock();
        let current = &settings.current;
        let is_over = match current.kind {
            SlotState::Open => false,
            SlotState::Paused => now >= current.anchor,
            SlotState::Closed | SlotState::Removed => return Some(false),
        };
        if is_over || settings.cuts.due().is_some_and(|due| due <= now) {
            return None;
        }
        let is_open = current.kind == SlotState::Open && settings.cuts.is_quiet(now);
        if !is_open || self.gate.waiting() > 0 {
            return Some(false);
        }
        // One that is full by then is full from then on; any other needs a fresh anchor.
        let in_time = current.within_horizon(since);
        if !self.gate.is_full(in_time) {
            return (in_time == since).then_some(false);
        }
        Some(self.gate.bucket.remove_if_full(&mut settings.current, in_time))
    }
}
