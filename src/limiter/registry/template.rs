//! Templates: made, configured anew and removed, and what becomes of their keys.

use std::sync::Arc;

use super::super::entry::Entry;
use super::super::error::ConfigError;
use super::super::limit::Limit;
use super::super::memory::{Inner, MemoryLimiter};
use super::name::{Name, NameRef};
use super::sweep::KeysGuard;
use super::{CompactKey, Promoted, Registration, Template};
use crate::bucket::{CompactBucket, SharedRate, SlotState};
use crate::sync::{AtomicU64, seeded};

/// So many keys a template has at most, where it does not say.
const MOST_KEYS: u64 = 1_000_000;

/// # Many keys
///
/// A limit for each user, address or API key, without a rate for any of them.
impl MemoryLimiter {
    /// A template: each name that begins with `prefix` and was not configured has a bucket of its own by
    /// `limit`. It is there from its first use on, by any method that takes a name. There may be
    /// 1,000,000 of them at a time; [`per_key_at_most`](Self::per_key_at_most) sets another number.
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
    /// Of several prefixes that fit the longest counts. The empty one fits every name. The first use of
    /// a name looks at each of the limiter's templates, so there should be a handful of them, not one for
    /// each customer.
    ///
    /// # Keys that come and go
    ///
    /// A key goes by itself when it has been as new for ten seconds, or at once where there is no room for
    /// another: its bucket is full, no permit is out or forgotten, nobody waits for it or has a handle to
    /// it, and it is neither cut nor paused. So one that goes and comes
    /// again is bound by what it took before, as if it had stayed: the tokens of a key are at most
    /// `burst + rate x time`. There is nothing to call for it: two keys are looked at whenever one is
    /// made, and 256 every 67 ms while keys are used, by a call that comes by then.
    ///
    /// # What a key costs
    ///
    /// A key of which only [`check`](Self::check), [`check_n`](Self::check_n), [`peek`](Self::peek) and
    /// [`capacity`](Self::capacity) are asked is light: with a name of 16 bytes it takes about 140 bytes,
    /// all told. Any other call makes it whole, with a rate for those who wait and all that a configured
    /// resource has, which takes about 1.8 KB; it goes on from the very level, and is light again when it
    /// has gone and come. Each key of a limit of several windows is whole. A million whole ones take 2 GB: have
    /// fewer, by [`per_key_at_most`](Self::per_key_at_most).
    ///
    /// A name is kept as it is, whatever its length: where users choose it, bound that first.
    ///
    /// Making a key takes a lock, one for a limiter; using it does not.
    ///
    /// # Single keys
    ///
    /// * [`configure`](Self::configure) gives a key a limit of its own: it leaves its template, and stays.
    /// * [`remove`](Self::remove) has a key begin anew.
    /// * A cut or a pause is the key's alone, and keeps it. A cut that does not
    ///   [recover](crate::Limit::recovery) keeps it for good.
    /// * [`peek`](Self::peek) and [`capacity`](Self::capacity) make no key, and answer for one that is
    ///   not there as for one that is new. [`resources`](Self::resources) has none of them.
    /// * Where there is no room for another key [`resource`](Self::resource) is `None`, and what neither
    ///   fails nor waits ([`pause_for`](Self::pause_for), [`announce_reduced`](Self::announce_reduced))
    ///   does nothing.
    ///
    /// # Another limit
    ///
    /// For a prefix that has a template this is another limit for all its keys, live, as
    /// [`configure`](Self::configure) would give it to each. So it is for keys of a shorter prefix that
    /// this one fits. It takes time by the number of the limiter's keys, about a second for a million;
    /// meanwhile each key has one limit or the other. A key that is not there begins full by the new one:
    /// so do not raise the burst of a [strict](crate::Limit::at_most) limit in the window after it was
    /// spent.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; nothing was changed.
    pub fn per_key(&self, prefix: &str, limit: Limit) -> Result<(), ConfigError> {
        self.per_key_at_most(prefix, limit, MOST_KEYS)
    }

    /// [`per_key`](Self::per_key) with at most `most_keys` keys at a time. What would be one more fails
    /// with [`TooManyKeys`](crate::TryAcquireError::TooManyKeys), unless a few looks find one that may go.
    /// Fewer than there are already removes none. The looks go over the keys of all templates in turn, so
    /// that beside a million others the few of a small one may be idle for some time before they make
    /// room: where that matters, give the small one a limiter of its own.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; nothing was changed.
    pub fn per_key_at_most(
        &self,
        prefix: &str,
        limit: Limit,
        most_keys: u64,
    ) -> Result<(), ConfigError> {
        let terms = limit.terms(1.0)?;
        let admin = self.0.admin.lock();
        if self.0.is_closed() {
            return Err(ConfigError::Closed);
        }
        let keys_guard = self.0.keys_guard();
        let from = self.0.template_of(prefix);
        let same = from.as_ref().filter(|from| *from.prefix == *prefix);
        let count =
            same.map_or_else(|| Arc::new(AtomicU64::new(0)), |same| Arc::clone(&same.count));
        let rate = if terms.len() == 1 { SharedRate::new(terms[0], keys_guard.now) } else { None };
        let prefix: Arc<str> = prefix.into();
        let template =
            Template { prefix: Arc::clone(&prefix), limit, rate, most: most_keys, count };
        self.0.templates.pin().insert(Name(Arc::clone(&prefix)), Arc::new(template));
        // Without one until now there are no such keys.
        let moved = from.map(|from| keys_guard.move_keys(&prefix, &from)).unwrap_or_default();
        drop(admin);
        self.0.apply_migration(moved);
        Ok(())
    }

