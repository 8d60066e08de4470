//! What the use of a share says of its demand.

use crate::bucket::POSITION_BITS;
use crate::limiter::Use;
use crate::swarm::share::{Demand, Meter, Seen};

/// Nanoseconds over which the part of the time is averaged in which the bucket was full.
const MEMORY: f64 = 4e9;

/// The looks at a share.
#[derive(Debug, Default)]
pub(super) struct Looks {
    meter: Meter,
    /// Where the word was at the last look, and when that was.
    last: Option<(u64, u64)>,
    /// Tokens by which it has moved, without what full buckets did not hold.
    spent: f64,
    /// The part of the looks that found it full.
    full: f64,
    /// Looks since the last report, and those at which callers lacked tokens.
    count: u32,
    short: u32,
    newest: Option<Use>,
}

impl Looks {
    /// A look at `now`.
    #[allow(clippy::cast_precision_loss)] // estimates
    pub(super) fn look(&mut self, seen: Use, now: u64) {
        let (position, unit) = seen.moved;
        if let Some((before, at)) = self.last {
            let passed = now.saturating_sub(at) as f64;
            let weight = 1.0 - (-passed / MEMORY).exp();
            self.full += (f64::from(seen.is_full) - self.full) * weight;
            let moved = position.wrapping_sub(before) & ((1 << POSITION_BITS) - 1);
            // A take from a full bucket moves the word by what the bucket could not hold as well. A bucket that is fed
            // at a rate, and full for a part of the time, is taken from at the rest of the rate.
            self.spent += moved as f64 / unit.max(1) as f64 * (1.0 - self.full);
        }
        self.last = Some((position, now));
        self.count += 1;
        self.short += u32::from(seen.is_short);
        self.newest = Some(seen);
    }

    /// What callers want, by the looks since the last time. `most` is the limit's rate, in nanotokens a second.
    #[allow(clippy::cast_sign_loss)] // the cast saturates
    pub(super) fn demand(&mut self, most: u64, now: u64) -> Demand {
        let (waiting, largest) = self.newest.map_or((0, 0), |seen| (seen.waiting, seen.largest));
        let is_short = self.count > 0 && 4 * self.short >= 3 * self.count;
        (self.count, self.short) = (0, 0);
        let seen = Seen { spent: self.spent as u64, waiting, largest, is_short };
        self.meter.look(seen, most, now)
    }
}
