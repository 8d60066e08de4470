//! Shared by the suites: a plain reference limiter, both limiters behind one trait, and the
//! contract as a check of a log of admissions.

#![allow(dead_code, unused_imports, unused_macros)] // each suite uses its part

pub(crate) mod any;
#[cfg(feature = "swarm")]
pub(crate) mod bus;
pub(crate) mod keys;
#[cfg(feature = "swarm")]
pub(crate) mod part_two;
#[cfg(feature = "swarm")]
pub(crate) mod swarm;
pub(crate) mod watchdog;
pub(crate) mod windows;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, Permit, Resource};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const DAY: u64 = 86_400 * SECOND;

/// Debug builds take fewer turns of what only repeats.
pub(crate) const fn turns(release: u64, debug: u64) -> u64 {
    if cfg!(debug_assertions) { debug } else { release }
}

/// `n` cases of what is random, or as many times more as the environment's `TOLLGATE_CASES` says.
pub(crate) fn cases(n: u64) -> u64 {
    static TIMES: OnceLock<u64> = OnceLock::new();
    n * TIMES.get_or_init(|| number("TOLLGATE_CASES").unwrap_or(1))
}

/// A number from the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// `tokens` every `window` nanoseconds, and a bucket of `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) tokens: u64,
    pub(crate) window: u64,
    pub(crate) burst: u64,
}

impl Terms {
    pub(crate) const fn new(tokens: u64, window: u64, burst: u64) -> Self {
        Self { tokens, window, burst }
    }

    pub(crate) const fn per_second(n: u64) -> Self {
        Self::new(n, SECOND, n)
    }

    pub(crate) const fn burst(self, burst: u64) -> Self {
        Self { burst, ..self }
    }

    /// Each announcement cuts, for good, as in the reference.
    pub(crate) fn limit(self) -> Limit {
        Limit::new(self.tokens, Duration::from_nanos(self.window))
            .burst(self.burst)
            .cooldown(Duration::ZERO)
            .no_recovery()
    }

    /// When the k-th token after an empty bucket is due: `ceil(k x window / tokens)`, which may be never.
    pub(crate) fn due(self, k: u64) -> u64 {
        let exact = u128::from(k) * u128::from(self.window);
        u64::try_from(exact.div_ceil(u128::from(self.tokens))).unwrap_or(u64::MAX)
    }

    /// What a bucket's state may be off by against the exact fraction, in tokens: a unit, of which
    /// 2^54 hold an hour's accrual and twice the capacity.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn sliver(self) -> f64 {
        let hourly = self.tokens as f64 * 3.6e12 / self.window as f64;
        hourly.max(2.0 * self.burst as f64).max(1.0) / 53_f64.exp2()
    }
}

/// One resource of a limiter on a clock that the test moves.
pub(crate) trait Gate: Sync {
    fn clock(&self) -> &ManualClock;
    /// Take n tokens, all or none.
    fn take(&self, n: u64) -> bool;
    /// The same, and hold them.
    fn hold(&self, n: u64) -> bool;
    /// Give back what was held last, if anything is.
    fn refund(&self);
    fn reconfigure(&self, terms: Terms);
    fn pause(&self, nanos: u64);
    /// Down to three quarters.
    fn cut(&self);
    /// The upstream says that n are left.
    fn observe(&self, n: u64);
    fn peek(&self, n: u64) -> bool;
    fn available(&self) -> u64;

    fn advance(&self, nanos: u64) {
        self.clock().advance(Duration::from_nanos(nanos));
    }
    fn now(&self) -> u64 {
        self.clock().now()
    }
    /// As many single tokens as there are, at most `most`.
    fn drain(&self, most: u64) -> u64 {
        (0..most).take_while(|_| self.take(1)).count() as u64
    }
}

/// tollgate by a handle.
pub(crate) struct ByHandle {
    clock: ManualClock,
    limiter: MemoryLimiter,
    pub(crate) resource: Resource,
    held: Mutex<Vec<Permit<'static>>>,
}

const NAME: &str = "api";

impl ByHandle {
    pub(crate) fn new(terms: Terms) -> Self {
        let clock = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(clock.clone());
        let resource = limiter.configure(NAME, terms.limit()).expect("a limit");
        Self { clock, limiter, resource, held: Mutex::default() }
    }
}

