//! A bucket that is kept under a lock: the same arithmetic without the word.

use super::rate::Terms;
use super::snapshot::Snapshot;
use super::word::Word;
use super::{SlotChange, SlotConfig, SlotState};

/// A further window of a resource that has several.
#[derive(Clone, Debug)]
pub(crate) struct LockedBucket {
    pub(super) config: SlotConfig,
    /// In units from the anchor, as [`Word::position`] is from a slot's origin.
    pub(super) position: u64,
}

impl LockedBucket {
    /// A full bucket.
    pub(crate) fn full(terms: Terms, now: u64) -> Self {
        Self { config: SlotConfig::open(terms, now), position: 0 }
    }

    pub(crate) fn turn(&mut self, to: SlotChange, now: u64) {
        (self.config, self.position) = self.config.transition(self.position, to, now);
    }

    /// When a pause ends, whatever debt is paid after it; 0 where there is none.
    pub(crate) fn paused_until(&self) -> u64 {
        let SlotConfig { kind, anchor, delay, .. } = self.config;
        if kind == SlotState::Paused { anchor - delay } else { 0 }
    }

    /// Do what is due at `now`: the end of a pause, a fresh anchor.
    pub(crate) fn mend(&mut self, now: u64) {
        let Self { config, position } = self;
        if config.kind == SlotState::Paused && now >= config.anchor {
            let to = SlotChange { kind: SlotState::Open, ..config.again() };
            (*config, *position) = config.transition(*position, to, config.anchor);
        }
        if config.is_past_horizon(now) {
            (*config, *position) = config.reanchored(*position, now);
        }
    }

    pub(crate) fn snapshot(&self, now: u64) -> Snapshot {
        let SlotConfig { kind, terms, anchor, carry, origin, .. } = self.config;
        let elapsed = self.config.elapsed(now);
        Snapshot {
            word: Word::new(self.position),
            kind,
            origin,
            unit: terms.unit,
            capacity: terms.capacity,
            capacity_tokens: terms.capacity_tokens,
            rate: terms.rate,
            carry,
            anchor,
            horizon: terms.horizon,
            // The first window's is everybody's.
            until: u64::MAX,
            now,
            accrued: terms.rate.accrue(elapsed, carry),
        }
    }

    /// Take what a look at the same `now` has said is there.
    pub(crate) fn take(&mut self, n: u64, now: u64) {
        if let Ok(next) = self.snapshot(now).admit(n) {
            self.position = next;
        }
    }

    pub(crate) fn refund(&mut self, n: u64, now: u64) {
        self.position = self.snapshot(now).refunded(n);
    }

    /// Take `n` tokens, whether they are there or not.
    pub(crate) fn charge(&mut self, n: u64, now: u64) {
        match self.snapshot(now).charged(n) {
            Some(next) => self.position = next,
            None => self.turn(SlotChange { charge: n, ..self.config.again() }, now),
        }
    }
}
