//! The stripes of a hot bucket as a data structure. What they are for, and the argument, is in
//! [`stripes`](super::stripes).

use crossbeam_utils::CachePadded;

use super::batch::{STRIPES, cache_size};
use super::counter::InFlightCounter;
use crate::counts::Prepaid;
use crate::sync::{
    AtomicU64, Mutex, Ordering, has_barrier, heavy_barrier, light_barrier, thread_index,
};

// A stripe's tokens and a cache: an epoch, above flags, above a count.
pub(super) const COUNT: u64 = FLAG - 1;
const FLAG: u64 = 1 << 22;
/// Of a stripe: a filler holds it.
pub(super) const REFILLING: u64 = FLAG;
/// Of a cache: a take is in progress.
pub(super) const BUSY: u64 = FLAG;
/// Of a stripe.
pub(super) const CLOSED: u64 = FLAG << 1;
const EPOCH: u64 = CLOSED << 1;

#[derive(Debug)]
pub(super) struct Stripes {
    all: [CachePadded<Stripe>; STRIPES],
    /// The most that a stripe holds in this epoch. Valid if read after the stripe was found open.
    pub(super) batch: AtomicU64,
    pub(super) control: Mutex<StripeControl>,
    pub(super) prepaid: Prepaid,
}

/// The state of opening and draining.
#[derive(Debug, Default)]
pub(super) struct StripeControl {
    /// The present epoch, or the last one.
    epoch: u64,
    /// Tokens that were reserved in it.
    pub(super) reserve: u64,
    /// Tokens that were found in stripes while they are being drained.
    pub(super) drained: u64,
    /// The stripes whose tokens and cache are drained.
    is_drained: [bool; STRIPES],
    /// Caches as a closer last found them, each with its epoch: it counted what they held, and charged busy
    /// ones for the take in progress. Their owners ask later, maybe after the stripes were opened again.
    seen: [Option<u64>; STRIPES],
    pub(super) reopen_at: u64,
}

#[derive(Debug)]
pub(super) struct Stripe {
    /// What is left of the batch, or why it cannot be taken.
    pub(super) tokens: AtomicU64,
    /// The cache of the owner, which is the thread of the same index. Written by that thread alone.
    pub(super) cache: AtomicU64,
    pub(super) in_flight: InFlightCounter,
}

impl StripeControl {
    /// Starts the next epoch, in which each stripe reserves `batch`, and returns it.
    pub(super) fn begin_epoch(&mut self, batch: u64) -> u64 {
        let epoch = self.epoch.wrapping_add(EPOCH);
        // What was seen of a cache stays: its owner may still ask.
        let Self { seen, reopen_at, .. } = *self;
        let reserve = STRIPES as u64 * batch;
        *self = Self { epoch, reserve, seen, reopen_at, ..Self::default() };
        epoch
    }

    pub(super) fn is_drained(&self) -> bool {
        self.is_drained.iter().all(|is_drained| *is_drained)
    }
}