    /// Remove a template; whether there was one. Its keys are those of the next shorter prefix that has
    /// one from here on, as after [`per_key`](Self::per_key); where none has, they go, and their waiters
    /// and handles get `UnknownResource`.
    pub fn remove_per_key(&self, prefix: &str) -> bool {
        let admin = self.0.admin.lock();
        let keys_guard = self.0.keys_guard();
        let Some(from) = self.0.templates.pin().remove(&NameRef(prefix)).map(Arc::clone) else {
            return false;
        };
        let moved = keys_guard.move_keys(prefix, &from);
        drop(admin);
        self.0.apply_migration(moved);
        true
    }
}

/// Promoted keys that have another template, or none any more.
type Migrated = Vec<(Arc<Entry>, Option<Arc<Template>>)>;

impl Inner {
    /// What whole keys need once they have moved, without locks: observers hear of it.
    fn apply_migration(&self, moved: Migrated) {
        for (entry, to) in moved {
            let Some(template) = to else {
                entry.shut(SlotState::Removed);
                continue;
            };
            // Unless it has moved on.
            let is_here = || {
                let is_whole = match self.entries.pin().get(&NameRef(&entry.name)) {
                    Some(found) => matches!(*found, Registration::Promoted(_)),
                    None => false,
                };
                is_whole && self.template_of(&entry.name).is_some_and(|now| now.is(&template))
            };
            // Nothing is wrong with the limit, and a resource that was removed needs none.
            let _ = entry.configure_if(&template.limit, is_here);
        }
    }
}

impl KeysGuard<'_> {
    /// Have each key go on by the template that it has now. Those with `prefix` whose template is no
    /// longer one were `from`'s. Under the admin lock, so that nobody else moves keys, and in the keys_guard
    /// in which the templates changed: a whole key that went in between would count out of another one.
    fn move_keys(mut self, prefix: &str, from: &Template) -> Migrated {
        let mut moved = Migrated::new();
        let inner = self.inner;
        if seeded("names-after-template") {
            drop(self);
            self = inner.keys_guard();
        }
        let names = std::mem::take(&mut self.keys.names);
        drop(self);
        for name in names {
            // The lock is for one key at a time, so that nobody who makes one waits for all.
            inner.keys_guard().move_key(name, prefix, from, &mut moved);
        }
        moved
    }

    fn move_key(&mut self, name: Arc<str>, prefix: &str, from: &Template, moved: &mut Migrated) {
        let entries = self.inner.entries.pin();
        let Some((own, found)) = entries.get_key_value(&NameRef(&name)) else { return };
        if !Arc::ptr_eq(&own.0, &name) {
            return;
        }
        let to = self.inner.template_of(&name);
        let stays = match *found {
            Registration::Configured(_) => false,
            Registration::Promoted(Promoted { ref entry, .. }) => {
                let is_shorter = |to: &Arc<Template>| to.prefix.len() <= prefix.len();
                if name.starts_with(prefix) && to.as_ref().is_none_or(is_shorter) {
                    from.lose();
                    match &to {
                        Some(to) => to.gain(),
                        None => {
                            entries.remove(&NameRef(&name));
                        }
                    }
                    moved.push((Arc::clone(entry), to.clone()));
                }
                to.is_some()
            }
            Registration::CompactBucket(ref key) => match to {
                Some(to) if to.is(&key.template) => true,
                to => {
                    let transition = self.migrate_compact(&name, key, to, moved);
                    let stays = transition.is_some();
                    match transition {
                        Some(named) => {
                            entries.insert(Name(Arc::clone(&name)), named);
                        }
                        None => {
                            entries.remove(&NameRef(&name));
                        }
                    }
                    stays
                }
            },
        };
        if stays {
            self.keys.names.push_back(name);
        }
    }

    /// What a light key becomes by another template; `None` where it goes.
    fn migrate_compact(
        &mut self,
        name: &Arc<str>,
        key: &CompactKey,
        to: Option<Arc<Template>>,
        moved: &mut Migrated,
    ) -> Option<Registration> {
        let spent = key.bucket.retire();
        key.template.lose();
        let (to, rate) = (to?, key.template.rate.as_ref()?);
        // Read after the word: else the time up to a take that the word counts, which was earned at the old
        // rate, would be earned once more at the new one.
        let now = if seeded("turn-by-old-clock") { self.now } else { self.inner.clock.now() };
        // A clock that has stepped back by weeks is further away than the on_timer can tell.
        let now = self.inner.sweep_window.recent(now);
        if rate.is_full(spent, now) {
            self.keys.evicted = self.keys.evicted.max(now);
            return None;
        }
        to.gain();
        let lost = to.limit.first().lost_depth(key.template.limit.first());
        let adopt = |to: &SharedRate| to.adopt(&rate.lift(spent, now), lost, now);
        if let Some(spent) = to.rate.as_ref().and_then(adopt) {
            return Some(Registration::CompactBucket(CompactKey {
                bucket: CompactBucket::new(spent),
                template: to,
            }));
        }
        // By the old limit, and then by the new one.
        let entry = self.build_entry(name, &key.template, Some(spent)).ok()?;
        moved.push((Arc::clone(&entry), Some(to)));
        Some(Registration::Promoted(Promoted::new(entry)))
    }
}
