//! Prepaid batches from outside, one decision at a time: what open stripes may change, and what they
//! may not.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::watchdog::Watchdog;
use crate::common::{Change, Dice, SECOND, cases, drain, heat, manual, turns};
use crate::few_threads;
use tollgate::{Limit, ManualClock, MemoryLimiter, OnRelease, Resource, TryAcquireError};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// With open stripes at a time that stands still.
fn striped(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let (limiter, api, time) = manual(limit);
    heat(&api);
    (limiter, api, time)
}

/// However often a test takes while its time stands still: each burst after it is a whole one.
#[test]
fn a_time_that_stands_still_makes_no_bucket_hot() {
    let _few = few_threads();
    let (_, api, time) = manual(Limit::per_second(10_000));
    for _ in 0..10 {
        (0..4_000).for_each(|_| api.check().unwrap());
        time.set(time.now() + SECOND);
        api.check_n(10_000).unwrap();
        time.set(time.now() + SECOND);
    }
}

fn on_another_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// All threads together have a stash and a batch each, and then nobody comes any more.
fn take_on_threads(api: &Resource, threads: u64, each: u64) {
    for _ in 0..threads {
        on_another_thread(|| (0..each).for_each(|_| api.check().unwrap()));
    }
}

#[test]
fn an_untouched_bucket_gives_all_that_it_holds_at_once() {
    let _few = few_threads();
    let mut dice = Dice(29);
    for tokens in [1, 7, 1_000, 999_937, 15_000_007, 999_999_937] {
        for burst in [1_024, 5_000, 1_000_000] {
            for _ in 0..cases(turns(20, 5)) {
                let (_, api, time) = striped(Limit::per_second(tokens).burst(burst));
                time.set(dice.roll(10 * SECOND));
                assert_eq!(api.capacity().available, burst);
                api.check_n(burst).unwrap();
                assert!(api.check().is_err());
            }
        }
    }
}

/// What was taken from open stripes while the word was full is not made up for: an eighth at most.
#[test]
fn a_burst_after_a_rest() {
    let _few = few_threads();
    for burst in [1_024, 5_000, 1_000_000] {
        for (threads, each) in [(0, 0), (1, 1), (1, burst / 100), (20, burst / 200)] {
            let (_, api, time) = striped(Limit::per_second(1_000_003).burst(burst));
            take_on_threads(&api, threads, each);
            time.advance(HOUR);
            let all = drain(&api);
            assert!((burst - burst / 8..=burst).contains(&all), "{all} of {burst}");
            // Once closed it is full again after a rest.
            time.advance(HOUR);
            api.check_n(burst).unwrap();
        }
    }
}

#[test]
fn what_a_thread_that_stopped_has_set_apart_is_there_for_others() {
    let _few = few_threads();
    for burst in [1_024, 5_000, 1_000_000] {
        let (_, api, _) = striped(Limit::per_hour(1).burst(burst));
        thread::scope(|scope| {
            let (taken, wait) = channel();
            let (end, ends) = channel::<()>();
            let api = &api;
            scope.spawn(move || {
                (0..3).for_each(|_| api.check().unwrap());
                taken.send(()).unwrap();
                let _ = ends.recv();
            });
            wait.recv().unwrap();
            assert_eq!(api.capacity().available, burst - 3);
            assert_eq!(drain(api), burst - 3);
            drop(end);
        });
    }
}

#[test]
fn threads_that_come_and_go_lose_nothing() {
    let _few = few_threads();
    let mut dice = Dice(31);
    for burst in [1_024, 20_000, 1_000_000] {
        let (_, api, _) = striped(Limit::per_hour(1).burst(burst));
        let mut taken = 0;
        // Never below half: the stripes stay open, and stashes go from thread to thread.
        for _ in 0..200 {
            let few = dice.roll(burst / 1_024 * 2) + 1;
            taken += on_another_thread(|| (0..few).filter(|_| api.check().is_ok()).count() as u64);
            assert_eq!(api.capacity().available, burst - taken);
        }
        assert_eq!(taken + drain(&api), burst);
    }
}

/// Another thread holds a stash, somebody waits: the stash is not taken from.
#[test]
fn who_is_in_line_is_not_overtaken_from_a_stash() {
    let _few = few_threads();
    let _watchdog = Watchdog::new();
    let (_, api, time) = striped(Limit::per_hour(3_600).burst(20_000));
    api.check().unwrap();
    on_another_thread(|| api.check_n(19_000).unwrap());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| api.blocking_acquire_n(1_000, None).map(drop));
        while api.capacity().waiting == 0 {
            thread::yield_now();
        }
        assert!(api.check().is_err() && api.check_n(2).is_err() && api.try_acquire().is_err());
        assert!(on_another_thread(|| api.check().is_err()));
        time.advance(Duration::from_secs(1));
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(drain(&api), 0);
}

