//! What metrics read of a limiter: without a lock that a take takes, and without a walk over its keys.

use std::sync::Arc;

use super::entry::Entry;
use super::memory::MemoryLimiter;
use crate::counts::{Tally, Totals, WaitTime, WaitTimes};

/// The counts of a resource, or of all keys of a template.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Of a template: its prefix.
    pub(crate) name: Arc<str>,
    tally: Arc<Tally>,
    pub(crate) totals: Totals,
    /// Tokens that open stripes have handed out; wraps.
    handed_out: u64,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    Resource(Gauges),
    Template {
        /// Their number.
        keys: u64,
    },
}

/// How a resource is at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) in_flight: u64,
    /// Whole tokens of the first window; 0 in a pause.
    pub(crate) available: u64,
    pub(crate) debt: u64,
    /// The burst at present, of the first window.
    pub(crate) limit: u64,
    /// Tokens a second.
    pub(crate) rate: f64,
    /// The part of the limit that is in force.
    pub(crate) cut_ratio: f64,
    pub(crate) is_paused: bool,
}

impl Reading {
    pub(crate) fn new(name: Arc<str>, tally: &Arc<Tally>, state: State) -> Self {
        let (tally, totals) = (Arc::clone(tally), tally.totals());
        Self { name, tally, totals, handed_out: 0, state }
    }

    /// Tokens of calls that were admitted. Never more than that: see [`counts`](crate::counts).
    pub(crate) fn admitted(&self) -> u64 {
        self.totals.admitted(self.handed_out)
    }

    pub(crate) fn wait_times(&self) -> impl Iterator<Item = WaitTime> {
        self.tally.wait_times().into_iter().flat_map(WaitTimes::read)
    }

    /// Whether the two are of one resource or template, and not of two of the same name.
    pub(crate) fn is_same(&self, tally: &Arc<Tally>) -> bool {
        Arc::ptr_eq(&self.tally, tally)
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// What the open stripes of an entry have handed out, read after the counts: what has come to them since is
    /// not counted twice.
    pub(crate) fn add_handed_out(&mut self, entry: &Entry) {
        self.handed_out = self.handed_out.wrapping_add(entry.bucket.handed_out());
    }
}

impl Entry {
    /// As it is now, steps of a recovery that are due included; they are not taken.
    pub(super) fn gauges(&self) -> Gauges {
        let settings = self.settings.lock();
        let now = self.now();
        let (available, debt) = self.bucket.balance(&settings.current, now);
        let (cut_ratio, terms) = settings.outlook(now);
        let is_paused = settings.pauses.left(now).is_some();
        drop(settings);
        Gauges {
            in_flight: self.bucket.in_flight(),
            available: if is_paused { 0 } else { available },
            debt,
            limit: terms.capacity_tokens,
            rate: terms.per_second(),
            cut_ratio,
            is_paused,
        }
    }
}

impl MemoryLimiter {
    /// The readings of all resources and templates.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.0.readings()
    }
}
