//! Templates: set and removed, and what becomes of their keys.

use std::sync::Arc;

use super::super::capacity::Capacity;
use super::super::entry::Entry;
use super::super::error::ConfigError;
use super::super::limit::Limit;
use super::super::memory::MemoryLimiter;
use super::keys::KeysGuard;
use super::{CompactKey, Promoted, Registration, Registry};
use crate::bucket::{CompactBucket, SharedRate, SlotState};
use crate::counts::Counts;
use crate::sync::{AtomicU64, Name, NameRef, Ordering};

/// Keys that a template has at most by default.
const MAX_KEYS: u64 = 1_000_000;

/// # Many keys
///
/// A limit for each user, address or API key, without a rate for any of them.
impl MemoryLimiter {
    /// Adds a template: every name that begins with `prefix` and is not configured gets a bucket of
    /// its own by `limit`, on first use by any method that takes a name. A template has at most
    /// 1,000,000 keys at a time; [`per_key_at_most`](Self::per_key_at_most) sets another maximum.
    ///
    /// ```
    /// use tollgate::{Limit, MemoryLimiter};
    ///
    /// let limiter = MemoryLimiter::new();
    /// limiter.per_key("user:", Limit::per_second(10))?;
    /// assert!(limiter.check("user:ann").is_ok());
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    ///
    /// If several prefixes match, the longest one applies. The empty prefix matches every name. The
    /// first use of a name compares it with every template, so have a handful of them, not one per
    /// customer.
    ///
    /// # Eviction
    ///
    /// A key is evicted after ten idle seconds, or earlier if there is no room for another one.
    /// Idle means: full bucket, no permit in flight (forgotten ones count), no waiters, no handles,
    /// no cut and no pause. So eviction loses nothing: the tokens of a key are at most
    /// `burst + rate x time` across evictions too. There is nothing to call: each creation of a key
    /// examines two keys, and while keys are used, one call every 67 ms examines 256 or more.
    ///
    /// # Memory
    ///
    /// A key that is only used by [`check`](Self::check), [`check_n`](Self::check_n),
    /// [`decide`](Self::decide), [`peek`](Self::peek) and [`capacity`](Self::capacity) is compact: about 140
    /// bytes in total, with a name of 16 bytes. Any other call promotes it to a full resource of about
    /// 1.8 KB, at the same level; after an eviction it is compact again. Keys of a limit of several windows
    /// are never compact. A million promoted keys use 2 GB: allow fewer by
    /// [`per_key_at_most`](Self::per_key_at_most).
    ///
    /// Names are stored as given: where users choose them, bound their length first.
    ///
    /// Creating a key takes a lock, one per limiter; using it does not.
    ///
    /// # Single keys
    ///
    /// * [`configure`](Self::configure) gives a key its own limit. It leaves its template, and is
    ///   never evicted.
    /// * [`remove`](Self::remove) resets a key: the next use creates it again.
    /// * A cut or a pause applies to one key, and keeps it from being evicted: a cut
    ///   [without recovery](crate::Limit::no_recovery) for good.
    /// * [`peek`](Self::peek) and [`capacity`](Self::capacity) create no key. For an absent key
    ///   they answer as for a new one. [`resources`](Self::resources) lists no keys.
    /// * If there is no room for another key, [`resource`](Self::resource) returns `None`, and
    ///   calls that return no error ([`pause_for`](Self::pause_for),
    ///   [`announce_reduced`](Self::announce_reduced)) do nothing.
    ///
    /// # Changing a template
    ///
    /// For a prefix that has a template the call changes the limit of all its keys, live, as
    /// [`configure`](Self::configure) does for one resource. The same applies to keys of a shorter
    /// prefix that match this one. It takes time proportional to the number of the limiter's keys,
    /// about a second per million; meanwhile each key has the old limit or the new one. An absent
    /// key starts full under the new limit: do not raise the burst of a
    /// [strict](crate::Limit::at_most) limit within the window after it was spent.
    ///
    /// On an error nothing changed: see [`ConfigError`].
    pub fn per_key(&self, prefix: &str, limit: Limit) -> Result<(), ConfigError> {
        self.per_key_at_most(prefix, limit, MAX_KEYS)
    }

