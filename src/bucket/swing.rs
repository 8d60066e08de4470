//! From one configuration of a bucket to the next: the CAS loop. The configuration itself is made in
//! [`reconfigure`](super::reconfigure). For the orderings see [`atomic`](super::atomic).

use super::atomic::Bucket;
use super::locked::LockedBucket;
use super::reconfigure::SlotChange;
use super::slot::{SlotConfig, SlotState};
use super::word::Word;
use crate::sync::Ordering;

impl Bucket {
    /// Swings to another configuration by one CAS: see [`SlotConfig::transition`]. Returns `false` if
    /// the stripes are open, which must be drained first.
    ///
    /// Under the configuration lock, of which `current` is the proof. `clock` is read after the word.
    /// An earlier reading could be older than that of a take which the word already counts; the time
    /// between the two, earned at the old rate, would be earned again at the new one.
    #[must_use]
    pub(crate) fn swing(
        &self,
        current: &mut SlotConfig,
        to: SlotChange,
        clock: impl Fn() -> u64,
    ) -> bool {
        self.install(
            current,
            |word| !word.is_striped(),
            |current, position| current.transition(position, to, clock()),
        )
    }

    /// Moves the anchor up to now. The terms stay, and open stripes stay open.
    pub(crate) fn reanchor(&self, current: &mut SlotConfig, clock: impl Fn() -> u64) {
        self.install(current, |_| true, |current, position| current.reanchored(position, clock()));
    }

    /// This bucket as one under a lock. The caller keeps other threads from taking.
    pub(crate) fn to_locked(&self, current: &SlotConfig) -> LockedBucket {
        let position = self.word().position(current.origin);
        LockedBucket { config: SlotConfig { origin: 0, ..*current }, position }
    }

    /// Becomes what `from` is.
    pub(crate) fn restore(&self, current: &mut SlotConfig, from: &LockedBucket) {
        self.install(current, |_| true, |_, _| (from.config, from.position));
    }

    /// Marks a bucket as removed that is full at `now`, with nothing in flight, by the CAS that proves
    /// it: earlier takes are seen, later takes find it removed. Under the configuration lock.
    pub(crate) fn remove_if_full(&self, current: &mut SlotConfig, now: u64) -> bool {
        // The level at a reading from before the anchor is unknown by now.
        if now < current.anchor {
            return false;
        }
        let accrued = current.terms.rate.accrue(current.elapsed(now), current.carry);
        let origin = current.origin;
        let is_idle = |word: Word| {
            // An RMW reads the last count, whichever thread wrote it.
            self.hot.in_flight.fetch_add(0, Ordering::AcqRel);
            let is_full = !word.is_striped() && word.position(origin) <= accrued.floor;
            is_full && self.in_flight() == 0
        };
        self.install(current, is_idle, |current, position| {
            let to = SlotChange { state: SlotState::Removed, ..current.unchanged() };
            current.transition(position, to, now)
        })
    }

    /// Stores the next slot, then swings the word to it, if it satisfies `may_swing`.
    fn install(
        &self,
        current: &mut SlotConfig,
        may_swing: impl Fn(Word) -> bool,
        to: impl Fn(&SlotConfig, u64) -> (SlotConfig, u64),
    ) -> bool {
        loop {
            let word = self.word();
            if !may_swing(word) {
                return false;
            }
            let (config, position) = to(current, word.position(current.origin));
            let (next, origin) = word.next(position);
            let config = SlotConfig { origin, ..config };
            self.slots[next.parity()].store(&config);
            if self.swap(word, next) {
                *current = config;
                return true;
            }
        }
    }
}
