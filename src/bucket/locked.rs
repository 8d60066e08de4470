//! A bucket under a lock: the same arithmetic without the atomic word.

use super::rate::Terms;
use super::reconfigure::SlotChange;
use super::slot::{SlotConfig, SlotState};
use super::snapshot::Snapshot;
use super::word::Word;

/// A further window of a resource that has several.
#[derive(Clone, Debug)]
pub(crate) struct LockedBucket {
    pub(super) config: SlotConfig,
    /// In units from the anchor, like [`Word::position`] from a slot's origin.
    pub(super) position: u64,
}

impl LockedBucket {
    /// A full bucket.
    pub(crate) fn full(terms: Terms, now: u64) -> Self {
        Self { config: SlotConfig::open(terms, now), position: 0 }
    }

    pub(crate) fn reconfigure(&mut self, to: SlotChange, now: u64) {
        (self.config, self.position) = self.config.transition(self.position, to, now);
    }

    /// Takes other terms at `now`; a pause continues.
    pub(crate) fn rescale(&mut self, terms: Terms, now: u64) {
        self.reconfigure(
            SlotChange { state: SlotState::Open, terms, ..self.config.unchanged() },
            now,
        );
    }

    /// When a pause ends, before any debt is paid; 0 if there is none.
    pub(crate) fn paused_until(&self) -> u64 {
        let SlotConfig { state, anchor, delay, .. } = self.config;
        if state == SlotState::Paused { anchor - delay } else { 0 }
    }

    /// Does what is due at `now`: the end of a pause, a fresh anchor.
    pub(crate) fn catch_up(&mut self, now: u64) {
        let Self { config, position } = self;
        if config.state == SlotState::Paused && now >= config.anchor {
            let to = SlotChange { state: SlotState::Open, ..config.unchanged() };
            (*config, *position) = config.transition(*position, to, config.anchor);
        }
        if config.is_past_horizon(now) {
            (*config, *position) = config.reanchored(*position, now);
        }
    }

    pub(crate) fn snapshot(&self, now: u64) -> Snapshot {
        let SlotConfig { state, is_share, terms, anchor, carry, origin, .. } = self.config;
        Snapshot {
            word: Word::new(self.position),
            state,
            is_share,
            origin,
            unit: terms.unit,
            capacity: terms.capacity,
            reserved: 0,
            capacity_tokens: terms.capacity_tokens,
            rate: terms.rate,
            after: terms.after,
            carry,
            anchor,
            horizon: terms.horizon,
            // That of the first window counts for all.
            until: u64::MAX,
            now,
            accrued: terms.rate.accrue(self.config.elapsed(now), carry),
        }
    }

    /// Takes what a snapshot at the same `now` would admit.
    pub(crate) fn take(&mut self, n: u64, now: u64) {
        if let Ok(next) = self.snapshot(now).admit(n) {
            self.position = next;
        }
    }

    pub(crate) fn refund(&mut self, n: u64, now: u64) {
        self.position = self.snapshot(now).refunded(n);
    }

    /// Takes `n` tokens, available or not.
    pub(crate) fn charge(&mut self, n: u64, now: u64) {
        if let Some((next, _)) = self.snapshot(now).charged(n) {
            self.position = next;
            return;
        }
        let charge = n.min(self.charge_room(now));
        self.reconfigure(SlotChange { charge, ..self.config.unchanged() }, now);
    }

    /// The most that can be charged, in tokens.
    pub(crate) fn charge_room(&self, now: u64) -> u64 {
        self.config.charge_room(self.position, now)
    }
}