#[test]
fn who_waits_has_what_is_in_stripes_at_once() {
    let _few = few_threads();
    let (_, api, _) = striped(Limit::per_hour(1).burst(20_000));
    take_on_threads(&api, 4, 10);
    assert!(api.check_n(19_961).is_err());
    heat(&api);
    // More than is in the word; the clock stands still, so that nobody could wait for more.
    api.blocking_until_ready_n(19_960, Some(Duration::ZERO)).unwrap();
    assert!(api.check().is_err());
}

/// Each takes effect at once, whatever this thread has set apart.
#[test]
fn a_change_ends_what_was_set_apart() {
    let _few = few_threads();
    let limit = Limit::per_hour(20_000);
    let changes: [(Change, u64); 5] = [
        (|_, api| api.pause_for(Duration::from_secs(1)), 0),
        (|limiter, _| drop(limiter.configure("api", Limit::per_hour(10)).unwrap()), 10),
        (|limiter, _| drop(limiter.configure("api", Limit::per_hour(1_500)).unwrap()), 1_500),
        (|limiter, _| limiter.close(), 0),
        (|limiter, _| assert!(limiter.remove("api")), 0),
    ];
    for (change, left) in changes {
        let (limiter, api, _) = striped(limit);
        take_on_threads(&api, 4, 3);
        api.check().unwrap();
        on_another_thread(|| change(&limiter, &api));
        assert_eq!(drain(&api), left);
    }
    // To three quarters, of what was held.
    let (_, api, _) = striped(limit);
    api.check().unwrap();
    on_another_thread(|| api.announce_reduced("429"));
    let total = api.capacity().burst;
    assert!(total < 15_001);
    assert_eq!(drain(&api), total);
}

/// A debt delays whoever comes next, also where this thread has tokens set apart.
#[test]
fn a_debt_is_everybodys() {
    let _few = few_threads();
    let (_, api, time) = striped(Limit::per_hour(3_600).burst(20_000));
    api.check().unwrap();
    api.try_acquire().unwrap().settle(20_100);
    assert_eq!(api.capacity().available, 0);
    assert_eq!(drain(&api), 0);
    time.advance(Duration::from_secs(101));
    assert!(api.check().is_err());
    time.advance(Duration::from_secs(1));
    assert_eq!(drain(&api), 1);
}

#[test]
fn permits_and_their_tokens_come_back() {
    let _few = few_threads();
    for burst in [1_024, 5_000, 1_000_000] {
        let (_, api, _) = striped(Limit::per_hour(burst).on_release(OnRelease::Refund));
        let mut dice = Dice(37);
        let mut held = Vec::new();
        for _ in 0..20_000 {
            match dice.roll(3) {
                0 => drop(
                    (!held.is_empty())
                        .then(|| held.swap_remove(dice.roll(held.len() as u64) as usize)),
                ),
                1 => held.extend(api.try_acquire().map(tollgate::Permit::into_owned)),
                _ => held.extend(
                    api.try_acquire_n(1 + dice.roll(burst / 64)).map(tollgate::Permit::into_owned),
                ),
            }
            let sum: u64 = held.iter().map(tollgate::Permit::tokens).sum();
            assert_eq!(api.capacity().available, burst - sum);
            assert_eq!(api.capacity().in_flight, held.len() as u64);
        }
        on_another_thread(|| held.clear());
        assert_eq!((api.capacity().available, api.capacity().in_flight), (burst, 0));
        api.check_n(burst).unwrap();
    }
}

/// A bound that comes while stripes count permits: those in flight count.
#[test]
fn a_bound_on_permits_that_comes_late() {
    let _few = few_threads();
    let limit = Limit::per_hour(20_000);
    let (limiter, api, _) = striped(limit);
    let mut held: Vec<_> = (0..5).map(|_| api.try_acquire().unwrap().into_owned()).collect();
    on_another_thread(|| held.extend((0..5).map(|_| api.try_acquire().unwrap().into_owned())));
    limiter.configure("api", limit.max_in_flight(11)).unwrap();
    held.push(api.try_acquire().unwrap().into_owned());
    let full = |api: &Resource| matches!(api.try_acquire(), Err(TryAcquireError::TooManyInFlight));
    assert!(full(&api) && on_another_thread(|| full(&api)));
    for left in (0..11).rev() {
        let one = held.swap_remove(0);
        if left % 2 == 0 {
            on_another_thread(|| drop(one));
        } else {
            drop(one);
        }
        assert_eq!(api.capacity().in_flight, left);
        let again: Vec<_> =
            std::iter::repeat_with(|| api.try_acquire()).take_while(Result::is_ok).collect();
        assert_eq!(again.len() as u64, 11 - left);
    }
}
