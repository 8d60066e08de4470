//! Calls by name, whatever the name stands for.

use std::convert::Infallible;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::entry::{Entry, Grant};
use super::super::error::{AllError, NoEntry, ResourceError, TryAcquireError};
use super::super::multi::TakeSet;
use super::super::permit::Permit;
use super::keys::KeysGuard;
use super::{CompactKey, Registration, Registry, Template};
use crate::bucket::{Refused, Retry, SharedRate, worst_of};
use crate::counts::Count;
use crate::sync::{NameRef, borrow};

impl Registry {
    /// Takes `n` tokens.
    #[inline]
    pub(in crate::limiter) fn check(&self, name: &str, n: u64) -> Result<(), TryAcquireError> {
        let entries = self.entries.pin();
        match entries.get(&NameRef(name)) {
            Some(found) => match *found {
                Registration::Configured(ref entry) => entry.check_by(n, &self.clock),
                Registration::Compact(ref key) => self.check_compact(key, name, n),
                Registration::Promoted(_) => self.check_slow(name, n),
            },
            None => self.check_slow(name, n),
        }
    }

    #[inline(never)]
    fn check_compact(&self, key: &CompactKey, name: &str, n: u64) -> Result<(), TryAcquireError> {
        if n > 0 {
            match key.take(&self.sweep_window, n, self.clock.now()) {
                Ok(()) => {
                    key.count_taken(n);
                    return Ok(());
                }
                Err(Refused::Denied(denied)) => {
                    key.count_denied(&denied);
                    return Err(denied.into());
                }
                Err(Refused::Retry(_)) => {}
            }
        }
        self.check_slow(name, n)
    }

    /// The same in every case; creates a key if a template fits.
    #[cold]
    #[inline(never)]
    fn check_slow(&self, name: &str, n: u64) -> Result<(), TryAcquireError> {
        if n == 0 {
            return self.peek(name, 0);
        }
        loop {
            let now = self.clock.now();
            let entries = self.entries.pin();
            let Some(found) = entries.get(&NameRef(name)) else {
                self.require_template(name)?;
                let look = |_: &SharedRate, _, _| ();
                if self.with_keys(name, |guard| guard.take_new(name, n, look))?.is_some() {
                    return Ok(());
                }
                continue;
            };
            match *found {
                Registration::Configured(ref entry) => return entry.check(n),
                Registration::Promoted(ref promoted) => match promoted.hold() {
                    Some(entry) => {
                        self.sweep_if_due(now);
                        return entry.check(n);
                    }
                    None => self.wait_for_keys(),
                },
                Registration::Compact(ref key) => match key.take(&self.sweep_window, n, now) {
                    Ok(()) => {
                        key.count_taken(n);
                        return Ok(());
                    }
                    Err(Refused::Denied(denied)) => {
                        key.count_denied(&denied);
                        return Err(denied.into());
                    }
                    Err(Refused::Retry(Retry::Evicted)) => self.wait_for_keys(),
                    Err(Refused::Retry(Retry::SweepDue(_))) if self.is_closed() => {
                        return Err(TryAcquireError::Closed);
                    }
                    Err(Refused::Retry(Retry::SweepDue(end))) => self.sweep(end, now),
                    Err(Refused::Retry(_)) => {}
                },
            }
        }
    }

