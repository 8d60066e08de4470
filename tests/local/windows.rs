//! A limit of several windows: exact in each, all or nothing, whatever is done to it.

use std::time::Duration;

use crate::common::windows::{Windows, any_terms, any_windows, together};
use crate::common::{Dice, SECOND, Terms, cases, turns};
use tollgate::{Limit, ManualClock, MemoryLimiter, Permit, Recovery, Resource, TryAcquireError};

fn seeds() -> u64 {
    cases(turns(20_000, 1_500))
}

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

fn retry_after(error: TryAcquireError) -> u64 {
    let wait = error.retry_after().expect("it is exhausted");
    u64::try_from(wait.as_nanos()).expect("it fits")
}

/// The limiter and the reference, side by side.
struct Pair {
    seed: u64,
    dice: Dice,
    time: ManualClock,
    limiter: MemoryLimiter,
    api: Resource,
    exact: Windows,
    held: Vec<Permit<'static>>,
    /// What a window's level may be off by, in tokens.
    sliver: f64,
}

const INTERVAL: u64 = 3 * SECOND;

impl Pair {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let windows = any_windows(&mut dice);
        let (time, limiter) = limiter();
        let api = limiter.configure("api", Self::limit(&windows)).expect("a limit");
        let exact = Windows::new(&windows, INTERVAL);
        let mut pair =
            Self { seed, dice, time, limiter, api, exact, held: Vec::new(), sliver: 0.0 };
        pair.note(&windows);
        pair
    }

    fn limit(windows: &[Terms]) -> Limit {
        let interval = Duration::from_nanos(INTERVAL);
        let recovery = Recovery { interval, factor: 2.0, cap: true };
        together(windows).recovery(recovery).cooldown(Duration::ZERO)
    }

    fn note(&mut self, windows: &[Terms]) {
        self.sliver = windows.iter().map(|terms| terms.sliver()).fold(self.sliver, f64::max);
    }

    fn now(&self) -> u64 {
        self.time.now()
    }

    /// Up to a little more than fits.
    fn amount(&mut self) -> u64 {
        let most = self.exact.largest();
        if self.dice.roll(3) == 0 { self.dice.roll(most + 3) } else { self.dice.roll(3) }
    }

    fn advance(&mut self) {
        let now = self.now();
        let by = match self.dice.roll(4) {
            0 => self.exact.wait(1, now),
            1 => self.exact.wait(1, now).saturating_sub(1),
            2 => self.dice.roll(20 * SECOND),
            _ => 1 + self.dice.roll(100),
        };
        self.time.set(now + by.min(20 * SECOND));
    }

    /// Whether the line of each has room for what is owed and `more`, after cuts too: tests/settle.rs has
    /// deeper debts.
    #[allow(clippy::cast_precision_loss)] // small numbers
    fn has_room(&self, windows: &[Terms], more: u64) -> bool {
        let debt = self.exact.short_of(more, self.now());
        windows.iter().all(|terms| debt <= 0.4 * terms.burst as f64)
    }

    fn settle(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.dice.roll(self.held.len() as u64) as usize;
        let permit = self.held.swap_remove(index);
        let (granted, now) = (permit.tokens(), self.now());
        let mut actual = self.dice.roll(3 * granted + 2);
        if !self.has_room(&self.exact.terms(), actual.saturating_sub(granted)) {
            actual = granted;
        }
        match self.dice.roll(4) {
            0 => drop(permit),
            1 => {
                permit.refund();
                self.exact.settle(granted, 0, now);
            }
            _ => {
                permit.settle(actual);
                self.exact.settle(granted, actual, now);
            }
        }
    }

    /// Take `n`, without or with a permit, or only look.
    fn try_one(&mut self, n: u64) -> (Result<(), TryAcquireError>, bool) {
        match self.dice.roll(4) {
            0 => (self.api.peek(n), false),
            1 => (self.limiter.check_n("api", n), true),
            2 => (self.api.check_n(n), true),
            _ => {
                let permit = self.limiter.try_acquire_n("api", n);
                (permit.map(|permit| self.held.push(permit)), true)
            }
        }
    }

    /// Only what never fits is refused for good.
    fn check_denial(&self, n: u64, error: TryAcquireError) {
        let seed = self.seed;
        if let TryAcquireError::ExceedsCapacity { capacity } = error {
            let most = self.exact.largest();
            assert!(n > most && capacity == most, "seed {seed}: {error:?} of {n}, not {most}");
        }
    }
}