impl Stripe {
    /// Takes `n` of the tokens that all threads may take.
    #[inline]
    pub(super) fn try_take(&self, n: u64) -> bool {
        let less = |tokens: u64| (is_open(tokens) && n <= tokens & COUNT).then(|| tokens - n);
        self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

#[inline]
pub(super) fn is_open(tokens: u64) -> bool {
    tokens & (CLOSED | REFILLING) == 0
}

/// Whether a cache is of the epoch of its stripe, which is open or being refilled.
#[inline]
pub(super) fn is_current(cache: u64, tokens: u64) -> bool {
    cache ^ tokens < CLOSED
}

/// The most that a cache holds; 0 where no closer could drain it.
pub(super) fn max_cached(batch: u64) -> u64 {
    if has_barrier() { cache_size(batch) } else { 0 }
}

impl Stripes {
    pub(super) fn new() -> Self {
        let stripe = |_| {
            CachePadded::new(Stripe {
                tokens: AtomicU64::new(CLOSED),
                cache: AtomicU64::new(0),
                in_flight: InFlightCounter::default(),
            })
        };
        Self {
            all: std::array::from_fn(stripe),
            batch: AtomicU64::new(0),
            control: Mutex::new(StripeControl::default()),
            prepaid: Prepaid::default(),
        }
    }

    /// What tells one epoch from another, and whether stripe 0 is open.
    #[cfg(any(feature = "metrics", loom))]
    pub(super) fn epoch(&self) -> u64 {
        self.all[0].tokens.load(Ordering::Acquire) & !(COUNT | REFILLING)
    }

    /// The tokens in all stripes and caches, and in closed stripes what a filler has returned.
    pub(super) fn held(&self) -> u64 {
        let in_stripe = |stripe: &Stripe| {
            let tokens = stripe.tokens.load(Ordering::Acquire);
            let cache = stripe.cache.load(Ordering::Acquire);
            let is_current = is_current(cache & !BUSY, tokens & !REFILLING);
            (tokens & COUNT) + if is_current { cache & COUNT } else { 0 }
        };
        self.each().map(in_stripe).sum()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &Stripe> {
        self.all.iter().map(|stripe| &**stripe)
    }

    pub(super) fn at(&self, index: usize) -> &Stripe {
        &self.all[index]
    }

    /// The stripe that the thread of this index owns.
    #[inline]
    pub(super) fn owned(&self, thread: usize) -> Option<&Stripe> {
        self.all.get(thread).map(|stripe| &**stripe)
    }

    /// The stripe that the thread of this index uses, and whether it owns it.
    #[inline]
    pub(super) fn of_thread(&self, thread: usize) -> (&Stripe, bool) {
        (&self.all[thread % STRIPES], thread < STRIPES)
    }

    /// Takes one token from this thread's cache.
    #[inline]
    pub(super) fn take_cached(&self) -> bool {
        let thread = thread_index();
        self.owned(thread).is_some_and(|stripe| self.take_from_cache(stripe, thread))
    }

    /// The same, by a thread that owns this stripe.
    #[inline]
    pub(super) fn take_from_cache(&self, stripe: &Stripe, thread: usize) -> bool {
        let cache = stripe.cache.load(Ordering::Relaxed); // written by this thread alone
        if cache & COUNT == 0 {
            return false;
        }
        // Release: a closer that charges for this take reads a clock that is no older than it.
        stripe.cache.store(cache | BUSY, Ordering::Release);
        light_barrier();
        if is_current(cache, stripe.tokens.load(Ordering::Acquire)) {
            stripe.cache.store(cache - 1, Ordering::Release);
            return true;
        }
        stripe.cache.store(cache, Ordering::Release);
        self.resolve_closed(thread, cache)
    }

    /// Gives one token back to this thread's cache, if that has room.
    #[inline]
    pub(super) fn give_cached(&self) -> bool {
        let thread = thread_index();
        let Some(stripe) = self.owned(thread) else { return false };
        let cache = stripe.cache.load(Ordering::Relaxed); // written by this thread alone
        let (tokens, held) = (stripe.tokens.load(Ordering::Acquire), (cache & COUNT) + 1);
        let batch = self.batch.load(Ordering::Acquire);
        // Others keep what they put into the stripe below a batch less a full cache.
        let has_room = (tokens & COUNT) + held <= batch && held <= max_cached(batch);
        if !has_room || !is_current(cache, tokens) {
            return false;
        }
        stripe.cache.store(cache + 1, Ordering::Release);
        light_barrier();
        is_current(cache, stripe.tokens.load(Ordering::Acquire))
            || self.resolve_closed_give(thread, cache + 1)
    }

    /// Gives `n` tokens to what all threads may take of a stripe, this thread's first, if one has room.
    #[inline(never)]
    pub(super) fn give(&self, n: u64) -> bool {
        let thread = thread_index();
        (0..STRIPES).any(|i| {
            let index = (thread + i) % STRIPES;
            let stripe = self.at(index);
            let more = |tokens: u64| {
                let batch = self.batch.load(Ordering::Acquire);
                let sum = (tokens & COUNT).checked_add(n)?;
                let is_within = sum.checked_add(self.reserved(index, thread, batch))? <= batch;
                (is_open(tokens) && is_within).then(|| tokens + n)
            };
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            stripe.tokens.fetch_update(new, old, more).is_ok()
        })
    }

    /// What the cache of a stripe holds, or may hold if it is not this thread's.
    fn reserved(&self, index: usize, thread: usize, batch: u64) -> u64 {
        let own = || self.at(index).cache.load(Ordering::Relaxed) & COUNT; // written by this thread alone
        if index == thread { own() } else { max_cached(batch) }
    }

    pub(super) fn are_full(&self) -> bool {
        let thread = thread_index();
        self.each().enumerate().all(|(index, stripe)| {
            let tokens = stripe.tokens.load(Ordering::Acquire);
            let batch = self.batch.load(Ordering::Acquire);
            let own = if index == thread { self.reserved(index, thread, batch) } else { 0 };
            is_open(tokens) && (tokens & COUNT) + own == batch
        })
    }

    /// This thread's stripe was closed while it gave to its cache, which is `cache` now. Returns whether the
    /// closer counted the token.
    #[cold]
    #[inline(never)]
    fn resolve_closed_give(&self, thread: usize, cache: u64) -> bool {
        let control = self.control.lock();
        if control.epoch == cache & !COUNT && !control.is_drained[thread] {
            return true; // the closer has yet to read the cache
        }
        self.all[thread].cache.store(0, Ordering::Release);
        control.seen[thread] == Some(cache)
    }

    /// This thread's stripe was closed while it tried to take from its cache. Returns whether the closer
    /// charged for that take, so that this thread has the token.
    #[cold]
    #[inline(never)]
    fn resolve_closed(&self, thread: usize, cache: u64) -> bool {
        let mut control = self.control.lock();
        if control.epoch == cache & !COUNT && !control.is_drained[thread] {
            return false; // the closer has yet to read the cache
        }
        self.all[thread].cache.store(0, Ordering::Release);
        control.seen[thread].take_if(|seen| *seen == cache | BUSY).is_some()
    }

    /// Closes all stripes and counts what they hold. Returns whether all are drained: not while one is
    /// being refilled.
    pub(super) fn close(&self, control: &mut StripeControl) -> bool {
        let mut is_closed = [false; STRIPES];
        let mut is_complete = true;
        for (i, stripe) in self.each().enumerate().filter(|(i, _)| !control.is_drained[*i]) {
            let close = |tokens: u64| Some((tokens | CLOSED) & !COUNT);
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            let before = stripe.tokens.fetch_update(new, old, close).unwrap_or(0);
            control.drained += before & COUNT;
            is_closed[i] = before & REFILLING == 0;
            is_complete &= is_closed[i];
        }
        if is_closed.contains(&true) && max_cached(self.batch.load(Ordering::Acquire)) > 0 {
            // Without a barrier the caches are unknown, and count as taken.
            let is_known = heavy_barrier();
            for (i, stripe) in self.each().enumerate().filter(|(i, _)| is_closed[*i] && is_known) {
                let cache = stripe.cache.load(Ordering::Acquire);
                let is_busy = cache & BUSY != 0;
                if control.epoch == cache & !(COUNT | BUSY) {
                    control.drained += (cache & COUNT) - u64::from(is_busy);
                    control.seen[i] = Some(cache);
                }
            }
        }
        for (is_drained, is_closed) in control.is_drained.iter_mut().zip(is_closed) {
            *is_drained |= is_closed;
        }
        is_complete
    }
}