    /// [`per_key`](Self::per_key) with at most `max_keys` keys at a time. Creating one more fails
    /// with [`TooManyKeys`](crate::TryAcquireError::TooManyKeys), unless one of a few examined keys
    /// can be evicted. Lowering the maximum evicts none. Eviction examines the keys of all
    /// templates in rotation, so beside a million other keys the idle keys of a small template may
    /// take some time to make room; if that matters, give the small template its own limiter.
    ///
    /// On an error nothing changed: see [`ConfigError`].
    pub fn per_key_at_most(
        &self,
        prefix: &str,
        limit: Limit,
        max_keys: u64,
    ) -> Result<(), ConfigError> {
        self.0.set_template(prefix, limit, max_keys)
    }

    /// The present keys of the template of this prefix, sorted by name: used lately, or not yet evicted. Keys
    /// that a longer prefix matches are those of its template. Empty if there is no template of exactly this
    /// prefix. Creates and promotes none. Takes time proportional to the number of the limiter's names.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// limiter.per_key("user:", Limit::per_hour(10))?;
    /// limiter.check("user:ann")?;
    /// let keys = limiter.keys("user:");
    /// assert_eq!((keys[0].resource.as_str(), keys[0].available), ("user:ann", 9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<Capacity> {
        self.0.keys_of(prefix)
    }

    /// The number of [`keys`](Self::keys), which [`per_key_at_most`](Self::per_key_at_most) bounds. Takes no
    /// lock; 0 without such a template.
    ///
    /// ```
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// limiter.per_key("user:", Limit::per_hour(10))?;
    /// limiter.check("user:ann")?;
    /// assert_eq!(limiter.key_count("user:"), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn key_count(&self, prefix: &str) -> u64 {
        self.0.key_count(prefix)
    }

    /// Removes a template and returns whether it existed. Its keys move to the longest remaining
    /// prefix that matches, as after [`per_key`](Self::per_key). Without one they are removed, and
    /// their waiters and handles fail with `UnknownResource`.
    pub fn remove_per_key(&self, prefix: &str) -> bool {
        self.0.remove_template(prefix)
    }
}

/// Read for each new name, written seldom.
pub(super) type Templates = papaya::HashMap<Name, Arc<Template>, foldhash::fast::RandomState>;

/// What the keys of a prefix share, until the template is set again.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) prefix: Arc<str>,
    pub(super) limit: Limit,
    /// `None` if keys are created promoted.
    pub(super) rate: Option<SharedRate>,
    pub(super) max_keys: u64,
    /// The number of its keys; shared with the template of this prefix before it. Changed, and compared with
    /// the maximum, under the lock of the keys, so Relaxed.
    count: Arc<AtomicU64>,
    /// Of all its keys; shared in the same way.
    pub(super) counts: Counts,
}