/// Where nothing needs rounding each decision is the reference's, and so is what each window shows
/// and how long a refusal says to wait; clocks that step back included.
#[test]
fn decides_as_exact_fractions_do() {
    for seed in 1..=seeds() {
        let mut pair = Pair::new(seed);
        for _ in 0..80 {
            match pair.dice.roll(10) {
                0..3 => pair.advance(),
                3 => pair.settle(),
                4 if pair.dice.roll(4) == 0 => {
                    let back = pair.dice.roll(3 * SECOND);
                    pair.time.set(pair.now().saturating_sub(back));
                }
                _ => {
                    let (n, now) = (pair.amount(), pair.now());
                    let (tried, takes) = pair.try_one(n);
                    let admitted = pair.exact.admit(n, now, takes);
                    assert_eq!(tried.is_ok(), admitted, "seed {seed}: {n} at {now}: {tried:?}");
                    if let Err(error) = tried {
                        pair.check_denial(n, error);
                        if n <= pair.exact.largest() {
                            let wait = pair.exact.wait(n, now);
                            assert_eq!(retry_after(error), wait, "seed {seed}: {n} at {now}");
                        }
                    }
                }
            }
            let (shown, now) = (pair.api.capacity(), pair.now());
            let each: Vec<u64> = shown.windows.iter().map(|window| window.available).collect();
            assert_eq!(each, pair.exact.available(now), "seed {seed} at {now}");
            assert_eq!(shown.available, *each.iter().min().unwrap());
        }
    }
}

/// Whatever is done to the windows, added, removed and put in another order included: never a take
/// that the reference denies, never a denial where it has more than a sliver to spare.
#[test]
fn never_early_and_at_most_a_sliver_late() {
    for seed in 1..=seeds() {
        let mut pair = Pair::new(seed);
        for _ in 0..80 {
            let now = pair.now();
            match pair.dice.roll(16) {
                0..4 => pair.advance(),
                4..6 => pair.settle(),
                6 => {
                    let mut windows = any_windows(&mut pair.dice);
                    if pair.dice.roll(2) == 0 {
                        windows = pair.exact.terms();
                        change(&mut windows, &mut pair.dice);
                    }
                    if pair.has_room(&windows, 0) {
                        pair.limiter.configure("api", Pair::limit(&windows)).expect("a limit");
                        pair.exact.reconfigure(&windows, now);
                        pair.note(&windows);
                    }
                }
                7 if pair.dice.roll(3) == 0 => {
                    let nanos = 1 + pair.dice.roll(10 * SECOND);
                    pair.api.pause_for(Duration::from_nanos(nanos));
                    pair.exact.pause(nanos, now);
                }
                8 if pair.exact.may_cut_at(now) => {
                    pair.api.announce_reduced("429");
                    pair.exact.cut(now);
                }
                9 if pair.dice.roll(20) == 0 => pair.time.set(now + pair.dice.roll(1 << 55)),
                _ => {
                    let n = pair.amount();
                    let (tried, takes) = pair.try_one(n);
                    let agreed = pair.exact.admit(n, now, false);
                    match tried {
                        Ok(()) => {
                            let short = pair.exact.short_of(n, now);
                            assert!(agreed, "seed {seed}: {n} at {now} early by {short:e}");
                            pair.exact.admit(n, now, takes);
                        }
                        Err(error) => {
                            let short = pair.exact.short_of(n, now);
                            let is_due = !pair.exact.is_paused() && short <= -4.0 * pair.sliver;
                            assert!(!is_due, "seed {seed}: {n} at {now} late by {:e}", -short);
                            pair.check_denial(n, error);
                        }
                    }
                }
            }
            let (shown, now) = (pair.api.capacity(), pair.now());
            let least = *pair.exact.available(now).iter().min().unwrap();
            assert!(shown.available <= least, "seed {seed} at {now}: {shown}, not {least}");
        }
    }
}

