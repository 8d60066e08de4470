//! Tokens that a thread's cache has prepaid, for a call that wants several resources.

use super::entry::Entry;
use crate::bucket::{CountedAt, NotEntered};
use crate::counts::Count;

/// What came of a take from this thread's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepaid {
    Taken(CountedAt),
    Nothing,
    /// Nothing, and the queue must be served.
    ToServe,
}

impl Entry {
    /// Takes one token that this thread's cache has prepaid, with a permit or without, for a call that wants
    /// several resources.
    #[inline]
    pub(crate) fn take_prepaid(&self, with_permit: bool) -> Prepaid {
        if with_permit {
            match self.bucket.take_and_enter() {
                Ok(counted) => return Prepaid::Taken(counted),
                Err(NotEntered::NothingDone) if self.bucket.is_bounded_in_flight() => {
                    return Prepaid::Nothing;
                }
                Err(NotEntered::NothingDone) => {}
                Err(NotEntered::TooMany) => {
                    self.count_void(1);
                    return Prepaid::ToServe;
                }
            }
        }
        match self.bucket.take_own() {
            // As in `check_slow`.
            Some(false) if self.bucket.has_waiters_beside_stripes() => Prepaid::ToServe,
            None | Some(false) => Prepaid::Nothing,
            Some(true) if !with_permit => Prepaid::Taken(CountedAt::COMMON),
            Some(true) => {
                let Some(counted) = self.bucket.enter_unbounded() else {
                    self.count_void(1);
                    return Prepaid::ToServe;
                };
                // The cache was filled: as where one resource is wanted, this is when samples are made.
                self.note_grant(1, counted, self.now());
                Prepaid::Taken(counted)
            }
        }
    }

    /// Gives back a token that was [prepaid](Self::take_prepaid), to the cache that it came from and has
    /// room for it. If that was drained meanwhile the token is void: the bucket may have refilled.
    pub(crate) fn undo_prepaid(&self) {
        // Before the cache has it: see `counts`.
        self.count_void(1);
        if self.bucket.give_cached() {
            self.count(Count::Undone, 1);
        }
    }
}
