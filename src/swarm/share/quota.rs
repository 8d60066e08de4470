//! A rate and a burst.

/// A part of a limit, or a limit. Ordered componentwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Quota {
    /// Nanotokens a second.
    pub(crate) rate: u64,
    /// In [`BURST_UNITS`] of a token.
    pub(crate) burst: u32,
}

/// Units of a burst in a token.
pub(crate) const BURST_UNITS: u32 = 64;
/// The least burst that an agent can make use of: a token, and what accrues while a waiter comes to take it.
pub(crate) const LEAST_BURST: u32 = 87; // 1.36 tokens

impl Quota {
    pub(crate) const ZERO: Self = Self { rate: 0, burst: 0 };

    pub(crate) fn min(self, other: Self) -> Self {
        Self { rate: self.rate.min(other.rate), burst: self.burst.min(other.burst) }
    }

    /// Whether neither the rate nor the burst is above the other's.
    pub(crate) fn is_within(self, other: Self) -> bool {
        self.rate <= other.rate && self.burst <= other.burst
    }

    /// The sum; `None` if it does not fit.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let rate = self.rate.checked_add(other.rate)?;
        Some(Self { rate, burst: self.burst.checked_add(other.burst)? })
    }
}
