//! Resources by name. Some are configured; others are *keys*, created on first use by a template.
//!
//! A key is *compact* while only its tokens are asked for: one word, and a reference to its template. It
//! is *promoted* to an entry, like a configured one, when a call wants a permit, a handle or a wait of
//! it, or cuts or pauses it. The entry continues from the word. An idle key is evicted, and recreated full
//! on next use.
//!
//! # Locks
//!
//! Configuring, removing and closing take the `admin` lock, and inside it the lock of the keys if keys
//! may be concerned. Keys are created, promoted and evicted under the lock of the keys, which a call
//! that takes from a present key does not touch. A caller that finds a compact key dead, or a promoted
//! one leaving, waits for that lock; the map is current afterwards.
//!
//! # What eviction must not lose
//!
//! 1. *A take from a compact key.* The CAS that proves the word full makes it dead. So the take fails, or
//!    the eviction does.
//! 2. *A use of a promoted key.* A caller uses it through a clone of its `Arc`, and only if the key is not
//!    leaving after the clone was made. The evictor marks it as leaving, and then looks whether its own
//!    `Arc` is the only one. Both look by an RMW on one flag: if the caller's comes first, the evictor
//!    sees its clone; otherwise the caller sees that the key is leaving. What a caller did that has
//!    dropped its clone is seen too: the bucket is removed by the CAS that proves it full.
//! 3. *Time.* A key was full at the latest reading at which one was evicted. A thread with an older
//!    reading, or a clock that has stepped back, would find it full before that. So a new key is full
//!    from that reading on, and holds less before.
//!
//! # Orderings
//!
//! For a compact key see [`bucket::compact`](crate::bucket). `leaving` is changed and read by `AcqRel`
//! RMWs alone, so that they have one order, and the later of two sees what preceded the earlier.
//! `Arc::strong_count` is Relaxed; an Acquire fence after it pairs with the Release by which a clone is
//! dropped. The counts of keys are changed under the lock, and Relaxed.

mod decide;
mod keys;
mod listed;
mod lookup;
mod promote;
mod sweep;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::capacity::Capacity;
use super::context::Context;
use super::counting::count_denied;
use super::entry::Entry;
use super::error::ConfigError;
use super::limit::Limit;
#[cfg(feature = "metrics")]
use super::readings::{Reading, State};
use crate::bucket::{CompactBucket, Denied, Refused, Retry, SlotState, Standing, SweepWindow};
use crate::clock::Clock;
use crate::counts::{Count, Counts};
use crate::sync::{
    AtomicBool, AtomicU64, Mutex, Name, NameMap, NameRef, Ordering, fence, has_barrier, new_map,
};
use keys::Keys;
use listed::Listed;
use template::{Template, Templates};

/// The resources of a limiter.
pub(super) struct Registry {
    entries: NameMap<Registration>,
    /// Next to the map, as each compact key reads it.
    sweep_window: SweepWindow,
    clock: Clock,
    admin: Mutex<()>,
    ids: AtomicU64,
    closed: AtomicBool,
    templates: Templates,
    /// On cache lines of its own: creating keys must not slow down using them.
    keys: CachePadded<Mutex<Keys>>,
    context: Arc<Context>,
    listed: Listed,
}

/// What a name stands for.
#[derive(Debug)]
enum Registration {
    Configured(Arc<Entry>),
    Promoted(Promoted),
    Compact(CompactKey),
}

impl Registration {
    fn configured(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Configured(entry) => Some(entry),
            Self::Promoted(_) | Self::Compact(_) => None,
        }
    }

    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Configured(entry) | Self::Promoted(Promoted { entry, .. }) => Some(entry),
            Self::Compact(_) => None,
        }
    }
}

/// A key in one word.
#[derive(Debug)]
struct CompactKey {
    bucket: CompactBucket,
    template: Arc<Template>,
}

impl CompactKey {
    /// One attempt to take `n >= 1` tokens. The caller counts its outcome.
    #[inline]
    fn take(&self, window: &SweepWindow, n: u64, now: u64) -> Result<(), Refused> {
        match &self.template.rate {
            Some(rate) => self.bucket.take(rate, window, n, now),
            None => Err(Retry::Evicted.into()),
        }
    }

