//! What becomes of a take that does not succeed: it is denied, or it must be tried again.

use super::rate::Rate;

/// A take that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Denied(Denied),
    Retry(Retry),
}

/// Why a take is denied, in the words of the public errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There are too few tokens now.
    Exhausted(Deficit),
    TooManyInFlight,
    Never(Never),
}

/// Why no wait helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Never {
    /// More tokens than the bucket holds; its capacity in tokens.
    ExceedsCapacity(u64),
    Closed,
    Removed,
}

/// Why a take must be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Another thread was faster: the same attempt again.
    Contended,
    /// This path cannot decide; the next slower one can.
    Undecided,
    /// The slot in force has ended: its owner must bring the bucket up to date first.
    SlotExpired,
    /// A compact bucket that was evicted or promoted: look the name up again.
    Evicted,
    /// The reading is past the sweep window, which ends at this reading: sweep first.
    SweepDue(u64),
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Never> for Refused {
    fn from(never: Never) -> Self {
        Self::Denied(Denied::Never(never))
    }
}

impl From<Retry> for Refused {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

/// What an exhausted bucket is short of. The time that takes is computed on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deficit {
    /// Reading less anchor: negative before the anchor, `i64::MIN` for never.
    pub(super) offset: i64,
    /// Units that must have accrued since the anchor.
    pub(super) need: u64,
    pub(super) rate: Rate,
    pub(super) carry: u64,
}

impl Deficit {
    /// This deficit, but at least `nanos` long.
    pub(crate) fn at_least(self, nanos: u64) -> Self {
        match self.rate.when(self.need, self.carry) {
            Some(elapsed) if self.wait() < nanos => {
                let offset = i128::from(elapsed) - i128::from(nanos);
                Self { offset: i64::try_from(offset).unwrap_or(i64::MAX), ..self }
            }
            _ => self,
        }
    }

    /// A deficit of `nanos`, whatever the rate.
    pub(crate) fn lasting(self, nanos: u64) -> Self {
        let offset = -i64::try_from(nanos).unwrap_or(i64::MAX);
        Self { offset, need: 0, ..self }
    }

    /// Nanoseconds from the reading until the take would succeed, rounded up; `u64::MAX` for never.
    #[cold]
    pub(crate) fn wait(&self) -> u64 {
        match self.rate.when(self.need, self.carry) {
            Some(_) if self.offset == i64::MIN => u64::MAX,
            Some(elapsed) if self.offset < 0 => elapsed.saturating_add(self.offset.unsigned_abs()),
            Some(elapsed) => elapsed.saturating_sub(self.offset.unsigned_abs()),
            None => u64::MAX,
        }
    }
}

/// The worse of two verdicts: a retry before a denial, a denial for good before one for a time, and
/// of two times the later.
pub(crate) fn worse(a: Result<(), Refused>, b: Result<(), Refused>) -> Result<(), Refused> {
    match (a, b) {
        (Ok(()), verdict) | (verdict, Ok(())) => verdict,
        (Err(a), Err(b)) => Err(if a.rank() < b.rank() { b } else { a }),
    }
}

/// The worst of the verdicts, and its index.
pub(crate) fn worst_of(
    verdicts: impl Iterator<Item = Result<(), Refused>>,
) -> Result<(), (usize, Refused)> {
    let mut worst: Option<(usize, Refused)> = None;
    for (index, verdict) in verdicts.enumerate() {
        if let Err(refused) = verdict
            && worst.is_none_or(|(_, worst)| worst.rank() < refused.rank())
        {
            worst = Some((index, refused));
        }
    }
    worst.map_or(Ok(()), Err)
}

impl Refused {
    fn rank(&self) -> (u8, u64) {
        match *self {
            Self::Retry(_) => (5, 0),
            Self::Denied(Denied::Never(Never::Closed)) => (4, 0),
            Self::Denied(Denied::Never(Never::Removed)) => (3, 0),
            Self::Denied(Denied::Never(Never::ExceedsCapacity(most))) => (2, u64::MAX - most),
            Self::Denied(Denied::TooManyInFlight) => (1, 0),
            Self::Denied(Denied::Exhausted(deficit)) => (0, deficit.wait()),
        }
    }
}
