//! Whether anything got through since the last cut.
//!
//! In an outage, or for the rest of a fixed window, an upstream refuses all. More cuts would help nobody, and
//! would take long to recover from. So if some requests that were sent since the last cut were refused, and none
//! ended otherwise, the next refusal opens a pause instead. Whoever sends less often than the cooldown ends has no
//! more than one refusal between two cuts: they count over cuts, until something gets through.

/// Refusals after which nothing seems to get through.
const ENOUGH: u32 = 3;
/// Nanoseconds of the first pause. Each further one is twice as long.
const FIRST_PAUSE: u64 = 5_000_000_000;
const LONGEST_PAUSE: u64 = 30_000_000_000;
/// Nanoseconds after which a refusal is of another outage than the last cut.
const ONE_OUTAGE: u64 = 600_000_000_000;

/// What became of requests that were sent since the last cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SinceCut {
    refused: u32,
    /// Refused before it, if nothing got through between the cuts.
    before: u32,
    /// When the cut was made.
    start: u64,
    got_through: bool,
    pauses: u32,
}

impl SinceCut {
    /// Before the first cut all that was not refused got through.
    pub(super) fn new() -> Self {
        Self { got_through: true, ..Self::default() }
    }

    /// A request that was sent since was refused.
    pub(super) fn refused(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    pub(super) fn count(&self) -> u32 {
        self.refused
    }

    /// There is another cut.
    pub(super) fn restart(&mut self, now: u64) {
        let is_new = self.got_through || now.saturating_sub(self.start) > ONE_OUTAGE;
        let before = if is_new { 0 } else { self.before.saturating_add(self.refused) };
        *self = Self { before, start: now, ..Self::default() };
    }

    /// One ended otherwise.
    pub(super) fn got_through(&mut self) {
        self.got_through = true;
    }

    /// Whether it matters how requests end.
    pub(super) fn is_open(&self) -> bool {
        !self.got_through
    }

    /// The length of a pause, if nothing gets through. `refused` are those before the one at hand.
    pub(super) fn next_pause(&mut self) -> Option<u64> {
        if self.got_through || self.refused.saturating_add(self.before) < ENOUGH {
            return None;
        }
        let length = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(10)).min(LONGEST_PAUSE);
        self.pauses += 1;
        Some(length)
    }
}
