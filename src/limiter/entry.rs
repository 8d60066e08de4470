//! One resource: its gate, its settings, and the shells that read the clock.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::capacity::{Capacity, WindowCapacity};
use super::context::Context;
use super::error::{ConfigError, Shortage, TryAcquireError};
use super::limit::Limit;
use super::settings::Settings;
use crate::adapt::CutState;
use crate::bucket::{Bucket, LockedBucket, Refusal, Take};
use crate::clock::Clock;
use crate::sync::{AtomicU64, Mutex, Ordering, seeded};
use crate::wait::{Claim, FairBucket, Ticket, WaitLimits};

/// A resource. It outlives its removal in the handles that were taken before, closed for good.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) name: Arc<str>,
    /// Another for each resource of a limiter: the order in which those who want several lock them.
    pub(super) id: u64,
    pub(super) gate: FairBucket,
    pub(super) settings: Mutex<Settings>,
    pub(super) context: Arc<Context>,
    /// Read outside the settings' lock: whether a permit's end refunds, and how long the line may
    /// be.
    pub(super) refunds: AtomicU64,
    pub(super) most_waiting: AtomicU64,
    /// How many incidents were cut for, stored after the cut took effect.
    pub(super) incidents: AtomicU64,
}

/// What was granted: the tokens, and how many incidents had been cut for before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) n: u64,
    pub(crate) seen: u64,
}

/// The line's timer rings here.
struct TimerWaker(Weak<Entry>);

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        if let Some(entry) = self.0.upgrade() {
            entry.serve_queue(FairBucket::on_timer);
        }
    }
}

impl Entry {
    pub(crate) fn new(
        name: &str,
        id: u64,
        limit: &Limit,
        clock: Clock,
        context: Arc<Context>,
    ) -> Result<Arc<Self>, ConfigError> {
        let now = clock.now();
        Self::new_at(name.into(), id, limit, now, clock, context)
    }

    /// Full at `now`.
    pub(super) fn new_at(
        name: Arc<str>,
        id: u64,
        limit: &Limit,
        now: u64,
        clock: Clock,
        context: Arc<Context>,
    ) -> Result<Arc<Self>, ConfigError> {
        let terms = limit.terms(1.0)?;
        let (bucket, current) = Bucket::new(terms[0], now);
        let more: Vec<LockedBucket> =
            terms[1..].iter().map(|terms| LockedBucket::full(*terms, now)).collect();
        bucket.set_most_in_flight(limit.most_in_flight());
        let cuts = CutState::new(limit.policy(context.policy));
        Ok(Arc::new_cyclic(|entry| Self {
            name,
            id,
            gate: FairBucket::new(
                bucket,
                more,
                clock,
                Waker::from(Arc::new(TimerWaker(Weak::clone(entry)))),
            ),
            refunds: AtomicU64::new(limit.refunds()),
            most_waiting: AtomicU64::new(limit.most_waiting()),
            incidents: AtomicU64::new(0),
            settings: Mutex::new(Settings { limit: *limit, cuts, current }),
            context,
        }))
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.gate.clock().now()
    }

    /// A reading of this resource's clock, `timeout` from now.
    pub(crate) fn deadline(&self, timeout: Duration) -> u64 {
        self.now().saturating_add(crate::adapt::nanos(timeout))
    }

    // ---- taking -------------------------------------------------------------------------------

    /// Take `n` tokens, no permit.
    #[inline]
    pub(crate) fn check(&self, n: u64) -> Result<(), TryAcquireError> {
        self.check_by(n, self.gate.clock())
    }

    /// The same by the limiter's own copy of the clock: one line less to fetch where there are many names.
    #[allow(clippy::inline_always)] // left to itself the compiler calls it from where a name is looked up
    #[inline(always)]
    pub(crate) fn check_by(&self, n: u64, clock: &Clock) -> Result<(), TryAcquireError> {
        if self.gate.bucket.was_hot() {
            if n == 1 && self.gate.bucket.take_cached() {
                return Ok(());
            }
            if self.gate.bucket.is_striped() && n > 0 {
                return self.check_stripe(n);
            }
        }
        self.check_at(n, clock.now())
    }

    #[inline(never)]
    fn check_stripe(&self, n: u64) -> Result<(), TryAcquireError> {
        if self.gate.bucket.refill_and_take(n, || self.now()) {
            return Ok(());
        }
        if n == 1 && seeded("batch-without-look") {
            return Err(TryAcquireError::UnknownResource);
        }
        let taken = self.check_slowly(n, self.now());
        // What was on its way to the stripe came back: too little for this one, but maybe enough for
        // those in line.
        if taken.is_err() && self.gate.bucket.is_exclusive() && !seeded("filled-in-vain") {
            self.serve_queue(FairBucket::serve);
        }
        taken
    }

