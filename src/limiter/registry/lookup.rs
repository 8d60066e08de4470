//! What a limiter does for a name that was not configured.

use std::sync::Arc;

use super::super::entry::Entry;
use super::super::error::TryAcquireError;
use super::super::memory::Inner;
use super::name::NameRef;
use super::sweep::KeysGuard;
use super::{CompactKey, Registration};
use crate::bucket::Miss;

impl Inner {
    /// Take `n` tokens of a light key that was found.
    #[inline(never)]
    pub(in crate::limiter) fn check_key(
        &self,
        key: &CompactKey,
        name: &str,
        n: u64,
    ) -> Result<(), TryAcquireError> {
        if n > 0 {
            let now = self.clock.now();
            match key.take(&self.sweep_window, n, now) {
                Ok(()) => return Ok(()),
                Err(Miss::Refused(refusal)) => return Err(TryAcquireError::from_refusal(refusal)),
                Err(Miss::Lost | Miss::Gone | Miss::Late(_)) => {}
            }
        }
        self.check_name(name, n)
    }

    /// Take `n` tokens of a name, whatever it stands for, or by its template.
    #[cold]
    #[inline(never)]
    pub(in crate::limiter) fn check_name(&self, name: &str, n: u64) -> Result<(), TryAcquireError> {
        if n == 0 {
            return self.peek(name, 0);
        }
        loop {
            let now = self.clock.now();
            let entries = self.entries.pin();
            let Some(found) = entries.get(&NameRef(name)) else {
                self.template_or_missing(name)?;
                if self.act(|keys_guard| keys_guard.take_new(name, n))? {
                    return Ok(());
                }
                continue;
            };
            match *found {
                Registration::Configured(ref entry) => return entry.check(n),
                Registration::Promoted(ref whole) => match whole.hold() {
                    Some(entry) => {
                        self.sweep_if_due(now);
                        return entry.check(n);
                    }
                    None => self.wait_for_keys(),
                },
                Registration::CompactBucket(ref key) => {
                    match key.take(&self.sweep_window, n, now) {
                        Ok(()) => return Ok(()),
                        Err(Miss::Refused(refusal)) => {
                            return Err(TryAcquireError::from_refusal(refusal));
                        }
                        Err(Miss::Lost) => {}
                        Err(Miss::Gone) => self.wait_for_keys(),
                        Err(Miss::Late(_)) if self.is_closed() => {
                            return Err(TryAcquireError::Closed);
                        }
                        Err(Miss::Late(until)) => self.sweep(until, now),
                    }
                }
            }
        }
    }

    /// The entry of a name, to be used: a key becomes whole, and is made where there is none.
    pub(in crate::limiter) fn hold(&self, name: &str) -> Result<Arc<Entry>, TryAcquireError> {
        if let Some(entry) = self.whole(name) {
            return Ok(entry);
        }
        self.template_or_missing(name)?;
        self.act(|keys_guard| keys_guard.whole(name))
    }

    /// The entry of a name, to be used, if it has one.
    #[inline]
    pub(in crate::limiter) fn whole(&self, name: &str) -> Option<Arc<Entry>> {
        loop {
            match *self.entries.pin().get(&NameRef(name))? {
                Registration::Configured(ref entry) => return Some(Arc::clone(entry)),
                Registration::CompactBucket(_) => return None,
                Registration::Promoted(ref whole) => {
                    if let Some(entry) = whole.hold() {
                        self.sweep_if_due(self.clock.now());
                        return Some(entry);
                    }
                    self.wait_for_keys();
                }
            }
        }
    }

    /// The entry of a name, if there is a resource or a key of this name.
    pub(in crate::limiter) fn known(&self, name: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = self.whole(name) {
            return Some(entry);
        }
        self.entries.pin().get(&NameRef(name))?;
        self.act(|keys_guard| {
            // It may have gone.
            let is_there = self.entries.pin().get(&NameRef(name)).is_some();
            if is_there { keys_guard.whole(name).map(Some) } else { Ok(None) }
        })
        .unwrap_or_default()
    }

    /// The entry of a name, to be looked at; of a light key, or one that is not there, as it would be.
    pub(in crate::limiter) fn show(&self, name: &str) -> Result<Arc<Entry>, TryAcquireError> {
        if let Some(entry) = self.whole(name) {
            return Ok(entry);
        }
        self.template_or_missing(name)?;
        self.act(|keys_guard| keys_guard.show(name))
    }

    /// Would `n` be admitted now? Takes nothing, and makes no key.
    pub(in crate::limiter) fn peek(&self, name: &str, n: u64) -> Result<(), TryAcquireError> {
        let entries = self.entries.pin();
        if let Some(found) = entries.get(&NameRef(name))
            && let Registration::CompactBucket(CompactKey { ref bucket, ref template }) = *found
            && let Some(rate) = &template.rate
        {
            let now = self.clock.now();
            if let Ok(spent) = bucket.look(rate, &self.sweep_window, now) {
                let planned = if n > 0 { rate.prepare(spent, n, now).map(drop) } else { Ok(()) };
                return planned.map_err(TryAcquireError::from_refusal);
            }
        }
        self.show(name)?.peek(n)
    }

    /// Act under the lock of the keys; once more where there was no room, if something was due that may
    /// have made some.
    fn act<R>(
        &self,
        act: impl Fn(&mut KeysGuard<'_>) -> Result<R, TryAcquireError>,
    ) -> Result<R, TryAcquireError> {
        let mut keys_guard = self.keys_guard();
        let acted = act(&mut keys_guard);
        let may_have_room = keys_guard.finish();
        if !may_have_room || !matches!(acted, Err(TryAcquireError::TooManyKeys { .. })) {
            return acted;
        }
        let mut keys_guard = self.keys_guard();
        let acted = act(&mut keys_guard);
        keys_guard.finish();
        acted
    }

    /// Without a lock, which unknown names are not worth. A key of a template that was removed meanwhile
    /// goes as well.
    fn template_or_missing(&self, name: &str) -> Result<(), TryAcquireError> {
        if self.template_of(name).is_none() { Err(self.missing()) } else { Ok(()) }
    }

    fn sweep_if_due(&self, now: u64) {
        let until = self.sweep_window.until();
        if now >= until && !self.is_closed() {
            self.sweep(until, now);
        }
    }

    /// Until who turns a key has done so.
    fn wait_for_keys(&self) {
        drop(self.keys.lock());
    }
}