impl Gate for ByHandle {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn take(&self, n: u64) -> bool {
        self.resource.check_n(n).is_ok()
    }
    fn hold(&self, n: u64) -> bool {
        let Ok(permit) = self.resource.try_acquire_n(n) else { return false };
        self.held.lock().unwrap().push(permit.into_owned());
        true
    }
    fn refund(&self) {
        let permit = self.held.lock().unwrap().pop();
        permit.map(Permit::refund).unwrap_or_default();
    }
    fn reconfigure(&self, terms: Terms) {
        self.limiter.configure(NAME, terms.limit()).expect("a limit");
    }
    fn pause(&self, nanos: u64) {
        self.resource.pause_for(Duration::from_nanos(nanos));
    }
    fn cut(&self) {
        self.resource.announce_reduced("429");
    }
    fn observe(&self, n: u64) {
        self.resource.observe_remaining(n);
    }
    fn peek(&self, n: u64) -> bool {
        self.resource.peek(n).is_ok()
    }
    fn available(&self) -> u64 {
        self.resource.capacity().available
    }
}

/// The same with stripes that are open wherever they may be: a bucket that is in great demand, and then
/// asked by one thread.
pub(crate) struct Striped(ByHandle);

impl Striped {
    pub(crate) fn new(terms: Terms) -> Self {
        let gate = ByHandle::new(terms);
        // A smaller one has none.
        if terms.burst >= 1_024 {
            heat(&gate.resource);
        }
        Self(gate)
    }

    fn api(&self) -> &ByHandle {
        // Now and then. A full bucket that is taken from keeps a fraction of a unit less; and one that is
        // less than half full opens no stripes.
        if self.now() > 0 && self.now().is_multiple_of(1 << 10) {
            let capacity = self.0.resource.capacity();
            let is_large = capacity.burst >= 1_024;
            if is_large && (capacity.burst / 2..capacity.burst).contains(&capacity.available) {
                heat(&self.0.resource);
            }
        }
        &self.0
    }
}

impl Gate for Striped {
    fn clock(&self) -> &ManualClock {
        self.0.clock()
    }
    fn take(&self, n: u64) -> bool {
        self.api().take(n)
    }
    fn hold(&self, n: u64) -> bool {
        self.api().hold(n)
    }
    fn refund(&self) {
        self.api().refund();
    }
    fn reconfigure(&self, terms: Terms) {
        self.api().reconfigure(terms);
    }
    fn pause(&self, nanos: u64) {
        self.api().pause(nanos);
    }
    fn cut(&self) {
        self.api().cut();
    }
    fn observe(&self, n: u64) {
        self.api().observe(n);
    }
    fn peek(&self, n: u64) -> bool {
        self.api().peek(n)
    }
    fn available(&self) -> u64 {
        self.0.available()
    }
}

/// What ends what was set apart.
pub(crate) type Change = fn(&MemoryLimiter, &Resource);

/// A limit on a clock that the test moves.
pub(crate) fn manual(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", limit).unwrap();
    (limiter, api, time)
}

/// All that there is, token by token.
pub(crate) fn drain(api: &Resource) -> u64 {
    std::iter::repeat_with(|| api.check()).take_while(Result::is_ok).count() as u64
}

