//! Several resources at once: all or nothing, in whatever order they are named, however many threads
//! ask and whatever is done to the limits meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::watchdog::Watchdog;
use crate::common::windows::{Windows, any_windows, together};
use crate::common::{Dice, SECOND, Terms, cases, turns};
use tollgate::{Limit, ManualClock, MemoryLimiter, OnRelease, Permits, TryAcquireError};

fn seeds() -> u64 {
    cases(turns(10_000, 800))
}
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

/// Names in any order, some of them several times, some for nothing.
fn any_wish(dice: &mut Dice, names: &[&'static str]) -> Vec<(&'static str, u64)> {
    let one = |dice: &mut Dice| {
        let n = if dice.roll(8) == 0 { dice.roll(30) } else { dice.roll(3) };
        (names[dice.roll(names.len() as u64) as usize], n)
    };
    (0..dice.roll(10)).map(|_| one(dice)).collect()
}

fn summed(wish: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (name, n) in wish {
        *sums.entry(*name).or_default() += n;
    }
    sums
}

/// Each decision is that of exact references that are asked one by one and taken from together.
#[test]
fn decides_as_exact_fractions_do() {
    for seed in 1..=seeds() {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (time, limiter) = limiter();
        let names = &NAMES[..=dice.roll(8) as usize];
        let mut exact = BTreeMap::new();
        for name in names {
            let windows = any_windows(&mut dice);
            limiter.configure(name, together(&windows)).expect("a limit");
            exact.insert(*name, Windows::new(&windows, SECOND));
        }
        let mut held: Vec<(Permits, BTreeMap<&str, u64>)> = Vec::new();
        for _ in 0..60 {
            let wish = any_wish(&mut dice, names);
            let (sums, now) = (summed(&wish), time.now());
            let (mut all, mut wait, mut most) = (true, 0, u64::MAX);
            for (name, n) in &sums {
                let exact = exact.get_mut(name).expect("known");
                all &= exact.admit(*n, now, false);
                wait = wait.max(if *n > 0 { exact.wait(*n, now) } else { 0 });
                most = most.min(if *n > exact.largest() { exact.largest() } else { u64::MAX });
            }
            let tried = if dice.roll(2) == 0 {
                limiter.try_acquire_all(&wish)
            } else {
                let handles: Vec<_> =
                    wish.iter().map(|(name, n)| (limiter.resource(name).unwrap(), *n)).collect();
                let wish: Vec<_> = handles.iter().map(|(handle, n)| (handle, *n)).collect();
                limiter.try_acquire_all_of(&wish)
            };
            match tried {
                Ok(permits) => {
                    assert!(all, "seed {seed}: {wish:?} at {now}");
                    let granted = permits.iter().map(|each| (each.resource(), each.tokens()));
                    assert_eq!(granted.collect::<BTreeMap<_, _>>(), sums, "seed {seed}");
                    assert_eq!(permits.iter().count(), sums.len(), "seed {seed}: twice");
                    for (name, n) in &sums {
                        exact.get_mut(name).expect("known").admit(*n, now, true);
                    }
                    held.push((permits, sums));
                }
                Err(error) => {
                    assert!(!all, "seed {seed}: {wish:?} at {now}: {error}");
                    if most < u64::MAX {
                        let never = TryAcquireError::ExceedsCapacity { capacity: most };
                        assert_eq!(error.cause, never, "seed {seed}: {wish:?}");
                    } else {
                        let wait = Some(Duration::from_nanos(wait));
                        assert_eq!(error.retry_after(), wait, "seed {seed}: {wish:?} at {now}");
                        // The resource that is named denies for as long by itself.
                        let alone = limiter.peek(&error.resource, sums[&*error.resource]);
                        assert_eq!(alone.unwrap_err().retry_after(), wait, "{}", error.resource);
                    }
                }
            }
            if dice.roll(3) == 0 && !held.is_empty() {
                let (permits, sums) = held.swap_remove(dice.roll(held.len() as u64) as usize);
                let actual = any_wish(&mut dice, names);
                let unknown = actual.iter().find(|(name, _)| permits.get(name).is_none());
                let unknown = unknown.map(|(name, _)| (*name).to_string());
                assert_eq!(permits.settle(&actual).err().map(|error| error.name), unknown);
                let actual = summed(&actual);
                for (name, granted) in sums {
                    if let Some(actual) = actual.get(name) {
                        exact.get_mut(name).unwrap().settle(granted, *actual, now);
                    }
                }
            }
            if dice.roll(2) == 0 {
                let nanos = dice.roll([10, SECOND, 20 * SECOND][(seed % 3) as usize]);
                time.advance(Duration::from_nanos(nanos));
            }
            for name in names {
                let shown = limiter.capacity(name).unwrap();
                let each: Vec<_> = shown.windows.iter().map(|window| window.available).collect();
                let expected = exact.get_mut(name).unwrap().available(time.now());
                assert_eq!(each, expected, "seed {seed}: {name} after {wish:?}");
            }
        }
        drop(held);
        assert!(limiter.resources().iter().all(|shown| shown.in_flight == 0), "seed {seed}");
    }
}

#[test]
fn names_that_are_not_there() {
    let (_, limiter) = limiter();
    let (_, elsewhere) = (0, MemoryLimiter::new());
    let a = limiter.configure("a", Limit::per_second(5)).unwrap();
    let gone = limiter.configure("gone", Limit::per_second(5)).unwrap();
    let foreign = elsewhere.configure("a", Limit::per_second(5)).unwrap();
    assert!(limiter.remove("gone"));
    let unknown = TryAcquireError::UnknownResource;
    for n in [0, 1, 9] {
        assert_eq!(limiter.try_acquire_all(&[("a", 1), ("gone", n)]).unwrap_err().cause, unknown);
        assert_eq!(limiter.try_acquire_all(&[("", n), ("a", 1)]).unwrap_err().cause, unknown);
        assert_eq!(limiter.try_acquire_all_of(&[(&a, 1), (&gone, n)]).unwrap_err().cause, unknown);
        assert_eq!(
            limiter.try_acquire_all_of(&[(&foreign, n), (&a, 1)]).unwrap_err().cause,
            unknown
        );
    }
    assert_eq!((a.capacity().available, a.capacity().in_flight), (5, 0));
    // What can never be comes before what takes time, wherever it is named.
    limiter.configure("b", Limit::per_second(3)).unwrap().check_n(3).unwrap();
    let never = TryAcquireError::ExceedsCapacity { capacity: 5 };
    assert_eq!(limiter.try_acquire_all(&[("b", 1), ("a", 6)]).unwrap_err().cause, never);
    assert_eq!(limiter.try_acquire_all(&[("a", 3), ("b", 1), ("a", 3)]).unwrap_err().cause, never);
    let halves = [("a", u64::MAX), ("a", 2)];
    assert_eq!(limiter.try_acquire_all(&halves).unwrap_err().cause, never);
    // Nothing of anything, and nothing of something.
    assert_eq!(limiter.try_acquire_all(&[]).unwrap().iter().count(), 0);
    let nothing = limiter.try_acquire_all(&[("b", 0), ("a", 0)]).unwrap();
    assert_eq!(nothing.iter().map(tollgate::Permit::tokens).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(limiter.capacity("b").unwrap().in_flight, 0);
    limiter.close();
    for wish in [[("a", 1), ("b", 1)], [("a", 0), ("b", 0)], [("a", 1), ("gone", 1)]] {
        assert_eq!(limiter.try_acquire_all(&wish).unwrap_err().cause, TryAcquireError::Closed);
    }
}

#[test]
fn a_full_flight_of_one_stops_all() {
    let (_, limiter) = limiter();
    limiter.configure("a", Limit::per_second(100)).unwrap();
    limiter.configure("b", Limit::per_second(100).max_in_flight(1)).unwrap();
    limiter.configure("c", Limit::per_second(100).max_in_flight(9)).unwrap();
    let wish = [("c", 1), ("a", 2), ("b", 3)];
    let first = limiter.try_acquire_all(&wish).unwrap();
    for _ in 0..3 {
        assert_eq!(
            limiter.try_acquire_all(&wish).unwrap_err().cause,
            TryAcquireError::TooManyInFlight
        );
    }
    let flying = |name| limiter.capacity(name).unwrap().in_flight;
    let held = |name| limiter.capacity(name).unwrap().available;
    assert_eq!(["a", "b", "c"].map(flying), [1, 1, 1]);
    assert_eq!(["a", "b", "c"].map(held), [98, 97, 99]);
    drop(first);
    assert_eq!(["a", "b", "c"].map(flying), [0, 0, 0]);
    assert!(limiter.try_acquire_all(&wish).is_ok());
}

/// What threads did with one resource: exact in the end, on a clock that stood still.
#[derive(Default)]
struct Ledger {
    taken: AtomicU64,
    given_back: AtomicU64,
    charged: AtomicU64,
}

impl Ledger {
    fn note(&self, granted: u64, actual: u64) {
        self.taken.fetch_add(granted, Ordering::Relaxed);
        self.given_back.fetch_add(granted.saturating_sub(actual), Ordering::Relaxed);
        self.charged.fetch_add(actual.saturating_sub(granted), Ordering::Relaxed);
    }
    fn spent(&self) -> u64 {
        let sum = |count: &AtomicU64| count.load(Ordering::Relaxed);
        sum(&self.taken) + sum(&self.charged) - sum(&self.given_back)
    }
}

/// One thread's share of calls of all kinds.
fn hammer(limiter: &MemoryLimiter, ledgers: &BTreeMap<&str, Ledger>, dice: &mut Dice, turns: u32) {
    for _ in 0..turns {
        let wish = any_wish(dice, &NAMES);
        if dice.roll(3) == 0 {
            let Some((name, n)) = wish.first() else { continue };
            if limiter.check_n(name, *n).is_ok() {
                ledgers[name].note(*n, *n);
            }
            continue;
        }
        let Ok(permits) = limiter.try_acquire_all(&wish) else { continue };
        match dice.roll(4) {
            0 => {
                permits.iter().for_each(|one| ledgers[one.resource()].note(one.tokens(), 0));
                permits.refund();
            }
            1 => {
                permits
                    .iter()
                    .for_each(|one| ledgers[one.resource()].note(one.tokens(), one.tokens()));
                drop(permits);
            }
            _ => {
                for one in permits.into_parts() {
                    let actual = dice.roll(2 * one.tokens() + 1);
                    ledgers[one.resource()].note(one.tokens(), actual);
                    one.settle(actual);
                }
            }
        }
    }
}

fn ledgers() -> BTreeMap<&'static str, Ledger> {
    NAMES.iter().map(|name| (*name, Ledger::default())).collect()
}

/// On a clock that stands still every token is accounted for, debts included, while windows come and go
/// beside one that stays.
#[test]
fn the_ledger_of_many_threads_balances() {
    let _watchdog = Watchdog::new();
    let (_, limiter) = limiter();
    let burst = |index: usize| if index.is_multiple_of(2) { 1 << 20 } else { 3_000 };
    let shape = |index: usize, turn: usize| {
        let terms = |tokens, window| Terms::new(tokens, window, burst(index));
        let stays = terms(1, SECOND);
        let (minute, hour) = (terms(5, 60 * SECOND), terms(1, 3_600 * SECOND));
        match turn % 5 {
            0 | 3 => together(&[stays]),
            1 => together(&[minute, stays]),
            2 => together(&[hour, minute, stays]).max_in_flight(1 << 40),
            _ => together(&[stays, hour]),
        }
    };
    for (index, name) in NAMES.iter().enumerate() {
        limiter.configure(name, shape(index, index)).expect("a limit");
    }
    let (ledgers, done) = (ledgers(), AtomicU64::new(0));
    thread::scope(|scope| {
        for seed in 1..=3 {
            let (limiter, ledgers, done) = (&limiter, &ledgers, &done);
            scope.spawn(move || {
                hammer(limiter, ledgers, &mut Dice(seed * 77_777), 3_000);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut turn = 0;
        while done.load(Ordering::Relaxed) < 3 {
            limiter.configure(NAMES[turn % 8], shape(turn % 8, turn / 8)).expect("a limit");
            turn += 1;
        }
    });
    for (index, name) in NAMES.iter().enumerate() {
        let api = limiter.configure(name, shape(index, 0)).expect("a limit");
        let (spent, burst) = (ledgers[name].spent(), burst(index));
        assert!(spent > 0);
        if spent < burst {
            assert_eq!(api.capacity().available, burst - spent, "{name}");
        } else {
            let due = api.peek(1).unwrap_err().retry_after();
            assert_eq!(due, Some(Duration::from_secs(spent + 1 - burst)), "{name}");
        }
        assert_eq!(api.capacity().in_flight, 0, "{name}");
    }
}

/// While time goes on and limits change: what was taken in each phase is at most what was held and
/// accrued, in each window, and what came back.
#[test]
fn no_phase_of_many_threads_takes_more_than_there_is() {
    let _watchdog = Watchdog::new();
    let (time, limiter) = limiter();
    let mut dice = Dice(4_242);
    let mut limits: BTreeMap<&str, Vec<Terms>> = BTreeMap::new();
    for name in NAMES {
        let windows = any_windows(&mut dice);
        limiter.configure(name, together(&windows)).expect("a limit");
        limits.insert(name, windows);
    }
    for phase in 0..40 {
        let held: Vec<Vec<u64>> = NAMES
            .iter()
            .map(|name| limiter.capacity(name).unwrap())
            .map(|shown| shown.windows.iter().map(|window| window.available).collect())
            .collect();
        let (begin, ledgers) = (time.now(), ledgers());
        thread::scope(|scope| {
            for thread in 1..=3 {
                let (limiter, ledgers) = (&limiter, &ledgers);
                let mut dice = Dice(phase * 131 + thread * 7_919);
                scope.spawn(move || hammer(limiter, ledgers, &mut dice, 60));
            }
            for _ in 0..20 {
                time.advance(Duration::from_nanos(dice.roll(SECOND / 4)));
                // The same windows in another order: each goes on as it was.
                let name = NAMES[dice.roll(8) as usize];
                let mut windows = limits[name].clone();
                let by = dice.roll(windows.len() as u64);
                windows.rotate_left(by as usize);
                if windows
                    .iter()
                    .all(|a| windows.iter().filter(|b| a.window == b.window).count() == 1)
                {
                    limiter.configure(name, together(&windows)).expect("a limit");
                }
            }
        });
        for (name, held) in NAMES.iter().zip(held) {
            limiter.configure(name, together(&limits[name])).expect("a limit");
            let ledger = &ledgers[name];
            let sum = |count: &AtomicU64| count.load(Ordering::Relaxed);
            for (terms, held) in limits[name].iter().zip(held) {
                let earned = u128::from(time.now() - begin) * u128::from(terms.tokens)
                    / u128::from(terms.window);
                let most = u128::from(held + 1 + sum(&ledger.given_back)) + earned;
                let taken = u128::from(sum(&ledger.taken));
                assert!(taken <= most, "phase {phase}, {name}: {taken} of {most} by {terms:?}");
            }
            assert_eq!(limiter.capacity(name).unwrap().in_flight, 0);
        }
    }
}

/// Permits of a limit that gives back: dropped together, all is there again.
#[test]
fn dropped_together_each_by_its_own_policy() {
    let (_, limiter) = limiter();
    limiter.configure("gives", Limit::per_hour(5).on_release(OnRelease::Refund)).unwrap();
    limiter.configure("keeps", Limit::per_hour(5)).unwrap();
    let held = |name| limiter.capacity(name).unwrap().available;
    drop(limiter.try_acquire_all(&[("keeps", 2), ("gives", 3)]).unwrap());
    assert_eq!((held("gives"), held("keeps")), (5, 3));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permits = limiter.try_acquire_all(&[("keeps", 1), ("gives", 3)]).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    assert_eq!((held("gives"), held("keeps")), (5, 2));
    limiter.try_acquire_all(&[("keeps", 1), ("gives", 3)]).unwrap().spend();
    limiter.try_acquire_all(&[("keeps", 1), ("gives", 2)]).unwrap().refund();
    assert_eq!((held("gives"), held("keeps")), (2, 1));
    limiter.try_acquire_all(&[("keeps", 1), ("gives", 2)]).unwrap().forget();
    assert_eq!((held("gives"), held("keeps")), (0, 0));
    limiter.release_n("gives", 2);
    assert_eq!((held("gives"), limiter.capacity("keeps").unwrap().in_flight), (2, 1));
}

/// Whether it has one window or several, and wherever it is named.
#[test]
fn a_refusal_is_by_whoever_takes_longest() {
    let (_, limiter) = limiter();
    let one = limiter.configure("one", Limit::per_second(5)).unwrap();
    let more = Limit::per_second(5).and(Limit::per_hour(20).burst(3));
    let more = limiter.configure("more", more).unwrap();
    one.check_n(5).unwrap();
    more.check_n(3).unwrap();
    for names in [["one", "more"], ["more", "one"]] {
        let error = limiter.try_acquire_all(&names.map(|name| (name, 1))).unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_mins(3)));
        let error = limiter.try_acquire_all(&names.map(|name| (name, 4))).unwrap_err();
        assert_eq!(error.cause, TryAcquireError::ExceedsCapacity { capacity: 3 });
    }
}

/// The last token of each, again and again: either a group or a single call gets it, without the lock
/// or with it, and no group gets half.
#[test]
fn a_race_for_the_last_token_has_one_winner() {
    let rounds = cases(15_000);
    let _watchdog = Watchdog::new();
    let (time, limiter) = limiter();
    let all =
        ["a", "b"].map(|name| limiter.configure(name, Limit::per_second(1).burst(1)).unwrap());
    // Empty, so that each second earns one, whoever is first.
    assert!(all.iter().all(|one| one.check().is_ok()));
    let taken = [AtomicU64::new(0), AtomicU64::new(0)];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if limiter.try_acquire_all_of(&[(&all[1], 1), (&all[0], 1)]).is_ok() {
                    for each in &taken {
                        each.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        for round in 0..rounds {
            time.advance(Duration::from_secs(1));
            let mine = round as usize % 2;
            while all.iter().any(|one| one.peek(1).is_ok()) {
                let granted = u64::from(all[mine].check().is_ok());
                taken[mine].fetch_add(granted, Ordering::Relaxed);
                let granted = u64::from(all[1 - mine].check().is_ok());
                taken[1 - mine].fetch_add(granted, Ordering::Relaxed);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(taken.map(AtomicU64::into_inner), [rounds; 2]);
}
