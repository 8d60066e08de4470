//! What an agent's callers want, from what they took and how many wait.

use super::participant::Demand;

/// Nanoseconds over which a rate is averaged, about.
const MEMORY: f64 = 4e9;
/// Nanoseconds in which those that wait are to be served.
const DRAIN: f64 = 2e9;
/// Looks at which callers lacked tokens, in a row, before the agent asks for twice what it gets: those that are
/// refused, or call again when they are served, do not show how much more they would take.
const SHORT: u32 = 2;

/// A measured demand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Tokens a second.
    rate: f64,
    /// What had been asked for at the last look, and when that was.
    last: Option<(u64, u64)>,
    short: u32,
}

/// What is seen of a bucket at one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Tokens spent since the agent began.
    pub(crate) spent: u64,
    /// Tokens that calls wait for, and the most that one of them does.
    pub(crate) waiting: u64,
    pub(crate) largest: u64,
    /// Whether calls were denied, or waited, since the last look.
    pub(crate) is_short: bool,
}

impl Meter {
    /// A look at `now`. `most` is the limit's rate, in nanotokens a second.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // estimates; the casts saturate
    pub(crate) fn look(&mut self, seen: Seen, most: u64, now: u64) -> Demand {
        let asked = seen.spent.saturating_add(seen.waiting);
        if let Some((before, at)) = self.last
            && now > at
        {
            let passed = (now - at) as f64;
            let rate = asked.saturating_sub(before) as f64 * 1e9 / passed;
            self.rate += (rate - self.rate) * (1.0 - (-passed / MEMORY).exp());
        }
        self.last = Some((asked, now));
        self.short = if seen.is_short { self.short.saturating_add(1) } else { 0 };
        // And the deviation of those of a second, as calls come at random.
        let steady = self.rate + self.rate.sqrt().min(self.rate);
        let want = steady + seen.waiting as f64 * 1e9 / DRAIN;
        let want = if self.short >= SHORT { want.max(2.0 * self.rate) } else { want };
        let want = ((want * 1e9) as u64).min(most);
        let is_short = self.short >= SHORT;
        Demand { want, largest: seen.largest, spent: seen.spent, is_short }
    }
}