/// What opens the stripes of a bucket of 1,024 or more that is half full: two threads that contend for it,
/// each until both have had their turns, however late one of them gets to run. Nothing is gone after it.
pub(crate) fn heat(resource: &Resource) {
    const TURNS: u64 = 2_000;
    let (both, done) = (Barrier::new(2), AtomicU64::new(0));
    let contend = || {
        both.wait();
        let mut turn = 0;
        while turn < TURNS || done.load(Ordering::Relaxed) < 2 {
            let Ok(permit) = resource.try_acquire() else {
                done.fetch_add(2, Ordering::Relaxed);
                return;
            };
            permit.refund();
            turn += 1;
            if turn == TURNS {
                done.fetch_add(1, Ordering::Relaxed);
            } else if turn > TURNS {
                std::thread::yield_now(); // the other one may have no processor
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(contend);
        contend();
    });
}

/// tollgate by name.
pub(crate) struct ByName(ByHandle);

impl ByName {
    pub(crate) fn new(terms: Terms) -> Self {
        Self(ByHandle::new(terms))
    }
}

impl Gate for ByName {
    fn clock(&self) -> &ManualClock {
        &self.0.clock
    }
    fn take(&self, n: u64) -> bool {
        self.0.limiter.check_n(NAME, n).is_ok()
    }
    fn hold(&self, n: u64) -> bool {
        let Ok(permit) = self.0.limiter.try_acquire_n(NAME, n) else { return false };
        self.0.held.lock().unwrap().push(permit);
        true
    }
    fn refund(&self) {
        self.0.refund();
    }
    fn reconfigure(&self, terms: Terms) {
        self.0.reconfigure(terms);
    }
    fn pause(&self, nanos: u64) {
        self.0.limiter.pause_for(NAME, Duration::from_nanos(nanos));
    }
    fn cut(&self) {
        self.0.limiter.announce_reduced(NAME, "429");
    }
    fn observe(&self, n: u64) {
        self.0.limiter.observe_remaining(NAME, n);
    }
    fn peek(&self, n: u64) -> bool {
        self.0.limiter.peek(NAME, n).is_ok()
    }
    fn available(&self) -> u64 {
        self.0.limiter.capacity(NAME).expect("it was added").available
    }
}

/// The reference: a mutex around a level that is an exact fraction of a token.
///
/// It counts in grains, of which a token has so many that every rate that was ever set accrues a
/// whole number of them in each nanosecond.
pub(crate) struct MutexBucket {
    clock: ManualClock,
    state: Mutex<Exact>,
}

#[derive(Clone, Debug)]
pub(crate) struct Exact {
    grains: i128,
    terms: Terms,
    /// Grains that accrue in a nanosecond, and that a full bucket holds.
    each: i128,
    capacity: i128,
    /// Parts in 2^20.
    factor: f64,
    anchor: u64,
    paused: bool,
    /// Spent, counted like the accrual from the anchor.
    spent: i128,
    /// Take the latest reading that was seen for one that is behind it.
    monotonic: Option<u64>,
    held: Vec<u64>,
}

const PARTS: i128 = 1 << 20;

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Exact {
    fn parts(&self) -> i128 {
        #[allow(clippy::cast_possible_truncation)]
        let parts = (self.factor * 1_048_576.0 + 1e-6) as i128;
        parts.max(1)
    }
    /// `grains` that a rate and a capacity need.
    fn need(&self) -> i128 {
        let (scaled, per) = self.fraction();
        let per = per / gcd(scaled, per);
        let least = PARTS / gcd(self.held_parts(), PARTS);
        per / gcd(per, least) * least
    }
    fn fraction(&self) -> (i128, i128) {
        let scaled = (i128::from(self.terms.tokens) * self.parts()).max(PARTS);
        (scaled, i128::from(self.terms.window) * PARTS)
    }
    fn held_parts(&self) -> i128 {
        (i128::from(self.terms.burst) * self.parts()).max(PARTS)
    }
    fn accrued(&self, now: u64) -> i128 {
        let elapsed = i128::from(now.saturating_sub(self.anchor));
        elapsed.checked_mul(self.each).map_or(i128::MAX / 8, |grains| grains.min(i128::MAX / 8))
    }
    /// Make grains fine enough for the terms and the factor as they are now.
    fn refine(&mut self) {
        let need = self.need();
        let by = need / gcd(self.grains, need);
        self.grains = self.grains.checked_mul(by).expect("the test's fractions fit");
        let (scaled, per) = self.fraction();
        let common = gcd(scaled, per);
        self.each = scaled / common * (self.grains / (per / common));
        let held = self.held_parts();
        let common = gcd(held, PARTS);
        self.capacity = held / common * (self.grains / (PARTS / common));
    }
    /// What is held now: at most the capacity, negative in debt.
    fn level(&self, now: u64) -> i128 {
        self.capacity - (self.spent - self.accrued(now)).max(0)
    }
    /// Another rate or capacity from `now` on, or a pause until `then`.
    fn swing(&mut self, now: u64, then: u64, change: impl FnOnce(&mut Self)) {
        let (level, before) = (self.level(now), self.grains);
        let paused = self.paused || then > now;
        self.anchor = now.max(self.anchor).max(then);
        self.paused = paused && self.anchor > now;
        self.spent = 0;
        change(self);
        self.refine();
        let level = level * (self.grains / before);
        self.spent = (self.capacity - level).max(0);
    }
    fn admit(&mut self, n: u64, now: u64, take: bool) -> bool {
        let base = self.spent.max(self.accrued(now));
        let next = base + i128::from(n) * self.grains;
        let fits = !self.paused && next <= self.accrued(now) + self.capacity;
        if fits && take {
            self.spent = next;
        }
        fits || n == 0
    }
    /// How many tokens a take of n is short of, or has to spare if negative.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn short_of(&self, n: u64, now: u64) -> f64 {
        (i128::from(n) * self.grains - self.level(now)) as f64 / self.grains as f64
    }
}

