//! Prepaid batches: what makes a large bucket faster than a clock reading and a shared line.
//!
//! A bucket that is in great demand sets a part of what it holds apart, a batch for each of a few
//! *stripes*. A thread takes from the stripe that it is assigned to, without a reading of the clock, on
//! a line that its core has to itself. An empty stripe is filled by a batch from the bucket's word.
//!
//! The first threads have a stripe each of their own, and keep a part of its batch as a *thread_cache* that
//! nobody else takes from. Where a compare-and-swap costs 5 ns, a take from the thread_cache costs 1: it is a
//! store, for only this thread writes there.
//!
//! # Exact
//!
//! With `STRIPED` set the word's capacity is `C - stripes * batch`, and no stripe holds more than a
//! batch, its thread_cache included. So what the word, the stripes and who is filling one hold together is at
//! most `C`, and it rises by accrual alone:
//!
//! * *Opening* changes the capacity by as much as the stripes get. The position stays where it is.
//! * *Filling* moves tokens from the word to a stripe. Who fills has the stripe's `REFILLING` flag.
//! * *Closing* empties the stripes, **then** reads the clock, and moves the position by what was set
//!   apart and is not there any more. With a reading from before, what accrued meanwhile to a full
//!   word, which cannot hold it, would be counted beside what was taken from the stripes. A stripe
//!   that is being filled is left to who fills it, who brings back what it holds and goes on closing:
//!   nobody waits for anybody.
//!
//! Nobody is refused, and nobody waits, before the stripes were closed: then the word decides alone. (But
//! for what is on its way to a stripe at that moment: who moves it brings it back, and looks at the line.)
//! While somebody is in line (`EXCLUSIVE`) they are neither opened nor filled.
//!
//! What remains: a word that is full at its smaller capacity does not accrue, so that a burst after a
//! rest may be short by what was taken from open stripes, at most an eighth of the capacity.
//!
//! # The thread_cache, closed
//!
//! Who closes writes the stripe's `CLOSED`, then reads the thread_cache; who takes writes `BUSY` into the
//! thread_cache, then reads the stripe. With a full barrier in between on both sides, either the taker sees
//! `CLOSED` and takes nothing, or the closer sees `BUSY`, and charges for a take that may happen. The
//! taker's is free: see [`light_barrier`]. A taker that finds that it was charged_takes for and has not taken
//! has its token then ([`Stripes::resolve_closed`]), unless the stripes have been opened anew by that time.
//!
//! Each epoch has another number, in the stripe and in the thread_cache, so that a thread_cache which was closed
//! once is never taken from.
//!
//! # Orderings
//!
//! A stripe's tokens change hands by `AcqRel` RMWs, and are stored anew with Release by who has opened
//! or fills it, when nobody else changes them. A thread_cache is stored with Release, by its owner alone: who
//! closes reads it with Acquire after the barrier. An owner that ends hands it on under a lock (see
//! [`thread_index`]).

use crossbeam_utils::CachePadded;

use super::snapshot::Snapshot;
use super::word::Word;
use super::{Bucket, Refusal};
use crate::sync::{
    AtomicU64, Mutex, Ordering, has_barrier, heavy_barrier, light_barrier, seeded, thread_index,
};

/// A thread uses one of so many; more gained nothing.
pub(super) const STRIPES: usize = if cfg!(loom) { 2 } else { 8 };
/// The largest batch; more gained nothing.
const MAX_BATCH: u64 = if cfg!(loom) { 4 } else { 256 };
/// The smallest: less is not worth the while.
const MIN_BATCH: u64 = if cfg!(loom) { 1 } else { 16 };
/// A thread_cache is at most such a part of a batch, so that one compare-and-swap pays for many takes and
/// most of the batch is there for others.
const CACHE_DIVISOR: u64 = if cfg!(loom) { 2 } else { 4 };

/// Tokens a stripe, for a bucket that holds so many: all stripes' are an eighth of them at most.
pub(super) fn batch(whole: u64) -> u64 {
    let batch = (whole / (8 * STRIPES as u64)).min(MAX_BATCH);
    if batch < MIN_BATCH { 0 } else { batch }
}

// Tokens and stashes: the number of the epoch, flags, and a count.
const COUNT: u64 = FLAG - 1;
const FLAG: u64 = 1 << 22;
/// Of a stripe: what it holds is being moved.
const REFILLING: u64 = FLAG;
/// Of a thread_cache: a take is in progress.
const BUSY: u64 = FLAG;
/// Of a stripe.
const CLOSED: u64 = FLAG << 1;
const EPOCH: u64 = CLOSED << 1;

