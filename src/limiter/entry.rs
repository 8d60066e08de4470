//! One resource: its buckets, its settings, and the calls that read the clock.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::admitted::{Admitted, REFUNDS, WATCHES};
use super::capacity::{Capacity, Share, WindowCapacity};
use super::context::Context;
use super::error::{AllError, ConfigError, ResourceError};
use super::limit::{EachWindow, Limit};
use super::refusal::Refusal;
use super::settings::{PendingChange, Settings};
use crate::adapt::{CutState, Pauses};
use crate::bucket::{Bucket, CountedAt, Denied, LockedBucket, NotEntered, Refused, Retry};
use crate::clock::Clock;
use crate::counts::{Count, Counts};
use crate::sync::{AtomicU64, InPlace, Mutex, Ordering, in_place};
use crate::wait::{Claim, FairBucket, Ticket, WaitLimits};

/// A resource. Handles keep it alive after its removal, closed for good.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) name: Arc<str>,
    /// Unique within a limiter. Calls that want several resources lock them in the order of their ids.
    pub(super) id: u64,
    pub(super) bucket: InPlace<FairBucket>,
    pub(super) settings: Mutex<Settings>,
    pub(super) context: Arc<Context>,
    /// Read without the lock of the settings: what a permit's end does ([`REFUNDS`], [`WATCHES`]), and how
    /// long the queue may be.
    pub(super) on_end: AtomicU64,
    pub(super) max_waiting: AtomicU64,
    /// Tokens of charges that would have made too large a debt.
    dropped_charges: AtomicU64,
    /// Incidents that were cut for, and above them the changes of a share: see `seen.rs`. Stored after these took
    /// effect.
    pub(super) seen: AtomicU64,
    pub(super) admitted: Admitted,
}

/// What was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    /// Tokens. A permit of 0 is not counted in flight.
    pub(crate) n: u64,
    /// [`Entry::seen`] before.
    pub(crate) seen: u64,
    pub(crate) counted: CountedAt,
}

/// A denial, and the resource that denies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeniedAt<'a>(pub(super) &'a Entry, pub(super) Denied);

impl From<DeniedAt<'_>> for AllError {
    #[cold]
    fn from(DeniedAt(entry, denied): DeniedAt<'_>) -> Self {
        entry.error(denied)
    }
}

/// Woken by the queue's timer.
struct TimerWaker(Weak<Entry>);

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        if let Some(entry) = self.0.upgrade() {
            entry.serve_queue(FairBucket::on_timer);
        }
    }
}

impl Entry {
    /// A resource whose buckets are full at `now`.
    pub(super) fn new(
        name: Arc<str>,
        id: u64,
        limit: &Limit,
        now: u64,
        clock: Clock,
        context: Arc<Context>,
        counts: Counts,
    ) -> Result<Arc<Self>, ConfigError> {
        let terms = limit.full_terms()?;
        let (bucket, current) = Bucket::new(terms[0], limit.max_in_flight_or_none(), counts, now);
        let more = terms[1..].iter().map(|terms| LockedBucket::full(*terms, now)).collect();
        let mut cuts = CutState::new(limit.policy(context.policy));
        cuts.adapt(limit.range(), 1.0, now);
        let settings = Settings {
            limit: *limit,
            cuts,
            pauses: Pauses::default(),
            share: None,
            pacing: None,
            current,
        };
        let on_end = settings.on_end();
        let entry = Arc::new_cyclic(|entry| {
            let timer_waker = Waker::from(Arc::new(TimerWaker(Weak::clone(entry))));
            Self {
                name,
                id,
                bucket: in_place(FairBucket::new(bucket, more, clock, timer_waker)),
                on_end: AtomicU64::new(on_end),
                max_waiting: AtomicU64::new(limit.max_waiting_or_none()),
                dropped_charges: AtomicU64::new(0),
                seen: AtomicU64::new(0),
                admitted: Admitted::default(),
                settings: Mutex::new(settings),
                context,
            }
        });
        if limit.range().is_some() {
            // The first slot ends with the first step.
            entry.change(|settings| {
                entry.install(settings, PendingChange::default());
                Some(None)
            });
        }
        Ok(entry)
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.bucket.clock().now()
    }

