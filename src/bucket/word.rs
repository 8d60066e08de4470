//! The word that a bucket's admissions contend on.
//!
//! ```text
//!  63        57    56        55     54                           0
//! +------------+---------+---------+-----------------------------+
//! | generation | STRIPED | EXCLUSIVE |            spent            |
//! +------------+---------+---------+-----------------------------+
//! ```
//!
//! * `generation` names the slot in force by its parity; only the holder of the configuration lock
//!   moves it on. It comes round after 128 turns, in which `spent` has moved on: a copy that is so old
//!   fits no word any more.
//! * `EXCLUSIVE` says that only who holds the queue's lock takes or gives: somebody is in line, or takes
//!   from several buckets at once, or there are further windows. Set and cleared under that lock alone.
//! * `STRIPED` says that a part of the capacity is set apart for the [stripes](super::stripes): set
//!   and cleared under their lock alone, and not set while `EXCLUSIVE` is.
//! * `spent` is a position on a line of units that goes round: an admission moves it forward, a
//!   refund back. A reconfiguration moves it forward by one and gives the new slot an origin that
//!   fits, so that a word never comes back while somebody still holds a copy of it.

use super::rate::POSITION_BITS;

const EXCLUSIVE: u64 = 1 << POSITION_BITS;
const SPENT: u64 = EXCLUSIVE - 1;
const STRIPED: u64 = 1 << (POSITION_BITS + 1);
const GENERATION: u64 = 1 << (POSITION_BITS + 2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// What to OR into a word, and what to AND out of it.
    pub(super) const EXCLUSIVE: u64 = EXCLUSIVE;

    pub(super) fn new(spent: u64) -> Self {
        Self(spent & SPENT)
    }

    #[inline]
    pub(super) fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    #[inline]
    pub(super) fn is_striped(self) -> bool {
        self.0 & STRIPED != 0
    }

    /// Neither is set: an everyday take may look no further.
    #[inline]
    pub(super) fn has_no_flags(self) -> bool {
        self.0 & (STRIPED | EXCLUSIVE) == 0
    }

    pub(super) fn striped(self, is_striped: bool) -> Self {
        Self(if is_striped { self.0 | STRIPED } else { self.0 & !STRIPED })
    }

    /// Which of the two slots is in force.
    #[inline]
    pub(super) fn parity(self) -> usize {
        usize::from(self.0 & GENERATION != 0)
    }

    pub(super) fn same_generation(self, other: Self) -> bool {
        (self.0 ^ other.0) < GENERATION
    }

    /// How far the word is from a slot's origin.
    #[inline]
    pub(super) fn position(self, origin: u64) -> u64 {
        self.0.wrapping_sub(origin) & SPENT
    }

    /// This word at another position.
    #[inline]
    pub(super) fn moved(self, origin: u64, position: u64) -> Self {
        Self((self.0 & !SPENT) | (origin.wrapping_add(position) & SPENT))
    }

    /// The next generation's word, one unit on, and the origin that puts it at `position`.
    pub(super) fn next(self, position: u64) -> (Self, u64) {
        let spent = self.0.wrapping_add(1) & SPENT;
        let above = (self.0 & !SPENT).wrapping_add(GENERATION);
        (Self(above | spent), spent.wrapping_sub(position) & SPENT)
    }
}
