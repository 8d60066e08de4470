//! What an agent tells those that write tables.
//!
//! ```text
//! offset  bytes
//!      0      1  version, 1
//!      1      1  flags: 1, it leaves
//!      2      8  label
//!     10      8  nonce
//!     18      8  wanted rate, nanotokens a second
//!     26      4  largest number of tokens that a call waits for, in 1/64 of a token
//!     30      8  tokens spent since it began, modulo 2^64
//!     38     12  the limit that it knows: rate (8), burst (4)
//!     50     24  the newest table in its bucket: sequence (8), id (16)
//! ```
//!
//! Little-endian; what follows is ignored. Nothing here bears on the bound.

use super::quota::Quota;
use super::table::{Position, Reader};

const VERSION: u8 = 1;
const LEAVES: u8 = 1;

/// The state of an agent, from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    pub(crate) label: u64,
    pub(crate) nonce: u64,
    /// What it would spend, in nanotokens a second.
    pub(crate) want: u64,
    /// The most tokens that one call waits for, in units of a burst.
    pub(crate) largest: u32,
    /// Tokens that it has spent since it began. It wraps.
    pub(crate) spent: u64,
    pub(crate) limit: Quota,
    /// The newest table that its bucket follows.
    pub(crate) applied: Position,
    pub(crate) leaves: bool,
}

impl Report {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, if self.leaves { LEAVES } else { 0 }];
        bytes.extend(self.label.to_le_bytes());
        bytes.extend(self.nonce.to_le_bytes());
        bytes.extend(self.want.to_le_bytes());
        bytes.extend(self.largest.to_le_bytes());
        bytes.extend(self.spent.to_le_bytes());
        bytes.extend(self.limit.rate.to_le_bytes());
        bytes.extend(self.limit.burst.to_le_bytes());
        bytes.extend(self.applied.sequence.to_le_bytes());
        bytes.extend(self.applied.id.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let [version, flags] = reader.take()?;
        if version != VERSION {
            return None;
        }
        let (label, nonce, want) = (reader.number()?, reader.number()?, reader.number()?);
        let largest = u32::from_le_bytes(reader.take()?);
        let (spent, limit) = (reader.number()?, reader.quota()?);
        let sequence = reader.number()?;
        let applied = Position { sequence, id: u128::from_le_bytes(reader.take()?) };
        let leaves = flags & LEAVES != 0;
        Some(Self { label, nonce, want, largest, spent, limit, applied, leaves })
    }
}
