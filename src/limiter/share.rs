//! A resource whose limit is a share of a swarm's quota.

use std::time::Duration;

use super::capacity::Share;
use super::entry::Entry;
use super::seen::changes_of;
use crate::adapt::Segment;
use crate::bucket::BURST_PARTS;
use crate::sync::Ordering;

impl Share {
    pub(super) fn of(segment: Option<Segment>) -> Self {
        let (rate, burst) = segment.map_or((0, 0), |segment| (segment.rate, segment.burst));
        #[allow(clippy::cast_precision_loss)] // figures to show
        let rate = rate as f64 / 1e9;
        Self { rate, burst: f64::from(burst) / f64::from(BURST_PARTS) }
    }
}

impl Entry {
    /// Gives `n` tokens back that were granted by what was seen then. Returns whether the queue must be served.
    #[inline(never)]
    pub(super) fn refund(&self, n: u64, seen: u64) -> bool {
        self.settled(|bucket| {
            // Also what was granted before the resource was shared: it is of no share.
            if changes_of(seen) > 0 || changes_of(self.seen()) > 0 {
                return Ok(self.refund_share(n, seen));
            }
            // If it becomes shared after this look, the refund fails, because the slot is of a share. The retry takes the
            // lock of the settings, under which `seen` was stored. So the next look finds the change.
            bucket.refund(n, false)
        })
    }

    /// Gives `n` tokens back that were granted by the share of `seen`, if it is still the same one: otherwise they
    /// are void. Returns whether the queue must be served.
    #[cold]
    fn refund_share(&self, n: u64, seen: u64) -> bool {
        let mut must_serve = false;
        self.change(|settings| {
            // What time has made due is done: the slot in force is that of the share.
            if changes_of(settings.seen()) == changes_of(seen) {
                must_serve = self.bucket.refund(n, true).unwrap_or(false);
            }
            None
        });
        must_serve
    }

    /// A call was denied by the slow path, as calls are without a share: somebody would use one.
    pub(super) fn note_miss(&self) {
        if changes_of(self.seen()) > 0 {
            self.admitted.missed.store(true, Ordering::Relaxed); // publishes nothing
        }
    }

    /// See [`Permit::valid_until`](crate::Permit::valid_until).
    pub(super) fn share_left(&self) -> Option<Duration> {
        let settings = self.settings.lock();
        let now = self.now();
        let end = settings.share.as_ref()?.stands_until(now);
        Some(Duration::from_nanos(end.map_or(0, |end| end.saturating_sub(now))))
    }
}
