//! Allocation tables, and their bytes.
//!
//! ```text
//! offset  bytes
//!      0      1  version, 1
//!      1     16  id, random
//!     17      8  sequence of the entry that the writer had read last, 0 for none
//!     25     16  its id
//!     41      8  rate of the limit, nanotokens a second
//!     49      4  burst of the limit, in 1/64 of a token
//!     53      4  number of rows
//!     57     28  each row: label (8), nonce (8), rate (8), burst (4)
//! ```
//!
//! All integers are little-endian. What follows the rows is ignored, so that later versions may add to it.

use super::quota::Quota;

const VERSION: u8 = 1;
const HEADER: usize = 57;
const ROW: usize = 28;

/// An entry of the log: its sequence, and the id of the table in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) sequence: u64,
    pub(crate) id: u128,
}

/// What one agent may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// The agent. Only planners look at it: two agents may have the same.
    pub(crate) label: u64,
    /// The report that the row answers.
    pub(crate) nonce: u64,
    pub(crate) quota: Quota,
}

/// What everybody may spend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub(crate) id: u128,
    /// What its writer had read last.
    pub(crate) prev: Position,
    pub(crate) limit: Quota,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + ROW * self.rows.len());
        bytes.push(VERSION);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.prev.sequence.to_le_bytes());
        bytes.extend(self.prev.id.to_le_bytes());
        put(&mut bytes, self.limit);
        bytes.extend((self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            bytes.extend(row.label.to_le_bytes());
            bytes.extend(row.nonce.to_le_bytes());
            put(&mut bytes, row.quota);
        }
        bytes
    }

    /// `None` if these are not the bytes of a table. Its rows may exceed its limit: see [`is_sound`](Self::is_sound).
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.take()? != [VERSION] {
            return None;
        }
        let id = u128::from_le_bytes(reader.take()?);
        let sequence = reader.number()?;
        let prev = Position { sequence, id: u128::from_le_bytes(reader.take()?) };
        let limit = reader.quota()?;
        let count = u32::from_le_bytes(reader.take()?) as usize;
        // No more than what is there: the count is from outside.
        if reader.0.len() / ROW < count {
            return None;
        }
        let row = |_| {
            let (label, nonce) = (reader.number()?, reader.number()?);
            Some(Row { label, nonce, quota: reader.quota()? })
        };
        let rows = (0..count).map(row).collect::<Option<_>>()?;
        Some(Self { id, prev, limit, rows })
    }

    /// Whether the rows fit into the limit.
    pub(crate) fn is_sound(&self) -> bool {
        let sum = self.rows.iter().try_fold(Quota::ZERO, |sum, row| sum.plus(row.quota));
        sum.is_some_and(|sum| sum.is_within(self.limit))
    }
}

/// What tells an entry that is no table from another.
pub(crate) fn id_of(bytes: &[u8]) -> u128 {
    // FNV-1a of 128 bits.
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(1 << 88 | 0x13b);
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
}

fn put(bytes: &mut Vec<u8>, quota: Quota) {
    bytes.extend(quota.rate.to_le_bytes());
    bytes.extend(quota.burst.to_le_bytes());
}

/// What is left of an entry.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn quota(&mut self) -> Option<Quota> {
        Some(Quota { rate: self.number()?, burst: u32::from_le_bytes(self.take()?) })
    }
}
