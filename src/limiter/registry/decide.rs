//! Decisions by name, with what is left after them.

use std::sync::Arc;

use super::super::capacity::Capacity;
use super::super::decision::Decision;
use super::super::entry::Grant;
use super::super::error::TryAcquireError;
use super::super::permit::Permit;
use super::{Registration, Registry};
use crate::bucket::{Denied, Refused, Retry, SharedRate, Standing};
use crate::sync::NameRef;

impl Registry {
    /// Takes `n` tokens, and says what is left; creates a key if a template fits and `n` is not 0.
    pub(in crate::limiter) fn decide(&self, name: &str, n: u64) -> Decision {
        self.try_decide(name, n).unwrap_or_else(|error| match error {
            // What a key would have that was not created.
            TryAcquireError::ExceedsCapacity { .. } if n > 0 => {
                Decision { outcome: Err(error), ..self.decide(name, 0) }
            }
            error => Decision::failed(error),
        })
    }

    fn try_decide(&self, name: &str, n: u64) -> Result<Decision, TryAcquireError> {
        let decided =
            |(outcome, standing): (Result<(), Denied>, Standing)| Decision::new(outcome, standing);
        loop {
            let now = self.clock.now();
            let entries = self.entries.pin();
            let Some(found) = entries.get(&NameRef(name)) else {
                self.require_template(name)?;
                if n == 0 {
                    return Ok(self.view(name)?.decide(0));
                }
                let taken =
                    self.with_keys(name, |guard| guard.take_new(name, n, SharedRate::standing))?;
                match taken {
                    Some(standing) => return Ok(decided((Ok(()), standing))),
                    None => continue,
                }
            };
            let retry = match *found {
                Registration::Configured(ref entry) => return Ok(entry.decide(n)),
                Registration::Promoted(ref promoted) => {
                    if let Some(entry) = promoted.hold() {
                        self.sweep_if_due(now);
                        return Ok(entry.decide(n));
                    }
                    Retry::Evicted
                }
                Registration::Compact(ref key) => match key.decide(&self.sweep_window, n, now) {
                    Ok(decision) => return Ok(decided(decision)),
                    Err(Refused::Denied(denied)) => return Err(denied.into()),
                    Err(Refused::Retry(retry)) => retry,
                },
            };
            match retry {
                Retry::Evicted => self.wait_for_keys(),
                Retry::SweepDue(_) if self.is_closed() => return Err(TryAcquireError::Closed),
                Retry::SweepDue(end) => self.sweep(end, now),
                _ => {}
            }
        }
    }

    /// Takes `n` tokens and a permit, and says what is left.
    pub(in crate::limiter) fn admit(
        &self,
        name: &str,
        n: u64,
    ) -> Result<(Permit<'static>, Decision), Decision> {
        let entry = self.entry(name).map_err(Decision::failed)?;
        let seen = entry.seen();
        let (counted, decision) = entry.admit(n)?;
        Ok((Permit::owned(entry, Grant { n, seen, counted }), decision))
    }

    /// The keys of the template of this prefix.
    pub(in crate::limiter) fn keys_of(&self, prefix: &str) -> Vec<Capacity> {
        let mut names = Vec::new();
        #[allow(clippy::explicit_iter_loop)] // in models it is another map
        for (name, found) in self.entries.pin().iter() {
            let is_key = found.configured().is_none();
            if is_key && self.template_of(&name.0).is_some_and(|of| *of.prefix == *prefix) {
                names.push(Arc::clone(&name.0));
            }
        }
        names.sort();
        names.iter().filter_map(|name| Some(self.view(name).ok()?.capacity())).collect()
    }

    /// Their number.
    pub(in crate::limiter) fn key_count(&self, prefix: &str) -> u64 {
        self.templates.pin().get(&NameRef(prefix)).map_or(0, |template| template.count())
    }
}