    /// A reading of this resource's clock, `timeout` from now.
    pub(crate) fn deadline(&self, timeout: Duration) -> u64 {
        self.now().saturating_add(crate::adapt::nanos(timeout))
    }

    /// An error that names this resource.
    #[cold]
    pub(super) fn error<C>(&self, cause: impl Into<C>) -> ResourceError<C> {
        ResourceError::new(Arc::clone(&self.name), cause)
    }

    // ---- taking -------------------------------------------------------------------------------

    /// Takes `n` tokens, without a permit. The caller chooses the type of the error: a denial that is
    /// converted later costs as much as the decision.
    #[inline]
    pub(crate) fn check<E: Refusal<Denied>>(&self, n: u64) -> Result<(), E> {
        self.check_by(n, self.bucket.clock())
    }

    /// The same by another copy of the clock, which saves a cache line where there are many names.
    #[allow(clippy::inline_always)] // otherwise it is called, not inlined, by the lookup of a name
    #[inline(always)]
    pub(crate) fn check_by<E: Refusal<Denied>>(&self, n: u64, clock: &Clock) -> Result<(), E> {
        match self.bucket.take_prepaid(n) {
            Some(true) => Ok(()),
            Some(false) => self.check_slow(n, None),
            None => self.check_at(n, clock.now()),
        }
    }

    #[inline]
    fn check_at<E: Refusal<Denied>>(&self, n: u64, now: u64) -> Result<(), E> {
        let deny = |deficit| {
            if E::IS_FINAL {
                self.count(Count::Exhausted, 1); // the word decides in no pause
            }
            E::new(Denied::Exhausted(deficit))
        };
        self.bucket.take_at(n, now, deny, || self.check_slow(n, Some(now)))
    }

    #[cold]
    #[inline(never)]
    fn check_slow<E: Refusal<Denied>>(&self, n: u64, mut read: Option<u64>) -> Result<(), E> {
        let taken = self.up_to_date(|bucket| bucket.take(n, read.take()));
        // A refill of a stripe that failed has returned its batch to the word: too little for this call,
        // but maybe enough for a waiter.
        if taken.is_err() && self.bucket.has_waiters_beside_stripes() {
            self.serve();
        }
        taken.inspect_err(|_| self.note_miss()).map_err(|denied| self.refuse(denied))
    }

    /// Acts, and again after what was due is done, until the slot in force answers.
    pub(super) fn up_to_date<T>(
        &self,
        mut act: impl FnMut(&FairBucket) -> Result<T, Refused>,
    ) -> Result<T, Denied> {
        loop {
            match act(&self.bucket) {
                Ok(done) => return Ok(done),
                Err(Refused::Denied(denied)) => return Err(denied),
                Err(Refused::Retry(_)) => self.bring_up_to_date(),
            }
        }
    }

    /// The same for an action that cannot be denied.
    pub(super) fn settled<T>(&self, act: impl Fn(&FairBucket) -> Result<T, Retry>) -> T {
        loop {
            match act(&self.bucket) {
                Ok(done) => return done,
                Err(_) => self.bring_up_to_date(),
            }
        }
    }

    /// Incidents that have been cut for, and changes of a share, for a grant. Read before a take, which was then
    /// granted under the last of these: Acquire, with the Release after the change. A cut that comes between the
    /// two counts as one after the grant, and a refusal of that request as one of its incident.
    #[inline]
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Takes `n` tokens and counts a permit in. The caller reads [`seen`](Self::seen) before, and
    /// makes the grant: it is written once, in its place in the permit.
    #[inline]
    pub(crate) fn try_acquire<E: Refusal<Denied>>(&self, n: u64) -> Result<CountedAt, E> {
        if n != 1 {
            return self.try_acquire_slower(n);
        }
        match self.bucket.take_and_enter() {
            Ok(counted) => Ok(counted),
            Err(NotEntered::NothingDone) => self.try_acquire_slower(n),
            Err(NotEntered::TooMany) => Err(self.step_out(1)),
        }
    }

