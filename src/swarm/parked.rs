//! Cuts and pauses of names that do not exist here: they apply as soon as such a resource is configured, or
//! such a key is used for the first time.
//!
//! A cut that has recovered by the time that it applies is of no effect, nor is a pause that has ended. What
//! stands is told again every few seconds, unless all that knew it are gone. Anybody may tell anything: what is
//! kept is bounded, and what is not kept is heard with the next telling.

use std::collections::HashMap;

use crate::adapt::MOST_CUTS;
use crate::limiter::Told;
use crate::sync::Mutex;

/// Nanoseconds after which what has not been told again is dropped: longer than the recovery from a
/// cut or two takes by default.
const KEPT: u64 = 900_000_000_000;
/// Nanoseconds between two searches for such cuts.
const SWEEP: u64 = 1_000_000_000;
/// Bytes of all together.
const MOST_BYTES: usize = 16 << 20;
/// What a name, a cut or a pause takes besides its text.
const OVERHEAD: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Parked(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    told: HashMap<String, Vec<Heard>>,
    bytes: usize,
    swept: u64,
}

#[derive(Debug)]
struct Heard {
    told: Told,
    /// By the limiter's clock.
    at: u64,
}

impl Parked {
    /// Keeps what is told of a name, if there is room.
    pub(super) fn add(&self, name: &str, told: &[Told], now: u64) {
        let mut names = self.0.lock();
        if now.saturating_sub(names.swept) >= SWEEP {
            names.sweep(now);
        }
        let mut all = names.remove(name).unwrap_or_default();
        for told in told {
            let heard = Heard { told: told.clone(), at: now };
            if let Some(known) = all.iter_mut().find(|heard| heard.told.is_same(told)) {
                *known = heard;
            } else if all.len() < MOST_CUTS {
                all.push(heard);
            } else if let Some(oldest) = all.iter_mut().min_by_key(|heard| heard.at) {
                *oldest = heard;
            }
        }
        names.insert(name, all);
    }

    /// Whether something is kept of a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().told.contains_key(name)
    }

    /// Takes out what is kept of a name, as old as it is now.
    pub(super) fn take(&self, name: &str, now: u64) -> Vec<Told> {
        let mut all = self.0.lock().remove(name).unwrap_or_default();
        // In the order in which they were made, as they would have been heard.
        all.sort_by_key(|heard| i128::from(heard.at) - i128::from(heard.told.age()));
        all.into_iter().map(|Heard { told, at }| told.aged(now.saturating_sub(at))).collect()
    }
}

impl Names {
    fn insert(&mut self, name: &str, told: Vec<Heard>) {
        let bytes = size(name, &told);
        if self.bytes + bytes <= MOST_BYTES {
            self.bytes += bytes;
            self.told.insert(name.to_string(), told);
        }
    }

    fn remove(&mut self, name: &str) -> Option<Vec<Heard>> {
        let told = self.told.remove(name)?;
        self.bytes -= size(name, &told);
        Some(told)
    }

    fn sweep(&mut self, now: u64) {
        self.swept = now;
        let bytes = &mut self.bytes;
        self.told.retain(|name, told| {
            let before = size(name, told);
            told.retain(|heard| now.saturating_sub(heard.at) < KEPT);
            *bytes -= before - if told.is_empty() { 0 } else { size(name, told) };
            !told.is_empty()
        });
    }
}

fn size(name: &str, told: &[Heard]) -> usize {
    let text = |heard: &Heard| {
        let origin = heard.told.origin();
        origin.agent_id.len() + origin.reason.len()
    };
    OVERHEAD + name.len() + told.iter().map(|heard| OVERHEAD + text(heard)).sum::<usize>()
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
