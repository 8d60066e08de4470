//! Waits as metrics and traces see them: from a place in the queues on. What is granted at once is none.

use smallvec::SmallVec;

use super::wanted::Part;
use crate::bucket::{Denied, Never};
use crate::counts::Count;
use crate::trace::WaitSpan;
use crate::wait::GiveUp;

/// A wait in progress, in the queue of each of its parts.
#[derive(Debug)]
pub(super) struct WaitRecord {
    /// A clock reading.
    began: u64,
    spans: SmallVec<[WaitSpan; 1]>,
}

/// How a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    Granted,
    TimedOut,
    Cancelled,
    /// Its resource was closed or removed, or configured to hold less than it wants.
    Closed,
}

impl WaitEnd {
    fn count(self) -> Count {
        match self {
            Self::Granted => Count::Granted,
            Self::TimedOut => Count::TimedOut,
            Self::Cancelled => Count::Cancelled,
            Self::Closed => Count::Closed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
        }
    }
}

impl From<GiveUp> for WaitEnd {
    fn from(why: GiveUp) -> Self {
        match why {
            GiveUp::TimedOut(_) => Self::TimedOut,
            // Only as it would join the queue can that be too long.
            GiveUp::QueueFull | GiveUp::Never(_) => Self::Closed,
        }
    }
}

impl WaitRecord {
    pub(super) fn begin(parts: &[Part], now: u64) -> Self {
        for part in parts {
            part.entry.count(Count::Waits, 1);
        }
        let span = |part: &Part| WaitSpan::new(&part.entry.name, part.grant.n);
        Self { began: now, spans: parts.iter().map(span).collect() }
    }

    pub(super) fn end(self, parts: &[Part], end: WaitEnd, now: u64) {
        let nanos = now.saturating_sub(self.began);
        for part in parts {
            part.entry.bucket.counts().add_wait(end.count(), nanos);
        }
        self.spans.into_iter().for_each(|span| span.end(end.name()));
    }

    /// A call that gives up as it would join the queues: because of the part at `index`.
    pub(super) fn not_begun(parts: &[Part], index: usize, why: GiveUp) {
        let entry = &parts[index].entry;
        match why {
            GiveUp::TimedOut(_) => {
                entry.count(Count::Waits, 1);
                entry.bucket.counts().add_wait(Count::TimedOut, 0);
            }
            GiveUp::QueueFull => entry.count(Count::QueueFull, 1),
            GiveUp::Never(never @ Never::ExceedsCapacity(_)) => {
                entry.count_denied(&Denied::Never(never));
            }
            GiveUp::Never(Never::Closed | Never::Removed) => {}
        }
    }
}
