//! Counts of what a resource does, for metrics. Empty without the feature `metrics`.
//!
//! Code that counts holds a [`Counts`]. With the feature `metrics`, and in models, it refers to a
//! [`Tally`](tally::Tally): that of a resource, or one that all keys of a template share. Otherwise it is an empty
//! type whose methods do nothing (`off.rs`).
//!
//! # Admitted tokens
//!
//! A take that moves a word counts its tokens after the move. A take from a thread's cache does not count, because a
//! count would cost more than the take. What the stripes hand out is derived: see [`Prepaid`].
//!
//! The sum is exact once the calls have returned. Until then it may lack their tokens. It includes tokens that a call
//! has taken and is about to give back only in two cases: a call for several resources took them from a thread's
//! cache, or a bound on permits is being set.

#[cfg(not(any(feature = "metrics", loom)))]
mod off;
#[cfg(any(feature = "metrics", loom))]
mod tally;
#[cfg(any(feature = "metrics", loom))]
mod totals;
#[cfg(any(feature = "metrics", loom))]
mod wait_times;

#[cfg(not(any(feature = "metrics", loom)))]
pub(crate) use off::{Counts, Prepaid};
#[cfg(any(feature = "metrics", loom))]
pub(crate) use tally::{Counts, Prepaid};
#[cfg(feature = "metrics")]
pub(crate) use {
    tally::Tally,
    totals::Totals,
    wait_times::{WaitTime, WaitTimes},
};

/// What is counted. The first [`SHARDED`](Self::SHARDED) are counted on hot paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Tokens that left a bucket's word for a call, or that stripes have handed out.
    Taken,
    /// Tokens that calls gave back to stripes.
    GivenBack,
    /// Tokens that calls gave back to the word.
    Refunded,
    /// Calls that were denied, by reason.
    Exhausted,
    Paused,
    InFlight,
    ExceedsCapacity,
    QueueFull,
    /// Tokens that a call took before it was denied.
    Voided,
    /// Those of them that went back to a thread's cache.
    Undone,
    /// Tokens by which settlements exceeded their permits.
    Overdrawn,
    /// Waits that began, and how they ended.
    Waits,
    Granted,
    TimedOut,
    Cancelled,
    Closed,
    /// Changes that observers are told of.
    Cuts,
    SwarmCuts,
    Recoveries,
    Pauses,
    SwarmPauses,
    /// Keys that were evicted, and calls that found no room for another.
    Evicted,
    Refused,
}

#[cfg(any(feature = "metrics", loom))]
impl Count {
    pub(super) const SHARDED: usize = Self::ExceedsCapacity as usize + 1;
    pub(crate) const ALL: usize = Self::Refused as usize + 1;
}