    #[inline]
    fn count_taken(&self, n: u64) {
        self.template.counts.add(Count::Taken, n);
    }

    #[inline]
    fn count_denied(&self, denied: &Denied) {
        count_denied(&self.template.counts, denied);
    }

    /// The same for any `n`, and what is left then.
    fn decide(
        &self,
        window: &SweepWindow,
        n: u64,
        now: u64,
    ) -> Result<(Result<(), Denied>, Standing), Refused> {
        match &self.template.rate {
            Some(rate) => {
                let decision = self.bucket.decide(rate, window, n, now)?;
                match &decision.0 {
                    Ok(()) => self.count_taken(n),
                    Err(denied) => self.count_denied(denied),
                }
                Ok(decision)
            }
            None => Err(Retry::Evicted.into()),
        }
    }
}

/// A key with an entry.
#[derive(Debug)]
struct Promoted {
    entry: Arc<Entry>,
    leaving: AtomicBool,
}

impl Promoted {
    fn new(entry: Arc<Entry>) -> Self {
        Self { entry, leaving: AtomicBool::new(false) }
    }

    /// Its entry, unless it is leaving. `AcqRel`: see the module.
    fn hold(&self) -> Option<Arc<Entry>> {
        let entry = Arc::clone(&self.entry);
        (!self.leaving.fetch_or(false, Ordering::AcqRel)).then_some(entry)
    }

    /// Marks it as leaving for good, if nobody uses it and `is_idle`. Under the lock of the keys.
    fn evict(&self, is_idle: impl FnOnce(&Arc<Entry>) -> bool) -> bool {
        self.leaving.fetch_or(true, Ordering::AcqRel);
        let is_unused = Arc::strong_count(&self.entry) == 1;
        // Pairs with the Release by which the last clone was dropped: its effects are seen.
        fence(Ordering::Acquire);
        let leaves = is_unused && is_idle(&self.entry);
        if !leaves {
            self.leaving.fetch_and(false, Ordering::AcqRel); // an RMW, as all others
        }
        leaves
    }
}

impl Registry {
    pub(super) fn new(clock: Clock, context: Context) -> Self {
        has_barrier(); // registers the process once, so that light barriers are free
        Self {
            entries: new_map(),
            sweep_window: SweepWindow::new(),
            clock,
            admin: Mutex::new(()),
            ids: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            templates: Templates::default(),
            keys: CachePadded::new(Mutex::new(Keys::default())),
            context: Arc::new(context),
            listed: Listed::default(),
        }
    }

