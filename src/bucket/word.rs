//! The word that the takes of a bucket contend on.
//!
//! ```text
//!  63        57    56         55      54                           0
//! +------------+---------+-----------+-----------------------------+
//! | generation | STRIPED | EXCLUSIVE |            spent            |
//! +------------+---------+-----------+-----------------------------+
//! ```
//!
//! | `STRIPED` | `EXCLUSIVE` | who may change `spent` |
//! | --- | --- | --- |
//! | 0 | 0 | anybody, by CAS |
//! | 0 | 1 | the holder of the queue's lock |
//! | 1 | 0 | anybody, by CAS; the capacity is less by what the stripes reserve |
//! | 1 | 1 | the holder of the queue's lock, while a refill is in flight: see [`stripes`](super::stripes) |
//!
//! * `generation` selects the slot in force by its parity. Only the holder of the configuration lock
//!   increments it. It wraps after 128 reconfigurations. `spent` has moved on by then, so that a copy
//!   of the word from before the wrap equals no present word.
//! * `EXCLUSIVE` is set and cleared under the queue's lock alone: while somebody waits, while a call
//!   takes from several buckets, and always where a limit has several windows.
//! * `STRIPED` is set and cleared under the lock of the stripes alone, and never set while
//!   `EXCLUSIVE` is.
//! * `spent` is a position on a ring of units. A take moves it forward, a refund back. A
//!   reconfiguration moves it forward by one and chooses the new slot's origin to fit, so that no
//!   word returns while a thread may still hold a copy of it.

/// Bits of the ring on which a bucket's position moves.
pub(crate) const POSITION_BITS: u32 = 55;

const EXCLUSIVE: u64 = 1 << POSITION_BITS;
const SPENT: u64 = EXCLUSIVE - 1;
const STRIPED: u64 = 1 << (POSITION_BITS + 1);
const GENERATION: u64 = 1 << (POSITION_BITS + 2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The bit to OR into a word, or to AND out of it.
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

    #[inline]
    pub(super) fn has_no_flags(self) -> bool {
        self.0 & (STRIPED | EXCLUSIVE) == 0
    }

    pub(super) fn with_striped(self, is_striped: bool) -> Self {
        Self(if is_striped { self.0 | STRIPED } else { self.0 & !STRIPED })
    }

    /// Index of the slot in force.
    #[inline]
    pub(super) fn parity(self) -> usize {
        usize::from(self.0 & GENERATION != 0)
    }

    pub(super) fn same_generation(self, other: Self) -> bool {
        (self.0 ^ other.0) < GENERATION
    }

    /// The distance of the word from a slot's origin.
    #[inline]
    pub(super) fn position(self, origin: u64) -> u64 {
        self.0.wrapping_sub(origin) & SPENT
    }

    /// This word at another position.
    #[inline]
    pub(super) fn moved(self, origin: u64, position: u64) -> Self {
        Self((self.0 & !SPENT) | (origin.wrapping_add(position) & SPENT))
    }

    /// The word of the next generation, one unit on, and the origin that puts it at `position`.
    pub(super) fn next(self, position: u64) -> (Self, u64) {
        let spent = self.0.wrapping_add(1) & SPENT;
        let above = (self.0 & !SPENT).wrapping_add(GENERATION);
        (Self(above | spent), spent.wrapping_sub(position) & SPENT)
    }
}
