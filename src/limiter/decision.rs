//! Decisions with what is left after them.

use std::time::Duration;

use super::entry::Entry;
use super::error::TryAcquireError;
use crate::bucket::{CountedAt, Denied, Standing};

/// A call's outcome, and what is left after it, from one look at the bucket: for the headers of an answer.
/// See [`MemoryLimiter::decide`](crate::MemoryLimiter::decide).
///
/// Of several windows the figures are those of the tightest: of the one with the fewest tokens left, and if
/// several have as few, of the one that has its next token last.
///
/// All are 0 if there is no such resource, if it was closed, and for a key that there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the tokens were taken. On an error nothing was taken.
    pub outcome: Result<(), TryAcquireError>,
    /// Whole tokens that a further call could take; 0 in a pause, and while others wait. While threads take
    /// from prepaid batches it may be off by what those hold, as
    /// [`Capacity::available`](crate::Capacity::available) is.
    pub remaining: u64,
    /// The burst at present, in whole tokens: see [`Capacity::burst`](crate::Capacity::burst).
    pub burst: u64,
    /// Time until `remaining` grows by one if no other call comes, rounded up to the next nanosecond; zero
    /// with a full bucket. A lower bound while others wait, or while the rate is about to change.
    pub until_next: Duration,
    /// Time until the bucket is full if no other call comes; a lower bound as `until_next`.
    pub until_full: Duration,
}

impl Decision {
    pub(super) fn new(outcome: Result<(), Denied>, standing: Standing) -> Self {
        let Standing { remaining, burst, until_next, until_full } = standing;
        Self {
            outcome: outcome.map_err(TryAcquireError::from),
            remaining,
            burst,
            until_next: Duration::from_nanos(until_next),
            until_full: Duration::from_nanos(until_full),
        }
    }

    /// Nothing is known of the resource but this.
    pub(super) fn failed(error: impl Into<TryAcquireError>) -> Self {
        let standing = Standing { remaining: 0, burst: 0, until_next: 0, until_full: 0 };
        Self { outcome: Err(error.into()), ..Self::new(Ok(()), standing) }
    }
}

impl Entry {
    /// Takes `n` tokens, without a permit, and says what is left.
    pub(super) fn decide(&self, n: u64) -> Decision {
        match self.up_to_date(|bucket| bucket.decide(n)) {
            Ok((outcome, standing)) => {
                // As in `check_slow`.
                if outcome.is_err() && self.bucket.has_waiters_beside_stripes() {
                    self.serve();
                }
                outcome.inspect_err(|denied| self.count_denied(denied)).ok();
                Decision::new(outcome, standing)
            }
            Err(closed) => Decision::failed(closed),
        }
    }

    /// Takes `n` tokens, counts a permit in, and says what is left.
    pub(super) fn admit(&self, n: u64) -> Result<(CountedAt, Decision), Decision> {
        let denied = |error: Denied| Decision { outcome: Err(error.into()), ..self.decide(0) };
        let is_bounded = n > 0 && self.bucket.is_bounded_in_flight();
        let counted = if is_bounded {
            let counted = self.enter_bounded(n).inspect_err(|denied| self.count_denied(denied));
            counted.map_err(denied)?
        } else {
            CountedAt::COMMON
        };
        let decision = self.decide(n);
        if decision.outcome.is_err() {
            if is_bounded {
                self.end_by(0, counted, None);
            }
            return Err(decision);
        }
        if n == 0 {
            return Ok((counted, decision));
        }
        let entered = if is_bounded { Some(counted) } else { self.bucket.enter_unbounded() };
        let counted = entered.ok_or_else(|| denied(self.step_out::<Denied>(n)))?;
        self.note_grant(n, counted, self.now());
        Ok((counted, decision))
    }

    /// Counts a permit of `n >= 1` tokens in, which are yet to be taken.
    pub(super) fn enter_bounded(&self, n: u64) -> Result<CountedAt, Denied> {
        // A call that is denied anyway must not be counted meanwhile, least of all in place of the head
        // of the queue. So it looks first.
        self.peek(n)?;
        let counted = self.bucket.enter_bounded().ok_or(Denied::TooManyInFlight)?;
        if self.bucket.leaves_a_place() {
            return Ok(counted);
        }
        self.end_by(0, counted, None);
        Err(Denied::TooManyInFlight)
    }
}
