//! Counts of what a resource does: for metrics, and nothing at all without them.
//!
//! [`Counts`] is what the code that counts holds. With the feature `metrics`, and in models, it refers to a
//! [`Tally`](tally::Tally): that of a resource, or one that all keys of a template share. Otherwise it is empty,
//! and so is what its methods do (`off.rs`).
//!
//! # Admitted tokens
//!
//! They are counted where a word moves, after it did: by a take and by its tokens, never in a thread's cache, where
//! a count would cost more than the take. What the stripes hand out is derived: see [`Prepaid`].
//!
//! The sum is exact once the calls that count have returned. Until then it may be short of their tokens. It is ahead
//! only of tokens that a call has taken and is about to give back: for several resources from a thread's cache, or
//! while a bound on permits is being set.

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
    /// Tokens that were taken by a call which was then denied, and of these, the tokens that went back to a
    /// thread's cache.
    Voided,
    Undone,
    /// Tokens by which settlements exceeded their permits.
    Overdrawn,
    /// Waits that began, and how they ended.
    Waits,
    Granted,
    TimedOut,
    Cancelled,
    Closed,
    /// What observers are told.
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
