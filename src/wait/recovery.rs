//! What a cut limit becomes by time alone, for calls that want more than its buckets hold at present.
//!
//! A call for more than a cut bucket holds, but not more than it will hold, is denied for a time: that of the
//! steps of the recovery and of the accrual. That time needs the plan of the recovery, which the owner of the
//! buckets makes when a call has asked for it: such calls are rare, and a plan is not small.
//!
//! A waiter of this kind is *beyond* its bucket. It keeps its place, but others pass it while it is, as
//! they pass a head that waits for another resource: if it finds what it wants at the step from which the
//! bucket can hold that. From this step on it is a waiter like any other.

use smallvec::SmallVec;

use super::{FairBucket, Queue};
use crate::bucket::{Deficit, Denied, LockedBucket, Never, Refused, Retry, SlotConfig, Terms};

/// A step of a recovery: the terms of each window from a reading on.
#[derive(Clone, Debug)]
pub(crate) struct RecoveryStep {
    pub(crate) at: u64,
    pub(crate) terms: SmallVec<[Terms; 1]>,
}

/// What is known of the recovery of a queue's buckets.
#[derive(Debug, Default)]
pub(super) struct RecoveryPlan {
    /// Tokens that can be taken at once when the limit has recovered; 0 if nothing is to recover.
    burst: u64,
    /// The slot in force of the first window, and the steps to come; `None` until the owner has made it.
    steps: Option<(SlotConfig, Vec<RecoveryStep>)>,
    is_wanted: bool,
}

impl RecoveryPlan {
    /// One that is to be made, when it is wanted.
    pub(super) fn up_to(burst: u64) -> Self {
        Self { burst, ..Self::default() }
    }

    /// The slot in force is another one, with the same recovery.
    pub(super) fn forget_steps(&mut self) {
        *self = Self::up_to(self.burst);
    }

    pub(super) fn reaches(&self, n: u64) -> bool {
        n <= self.burst
    }

    /// The reading from which the buckets can hold `n` tokens.
    pub(super) fn holds_at(&self, n: u64) -> u64 {
        let holds =
            |step: &&RecoveryStep| step.terms.iter().all(|terms| n <= terms.capacity_tokens);
        let steps = self.steps.iter().flat_map(|(_, steps)| steps);
        // A plan may be cut short.
        steps.clone().find(holds).or(steps.last()).map_or(u64::MAX, |step| step.at)
    }
}

impl FairBucket {
    /// Whether a call needs the plan of the recovery.
    pub(crate) fn wants_recovery_plan(&self) -> bool {
        self.queue.lock().recovery.is_wanted
    }

    /// The steps to come from the slot in force. Under the configuration lock, of which `current` is the
    /// proof.
    pub(crate) fn plan_recovery(&self, current: &SlotConfig, steps: Vec<RecoveryStep>) {
        let recovery = &mut self.queue.lock().recovery;
        (recovery.steps, recovery.is_wanted) = (Some((*current, steps)), false);
    }

    /// Whether the buckets will hold `n` tokens when the limit has recovered.
    pub(super) fn will_hold(&self, n: u64) -> bool {
        self.queue.lock().recovery.reaches(n)
    }

    /// A verdict on `n` tokens, where a denial for good is one for a time if the limit recovers that far.
    pub(super) fn or_recovers(
        &self,
        queue: &mut Queue,
        n: u64,
        now: u64,
        verdict: Result<(), Refused>,
    ) -> Result<(), Refused> {
        match verdict {
            Err(Refused::Denied(Denied::Never(Never::ExceedsCapacity(_))))
                if queue.recovery.reaches(n) =>
            {
                Err(Denied::Exhausted(self.deficit_behind(queue, 0, n, now)?).into())
            }
            verdict => verdict,
        }
    }

    /// What `n` tokens are short of, behind waiters for `ahead`. Fails if the plan of the recovery is to be
    /// made first.
    pub(super) fn deficit_behind(
        &self,
        queue: &mut Queue,
        ahead: u64,
        n: u64,
        now: u64,
    ) -> Result<Deficit, Retry> {
        let snapshots = self.snapshots(queue, now);
        let deficit = snapshots.deficit(ahead.saturating_add(n));
        if n <= snapshots.capacity_tokens() || !queue.recovery.reaches(n) {
            return Ok(deficit);
        }
        let Some((current, steps)) = &queue.recovery.steps else {
            queue.recovery.is_wanted = true;
            return Err(Retry::SlotExpired);
        };
        let first = self.bucket.to_locked(current);
        let more = queue.more.iter().cloned();
        let mut windows: SmallVec<[LockedBucket; 4]> = std::iter::once(first).chain(more).collect();
        for window in &mut windows {
            window.catch_up(now);
            if ahead > 0 {
                window.charge(ahead, now);
            }
        }
        let mut at = now;
        for step in steps {
            if ready_at(&windows, n, at).is_some_and(|ready| ready <= step.at) {
                break;
            }
            at = step.at;
            for (window, terms) in windows.iter_mut().zip(&step.terms) {
                window.catch_up(at);
                window.rescale(*terms, at);
            }
        }
        let ready = ready_at(&windows, n, at).unwrap_or(at);
        Ok(deficit.lasting(ready.saturating_sub(now)))
    }
}

/// When the buckets have `n` tokens, if they can hold them: seen at `at`.
fn ready_at(windows: &[LockedBucket], n: u64, at: u64) -> Option<u64> {
    let looks = windows.iter().map(|window| window.snapshot(at));
    let wait = looks.map(|look| (n <= look.capacity_tokens()).then(|| look.deficit(n).wait()));
    wait.reduce(|a, b| Some(a?.max(b?))).flatten().map(|wait| at.saturating_add(wait))
}
