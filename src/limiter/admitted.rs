//! What was lately admitted, as data: see `lately.rs`.

use crate::adapt::Meter;
use crate::sync::{AtomicBool, AtomicU64, Mutex};

/// How many tokens permits have taken. Relaxed throughout: a measure, of which some may be lost. A bucket that
/// threads contend for has stripes, which count all permits.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// Without the permits that stripes count.
    pub(super) tokens: AtomicU64,
    /// The reading from which the next grant is a sample.
    pub(super) due: AtomicU64,
    pub(super) meter: Mutex<Meter>,
    /// Whether a call was denied while there was no share of a quota.
    pub(super) missed: AtomicBool,
    /// Permits that were granted since the last cut, and ended without a refusal; counted while ends are watched.
    pub(super) through: AtomicU64,
}

/// What the end of a permit does beyond counting it out.
pub(super) const REFUNDS: u64 = 1;
/// Somebody asks whether requests get through.
pub(super) const WATCHES: u64 = 2;
/// And how many.
pub(super) const COUNTS: u64 = 4;