    #[inline(never)]
    fn try_acquire_slower<E: Refusal<Denied>>(&self, n: u64) -> Result<CountedAt, E> {
        if self.bucket.is_bounded_in_flight() {
            return self.try_acquire_bounded(n);
        }
        let now = self.check_read(n).map_err(|denied| self.refuse(denied))?;
        if n == 0 {
            return Ok(CountedAt::COMMON);
        }
        let counted = self.bucket.enter_unbounded().ok_or_else(|| self.step_out(n))?;
        self.note_grant(n, counted, now);
        Ok(counted)
    }

    /// As [`check`](Self::check), for a caller that refuses the call. Returns a reading of the clock that is about as
    /// old as the decision.
    #[inline]
    fn check_read(&self, n: u64) -> Result<u64, Denied> {
        match self.bucket.take_prepaid(n) {
            Some(true) => Ok(self.now()),
            Some(false) => self.check_slow(n, None).map(|()| self.now()),
            None => {
                let now = self.now();
                self.check_at(n, now).map(|()| now)
            }
        }
    }

    /// A bound on permits was set this moment. The `n` tokens are void: a refund to a bucket that has
    /// refilled meanwhile would admit more than a full bucket.
    #[cold]
    pub(super) fn step_out<E: Refusal<Denied>>(&self, n: u64) -> E {
        self.count_void(n);
        self.serve();
        self.refuse(Denied::TooManyInFlight)
    }

    #[inline(never)]
    fn try_acquire_bounded<E: Refusal<Denied>>(&self, n: u64) -> Result<CountedAt, E> {
        if n == 0 {
            return self.peek(0).map(|()| CountedAt::COMMON).map_err(E::new);
        }
        let counted = self.enter_bounded(n).map_err(|denied| self.refuse(denied))?;
        let now = self.check_read(n).map_err(|denied| {
            self.end_by(0, counted, None);
            self.refuse(denied)
        })?;
        self.note_grant(n, counted, now);
        Ok(counted)
    }

    // ---- ending -------------------------------------------------------------------------------

    /// Ends a permit by the limit's policy, if this thread counts it: the fastest path. `false` if nothing was
    /// done.
    #[inline]
    pub(crate) fn end_own(&self, grant: &Grant) -> bool {
        let on_end = self.on_end.load(Ordering::Relaxed); // publishes nothing
        if on_end & WATCHES != 0 {
            return false;
        }
        let Some(may_admit) = self.bucket.leave_own(grant.counted) else { return false };
        let refunds = on_end != 0 && !(grant.n == 1 && self.bucket.give_cached());
        if refunds || may_admit {
            self.end_and_serve(grant.n, refunds.then_some(grant.seen), may_admit);
        }
        true
    }

    /// Ends a permit by the limit's policy.
    pub(crate) fn end(&self, grant: &Grant) {
        let on_end = self.on_end.load(Ordering::Relaxed); // publishes nothing
        self.end_by(grant.n, grant.counted, (on_end & REFUNDS != 0).then_some(grant.seen));
    }

    /// Ends a permit of `n` tokens: with a refund, of what was granted by what was [`seen`](Self::seen) then, or
    /// without. One that is not counted any more refunds nothing.
    #[inline]
    pub(crate) fn end_by(&self, n: u64, counted: CountedAt, refunds: Option<u64>) {
        match self.bucket.leave(counted) {
            Some(false) if refunds.is_none() => {}
            Some(may_admit) => self.end_and_serve(n, refunds, may_admit),
            None => {}
        }
    }

    /// What is left to do for a permit that was counted out. Not inlined: it would double the registers
    /// that every end saves.
    #[inline(never)]
    fn end_and_serve(&self, n: u64, refunds: Option<u64>, may_admit: bool) {
        if refunds.is_some_and(|seen| self.refund(n, seen)) || may_admit {
            self.serve();
        }
    }

    /// Ends a permit of `n` tokens that was forgotten.
    pub(crate) fn release(&self, n: u64) {
        if n > 0 {
            self.end(&Grant { n, seen: 0, counted: CountedAt::COMMON });
        }
    }

