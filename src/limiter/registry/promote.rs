//! Keys that are made, that become whole, and that leave their template: under the lock of the keys.

use std::sync::Arc;

use super::super::entry::Entry;
use super::super::error::{ConfigError, TryAcquireError};
use super::super::limit::Limit;
use super::super::memory::Inner;
use super::name::{Name, NameRef};
use super::sweep::KeysGuard;
use super::{CompactKey, Promoted, Registration, Template};
use crate::bucket::{CompactBucket, Miss, SharedRate};
use crate::sync::{AtomicU64, Ordering, seeded};

/// Another number for each resource of a limiter.
#[derive(Debug)]
pub(in crate::limiter) struct Ids(AtomicU64);

impl Ids {
    pub(in crate::limiter) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(in crate::limiter) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) // only that each is another
    }
}

impl KeysGuard<'_> {
    /// The resource of this name, to be used: a key becomes whole, and is made where there is none.
    pub(super) fn whole(&mut self, name: &str) -> Result<Arc<Entry>, TryAcquireError> {
        self.open()?;
        let entries = self.inner.entries.pin();
        let Some((own, found)) = entries.get_key_value(&NameRef(name)) else {
            let template = self.inner.template_of(name).ok_or_else(|| self.inner.missing())?;
            let name = self.room_for(name, &template)?;
            let spent = template.rate.as_ref().map(|rate| self.new_word(rate));
            let entry = self.build_entry(&name, &template, spent)?;
            self.add(name, &template, Registration::Promoted(Promoted::new(Arc::clone(&entry))));
            return Ok(entry);
        };
        match *found {
            Registration::Configured(ref entry)
            | Registration::Promoted(Promoted { ref entry, .. }) => Ok(Arc::clone(entry)),
            Registration::CompactBucket(CompactKey { ref bucket, ref template }) => {
                // All that may fail comes before the word is dead.
                let entry = self.build_entry(&own.0, template, None)?;
                self.restore_from(&entry, template, bucket.retire());
                let whole = Registration::Promoted(Promoted::new(Arc::clone(&entry)));
                entries.insert(Name(Arc::clone(&own.0)), whole);
                Ok(entry)
            }
        }
    }

    /// What the name stands for, to be looked at: a build_entry that is in no map, where that is a light key or
    /// none.
    pub(super) fn show(&self, name: &str) -> Result<Arc<Entry>, TryAcquireError> {
        self.open()?;
        let entries = self.inner.entries.pin();
        let Some(found) = entries.get(&NameRef(name)) else {
            let template = self.inner.template_of(name).ok_or_else(|| self.inner.missing())?;
            let spent = template.rate.as_ref().map(|rate| self.new_word(rate));
            return self.build_entry(&name.into(), &template, spent);
        };
        match *found {
            Registration::Configured(ref entry)
            | Registration::Promoted(Promoted { ref entry, .. }) => Ok(Arc::clone(entry)),
            Registration::CompactBucket(CompactKey { ref bucket, ref template }) => {
                self.build_entry(&name.into(), template, Some(bucket.spent()))
            }
        }
    }

    /// Make a light key and take `n >= 1` tokens from it. `false` where there is a key now, to be looked up.
    pub(super) fn take_new(&mut self, name: &str, n: u64) -> Result<bool, TryAcquireError> {
        self.open()?;
        if self.inner.entries.pin().get(&NameRef(name)).is_some() {
            return Ok(false);
        }
        let template = self.inner.template_of(name).ok_or_else(|| self.inner.missing())?;
        let Some(rate) = &template.rate else {
            return self.whole(name).map(|_| false);
        };
        let bucket = CompactBucket::new(self.new_word(rate));
        match bucket.take(rate, &self.inner.sweep_window, n, self.now) {
            Ok(()) => {}
            Err(Miss::Refused(refusal)) => return Err(TryAcquireError::from_refusal(refusal)),
            Err(_) => return Ok(false),
        }
        let name = self.room_for(name, &template)?;
        let key =
            Registration::CompactBucket(CompactKey { bucket, template: Arc::clone(&template) });
        self.add(name, &template, key);
        Ok(true)
    }

    /// The resource of this name that has a limit of its own, and whether it is new, and has this one. A
    /// key leaves its template.
    pub(in crate::limiter) fn configured(
        &mut self,
        name: &str,
        limit: &Limit,
    ) -> Result<(Arc<Entry>, bool), ConfigError> {
        let entries = self.inner.entries.pin();
        let found = entries.get(&NameRef(name));
        let is_new = found.is_none();
        let entry = match found {
            None => {
                let Inner { ids, clock, context, .. } = self.inner;
                Entry::new(name, ids.next(), limit, clock.clone(), Arc::clone(context))?
            }
            Some(found) => {
                if let Some(entry) = found.configured() {
                    return Ok((entry, false));
                }
                limit.terms(1.0)?;
                let entry = self.whole(name).map_err(|_| ConfigError::Closed)?;
                self.lose(name);
                entry
            }
        };
        let configured = Registration::Configured(Arc::clone(&entry));
        entries.insert(Name(Arc::clone(&entry.name)), configured);
        Ok((entry, is_new))
    }

    /// Take a name out of the map. Whether it was there; and its entry, if it has one, to be shut.
    pub(in crate::limiter) fn take_out(&mut self, name: &str) -> (bool, Option<Arc<Entry>>) {
        let entries = self.inner.entries.pin();
        let Some(found) = entries.get(&NameRef(name)) else { return (false, None) };
        let entry = match *found {
            Registration::Configured(ref entry) => Some(Arc::clone(entry)),
            Registration::Promoted(Promoted { ref entry, .. }) => {
                self.lose(name);
                Some(Arc::clone(entry))
            }
            Registration::CompactBucket(CompactKey { ref bucket, ref template }) => {
                bucket.retire();
                template.lose();
                None
            }
        };
        entries.remove(&NameRef(name));
        (true, entry)
    }

    /// A whole key of this name goes.
    fn lose(&self, name: &str) {
        if let Some(template) = self.inner.template_of(name) {
            template.lose();
        }
    }

    fn open(&self) -> Result<(), TryAcquireError> {
        if self.inner.is_closed() { Err(TryAcquireError::Closed) } else { Ok(()) }
    }

    /// The name of a key that there is room for.
    fn room_for(&mut self, name: &str, template: &Template) -> Result<Arc<str>, TryAcquireError> {
        if !self.make_room(template) {
            return Err(TryAcquireError::TooManyKeys { most: template.most });
        }
        Ok(name.into())
    }

    fn add(&mut self, name: Arc<str>, template: &Template, named: Registration) {
        self.inner.entries.pin().insert(Name(Arc::clone(&name)), named);
        self.keys.names.push_back(name);
        template.gain();
    }

    /// The word of a key that is made: full from the latest eviction on, and as far as the on_timer can tell.
    fn new_word(&self, rate: &SharedRate) -> u64 {
        let evicted = if seeded("new-without-time") { 0 } else { self.keys.evicted };
        rate.full(evicted.max(self.inner.sweep_window.from()))
    }

    /// An entry by the template, which goes on from a word if there is one, and is full else.
    pub(super) fn build_entry(
        &self,
        name: &Arc<str>,
        template: &Template,
        spent: Option<u64>,
    ) -> Result<Arc<Entry>, TryAcquireError> {
        let Inner { ids, clock, context, .. } = self.inner;
        let (clock, context) = (clock.clone(), Arc::clone(context));
        let since = self.now.max(self.keys.evicted);
        let name = Arc::clone(name);
        let entry = Entry::new_at(name, ids.next(), &template.limit, since, clock, context);
        // It was valid when it became a template.
        let entry = entry.map_err(|_| TryAcquireError::UnknownResource)?;
        if let Some(spent) = spent {
            self.restore_from(&entry, template, spent);
        }
        Ok(entry)
    }

    /// Have an entry by the template go on from a word.
    pub(super) fn restore_from(&self, entry: &Entry, template: &Template, spent: u64) {
        if let Some(rate) = &template.rate {
            let plain = rate.lift(spent, self.inner.sweep_window.recent(self.now));
            entry.gate.bucket.put(&mut entry.settings.lock().current, &plain);
        }
    }
}
