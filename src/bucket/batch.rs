//! The sizes of prepaid batches: see [`stripes`](super::stripes). Measured in `benches/README.md`.

use crate::sync::IS_MODEL;

/// Stripes of a bucket; more gained nothing.
pub(super) const STRIPES: usize = if IS_MODEL { 2 } else { 8 };
/// The largest batch; more gained nothing.
const MAX_BATCH: u64 = if IS_MODEL { 4 } else { 256 };
/// The smallest batch that pays.
const MIN_BATCH: u64 = if IS_MODEL { 1 } else { 16 };
/// A thread's cache holds at most this part of a batch: one CAS pays for many takes, and most of the
/// batch stays available to other threads.
const CACHE_DIVISOR: u64 = if IS_MODEL { 2 } else { 4 };

/// Tokens that a stripe reserves; 0 for a bucket that is too small. All stripes together reserve at
/// most an eighth of the capacity.
pub(super) fn batch_size(capacity_tokens: u64) -> u64 {
    let batch = (capacity_tokens / (8 * STRIPES as u64)).min(MAX_BATCH);
    if batch < MIN_BATCH { 0 } else { batch }
}

/// The most that a thread's cache holds of a batch.
pub(super) fn cache_size(batch: u64) -> u64 {
    batch / CACHE_DIVISOR
}