/// Stripes that were closed are not opened again for so many nanoseconds: closing costs microseconds.
const REOPEN_DELAY: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Stripes {
    all: [CachePadded<Stripe>; STRIPES],
    /// The most that a stripe holds in the present epoch. Read after the stripe was found open, or it
    /// may be another epoch's.
    batch: AtomicU64,
    control: Mutex<StripeControl>,
}

/// For who opens or closes.
#[derive(Debug, Default)]
struct StripeControl {
    /// The present epoch, or the last one.
    epoch: u64,
    /// Tokens that it set apart.
    reserve: u64,
    /// Tokens that were taken out of stripes which are being closed.
    drained: u64,
    /// The stripes that are closed for this epoch, thread_cache and all.
    is_drained: [bool; STRIPES],
    /// Stashes as they were found by who closed, where a take was in progress and charged_takes for.
    charged_takes: [Option<u64>; STRIPES],
    rest_until: u64,
}

#[derive(Debug)]
pub(super) struct Stripe {
    /// What is left of the batch, or why it is not to be had.
    tokens: AtomicU64,
    /// What its owner, the thread of this number, keeps to itself. Written by that thread alone.
    thread_cache: AtomicU64,
    /// Permits that the owner counted in. Written by it alone.
    pub(super) entered: AtomicU64,
    /// Permits that others counted in, less all that were counted out here: wraps below zero.
    pub(super) others: AtomicU64,
}

