//! Evicting idle keys: a few whenever one is created, and a few from time to time.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::entry::Entry;
use super::keys::KeysGuard;
use super::{CompactKey, Registration, Registry, Template};
use crate::bucket::{MAX_SWEEP_AGE, SlotState};
use crate::counts::Count;
use crate::sync::NameRef;

/// Keys that are visited when one is created: two, so that they go faster than they come.
pub(super) const PER_KEY: usize = 2;
/// Further keys that are visited if there is no room for a new one.
const FOR_ROOM: usize = 32;
/// Keys that a sweep visits, or more, so that each is visited within [`MAX_SWEEP_AGE`].
pub(super) const PER_SWEEP: usize = 256;

/// Room for this many names is kept, however few there are.
const SPARE: usize = 1_024;

/// Nanoseconds for which a key must be idle before it is dropped, unless room is needed: a key in use
/// stays, though its bucket fills up between two uses.
const MIN_IDLE: u64 = 10_000_000_000;

const HOUR: u64 = 3_600_000_000_000;

impl Registry {
    /// Takes the lock of the keys. A sweep that is due comes first.
    pub(super) fn lock_keys(&self) -> KeysGuard<'_> {
        let keys = self.keys.lock();
        let mut guard = KeysGuard {
            registry: self,
            keys,
            now: self.clock.now(),
            due: SmallVec::new(),
            created: None,
        };
        let end = self.sweep_window.end();
        if guard.now >= end && !self.is_closed() {
            guard.sweep();
            self.sweep_window.extend(end, guard.now);
        }
        guard
    }

    /// Sweeps, as `now` is past the window that was seen to end at `end`.
    #[cold]
    pub(super) fn sweep(&self, end: u64, now: u64) {
        // A caller that is hours late waits for the sweep, as keys may be a quarter of the ring behind.
        // Otherwise one thread sweeps, and the others continue.
        let is_late = now.saturating_sub(end) >= HOUR;
        if !is_late && !self.sweep_window.extend(end, now) {
            return;
        }
        let mut guard = self.lock_keys();
        if !is_late {
            guard.sweep();
        }
        guard.finish();
    }
}

impl KeysGuard<'_> {
    /// Visits as many keys as the time since the last sweep demands.
    fn sweep(&mut self) {
        let elapsed = u128::from(self.now.saturating_sub(self.keys.swept));
        // Two rounds in that time: the first of one round may be the last of the next.
        let most = self.keys.round.max(self.keys.names.len()) as u128;
        let share = (2 * most * elapsed).div_ceil(u128::from(MAX_SWEEP_AGE));
        self.visit(usize::try_from(share).unwrap_or(usize::MAX).max(PER_SWEEP), MIN_IDLE);
        self.keys.swept = self.keys.swept.max(self.now);
        let names = &mut self.keys.names;
        if names.capacity() > SPARE && names.len() < names.capacity() / 4 {
            names.shrink_to(names.len() * 2);
        }
    }

    /// Whether there is room for another key.
    pub(super) fn make_room(&mut self, template: &Template) -> bool {
        self.visit(PER_KEY, MIN_IDLE);
        if template.count() >= template.max_keys {
            self.visit(FOR_ROOM, 0);
        }
        template.count() < template.max_keys
    }

    /// Visits the first `most` keys. Those that have been idle for `min_idle` go, the others move to the
    /// end.
    fn visit(&mut self, most: usize, min_idle: u64) {
        let since = self.now.saturating_sub(min_idle);
        for _ in 0..most.min(self.keys.names.len()) {
            self.keys.count_visit();
            let Some(name) = self.keys.names.pop_front() else { return };
            if self.stays(&name, since) {
                self.keys.names.push_back(name);
            }
        }
    }

    fn stays(&mut self, name: &Arc<str>, since: u64) -> bool {
        let entries = self.registry.entries.pin();
        let Some((key, found)) = entries.get_key_value(&NameRef(name)) else { return false };
        if !Arc::ptr_eq(&key.0, name) {
            return false;
        }
        let template = match *found {
            Registration::Configured(_) => return false,
            Registration::Compact(CompactKey { ref bucket, ref template }) => {
                let window = &self.registry.sweep_window;
                let rate = template.rate.as_ref();
                let leaves = rate.is_some_and(|rate| bucket.evict(rate, window, since));
                leaves.then(|| Arc::clone(template))
            }
            Registration::Promoted(ref promoted) => {
                let leaves = promoted.evict(|entry| {
                    let is_removed = entry.remove_if_idle(self.now, since);
                    if is_removed.is_none() {
                        self.due.push(Arc::clone(entry));
                    }
                    is_removed == Some(true)
                });
                leaves.then(|| self.registry.template_of(name)).flatten()
            }
        };
        let Some(template) = template else { return true };
        self.keys.evicted = self.keys.evicted.max(since);
        template.lose();
        template.counts.add(Count::Evicted, 1);
        entries.remove(&NameRef(name));
        false
    }
}

impl Entry {
    /// Marks it as removed if it has been idle since `since`: full bucket, no permits or waiters, no cut
    /// or pause. `None` if something is due first. The caller alone has a reference to it.
    fn remove_if_idle(&self, now: u64, since: u64) -> Option<bool> {
        let mut settings = self.settings.lock();
        self.note_usage(&mut settings, now);
        let current = &settings.current;
        let pause_is_over = match current.state {
            SlotState::Open => false,
            SlotState::Paused => now >= current.anchor,
            SlotState::Closed | SlotState::Removed => return Some(false),
        };
        // One is due of an adaptive limit whenever somebody looks.
        let is_due = !settings.is_idle() && settings.due().is_some_and(|due| due <= now);
        if pause_is_over || is_due {
            return None;
        }
        let is_open = current.state == SlotState::Open && settings.cuts.is_quiet(now);
        if !is_open || settings.pacing.is_some() || self.bucket.waiting() > 0 {
            return Some(false);
        }
        // A bucket that is full by then stays full. Any other needs a fresh anchor to tell.
        let in_time = current.within_horizon(since);
        match self.bucket.remove_if_full(&mut settings.current, in_time) {
            None if in_time != since => None,
            is_removed => Some(is_removed.unwrap_or(false)),
        }
    }
}
