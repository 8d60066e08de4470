//! What a grant has seen, in one word: the incidents that were cut for, and the changes of a share.

pub(super) fn seen_of(incidents: u64, changes: u32) -> u64 {
    u64::from(changes) << 32 | incidents & u64::from(u32::MAX)
}

pub(super) fn incidents_of(seen: u64) -> u64 {
    seen & u64::from(u32::MAX)
}

/// 0 for a resource that is not shared.
pub(super) fn changes_of(seen: u64) -> u32 {
    (seen >> 32) as u32
}