impl MutexBucket {
    pub(crate) fn new(terms: Terms) -> Self {
        let mut state = Exact {
            grains: 1,
            terms,
            each: 0,
            capacity: 0,
            factor: 1.0,
            anchor: 0,
            paused: false,
            spent: 0,
            monotonic: None,
            held: Vec::new(),
        };
        state.refine();
        Self { clock: ManualClock::new(), state: Mutex::new(state) }
    }

    /// One for which the clock never steps back: nobody is admitted earlier than by this one.
    pub(crate) fn monotonic(terms: Terms) -> Self {
        let bucket = Self::new(terms);
        bucket.state.lock().unwrap().monotonic = Some(0);
        bucket
    }

    /// The state, with a pause that is over ended, and the reading to go by.
    pub(crate) fn look(&self) -> (MutexGuard<'_, Exact>, u64) {
        let mut state = self.state.lock().unwrap();
        let mut now = self.clock.now();
        if let Some(seen) = state.monotonic {
            now = now.max(seen);
            state.monotonic = Some(now);
        }
        if state.paused && now >= state.anchor {
            state.paused = false;
        }
        if state.accrued(now) == i128::MAX / 8 {
            // More than any bucket holds: full, and counted from here.
            (state.anchor, state.spent) = (now, 0);
        }
        (state, now)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.look().0.paused
    }
}

impl Gate for MutexBucket {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn take(&self, n: u64) -> bool {
        let (mut state, now) = self.look();
        state.admit(n, now, true)
    }
    fn hold(&self, n: u64) -> bool {
        let (mut state, now) = self.look();
        let held = state.admit(n, now, true);
        if held && n > 0 {
            state.held.push(n);
        }
        held
    }
    fn refund(&self) {
        let (mut state, now) = self.look();
        if let Some(n) = state.held.pop() {
            // What is full stays as it is; short of the accrual is full, whatever the distance.
            if state.spent > state.accrued(now) {
                state.spent = (state.spent - i128::from(n) * state.grains).max(0);
            }
        }
    }
    fn reconfigure(&self, terms: Terms) {
        let (mut state, now) = self.look();
        state.swing(now, 0, |state| state.terms = terms);
    }
    fn pause(&self, nanos: u64) {
        let (mut state, now) = self.look();
        if nanos > 0 {
            // A pause counts from the clock as it reads, stepped back or not.
            state.swing(now, self.now().saturating_add(nanos), |_| {});
        }
    }
    #[allow(clippy::cast_precision_loss)]
    fn cut(&self) {
        let (mut state, now) = self.look();
        let least = (1.0 / state.terms.tokens as f64).min(state.factor);
        let factor = (state.factor * 0.75).max(least);
        if factor < state.factor {
            state.swing(now, 0, |state| state.factor = factor);
        }
    }
    fn observe(&self, n: u64) {
        let (mut state, now) = self.look();
        let spent = state.capacity - i128::from(n) * state.grains;
        if spent > 0 {
            state.spent = state.spent.max(state.accrued(now) + spent);
        }
    }
    fn peek(&self, n: u64) -> bool {
        let (mut state, now) = self.look();
        state.admit(n, now, false)
    }
    fn available(&self) -> u64 {
        let (state, now) = self.look();
        if state.paused {
            return 0;
        }
        u64::try_from(state.level(now).max(0) / state.grains).expect("below 2^52")
    }
}

/// The contract, checked from a log: for any admissions i..j in their order,
/// `sum n <= burst + rate x (t_j - t_i)`, in whole numbers, and without keeping the log.
#[derive(Debug)]
pub(crate) struct Log {
    terms: Terms,
    admitted: i128,
    /// The least of `admitted before i - rate x t_i`, times the window.
    lowest: i128,
}

impl Log {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, admitted: 0, lowest: i128::MAX }
    }

    pub(crate) fn admit(&mut self, at: u64, n: u64) {
        let (tokens, window) = (i128::from(self.terms.tokens), i128::from(self.terms.window));
        let earned = tokens * i128::from(at);
        self.lowest = self.lowest.min(self.admitted * window - earned);
        self.admitted += i128::from(n);
        let most = i128::from(self.terms.burst) * window;
        let run = self.admitted * window - earned - self.lowest;
        assert!(run <= most, "{run} > {most} at {at}: over the bound of {:?}", self.terms);
    }

    pub(crate) fn admitted(&self) -> u64 {
        u64::try_from(self.admitted).expect("it only grows")
    }
}

/// A small generator (xorshift*), so that each run is the same.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below.max(1)
    }
}
