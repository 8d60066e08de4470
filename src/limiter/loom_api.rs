//! What models need of the inside, on the shipped types.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::acquire::{self, AcquireAll};
use super::entry::Entry;
use super::error::{AcquireAllError, AllError, ConfigError};
use super::limit::Limit;
use super::multi::TakeSet;
use super::permits::Permits;
use super::remote::{CutTarget, RemoteCut};
use super::resource::Resource;
use crate::adapt::{Origin, Segment, nanos};
use crate::bucket::{BURST_PARTS, SlotState};
use crate::clock::Clock;
use crate::counts::Counts;

impl Resource {
    /// A resource without a registry.
    pub fn alone(id: u64, limit: Limit, clock: impl Into<Clock>) -> Result<Self, ConfigError> {
        let clock = clock.into();
        let now = clock.now();
        let (context, counts) = (Arc::default(), Counts::default());
        Entry::new("model".into(), id, &limit, now, clock, context, counts).map(Self)
    }

    fn with_take_set<'a, R>(
        wanted: &[(&'a Self, u64)],
        act: impl FnOnce(&mut TakeSet<'a>) -> R,
    ) -> R {
        let all = wanted.iter().map(|(Self(entry), n)| Ok::<_, Infallible>((entry, *n)));
        let Ok(acted) = TakeSet::with(all, act);
        acted
    }

    /// See `MemoryLimiter::try_acquire_all`.
    pub fn try_acquire_all(wanted: &[(&Self, u64)]) -> Result<Permits, AllError> {
        Self::with_take_set(wanted, TakeSet::try_acquire)
    }

    /// See `MemoryLimiter::acquire_all`.
    pub fn acquire_all(wanted: &[(&Self, u64)]) -> AcquireAll {
        AcquireAll::of(Self::with_take_set(wanted, |set| set.to_list()))
    }

    /// See `MemoryLimiter::blocking_acquire_all`.
    pub fn blocking_acquire_all(wanted: &[(&Self, u64)]) -> Result<Permits, AcquireAllError> {
        acquire::blocking_all(Self::with_take_set(wanted, |set| set.to_list()), None)
    }

    /// See `MemoryLimiter::configure`.
    pub fn reconfigure(&self, limit: Limit) -> Result<(), ConfigError> {
        self.0.configure(&limit).unwrap_or(Ok(()))
    }

    /// Merges a neighbour's cut. Returns whether it changed anything.
    pub fn hear(&self, id: u64, factor: f64) -> bool {
        let (agent_id, reason) = ("neighbour".to_string(), "429".to_string());
        let timestamp = SystemTime::UNIX_EPOCH;
        let origin =
            Arc::new(Origin { agent_id, reason, timestamp, is_ours: false, is_measured: false });
        self.0.merge(&RemoteCut { id, size: CutTarget::Factor(factor), age: 0, origin })
    }

    /// From now on it is a share of a swarm's quota: none at first. Returns whether it is.
    pub fn share(&self, limit: Limit, patience: Duration) -> bool {
        self.0.share(&limit, nanos(patience)) == Some(Ok(()))
    }

    /// What a swarm allots to it: tokens a second, a burst, and a reading, for each share.
    pub fn allot_shares(&self, shares: &[(u64, u32, Duration)]) {
        let segment = |&(rate, burst, until): &(u64, u32, Duration)| Segment {
            rate: rate * 1_000_000_000,
            burst: burst * BURST_PARTS,
            until: nanos(until),
        };
        self.allot(&shares.iter().map(segment).collect::<Vec<_>>());
    }

    /// Tokens that were admitted, as metrics count them.
    pub fn admitted(&self) -> u64 {
        let counted = self.0.bucket.counts().tally().totals();
        counted.admitted(self.0.bucket.handed_out())
    }

    /// What demand does to a hot bucket.
    pub fn open_stripes(&self) {
        self.0.bucket.open_stripes();
    }

    /// See `MemoryLimiter::close`.
    pub fn close(&self) {
        self.0.shut(SlotState::Closed);
    }
}
