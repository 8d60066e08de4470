//! Cuts of names that do not exist here: they apply as soon as such a resource is configured, or such a
//! key is used for the first time.
//!
//! A cut that has recovered by the time that it applies is of no effect. What stands is told again every few
//! seconds, unless all that knew it are gone. Anybody may tell anything: what is kept is bounded, and what is
//! not kept is heard with the next telling.

use std::collections::HashMap;

use crate::adapt::MOST_CUTS;
use crate::limiter::RemoteCut;
use crate::sync::Mutex;

/// Nanoseconds after which a cut that has not been told again is dropped: longer than the recovery from a
/// cut or two takes by default.
const KEPT: u64 = 900_000_000_000;
/// Nanoseconds between two searches for such cuts.
const SWEEP: u64 = 1_000_000_000;
/// Bytes of all names and cuts together.
const MOST_BYTES: usize = 16 << 20;
/// What a name and a cut take besides their text.
const OVERHEAD: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Parked(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    cuts: HashMap<String, Vec<Heard>>,
    bytes: usize,
    swept: u64,
}

#[derive(Debug)]
struct Heard {
    cut: RemoteCut,
    /// By the limiter's clock.
    at: u64,
}

impl Parked {
    /// Keeps the cuts of a name, if there is room.
    pub(super) fn add(&self, name: &str, told: &[RemoteCut], now: u64) {
        let mut names = self.0.lock();
        if now.saturating_sub(names.swept) >= SWEEP {
            names.sweep(now);
        }
        let mut cuts = names.remove(name).unwrap_or_default();
        for cut in told {
            let heard = Heard { cut: cut.clone(), at: now };
            let known = |known: &Heard| known.cut.id == cut.id && known.cut.size == cut.size;
            if let Some(known) = cuts.iter_mut().find(|heard| known(heard)) {
                *known = heard;
            } else if cuts.len() < MOST_CUTS {
                cuts.push(heard);
            } else if let Some(oldest) = cuts.iter_mut().min_by_key(|heard| heard.at) {
                *oldest = heard;
            }
        }
        names.insert(name, cuts);
    }

    /// Whether there are cuts of a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().cuts.contains_key(name)
    }

    /// Takes out the cuts of a name, as old as they are now.
    pub(super) fn take(&self, name: &str, now: u64) -> Vec<RemoteCut> {
        let mut cuts = self.0.lock().remove(name).unwrap_or_default();
        // In the order in which they were made, as they would have been heard.
        cuts.sort_by_key(|heard| i128::from(heard.at) - i128::from(heard.cut.age));
        let aged = |Heard { cut, at }: Heard| {
            let age = cut.age.saturating_add(now.saturating_sub(at));
            RemoteCut { age, ..cut }
        };
        cuts.into_iter().map(aged).collect()
    }
}

impl Names {
    fn insert(&mut self, name: &str, cuts: Vec<Heard>) {
        let bytes = size(name, &cuts);
        if self.bytes + bytes <= MOST_BYTES {
            self.bytes += bytes;
            self.cuts.insert(name.to_string(), cuts);
        }
    }

    fn remove(&mut self, name: &str) -> Option<Vec<Heard>> {
        let cuts = self.cuts.remove(name)?;
        self.bytes -= size(name, &cuts);
        Some(cuts)
    }

    fn sweep(&mut self, now: u64) {
        self.swept = now;
        let bytes = &mut self.bytes;
        self.cuts.retain(|name, cuts| {
            let before = size(name, cuts);
            cuts.retain(|heard| now.saturating_sub(heard.at) < KEPT);
            *bytes -= before - if cuts.is_empty() { 0 } else { size(name, cuts) };
            !cuts.is_empty()
        });
    }
}

fn size(name: &str, cuts: &[Heard]) -> usize {
    let text = |heard: &Heard| heard.cut.origin.agent_id.len() + heard.cut.origin.reason.len();
    OVERHEAD + name.len() + cuts.iter().map(|heard| OVERHEAD + text(heard)).sum::<usize>()
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