    /// Leaves a permit in flight, for [`Entry::release`] to end.
    pub(crate) fn forget(&self, grant: &Grant) {
        if self.bucket.forget(grant.counted) {
            self.serve();
        }
    }

    /// Ends a permit that cost `actual` tokens. One that is not counted any more, because its name was
    /// released once too often, changes nothing.
    pub(crate) fn settle(&self, grant: &Grant, actual: u64) {
        let n = grant.n;
        let left = if n > 0 { self.bucket.leave(grant.counted) } else { Some(false) };
        let Some(may_admit) = left else { return };
        // The charge first: the call that this permit's end admits finds it.
        if actual > n {
            let more = actual - n;
            self.count(Count::Overdrawn, more);
            let dropped = self.bucket.charge(more).unwrap_or_else(|_| self.charge_slow(more));
            if dropped > 0 {
                // Relaxed: a count, which publishes nothing.
                self.dropped_charges.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if (actual < n && self.refund(n - actual, grant.seen)) || may_admit {
            self.serve();
        }
    }

    // ---- waiting ------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn claim(&self, n: u64, ticket: Ticket, with_permit: bool) -> Claim<'_> {
        Claim { bucket: &self.bucket, n, ticket, with_permit, counted: CountedAt::COMMON }
    }

    pub(crate) fn wait_limits(&self) -> WaitLimits {
        let refunds = self.on_end.load(Ordering::Relaxed) & REFUNDS != 0; // a hint: see `WaitLimits`
        WaitLimits {
            max_waiting: self.max_waiting.load(Ordering::Relaxed), // publishes nothing
            may_be_refunded: refunds && self.bucket.in_flight() > 0,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn serve(&self) {
        self.serve_queue(FairBucket::serve);
    }

    /// Serves the queue, in a slot that still answers.
    pub(super) fn serve_queue(&self, serve: impl Fn(&FairBucket, u64) -> Result<(), Retry>) {
        self.settled(|bucket| serve(bucket, self.now()));
    }

    // ---- looking ------------------------------------------------------------------------------

    /// Whether `n` tokens would be granted now.
    pub(crate) fn peek(&self, n: u64) -> Result<(), Denied> {
        self.up_to_date(|bucket| bucket.peek(n, self.now()))
    }

    pub(crate) fn capacity(&self) -> Capacity {
        loop {
            // Both at one moment: a change in between would pair one limit's buckets with another's
            // windows.
            let settings = self.settings.lock();
            let snapshots = self.bucket.window_snapshots(self.now());
            let limit = settings.limit;
            let per_window: EachWindow<u64> =
                limit.windows().map(|window| settings.per_window(window)).collect();
            let share = settings.share.as_ref().map(|allotment| allotment.share().copied());
            let paused_until = settings.pauses.left(self.now());
            drop(settings);
            if matches!(snapshots.status(), Err(Refused::Retry(_))) {
                self.bring_up_to_date();
                continue;
            }
            let windows = std::iter::zip(limit.windows(), per_window);
            let windows: Vec<WindowCapacity> = std::iter::zip(snapshots.iter(), windows)
                .map(|(snapshot, (window, per_window))| WindowCapacity {
                    available: self.bucket.share(self.bucket.tokens_in(snapshot), snapshot.now()),
                    burst: if share == Some(None) { 0 } else { snapshot.capacity_tokens() },
                    per_window,
                    window: window.length,
                    configured_burst: window.depth(),
                })
                .collect();
            let WindowCapacity { burst, per_window, window, configured_burst, .. } = windows[0];
            return Capacity {
                resource: self.name.to_string(),
                available: windows.iter().map(|window| window.available).fold(u64::MAX, u64::min),
                burst,
                per_window,
                window,
                in_flight: self.bucket.in_flight(),
                waiting: self.bucket.waiting(),
                configured_burst,
                dropped_charges: self.dropped_charges.load(Ordering::Relaxed),
                paused_until,
                share: share.map(Share::of),
                windows,
            };
        }
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