/// One window more, fewer, elsewhere or another.
fn change(windows: &mut Vec<Terms>, dice: &mut Dice) {
    let at = dice.roll(windows.len() as u64) as usize;
    match dice.roll(4) {
        0 if windows.len() < 4 => windows.insert(at, any_terms(dice)),
        1 if windows.len() > 1 => _ = windows.remove(at),
        2 => windows.rotate_left(at),
        _ => windows[at].burst = 1 + dice.roll(100),
    }
}

/// A refusal's time is the first nanosecond at which the same call succeeds, after whatever was done
/// before.
#[test]
fn retry_after_is_the_first_nanosecond() {
    for seed in 1..=seeds() {
        let mut pair = Pair::new(seed);
        for turn in 0..30 {
            let n = 1 + pair.dice.roll(pair.exact.largest());
            if turn % 7 == 6 {
                let mut windows = pair.exact.terms();
                change(&mut windows, &mut pair.dice);
                pair.limiter.configure("api", Pair::limit(&windows)).expect("a limit");
                pair.exact.reconfigure(&windows, pair.now());
                continue;
            }
            let Err(error) = pair.api.check_n(n) else { continue };
            let wait = retry_after(error);
            assert!(wait > 0, "seed {seed}");
            pair.time.set(pair.now() + wait - 1);
            let still = pair.limiter.try_acquire_n("api", n).map(drop);
            assert_eq!(still.map_err(retry_after), Err(1), "seed {seed}, turn {turn}");
            pair.time.set(pair.now() + 1);
            assert_eq!(pair.api.check_n(n), Ok(()), "seed {seed}, turn {turn}");
        }
    }
}

#[test]
fn a_refusal_by_one_window_costs_nothing_in_the_others() {
    let (time, limiter) = limiter();
    let limit = Limit::per_second(10).and(Limit::per_minute(15)).and(Limit::per_day(1_000));
    let api = limiter.configure("api", limit).unwrap();
    let each = || api.capacity().windows.iter().map(|window| window.available).collect::<Vec<_>>();
    api.check_n(10).unwrap();
    assert_eq!(each(), [0, 5, 990]);
    for _ in 0..100 {
        assert_eq!(retry_after(api.check().unwrap_err()), SECOND / 10);
    }
    time.advance(Duration::from_secs(1));
    // A minute's window has five and a quarter left, a second's ten.
    assert_eq!(each(), [10, 5, 990]);
    for _ in 0..100 {
        assert_eq!(retry_after(api.try_acquire_n(6).unwrap_err()), 3 * SECOND);
    }
    assert_eq!(each(), [10, 5, 990]);
    assert_eq!(api.capacity().available, 5);
    api.check_n(5).unwrap();
    assert_eq!(each(), [5, 0, 985]);
    assert_eq!(api.capacity().to_string(), {
        let first = "api: 5/10 available, 0 in-flight, window=1s";
        format!("{first}; 0/15, window=60s; 985/1000, window=86400s")
    });
}

#[test]
fn each_window_is_shown() {
    let (_, limiter) = limiter();
    let limit = Limit::per_second(8).burst(20).and(Limit::per_minute(100)).cooldown(Duration::ZERO);
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    let shown = api.capacity();
    let fields = shown.windows.iter().map(|window| {
        (window.available, window.burst, window.per_window, window.window, window.configured_burst)
    });
    let minute = Duration::from_mins(1);
    let expected = [(15, 15, 6, Duration::from_secs(1), 20), (75, 75, 75, minute, 100)];
    assert_eq!(fields.collect::<Vec<_>>(), expected);
    let first = shown.windows[0];
    assert_eq!((shown.burst, shown.per_window, shown.configured_burst), (15, 6, 20));
    assert_eq!((shown.window, shown.available), (first.window, 15));
}

