//! A resource's settings: what it was configured to, how that is scaled, and the slot in force.

use super::limit::{EachWindow, Limit};
use crate::adapt::CutState;
use crate::bucket::{SlotConfig, SlotState, Terms};
use crate::wait::{FairBucket, Reconfigure, WindowChange};

/// So many steps of a recovery are taken one by one.
const STEPS: u32 = 1_000;

/// What only a change looks at. Its lock comes before the line's.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) limit: Limit,
    pub(super) cuts: CutState,
    /// The slot in force of the first window.
    pub(super) current: SlotConfig,
}

/// What a change changes, beyond the limit and how it is scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingChange<'a> {
    pub(super) kind: SlotState,
    pub(super) pause_until: u64,
    pub(super) charge: u64,
    /// The limit before, where it is another now.
    pub(super) before: Option<&'a Limit>,
}

impl Default for PendingChange<'_> {
    fn default() -> Self {
        Self { kind: SlotState::Open, pause_until: 0, charge: 0, before: None }
    }
}

impl Settings {
    /// What everybody can see of a capacity: the first bucket's whole tokens, and those of its window.
    pub(super) fn shown(&self) -> (u64, u64) {
        (self.current.terms.capacity_tokens, self.limit.first().per_window(self.cuts.factor()))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.current.kind, SlotState::Closed | SlotState::Removed)
    }

    /// What is due at `now`, each at its own time and at the rate of its own time. After very many
    /// steps the rest is taken as one, at present.
    pub(super) fn catch_up(&mut self, gate: &FairBucket, now: u64) {
        let mut steps = 0;
        while !self.is_over() {
            let pause_ends =
                (self.current.kind == SlotState::Paused).then_some(self.current.anchor);
            let step = self.cuts.due();
            let next = [pause_ends, step].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= now) else { return };
            steps += 1;
            let at = if steps < STEPS { at } else { now };
            if step.is_some_and(|step| step <= at) {
                self.cuts.advance(at);
            }
            self.install(gate, PendingChange::default(), || at);
        }
    }

    /// Install the limit as it is scaled at present.
    pub(super) fn install(
        &mut self,
        gate: &FairBucket,
        change_quietly: PendingChange<'_>,
        clock: impl Fn() -> u64,
    ) {
        let PendingChange { kind, pause_until, charge, before } = change_quietly;
        let Some(terms) = self.terms() else { return };
        let from = before.map(|before| self.limit.windows_from(before));
        let shape = |(index, (terms, window)): (usize, (&Terms, &super::limit::Window))| {
            let from = from.as_ref().map_or(Some(index), |from| from[index]);
            let old = from.and_then(|from| before?.windows().nth(from));
            WindowChange { terms: *terms, from, lost: old.map_or(0, |old| window.lost_depth(old)) }
        };
        let windows: EachWindow<WindowChange> =
            terms.iter().zip(self.limit.windows()).enumerate().map(shape).collect();
        let until = self.cuts.due();
        let to = Reconfigure { kind, pause_until, until, charge, windows: &windows };
        gate.reconfigure(&mut self.current, &to, clock);
    }

    fn terms(&mut self) -> Option<EachWindow<Terms>> {
        // At a factor of one it fits: that was seen when it was configured.
        loop {
            match self.limit.terms(self.cuts.factor()) {
                Ok(terms) => return Some(terms),
                Err(_) if self.cuts.factor() > 1.0 => self.cuts.halve(),
                Err(_) => return None,
            }
        }
    }
}