impl Template {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn gain(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lose(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Promoted keys that have another template now, or none.
type Migrated = Vec<(Arc<Entry>, Option<Arc<Template>>)>;

impl Registry {
    fn set_template(&self, prefix: &str, limit: Limit, max_keys: u64) -> Result<(), ConfigError> {
        let terms = limit.full_terms()?;
        let admin = self.admin.lock();
        if self.is_closed() {
            return Err(ConfigError::Closed);
        }
        let guard = self.lock_keys();
        let from = self.template_of(prefix);
        let same = from.as_ref().filter(|from| *from.prefix == *prefix);
        let count = same.map_or_else(Arc::default, |same| Arc::clone(&same.count));
        let counts = same.map_or_else(Counts::default, |same| same.counts.shared());
        let rate = if terms.len() == 1 { SharedRate::new(terms[0], guard.now) } else { None };
        let prefix: Arc<str> = prefix.into();
        let template =
            Template { prefix: Arc::clone(&prefix), limit, rate, max_keys, count, counts };
        self.templates.pin().insert(Name(Arc::clone(&prefix)), Arc::new(template));
        // Without a template until now there are no such keys.
        let migrated = from.map(|from| guard.migrate(&prefix, &from)).unwrap_or_default();
        drop(admin);
        self.apply_migration(migrated);
        Ok(())
    }

    fn remove_template(&self, prefix: &str) -> bool {
        let admin = self.admin.lock();
        let guard = self.lock_keys();
        let Some(from) = self.templates.pin().remove(&NameRef(prefix)).map(Arc::clone) else {
            return false;
        };
        let migrated = guard.migrate(prefix, &from);
        drop(admin);
        self.apply_migration(migrated);
        true
    }

    /// Gives migrated keys their new limit, without locks: observers are told.
    fn apply_migration(&self, migrated: Migrated) {
        for (entry, to) in migrated {
            let Some(template) = to else {
                entry.shut(SlotState::Removed);
                continue;
            };
            // Unless it has migrated again.
            let is_wanted = || {
                let is_promoted = match self.entries.pin().get(&NameRef(&entry.name)) {
                    Some(found) => matches!(*found, Registration::Promoted(_)),
                    None => false,
                };
                is_promoted && self.template_of(&entry.name).is_some_and(|now| now.is(&template))
            };
            // The limit is valid, and a resource that was removed needs none.
            let _ = entry.configure_if(&template.limit, is_wanted);
        }
    }
}

impl KeysGuard<'_> {
    /// Moves each key to the template that fits it now. Promoted keys with `prefix` that have no longer
    /// prefix were `from`'s. Under the admin lock, so that no other thread migrates keys, and under the
    /// guard in which the templates changed: otherwise a promoted key that goes in between would be
    /// counted out of the wrong template.
    fn migrate(mut self, prefix: &str, from: &Template) -> Migrated {
        let mut migrated = Migrated::new();
        let registry = self.registry;
        let names = std::mem::take(&mut self.keys.names);
        drop(self);
        for name in names {
            // One key per lock, so that a thread that creates one does not wait for all.
            registry.lock_keys().migrate_key(name, prefix, from, &mut migrated);
        }
        migrated
    }

    fn migrate_key(
        &mut self,
        name: Arc<str>,
        prefix: &str,
        from: &Template,
        migrated: &mut Migrated,
    ) {
        let entries = self.registry.entries.pin();
        let Some((own, found)) = entries.get_key_value(&NameRef(&name)) else { return };
        if !Arc::ptr_eq(&own.0, &name) {
            return;
        }
        let to = self.registry.template_of(&name);
        let stays = match *found {
            Registration::Configured(_) => false,
            Registration::Promoted(Promoted { ref entry, .. }) => {
                let is_shorter = |to: &Arc<Template>| to.prefix.len() <= prefix.len();
                if name.starts_with(prefix) && to.as_ref().is_none_or(is_shorter) {
                    from.lose();
                    match &to {
                        Some(to) => {
                            to.gain();
                            entry.count_for(to.counts.shared());
                        }
                        None => drop(entries.remove(&NameRef(&name))),
                    }
                    migrated.push((Arc::clone(entry), to.clone()));
                }
                to.is_some()
            }
            Registration::Compact(ref key) => match to {
                Some(to) if to.is(&key.template) => true,
                to => {
                    let next = self.migrate_compact(&name, key, to, migrated);
                    let stays = next.is_some();
                    if let Some(registration) = next {
                        entries.insert(Name(Arc::clone(&name)), registration);
                    } else {
                        entries.remove(&NameRef(&name));
                    }
                    stays
                }
            },
        };
        if stays {
            self.keys.names.push_back(name);
        }
    }

    /// What a compact key becomes by another template; `None` if it goes.
    fn migrate_compact(
        &mut self,
        name: &Arc<str>,
        key: &CompactKey,
        to: Option<Arc<Template>>,
        migrated: &mut Migrated,
    ) -> Option<Registration> {
        let spent = key.bucket.retire();
        key.template.lose();
        let (to, rate) = (to?, key.template.rate.as_ref()?);
        // Read after the word. Otherwise the time up to a take that the word counts, earned at the old
        // rate, would be earned again at the new one. A clock that has stepped back by weeks would be
        // further away than the ring can tell.
        let now = self.registry.sweep_window.recent(self.registry.clock.now());
        if rate.is_full(spent, now) {
            self.keys.evicted = self.keys.evicted.max(now);
            return None;
        }
        to.gain();
        let lost = to.limit.first().lost_depth(key.template.limit.first());
        let adopt = |to: &SharedRate| to.adopt(&rate.to_locked(spent, now), lost, now);
        if let Some(spent) = to.rate.as_ref().and_then(adopt) {
            let bucket = CompactBucket::new(spent);
            return Some(Registration::Compact(CompactKey { bucket, template: to }));
        }
        // By the old limit first, and then by the new one.
        let entry = self.build_entry(name, &key.template, Some(spent)).ok()?;
        entry.count_for(to.counts.shared());
        self.registry.listed.add(&entry);
        migrated.push((Arc::clone(&entry), Some(to)));
        Some(Registration::Promoted(Promoted::new(entry)))
    }
}
