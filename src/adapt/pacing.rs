//! What an upstream says is left until its window ends, as a rate. Pure state; time is passed in.

use crate::bucket::{Level, Terms};

/// Reports whose ends are no further apart, in nanoseconds, are of one window: most upstreams round to seconds.
const SAME_END: u64 = 1_000_000_000;

/// A rate up to a reading: what the bucket holds, and what accrues until then, are together what was left.
///
/// Of reports of one window the one with the lowest `left` counts. It does not raise the rate, so that what an
/// earlier one allowed is not exceeded either: the upstream had not yet counted what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pacing {
    left: u64,
    end: u64,
    /// `units` of a token of `unit` units accrue in `nanos`, of which at least 1.
    units: u128,
    unit: u64,
    nanos: u64,
}

impl Pacing {
    /// For a bucket that holds `level`, of `left` tokens at most, in units of which a token has `unit`.
    pub(crate) fn new(left: u64, level: Level, unit: u64, now: u64, end: u64) -> Self {
        let (units, nanos) = (level.short_of(left, unit), end.saturating_sub(now).max(1));
        Self { left, end, units, unit, nanos }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// What it is after another report; `None` if that changes nothing.
    pub(crate) fn replaced_by(self, other: Self) -> Option<Self> {
        if other.end > self.end.saturating_add(SAME_END) {
            return Some(other);
        }
        if other.end.saturating_add(SAME_END) < self.end || other.left >= self.left {
            return None;
        }
        let end = self.end.max(other.end);
        let other = Self { nanos: other.nanos + (end - other.end), ..other };
        // `a / b < c / d` as `a * d < c * b`: no limit reaches 2^80 units in a day.
        let part = |units: u128, nanos: u64| units.min(1 << 80) * u128::from(nanos);
        let is_slower = part(other.units_of(self.unit), self.nanos) < part(self.units, other.nanos);
        let rate = if is_slower { other } else { self };
        Some(Self { left: other.left, end, ..rate })
    }

    /// The terms in force until it ends. Nothing is left: then a pause says so.
    pub(crate) fn slow(&self, terms: Terms) -> Terms {
        if self.left == 0 { terms } else { terms.paced(self.units_of(terms.unit), self.nanos) }
    }

    /// What accrues in `nanos`, in other units, rounded down.
    fn units_of(&self, unit: u64) -> u128 {
        let (from, to) = (u128::from(self.unit), u128::from(unit));
        self.units / from * to + self.units % from * to / from
    }
}
