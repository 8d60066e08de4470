//! A resource's settings: what it was configured to, how that is scaled, and the slot in force.

use super::limit::Limit;
use crate::adapt::Adapt;
use crate::bucket::{Bucket, Change, Config, Kind};

/// So many steps of a recovery are taken one by one.
const STEPS: u32 = 1_000;

/// What only a change looks at. Its lock comes before the line's.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) limit: Limit,
    pub(super) adapt: Adapt,
    pub(super) current: Config,
}

impl Settings {
    /// What everybody can see of a capacity: the bucket's whole tokens, and those of a window.
    pub(super) fn shown(&self) -> (u64, u64) {
        (self.current.terms.whole, self.limit.per_window(self.adapt.factor()))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.current.kind, Kind::Closed | Kind::Removed)
    }

    /// What is due at `now`, each at its own time and at the rate of its own time. After very many
    /// steps the rest is taken as one, at present.
    pub(super) fn catch_up(&mut self, bucket: &Bucket, now: u64) {
        let mut steps = 0;
        while !self.is_over() {
            let pause_ends = (self.current.kind == Kind::Paused).then_some(self.current.anchor);
            let step = self.adapt.due();
            let next = [pause_ends, step].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= now) else { return };
            steps += 1;
            let at = if steps < STEPS { at } else { now };
            if step.is_some_and(|step| step <= at) {
                self.adapt.advance(at);
            }
            self.swing(bucket, Kind::Open, 0, || at);
        }
    }

    /// Install the limit as it is scaled at present.
    pub(super) fn swing(
        &mut self,
        bucket: &Bucket,
        kind: Kind,
        pause_until: u64,
        clock: impl Fn() -> u64,
    ) {
        // At a factor of one it fits: that was seen when it was configured.
        let terms = loop {
            match self.limit.terms(self.adapt.factor()) {
                Ok(terms) => break terms,
                Err(_) if self.adapt.factor() > 1.0 => self.adapt.halve(),
                Err(_) => break self.current.terms,
            }
        };
        let until = self.adapt.due();
        bucket.swing(&mut self.current, Change { kind, terms, pause_until, until }, clock);
    }
}
