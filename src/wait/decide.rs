//! A take, and what is left after it: from one look.

use super::{FairBucket, Queue};
use crate::bucket::{Denied, Never, Refused, Retry, Snapshot, Standing};

impl FairBucket {
    /// Takes `n` tokens, and says what the tightest window has left then. Fails with a [`Retry`], or if it
    /// was closed.
    pub(crate) fn decide(&self, n: u64) -> Result<(Result<(), Denied>, Standing), Refused> {
        if !self.is_compound() {
            if n > 0 && self.take_prepaid(n) == Some(true) {
                let snapshot = self.bucket.snapshot(self.clock.now());
                return Ok((Ok(()), self.standing_of(&snapshot)));
            }
            match self.bucket.take_any(n, self.clock.now(), false) {
                (Err(Refused::Retry(Retry::Undecided)), _) => {}
                // As in `take`.
                (Err(Refused::Denied(Denied::Never(Never::ExceedsCapacity(_)))), _)
                    if self.will_hold(n) => {}
                (taken, snapshot) => return Ok((denied(taken)?, self.standing_of(&snapshot))),
            }
        }
        self.with_exclusive(self.clock.now(), |queue, now, wakes| {
            let taken = if n == 0 {
                self.would_admit(queue, 0, now)
            } else {
                self.may_bypass_queue(queue, (n, false), now, wakes)
                    .and_then(|()| self.take_exclusive(queue, n, now))
            };
            Ok((denied(taken)?, self.standing(queue, now)))
        })
    }

    fn standing_of(&self, snapshot: &Snapshot) -> Standing {
        let in_stripes = if snapshot.is_striped() { self.bucket.tokens_in_stripes() } else { 0 };
        snapshot.standing(in_stripes)
    }

    /// That of the tightest window, for a newcomer.
    fn standing(&self, queue: &mut Queue, now: u64) -> Standing {
        let first = self.standing_of(&self.bucket.snapshot(now));
        let standing = queue.more.iter_mut().fold(first, |tightest, window| {
            window.catch_up(now);
            tightest.tighter(window.snapshot(now).standing(0))
        });
        if queue.waiters.is_empty() {
            return standing;
        }
        let remaining = self.newcomer_share(queue, standing.remaining, now);
        let until_next = match self.refusal_behind_queue(queue, remaining + 1, false, now) {
            Refused::Denied(Denied::Exhausted(deficit)) => deficit.wait(),
            _ => standing.until_next,
        };
        let until_full = standing.until_full.max(until_next);
        Standing { remaining, until_next, until_full, ..standing }
    }
}

/// A denial by a bucket that is in use is an answer.
fn denied(taken: Result<(), Refused>) -> Result<Result<(), Denied>, Refused> {
    match taken {
        Ok(()) => Ok(Ok(())),
        Err(Refused::Denied(Denied::Never(Never::Closed | Never::Removed)) | Refused::Retry(_)) => {
            taken.map(Ok)
        }
        Err(Refused::Denied(denied)) => Ok(Err(denied)),
    }
}
