//! Keys that are created, promoted, and that leave their template: under the lock of the keys.

use std::sync::Arc;

use super::super::counting::count_denied;
use super::super::entry::Entry;
use super::super::error::{ConfigError, NoEntry, TryAcquireError};
use super::super::settings::PendingChange;
use super::keys::KeysGuard;
use super::{CompactKey, Promoted, Registration, Template};
use crate::bucket::{CompactBucket, Refused, SharedRate};
use crate::counts::{Count, Counts};
use crate::sync::{Name, NameRef};

impl KeysGuard<'_> {
    /// The entry of this name, for use: a key is promoted, or created.
    pub(super) fn promote(&mut self, name: &str) -> Result<Arc<Entry>, NoEntry> {
        self.require_open()?;
        let entries = self.registry.entries.pin();
        let Some((own, found)) = entries.get_key_value(&NameRef(name)) else {
            let template = self.template(name)?;
            let name = self.room_for(name, &template)?;
            let spent = template.rate.as_ref().map(|rate| self.new_word(rate));
            let entry = self.build_entry(&name, &template, spent)?;
            self.registry.listed.add(&entry);
            let promoted = Promoted::new(Arc::clone(&entry));
            self.add(name, &template, Registration::Promoted(promoted));
            return Ok(entry);
        };
        match *found {
            Registration::Configured(ref entry)
            | Registration::Promoted(Promoted { ref entry, .. }) => Ok(Arc::clone(entry)),
            Registration::Compact(CompactKey { ref bucket, ref template }) => {
                // Everything that can fail precedes the death of the word.
                let entry = self.build_entry(&own.0, template, None)?;
                self.restore_from(&entry, template, bucket.retire());
                let promoted = Registration::Promoted(Promoted::new(Arc::clone(&entry)));
                entries.insert(Name(Arc::clone(&own.0)), promoted);
                self.registry.listed.add(&entry);
                Ok(entry)
            }
        }
    }

    /// What the name stands for, to look at: for a compact key or none, an entry that is in no map.
    pub(super) fn view(&self, name: &str) -> Result<Arc<Entry>, NoEntry> {
        self.require_open()?;
        let entries = self.registry.entries.pin();
        let Some(found) = entries.get(&NameRef(name)) else {
            let template = self.template(name)?;
            let spent = template.rate.as_ref().map(|rate| self.new_word(rate));
            return self.build_entry(&name.into(), &template, spent);
        };
        match *found {
            Registration::Configured(ref entry)
            | Registration::Promoted(Promoted { ref entry, .. }) => Ok(Arc::clone(entry)),
            Registration::Compact(CompactKey { ref bucket, ref template }) => {
                self.build_entry(&name.into(), template, Some(bucket.last_position()))
            }
        }
    }

    /// Creates a compact key, takes `n >= 1` tokens from it, and returns what `look` sees of the word at the
    /// reading. `None` if the caller must look the name up again.
    pub(super) fn take_new<T>(
        &mut self,
        name: &str,
        n: u64,
        look: impl FnOnce(&SharedRate, u64, u64) -> T,
    ) -> Result<Option<T>, TryAcquireError> {
        self.require_open()?;
        if self.registry.entries.pin().get(&NameRef(name)).is_some() {
            return Ok(None);
        }
        let template = self.template(name)?;
        let Some(rate) = &template.rate else {
            self.promote(name)?;
            return Ok(None);
        };
        let bucket = CompactBucket::new(self.new_word(rate));
        match bucket.take(rate, &self.registry.sweep_window, n, self.now) {
            Ok(()) => {}
            Err(Refused::Denied(denied)) => {
                count_denied(&template.counts, &denied);
                return Err(denied.into());
            }
            Err(Refused::Retry(_)) => return Ok(None),
        }
        let name = self.room_for(name, &template)?;
        let key = CompactKey { bucket, template: Arc::clone(&template) };
        let seen = look(rate, key.bucket.last_position(), self.now);
        self.add(name, &template, Registration::Compact(key));
        template.counts.add(Count::Taken, n);
        Ok(Some(seen))
    }

    /// Promotes a key that is about to get a limit of its own, and discounts it.
    pub(super) fn leave_template(&mut self, name: &str) -> Result<Arc<Entry>, ConfigError> {
        // It exists, so that only a closed limiter is in the way.
        let entry = self.promote(name).map_err(|_| ConfigError::Closed)?;
        if let Some(template) = self.registry.template_of(name) {
            template.lose();
        }
        entry.count_for(Counts::default());
        Ok(entry)
    }

    /// Counts out a name that is about to leave the map, and ends its word.
    pub(super) fn discount(&mut self, name: &str, found: &Registration) {
        match found {
            Registration::Configured(_) => {}
            Registration::Promoted(_) => {
                if let Some(template) = self.registry.template_of(name) {
                    template.lose();
                }
            }
            Registration::Compact(CompactKey { bucket, template }) => {
                bucket.retire();
                template.lose();
            }
        }
    }

    fn require_open(&self) -> Result<(), NoEntry> {
        if self.registry.is_closed() { Err(NoEntry::Closed) } else { Ok(()) }
    }

    fn template(&self, name: &str) -> Result<Arc<Template>, NoEntry> {
        self.registry.template_of(name).ok_or_else(|| self.registry.missing())
    }

    /// The name of a key that there is room for.
    fn room_for(&mut self, name: &str, template: &Template) -> Result<Arc<str>, NoEntry> {
        let has_room = self.make_room(template);
        if has_room { Ok(name.into()) } else { Err(NoEntry::TooManyKeys(template.max_keys)) }
    }

    fn add(&mut self, name: Arc<str>, template: &Template, registration: Registration) {
        self.registry.entries.pin().insert(Name(Arc::clone(&name)), registration);
        self.created = self.registry.context.on_new.is_some().then(|| Arc::clone(&name));
        self.keys.names.push_back(name);
        template.gain();
    }

    /// The word of a new key: full from the latest eviction on, as far as the ring can tell.
    fn new_word(&self, rate: &SharedRate) -> u64 {
        rate.full(self.keys.evicted.max(self.registry.sweep_window.start()))
    }

    /// An entry by the template. It continues from a word if there is one, and is full otherwise.
    pub(super) fn build_entry(
        &self,
        name: &Arc<str>,
        template: &Template,
        spent: Option<u64>,
    ) -> Result<Arc<Entry>, NoEntry> {
        let since = self.now.max(self.keys.evicted);
        let counts = template.counts.shared();
        let entry = self.registry.new_entry(Arc::clone(name), &template.limit, since, counts);
        // The limit was valid when it became a template.
        let entry = entry.map_err(|_| NoEntry::Unknown)?;
        if let Some(spent) = spent {
            self.restore_from(&entry, template, spent);
        }
        Ok(entry)
    }

    /// Makes an entry by the template continue from a word.
    fn restore_from(&self, entry: &Entry, template: &Template, spent: u64) {
        if let Some(rate) = &template.rate {
            let from = rate.to_locked(spent, self.registry.sweep_window.recent(self.now));
            let mut settings = entry.settings.lock();
            entry.bucket.restore(&mut settings.current, &from);
            if settings.due().is_some() {
                // A word has no next step.
                entry.install(&mut settings, PendingChange::default());
            }
        }
    }
}