    #[cfg(feature = "swarm")]
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A number that no other resource of this limiter has.
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) // unique is enough
    }

    // ---- configuring --------------------------------------------------------------------------

    /// Adds a resource, or gives one that exists another limit.
    pub(super) fn configure(&self, name: &str, limit: &Limit) -> Result<Arc<Entry>, ConfigError> {
        self.configure_by(name, limit, |_| {}, |entry| entry.configure(limit))
    }

    /// The same by other means: `begin` is called for a new entry before others see it, and tells nobody.
    pub(super) fn configure_by(
        &self,
        name: &str,
        limit: &Limit,
        begin: impl Fn(&Entry),
        change: impl Fn(&Entry) -> Option<Result<(), ConfigError>>,
    ) -> Result<Arc<Entry>, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::EmptyName);
        }
        loop {
            let admin = self.admin.lock();
            if self.is_closed() {
                return Err(ConfigError::Closed);
            }
            let (entry, is_new) = match self.configured(name) {
                Some(entry) => (entry, false),
                None => self.add(name, limit, &begin)?,
            };
            // What follows may call back, and a callback may configure.
            drop(admin);
            if is_new {
                self.context.tell_new(name);
                return Ok(entry);
            }
            if let Some(configured) = change(&entry) {
                return configured.map(|()| entry);
            }
            // Removed meanwhile: add it again.
        }
    }

    /// Adds a configured resource, or takes a key out of its template. Returns whether the name is new,
    /// and the entry has this limit. Under the admin lock.
    fn add(
        &self,
        name: &str,
        limit: &Limit,
        begin: impl Fn(&Entry),
    ) -> Result<(Arc<Entry>, bool), ConfigError> {
        let mut guard = self.lock_keys();
        let is_new = self.entries.pin().get(&NameRef(name)).is_none();
        let entry = if is_new {
            let entry = self.new_entry(name.into(), limit, self.clock.now(), Counts::default())?;
            begin(&entry);
            self.listed.add(&entry);
            entry
        } else {
            limit.full_terms()?;
            guard.leave_template(name)?
        };
        let configured = Registration::Configured(Arc::clone(&entry));
        self.entries.pin().insert(Name(Arc::clone(&entry.name)), configured);
        Ok((entry, is_new))
    }

    /// An entry that is full at `now`.
    fn new_entry(
        &self,
        name: Arc<str>,
        limit: &Limit,
        now: u64,
        counts: Counts,
    ) -> Result<Arc<Entry>, ConfigError> {
        let context = Arc::clone(&self.context);
        Entry::new(name, self.next_id(), limit, now, self.clock.clone(), context, counts)
    }

    /// Removes a resource or a key; returns whether there was one.
    pub(super) fn remove(&self, name: &str) -> bool {
        let admin = self.admin.lock();
        let mut guard = self.lock_keys();
        let entries = self.entries.pin();
        let Some(found) = entries.get(&NameRef(name)) else { return false };
        #[allow(clippy::needless_borrow)] // in models it is an `Arc`
        let registration: &Registration = &found;
        guard.discount(name, registration);
        let entry = found.entry().map(Arc::clone);
        entries.remove(&NameRef(name));
        drop(guard);
        drop(admin);
        if let Some(entry) = entry {
            entry.shut(SlotState::Removed);
        }
        true
    }

    pub(super) fn close(&self) {
        let admin = self.admin.lock();
        self.closed.store(true, Ordering::Release);
        // From here on no key is created, and compact keys do not answer.
        let keys = self.keys.lock();
        self.sweep_window.close();
        drop(keys);
        let mut entries = Vec::new();
        for found in self.entries.pin().values() {
            entries.extend(found.entry().map(Arc::clone));
        }
        drop(admin);
        for entry in entries {
            entry.shut(SlotState::Closed);
        }
    }

    // ---- looking up ---------------------------------------------------------------------------

    /// The entry of a configured resource.
    pub(super) fn configured(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.pin().get(&NameRef(name))?.configured().map(Arc::clone)
    }

    pub(super) fn capacities(&self) -> Vec<Capacity> {
        let entries = self.entries.pin();
        let mut all = Vec::new();
        for found in entries.values() {
            all.extend(found.configured().map(|entry| entry.capacity()));
        }
        all.sort_by(|a: &Capacity, b| a.resource.cmp(&b.resource));
        all
    }

    /// The readings of all configured resources and of all templates. Counts come before what the stripes of
    /// their entries have handed out: see [`Reading::add_handed_out`].
    #[cfg(feature = "metrics")]
    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        for template in self.templates.pin().values() {
            let (name, keys) = (Arc::clone(&template.prefix), template.count());
            readings.push(Reading::new(name, template.counts.tally(), State::Template { keys }));
        }
        let templates = readings.len();
        for entry in self.listed.all() {
            let is_listed = |listed: &Arc<Entry>| Arc::ptr_eq(listed, &entry);
            let tally = entry.bucket.counts().tally();
            let same = |reading: &Reading| reading.is_same(tally);
            if self.configured(&entry.name).as_ref().is_some_and(is_listed) {
                let state = State::Resource(entry.gauges());
                let mut reading = Reading::new(Arc::clone(&entry.name), tally, state);
                reading.add_handed_out(&entry);
                readings.push(reading);
            } else if entry.bucket.was_hot()
                && let Some(reading) =
                    readings[..templates].iter_mut().find(|reading| same(reading))
            {
                reading.add_handed_out(&entry);
            }
        }
        readings
    }
}