impl Stripe {
    /// Take `n` from what all may take, if it is there.
    #[inline]
    fn try_take(&self, n: u64) -> bool {
        let less =
            |tokens: u64| (is_open(tokens) && n <= tokens & COUNT).then(|| tokens.wrapping_sub(n));
        self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

#[inline]
fn is_open(tokens: u64) -> bool {
    tokens & (CLOSED | REFILLING) == 0
}

/// Whether a thread_cache was filled in this epoch of the stripe, which still goes on.
#[inline]
fn is_of(thread_cache: u64, tokens: u64) -> bool {
    let differs = thread_cache ^ tokens;
    differs < CLOSED || (seeded("thread_cache-of-another-epoch") && tokens & CLOSED == 0)
}

/// The most that a thread_cache holds; none where others could not close it.
fn max_cached(batch: u64) -> u64 {
    if has_barrier() { batch / CACHE_DIVISOR } else { 0 }
}

/// What came of closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All that there is is in the word.
    Done,
    /// Not what is on its way to a stripe: who moves it gathers the rest.
    RefillInFlight,
    /// The slot has ended: the word must have a fresh anchor first.
    SlotExpired,
}

impl Stripes {
    fn new() -> Self {
        let stripe = |_| {
            CachePadded::new(Stripe {
                tokens: AtomicU64::new(CLOSED),
                thread_cache: AtomicU64::new(0),
                entered: AtomicU64::new(0),
                others: AtomicU64::new(0),
            })
        };
        Self {
            all: std::array::from_fn(stripe),
            batch: AtomicU64::new(0),
            control: Mutex::new(StripeControl::default()),
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &Stripe> {
        self.all.iter().map(|stripe| &**stripe)
    }

    /// The stripe that a thread uses, and whether it is its owner.
    #[inline]
    pub(super) fn of_thread(&self, number: usize) -> (&Stripe, bool) {
        (&self.all[number % STRIPES], number < STRIPES)
    }

    /// Take one from this thread's thread_cache.
    #[inline]
    fn take_cached(&self) -> bool {
        let number = thread_index();
        let Some(stripe) = self.all.get(number) else { return false };
        let thread_cache = stripe.thread_cache.load(Ordering::Relaxed); // this thread's
        if thread_cache & COUNT == 0 {
            return false;
        }
        // Release: who charges for this take reads a clock that is no older than it.
        stripe.thread_cache.store(thread_cache | BUSY, Ordering::Release);
        light_barrier();
        if is_of(thread_cache, stripe.tokens.load(Ordering::Acquire)) {
            stripe.thread_cache.store(thread_cache - 1, Ordering::Release);
            return true;
        }
        stripe.thread_cache.store(thread_cache, Ordering::Release);
        self.resolve_closed(number, thread_cache)
    }

    /// This thread's stripe was closed, with a thread_cache that it tried to take from. Whether it was charged_takes
    /// for that one, and has it.
    #[cold]
    #[inline(never)]
    fn resolve_closed(&self, number: usize, thread_cache: u64) -> bool {
        let mut control = self.control.lock();
        if control.epoch == thread_cache & !COUNT && !control.is_drained[number] {
            return false; // who closes will look at it yet
        }
        self.all[number].thread_cache.store(0, Ordering::Release);
        if seeded("charged_takes-in-vain") {
            return false;
        }
        control.charged_takes[number]
            .take_if(|charged_takes| *charged_takes == thread_cache | BUSY)
            .is_some()
    }
}

impl Bucket {
    /// Whether there are stripes, open or not.
    #[inline]
    pub(crate) fn was_hot(&self) -> bool {
        self.hot.stripes.get().is_some()
    }

    #[inline]
    pub(crate) fn is_striped(&self) -> bool {
        self.word().is_striped()
    }

    /// Take one that this thread has set apart for itself: the fastest way.
    #[inline]
    pub(crate) fn take_cached(&self) -> bool {
        self.hot.stripes.get().is_some_and(|stripes| stripes.take_cached())
    }

    /// Take `n >= 1` from this thread's stripe, which is filled if need be. Where that fails go by the
    /// word, and look at the line: what was on its way here may be what somebody waits for.
    #[inline(never)]
    pub(crate) fn refill_and_take(&self, n: u64, clock: impl Fn() -> u64) -> bool {
        let Some(stripes) = self.hot.stripes.get() else { return false };
        let (stripe, is_own) = stripes.of_thread(thread_index());
        let own = || stripe.thread_cache.load(Ordering::Relaxed) & COUNT; // this thread's, if at all
        let is_cache_refill = is_own && n == 1 && own() == 0;
        if !is_cache_refill && stripe.try_take(n) {
            return true;
        }
        let early = seeded("clock-before-claim").then(|| {
            let early = clock();
            crate::sync::yield_now(); // loom does not of itself switch here
            early
        });
        let found = stripe.tokens.load(Ordering::Acquire);
        let (new, old) = (Ordering::AcqRel, Ordering::Relaxed); // a failure is not used
        let is_claimed = is_open(found)
            && n <= stripes.batch.load(Ordering::Acquire)
            && stripe.tokens.compare_exchange(found, found | REFILLING, new, old).is_ok();
        // Closed, or too small, or somebody else moves its tokens.
        if !is_claimed {
            return false;
        }
        let (here, epoch) = (found & COUNT, found & !COUNT);
        let most = stripes.batch.load(Ordering::Acquire);
        // What its thread_cache holds, or may hold.
        let cached = if is_own { own() } else { max_cached(most) };
        let (batch, is_low) = if here >= n {
            (0, false)
        } else {
            // After the claim.
            let now = early.unwrap_or_else(&clock);
            self.batch(most.saturating_sub(here + cached), now)
        };
        let total = here + batch;
        let rest = total.checked_sub(n);
        let kept = if is_cache_refill { rest.unwrap_or(0).min(max_cached(most)) } else { 0 };
        if kept > 0 {
            stripe.thread_cache.store(epoch | kept, Ordering::Release);
        }
        let left = epoch | (rest.unwrap_or(total) - kept);
        if seeded("deposit-without-look") {
            stripe.tokens.store(left, Ordering::Release);
            return rest.is_some();
        }
        if stripe.tokens.compare_exchange(found | REFILLING, left, new, old).is_err() {
            // It was closed meanwhile, and what was here was drained. The batch goes the same way.
            if kept > 0 {
                stripe.thread_cache.store(0, Ordering::Release);
            }
            // By an RMW: who closes may be about to, which changes nothing any more.
            stripe.tokens.swap(epoch | CLOSED | batch, Ordering::AcqRel);
            self.drain(clock);
            return false;
        }
        if is_low {
            self.drain(clock);
        }
        rest.is_some()
    }

    /// Take `n` from the word, if nobody is in line and at least a quarter of all tokens is there; else
    /// 0, and whether it is that.
    fn batch(&self, n: u64, now: u64) -> (u64, bool) {
        loop {
            let snapshot = self.snapshot(now);
            if !snapshot.word.is_striped()
                || snapshot.word.is_exclusive()
                || snapshot.status().is_err()
            {
                return (0, false);
            }
            let Ok(next) = snapshot.admit(n) else { return (0, true) };
            if !snapshot.holds_part(4) {
                return (0, true);
            }
            if self.swap(snapshot.word, snapshot.word.moved(snapshot.origin, next)) {
                return (n, false);
            }
        }
    }

    /// Set a batch apart for each stripe, if the bucket is large, at least half full, and nobody is in
    /// line.
    pub(crate) fn open(&self, now: u64) {
        // Not while a step of a recovery is due at a time: until somebody comes and takes it, takes
        // that read no clock would count as from before it.
        let can_open = |snapshot: &Snapshot| {
            snapshot.word.has_no_flags() && snapshot.until == u64::MAX && snapshot.holds_part(2)
        };
        let batch = |word: Word| self.slots[word.parity()].batch();
        if batch(self.word()) == 0 || !can_open(&self.snapshot(now)) {
            return;
        }
        let stripes = self.hot.stripes.get_or_init(|| Box::new(Stripes::new()));
        let Some(mut control) = stripes.control.try_lock() else { return };
        if now < control.rest_until {
            return;
        }
        loop {
            let snapshot = self.snapshot(now);
            let batch = batch(snapshot.word);
            if batch == 0 || !can_open(&snapshot) {
                return;
            }
            if self.swap(snapshot.word, snapshot.word.striped(true)) {
                let epoch = control.epoch.wrapping_add(EPOCH);
                let reserve = STRIPES as u64 * batch;
                *control = StripeControl {
                    epoch,
                    reserve,
                    rest_until: control.rest_until,
                    ..StripeControl::default()
                };
                stripes.batch.store(batch, Ordering::Release);
                // Closed stripes are nobody's but the control's.
                for stripe in stripes.each() {
                    stripe.tokens.store(epoch | batch, Ordering::Release);
                }
                return;
            }
        }
    }

    /// Close the stripes and give what is in them back to the word. One that is being filled is
    /// drained by who fills it; until then the bucket stays striped, and the word has less.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(&self, clock: impl Fn() -> u64) -> Drained {
        let Some(stripes) = self.hot.stripes.get() else { return Drained::Done };
        let mut control = stripes.control.lock();
        if !self.is_striped() {
            return Drained::Done;
        }
        let early = seeded("clock-before-gathering").then(&clock);
        let mut closed = [false; STRIPES];
        let mut is_settled = true;
        for (i, stripe) in stripes.each().enumerate() {
            if control.is_drained[i] {
                continue;
            }
            let close = |tokens: u64| Some((tokens | CLOSED) & !COUNT);
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            let before = stripe.tokens.fetch_update(new, old, close).unwrap_or(0);
            control.drained += before & COUNT;
            closed[i] = before & REFILLING == 0 || seeded("drained-beside-a-filler");
            is_settled &= closed[i];
        }
        if closed.contains(&true) && max_cached(stripes.batch.load(Ordering::Acquire)) > 0 {
            // Without a barrier nobody knows what the stashes hold: they count as taken.
            let is_known = heavy_barrier();
            for (i, stripe) in stripes.each().enumerate().filter(|(i, _)| closed[*i] && is_known) {
                let thread_cache = stripe.thread_cache.load(Ordering::Acquire);
                let is_busy = thread_cache & BUSY != 0 && !seeded("thread_cache-in-use-drained");
                if control.epoch == thread_cache & !(COUNT | BUSY) {
                    control.drained += (thread_cache & COUNT) - u64::from(is_busy);
                    control.charged_takes[i] = is_busy.then_some(thread_cache);
                }
            }
        }
        for (is_drained, closed) in control.is_drained.iter_mut().zip(closed) {
            *is_drained |= closed;
        }
        if !is_settled {
            return Drained::RefillInFlight;
        }
        // After the stripes were closed.
        let now = early.unwrap_or_else(clock);
        control.rest_until = now.saturating_add(REOPEN_DELAY);
        let used = control.reserve.saturating_sub(control.drained);
        loop {
            let snapshot = self.snapshot(now);
            if snapshot.status() == Err(Refusal::Stale) {
                return Drained::SlotExpired;
            }
            let next = snapshot.word.moved(snapshot.origin, snapshot.after_drain(used));
            if self.swap(snapshot.word, next.striped(false)) {
                return Drained::Done;
            }
        }
    }

    /// Give `n` tokens back to this thread's stripe, if it has room for them.
    #[inline]
    pub(crate) fn refund_to_stripe(&self, n: u64) -> bool {
        let Some(stripes) = self.hot.stripes.get() else { return false };
        let (stripe, is_own) = stripes.of_thread(thread_index());
        let more = |tokens: u64| {
            let most = stripes.batch.load(Ordering::Acquire);
            let own = stripe.thread_cache.load(Ordering::Relaxed) & COUNT;
            let cached = if is_own { own } else { max_cached(most) };
            let sum = (tokens & COUNT).checked_add(n)?.checked_add(cached)?;
            (is_open(tokens) && sum <= most).then(|| tokens + n)
        };
        let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
        stripe.tokens.fetch_update(new, old, more).is_ok()
    }

    /// What the stripes hold. A thread_cache is as its owner stored it a moment ago.
    pub(crate) fn tokens_in_stripes(&self) -> u64 {
        let in_stripe = |stripe: &Stripe| {
            let tokens = stripe.tokens.load(Ordering::Acquire);
            let thread_cache = stripe.thread_cache.load(Ordering::Acquire);
            let cached = if is_of(thread_cache & !BUSY, tokens & !REFILLING) {
                thread_cache & COUNT
            } else {
                0
            };
            if tokens & CLOSED == 0 { (tokens & COUNT) + cached } else { 0 }
        };
        self.hot.stripes.get().map_or(0, |stripes| stripes.each().map(in_stripe).sum())
    }
}