    /// Takes `n` tokens and a permit.
    #[inline]
    pub(in crate::limiter) fn try_acquire(
        &self,
        name: &str,
        n: u64,
    ) -> Result<Permit<'static>, TryAcquireError> {
        let entries = self.entries.pin();
        if let Some(found) = entries.get(&NameRef(name))
            && let Some(entry) = found.configured()
        {
            let seen = entry.seen();
            let counted = entry.try_acquire::<TryAcquireError>(n)?;
            return Ok(Permit::owned(Arc::clone(entry), Grant { n, seen, counted }));
        }
        let entry = self.entry(name)?;
        let seen = entry.seen();
        let counted = entry.try_acquire::<TryAcquireError>(n)?;
        Ok(Permit::owned(entry, Grant { n, seen, counted }))
    }

    /// The entry of a name, for use: a key is promoted, or created.
    pub(in crate::limiter) fn entry(&self, name: &str) -> Result<Arc<Entry>, NoEntry> {
        if let Some(entry) = self.promoted(name) {
            return Ok(entry);
        }
        self.require_template(name)?;
        self.with_keys(name, |guard| guard.promote(name))
    }

    /// The entry of a name, for use, if it has one.
    #[inline]
    pub(in crate::limiter) fn promoted(&self, name: &str) -> Option<Arc<Entry>> {
        loop {
            match *self.entries.pin().get(&NameRef(name))? {
                Registration::Configured(ref entry) => return Some(Arc::clone(entry)),
                Registration::Compact(_) => return None,
                Registration::Promoted(ref promoted) => {
                    if let Some(entry) = promoted.hold() {
                        self.sweep_if_due(self.clock.now());
                        return Some(entry);
                    }
                    self.wait_for_keys();
                }
            }
        }
    }

    /// The entry of a name, for use, if there is a resource or a key of this name: no key is created.
    #[cfg(feature = "swarm")]
    pub(in crate::limiter) fn existing(&self, name: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = self.promoted(name) {
            return Some(entry);
        }
        if !self.has(name) {
            return None;
        }
        // It may have gone before the lock was taken.
        let promote = |guard: &mut KeysGuard<'_>| {
            if self.has(name) { guard.promote(name).map(Some) } else { Ok(None) }
        };
        self.with_keys(name, promote).unwrap_or_default()
    }

    #[cfg(feature = "swarm")]
    pub(in crate::limiter) fn has(&self, name: &str) -> bool {
        self.entries.pin().get(&NameRef(name)).is_some()
    }

    /// The entry of a name, to look at. For a compact key, or one that does not exist, it is a copy of
    /// what it would be.
    pub(in crate::limiter) fn view(&self, name: &str) -> Result<Arc<Entry>, NoEntry> {
        if let Some(entry) = self.promoted(name) {
            return Ok(entry);
        }
        self.require_template(name)?;
        self.with_keys(name, |guard| guard.view(name))
    }

    /// Whether `n` tokens would be granted now. Creates no key.
    pub(in crate::limiter) fn peek(&self, name: &str, n: u64) -> Result<(), TryAcquireError> {
        let entries = self.entries.pin();
        if let Some(found) = entries.get(&NameRef(name))
            && let Registration::Compact(CompactKey { ref bucket, ref template }) = *found
            && let Some(rate) = &template.rate
        {
            let now = self.clock.now();
            if let Ok(spent) = bucket.position(rate, &self.sweep_window, now) {
                let prepared = if n > 0 { rate.prepare(spent, n, now).map(drop) } else { Ok(()) };
                return Ok(prepared?);
            }
        }
        Ok(self.view(name)?.peek(n)?)
    }

    /// Whether all of this would be granted now. Creates no key.
    pub(in crate::limiter) fn peek_all(&self, wanted: &[(&str, u64)]) -> Result<(), AllError> {
        let mut all: SmallVec<[(&str, Arc<Entry>, u64); 4]> = SmallVec::new();
        for (name, n) in wanted {
            if let Some((.., sum)) = all.iter_mut().find(|(known, ..)| known == name) {
                *sum = sum.saturating_add(*n);
                continue;
            }
            let entry = self.view(name).map_err(|missing| AllError::of(name, missing))?;
            all.push((name, entry, *n));
        }
        let peeks = all.iter().map(|(_, entry, n)| entry.peek(*n).map_err(Refused::Denied));
        match worst_of(peeks) {
            Err((index, Refused::Denied(denied))) => Err(ResourceError::of(all[index].0, denied)),
            _ => Ok(()),
        }
    }

    /// Acts on what is wanted of several resources. Configured ones are not cloned.
    pub(in crate::limiter) fn with_take_set<T, E: From<ResourceError<NoEntry>>>(
        &self,
        wanted: &[(&str, u64)],
        act: impl Fn(&mut TakeSet<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let entries = self.entries.pin();
        let configured = |(name, n): &(&str, u64)| {
            let entry = borrow(&entries, name).and_then(Registration::configured);
            entry.map(|entry| (entry, *n)).ok_or(())
        };
        match TakeSet::with(wanted.iter().map(configured), &act) {
            Ok(acted) => acted,
            Err(()) => self.with_promoted_take_set(wanted, act),
        }
    }

    #[cold]
    fn with_promoted_take_set<T, E: From<ResourceError<NoEntry>>>(
        &self,
        wanted: &[(&str, u64)],
        act: impl Fn(&mut TakeSet<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut held: SmallVec<[Arc<Entry>; 4]> = SmallVec::new();
        for (name, _) in wanted {
            held.push(self.entry(name).map_err(|missing| ResourceError::of(name, missing))?);
        }
        let parts = held.iter().zip(wanted).map(|(entry, (_, n))| Ok::<_, Infallible>((entry, *n)));
        let Ok(acted) = TakeSet::with(parts, act);
        acted
    }

    /// Acts for a name under the lock of the keys; again if there was no room for a key, and something was due
    /// that may have made some.
    pub(super) fn with_keys<T, E>(
        &self,
        name: &str,
        act: impl Fn(&mut KeysGuard<'_>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: Copy + Into<TryAcquireError>,
    {
        let is_full = |acted: &Result<T, E>| matches!(acted, Err(error) if matches!((*error).into(), TryAcquireError::TooManyKeys { .. }));
        let mut guard = self.lock_keys();
        let mut acted = act(&mut guard);
        if guard.finish() && is_full(&acted) {
            let mut guard = self.lock_keys();
            acted = act(&mut guard);
            guard.finish();
        }
        if is_full(&acted)
            && let Some(template) = self.template_of(name)
        {
            template.counts.add(Count::Refused, 1);
        }
        acted
    }

    /// Fails if no template fits, without a lock, so that unknown names cost little. A key of a template
    /// that was removed meanwhile goes as well.
    pub(super) fn require_template(&self, name: &str) -> Result<(), NoEntry> {
        self.template_of(name).map(drop).ok_or_else(|| self.missing())
    }

    /// Why a name has no entry.
    #[cold]
    pub(super) fn missing(&self) -> NoEntry {
        if self.is_closed() { NoEntry::Closed } else { NoEntry::Unknown }
    }

    /// The template of the longest prefix of the name.
    pub(super) fn template_of(&self, name: &str) -> Option<Arc<Template>> {
        let templates = self.templates.pin();
        let fitting = templates.values().filter(|template| name.starts_with(&*template.prefix));
        fitting.max_by_key(|template| template.prefix.len()).map(Arc::clone)
    }

    pub(super) fn sweep_if_due(&self, now: u64) {
        let end = self.sweep_window.end();
        if now >= end && !self.is_closed() {
            self.sweep(end, now);
        }
    }

    /// Until the thread that changes a key has done so.
    pub(super) fn wait_for_keys(&self) {
        drop(self.keys.lock());
    }
}