    /// At a reading of this resource's clock that the caller has just made.
    #[inline]
    fn check_at(&self, n: u64, now: u64) -> Result<(), TryAcquireError> {
        if n == 0 {
            return self.check_slowly(n, now);
        }
        match self.gate.bucket.take(n, now) {
            Take::Taken => Ok(()),
            Take::Short(deficit) => Err(TryAcquireError::Exhausted { shortage: Shortage(deficit) }),
            Take::Lost => {
                self.gate.bucket.note_demand(now);
                self.check_again(n, now)
            }
            Take::Unusual => self.check_slowly(n, now),
        }
    }

    #[inline(never)]
    fn check_again(&self, n: u64, now: u64) -> Result<(), TryAcquireError> {
        loop {
            match self.gate.bucket.take(n, now) {
                Take::Taken => return Ok(()),
                Take::Lost => {}
                // An old reading may be why: see with a new one.
                Take::Short(_) | Take::Unusual => return self.check_slowly(n, now),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn check_slowly(&self, n: u64, now: u64) -> Result<(), TryAcquireError> {
        let taken = if self.gate.is_compound() && n > 0 {
            self.gate.take_locked(n, now)
        } else {
            self.take_slowly(n)
        };
        match taken {
            Err(Refusal::Stale) => self.check_anew(n),
            taken => taken.map_err(TryAcquireError::from_refusal),
        }
    }

    fn check_anew(&self, n: u64) -> Result<(), TryAcquireError> {
        loop {
            self.bring_up_to_date();
            match self.take_slowly(n) {
                Err(Refusal::Stale) => {}
                taken => return taken.map_err(TryAcquireError::from_refusal),
            }
        }
    }

    fn take_slowly(&self, n: u64) -> Result<(), Refusal> {
        let now = self.now();
        if n == 0 {
            return self.gate.peek(n, now);
        }
        // Of several windows the first alone knows neither the latest time nor the least capacity.
        if self.gate.is_compound() {
            return self.gate.take_locked(n, now);
        }
        match self.gate.bucket.take_slowly(n, now, false) {
            Err(Refusal::InLine) => self.gate.take_locked(n, now),
            taken => taken,
        }
    }

    /// How many incidents have been cut for. Read before a take, of which it tells that it was
    /// granted under the last of these cuts: Acquire, with the Release after the cut. A cut that comes
    /// between the two reads as one after the grant, and its refusal as one of that incident.
    #[inline]
    pub(crate) fn incidents(&self) -> u64 {
        self.incidents.load(Ordering::Acquire)
    }

    /// Take `n` tokens and count a permit in. A permit of nothing is not counted.
    #[inline]
    pub(crate) fn try_acquire(&self, n: u64) -> Result<Grant, TryAcquireError> {
        let seen = self.incidents();
        self.take_and_enter(n).map(|()| Grant { n, seen })
    }

    #[inline]
    fn take_and_enter(&self, n: u64) -> Result<(), TryAcquireError> {
        if self.gate.bucket.is_bounded_in_flight() {
            return self.try_acquire_bounded(n);
        }
        self.check(n)?;
        if n > 0 && !self.gate.bucket.enter() {
            // The limit on permits came this moment. The tokens are void: handing them back to a
            // bucket that has refilled meanwhile would let more than a full bucket through.
            return Err(TryAcquireError::TooManyInFlight);
        }
        Ok(())
    }

    fn try_acquire_bounded(&self, n: u64) -> Result<(), TryAcquireError> {
        if n == 0 {
            return self.check(0);
        }
        // Who is refused anyway must not take up a place meanwhile, least of all the next in line's:
        // so ask first.
        self.peek(n)?;
        if !self.gate.bucket.enter() {
            return Err(TryAcquireError::TooManyInFlight);
        }
        self.check(n).inspect_err(|_| self.leave_flight())
    }

    // ---- ending -------------------------------------------------------------------------------

    /// A permit of `n` tokens ends by the limit's policy.
    #[inline]
    pub(crate) fn end(&self, n: u64) {
        self.end_by(n, self.refunds.load(Ordering::Relaxed) != 0); // alone: publishes nothing
    }

    /// A permit of `n` tokens ends, and gives them back or not. One that was never counted in
    /// gives nothing back.
    #[inline]
    pub(crate) fn end_by(&self, n: u64, refund: bool) {
        let Some(in_line) = self.gate.bucket.leave() else { return };
        if (refund && self.give_back(n)) || in_line {
            self.serve_queue(FairBucket::serve);
        }
    }

    fn leave_flight(&self) {
        self.end_by(0, false);
    }

    /// Says whether somebody may be in line.
    fn give_back(&self, n: u64) -> bool {
        // While there are stripes nobody is in line, and they ask for no reading of the clock.
        if self.gate.bucket.refund_to_stripe(n) {
            return false;
        }
        loop {
            match self.gate.give_back(n, self.now()) {
                Err(_) => self.bring_up_to_date(),
                Ok(in_line) => return in_line,
            }
        }
    }

    /// A permit of `n` tokens ends, and cost `actual` ones. One that is not in flight any more, because
    /// its name was released once too often, changes nothing.
    pub(crate) fn settle(&self, n: u64, actual: u64) {
        let left = if n > 0 { self.gate.bucket.leave() } else { Some(false) };
        let Some(in_line) = left else { return };
        // The charge first: who is let in by the place in flight finds it.
        if actual > n && self.gate.charge(actual - n, self.now()).is_err() {
            self.charge_slowly(actual - n);
        }
        if (actual < n && self.give_back(n - actual)) || in_line {
            self.serve_queue(FairBucket::serve);
        }
    }

    // ---- waiting ------------------------------------------------------------------------------

    /// This resource as where somebody takes, or waits for, `n` tokens.
    #[inline]
    pub(crate) fn claim(&self, n: u64, ticket: Ticket) -> Claim<'_> {
        Claim { gate: &self.gate, n, ticket }
    }

    pub(crate) fn wait_limits(&self) -> WaitLimits {
        let refunds = self.refunds.load(Ordering::Relaxed) != 0; // a hint: see `WaitLimits`
        WaitLimits {
            most_waiting: self.most_waiting.load(Ordering::Relaxed), // alone
            may_be_refunded: refunds && self.gate.bucket.in_flight() > 0,
        }
    }

    /// Serve the line, in a slot that still answers.
    pub(super) fn serve_queue<E>(&self, act: impl Fn(&FairBucket, u64) -> Result<(), E>) {
        while act(&self.gate, self.now()).is_err() {
            self.bring_up_to_date();
        }
    }

    // ---- looking ------------------------------------------------------------------------------

    /// Would `n` be admitted now? Takes nothing.
    pub(crate) fn peek(&self, n: u64) -> Result<(), TryAcquireError> {
        loop {
            match self.gate.peek(n, self.now()) {
                Err(Refusal::Stale) => self.bring_up_to_date(),
                peeked => return peeked.map_err(TryAcquireError::from_refusal),
            }
        }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        loop {
            // Both of one moment: a change in between would pair one limit's buckets with another's
            // windows.
            let settings = self.settings.lock();
            let snapshots = self.gate.window_snapshots(self.now());
            let (limit, factor) = (settings.limit, settings.cuts.factor());
            drop(settings);
            if snapshots.would_admit(0) == Err(Refusal::Stale) {
                self.bring_up_to_date();
                continue;
            }
            let windows: Vec<WindowCapacity> = std::iter::zip(snapshots.views(), limit.windows())
                .map(|(snapshot, window)| WindowCapacity {
                    available: self.gate.available(snapshot),
                    total: snapshot.capacity_tokens(),
                    per_window: window.per_window(factor),
                    window: window.length,
                    limit: window.depth(),
                })
                .collect();
            let WindowCapacity { total, per_window, window, limit, .. } = windows[0];
            return Capacity {
                resource: self.name.to_string(),
                available: windows.iter().map(|window| window.available).fold(u64::MAX, u64::min),
                total,
                per_window,
                window,
                in_flight: self.gate.bucket.in_flight(),
                waiting: self.gate.waiting(),
                limit,
                windows,
            };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Limit, MemoryLimiter, Resource};
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_denial_writes_nothing() {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        // The word, the permits in flight, and the slots.
        let state = |api: &Resource| format!("{:?}", api.0.gate.bucket);
        let limit = Limit::per_second(10);
        for bound in [u64::MAX, 2] {
            let api = limiter.configure(&bound.to_string(), limit.max_in_flight(bound)).unwrap();
            let _held = api.try_acquire_n(10).unwrap();
            time.advance(Duration::from_millis(99)); // nearly one
            for paused in [false, true] {
                if paused {
                    api.pause_for(Duration::from_secs(1));
                }
                let before = state(&api);
                for n in [1, 10, 11] {
                    assert!(api.check_n(n).is_err());
                    assert!(api.try_acquire_n(n).is_err());
                    assert!(api.peek(n).is_err());
                }
                assert_eq!(state(&api), before, "paused: {paused}");
            }
        }
        let api = limiter.configure("in flight", limit.max_in_flight(1)).unwrap();
        let _held = api.try_acquire().unwrap();
        let before = state(&api);
        assert_eq!(api.try_acquire().unwrap_err(), TryAcquireError::TooManyInFlight);
        assert_eq!(state(&api), before);
    }
}