#[test]
fn more_than_the_smallest_burst_never_fits() {
    let (_, limiter) = limiter();
    let limit = Limit::per_second(50).and(Limit::per_minute(60).burst(7)).and(Limit::per_day(100));
    let api = limiter.configure("api", limit).unwrap();
    for n in [8, 51, 101, u64::MAX] {
        let never = TryAcquireError::ExceedsCapacity { capacity: 7 };
        assert_eq!(api.check_n(n), Err(never));
        assert_eq!(limiter.try_acquire_all(&[("api", n)]).unwrap_err().cause, never);
    }
    assert_eq!(api.check_n(7), Ok(()));
}

/// What a day's window has counted is not forgotten when the windows are put in another order, or
/// when others come and go.
#[test]
fn a_window_goes_on_where_its_length_did() {
    let (_, limiter) = limiter();
    let (second, minute, day) = (Limit::per_second(10), Limit::per_minute(50), Limit::per_day(100));
    let api = limiter.configure("api", second.and(minute).and(day)).unwrap();
    api.check_n(10).unwrap();
    let each = || api.capacity().windows.iter().map(|window| window.available).collect::<Vec<_>>();
    for (limit, expected) in [
        (day.and(minute).and(second), vec![90, 40, 0]),
        (minute.and(day), vec![40, 90]),
        (day, vec![90]),
        (Limit::per_day(200).and(second), vec![90, 10]),
        (second.and(day).and(minute).and(Limit::per_hour(3)), vec![10, 90, 50, 3]),
        // Of another length, from what is left over.
        (Limit::per_hour(9).and(day), vec![3, 90]),
        (day, vec![90]),
    ] {
        limiter.configure("api", limit).unwrap();
        assert_eq!(each(), expected);
    }
}

/// Whichever of the windows was there when it began.
#[test]
fn a_pause_is_that_of_all_windows() {
    let (time, limiter) = limiter();
    let (second, minute) = (Limit::per_second(10), Limit::per_minute(50));
    let api = limiter.configure("api", second).unwrap();
    api.pause_for(Duration::from_secs(5));
    for limit in [second.and(minute), minute.and(second), minute] {
        time.advance(Duration::from_secs(1));
        limiter.configure("api", limit).unwrap();
        assert!(api.capacity().windows.iter().all(|window| window.available == 0));
        let wait = 5 * SECOND - time.now();
        assert_eq!(api.check().map_err(retry_after), Err(wait));
    }
    time.advance(Duration::from_secs(2));
    assert_eq!(api.check_n(50), Ok(()));
}

/// Steps of a recovery that nobody saw, before a time that is past every horizon.
#[test]
fn a_recovery_nobody_watched_fills_each_window() {
    let (time, limiter) = limiter();
    let limit = Limit::per_second(8).and(Limit::per_hour(100)).recovery(Recovery::default());
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    time.advance(Duration::from_hours(24 * 365));
    let each = api.capacity().windows.into_iter().map(|window| window.available);
    assert_eq!(each.collect::<Vec<_>>(), [8, 100]);
}

/// What is shown is of one limit, not half of the one before it.
#[test]
fn what_is_shown_is_of_one_limit() {
    let (_, limiter) = limiter();
    let (few, more) = (Limit::per_second(5), Limit::per_minute(50).and(Limit::per_day(500)));
    let api = limiter.configure("api", few).unwrap();
    let turns = cases(turns(200_000, 20_000));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..turns {
                limiter.configure("api", if turn % 2 == 0 { more } else { few }).unwrap();
            }
        });
        for _ in 0..turns {
            let shown = api.capacity();
            let each: Vec<_> =
                shown.windows.iter().map(|one| (one.burst, one.configured_burst)).collect();
            assert!(each == [(5, 5)] || each == [(50, 50), (500, 500)], "{shown:?}");
        }
    });
}

/// The first refusal after a pause is of all windows, too.
#[test]
fn a_refusal_after_a_pause_is_of_all_windows() {
    let (time, limiter) = limiter();
    let api = limiter.configure("api", Limit::per_second(1).and(Limit::per_hour(1))).unwrap();
    assert!(api.check().is_ok());
    api.pause_for(Duration::from_millis(100));
    time.advance(Duration::from_millis(100));
    let refused = api.check().unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_hours(1)));
}
