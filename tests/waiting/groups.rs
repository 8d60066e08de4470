//! Waiting for several resources at once: nothing is held meanwhile, nobody is overtaken, nobody starves,
//! and nobody waits for ever.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::common::Dice;
use crate::common::watchdog::Watchdog;
use tollgate::{
    AcquireAll, AcquireAllError, AcquireError, Limit, ManualClock, MemoryLimiter, OnRelease,
    Resource, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

/// Resources `a`, `b` and `c` of one limit, all of them empty.
fn exhausted(limit: Limit) -> (ManualClock, MemoryLimiter, [Resource; 3]) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resources = ["a", "b", "c"].map(|name| {
        let resource = limiter.configure(name, limit).expect("a limit");
        resource.check_n(resource.capacity().available).expect("full");
        resource
    });
    (time, limiter, resources)
}

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn is_waiting<T, E: Display, F: Future<Output = Result<T, E>>>(future: &mut Pin<Box<F>>) -> bool {
    match poll(future) {
        Poll::Pending => true,
        Poll::Ready(Ok(_)) => false,
        Poll::Ready(Err(error)) => panic!("{error}"),
    }
}

/// A group that has joined the lines.
fn group(limiter: &MemoryLimiter, wish: &[(&str, u64)]) -> Pin<Box<AcquireAll>> {
    let mut group = Box::pin(limiter.acquire_all(wish));
    assert!(is_waiting(&mut group), "{wish:?}");
    group
}

fn single(resource: &Resource, n: u64) -> Pin<Box<tollgate::Acquire>> {
    let mut single = Box::pin(resource.acquire_n(n));
    assert!(is_waiting(&mut single));
    single
}

fn failed(group: &mut Pin<Box<AcquireAll>>) -> Option<AcquireAllError> {
    match poll(group) {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    }
}

fn waiting(resources: &[Resource; 3]) -> [u64; 3] {
    resources.each_ref().map(|resource| resource.capacity().waiting)
}

fn available(resources: &[Resource; 3]) -> [u64; 3] {
    resources.each_ref().map(|resource| resource.capacity().available)
}

#[test]
fn nothing_is_held_while_it_waits() {
    let (time, limiter, all) = exhausted(Limit::per_second(10));
    let mut both = group(&limiter, &[("b", 2), ("a", 8)]);
    for tenth in 1..8 {
        time.advance(SECOND / 10);
        assert!(is_waiting(&mut both));
        // Of `b` others may have what leaves two of it when there are eight of `a`.
        assert_eq!(available(&all), [0, tenth.min(6), tenth]);
        assert_eq!(all.each_ref().map(|one| one.capacity().in_flight), [0; 3]);
        assert_eq!(waiting(&all), [1, 1, 0]);
    }
    time.advance(Duration::from_nanos(99_999_999));
    assert!(is_waiting(&mut both));
    time.advance(NS);
    let Poll::Ready(Ok(permits)) = poll(&mut both) else { panic!("it waits") };
    assert_eq!(available(&all), [0, 6, 8]);
    assert_eq!(waiting(&all), [0; 3]);
    assert_eq!(permits.iter().map(tollgate::Permit::tokens).collect::<Vec<_>>(), [8, 2]);
    drop(permits);
    assert_eq!(all[0].capacity().in_flight, 0);
}

/// In each queue: those before it first. Those behind it pass where it loses nothing by that, and not where
/// it lacks nothing else.
#[test]
fn first_come_first_served_unless_the_head_loses_nothing() {
    let (time, limiter, all) = exhausted(Limit::per_second(1).burst(10));
    let mut before = single(&all[0], 1);
    let mut both = group(&limiter, &[("a", 1), ("b", 3)]);
    let mut after = single(&all[0], 1);
    let mut last = single(&all[1], 1);
    time.advance(SECOND);
    assert!(is_waiting(&mut both) && is_waiting(&mut after) && is_waiting(&mut last));
    assert!(!is_waiting(&mut before));
    time.advance(SECOND);
    // `a` has one, and will have one again when `b` has the third. `b` has two, and no other may take one.
    let mut next = single(&all[0], 1);
    assert!(is_waiting(&mut both) && !is_waiting(&mut after));
    for _ in 0..3 {
        assert!(is_waiting(&mut next) && is_waiting(&mut last) && is_waiting(&mut both));
        assert!(all[0].check().is_err() && all[1].try_acquire().is_err());
        assert!(limiter.try_acquire_all(&[("a", 1)]).is_err());
    }
    time.advance(SECOND);
    assert!(is_waiting(&mut next) && is_waiting(&mut last));
    assert!(!is_waiting(&mut both));
    assert!(is_waiting(&mut next) && is_waiting(&mut last));
    time.advance(SECOND);
    assert!(!is_waiting(&mut last) && !is_waiting(&mut next));
    assert_eq!(waiting(&all), [0; 3]);
}

fn cause(error: Option<AcquireAllError>) -> Option<AcquireError> {
    error.map(|error| error.cause)
}

/// The wait timed out because of `resource`, and a new call may succeed after `retry_after`.
#[track_caller]
fn timed_out(error: Option<AcquireAllError>, resource: &str, retry_after: Duration) {
    let error = error.expect("it has timed out");
    assert!(matches!(error.cause, AcquireError::TimedOut { .. }), "{error}");
    assert_eq!((&*error.resource, error.retry_after()), (resource, Some(retry_after)));
}

#[test]
fn a_timeout_takes_nothing() {
    let (time, limiter, all) = exhausted(Limit::per_second(1).on_release(OnRelease::Refund));
    time.advance(SECOND);
    let held = all[1].try_acquire().unwrap();
    // It could be given back at any time, so that the wait is not hopeless.
    let mut both = Box::pin(limiter.acquire_all(&[("a", 1), ("b", 1)]).timeout(SECOND / 2));
    assert!(is_waiting(&mut both));
    time.advance(Duration::from_nanos(499_999_999));
    assert!(is_waiting(&mut both));
    time.advance(NS);
    timed_out(failed(&mut both), "b", SECOND / 2);
    assert_eq!((waiting(&all), available(&all)), ([0; 3], [1, 0, 1]));
    assert_eq!(all[0].check(), Ok(()));
    drop(held);
    // One that cannot end in time says so at once.
    let nearly = SECOND.checked_sub(NS).unwrap();
    let hopeless = limiter.blocking_acquire_all(&[("a", 1), ("c", 1)], Some(nearly));
    timed_out(hopeless.err(), "a", SECOND);
    assert_eq!(available(&all), [0, 1, 1]);
}

#[test]
fn a_full_line_takes_no_group() {
    let (time, limiter, all) = exhausted(Limit::per_second(1));
    limiter.configure("b", Limit::per_second(1).max_waiting(1)).unwrap();
    let mut first = single(&all[1], 1);
    let mut both = Box::pin(limiter.acquire_all(&[("a", 1), ("b", 1)]));
    assert_eq!(cause(failed(&mut both)), Some(AcquireError::QueueFull));
    assert_eq!(waiting(&all), [0, 1, 0]);
    time.advance(SECOND);
    assert_eq!(all[0].check(), Ok(()));
    assert!(!is_waiting(&mut first));
    let mut both = group(&limiter, &[("a", 1), ("b", 1)]);
    let full = limiter.blocking_acquire_all(&[("b", 1)], None).map(drop);
    assert_eq!(cause(full.err()), Some(AcquireError::QueueFull));
    time.advance(SECOND);
    assert!(!is_waiting(&mut both));
}

#[test]
fn cut_removed_and_closed_while_it_waits() {
    let (time, limiter, all) = exhausted(Limit::per_second(10).no_recovery());
    let mut large = group(&limiter, &[("a", 1), ("b", 10)]);
    let mut small = group(&limiter, &[("b", 1), ("a", 1)]);
    all[1].announce_reduced("429");
    assert_eq!(cause(failed(&mut large)), Some(AcquireError::ExceedsCapacity { capacity: 7 }));
    assert_eq!(waiting(&all), [1, 1, 0]);
    time.advance(SECOND);
    assert!(!is_waiting(&mut small), "behind one that went");

    for one in &all {
        one.check_n(one.capacity().available).unwrap();
    }
    let mut removed = group(&limiter, &[("a", 1), ("b", 1)]);
    let mut behind = single(&all[0], 1);
    assert!(limiter.remove("b"));
    assert_eq!(cause(failed(&mut removed)), Some(AcquireError::UnknownResource));
    time.advance(SECOND);
    assert!(!is_waiting(&mut behind));

    all[0].check_n(9).unwrap();
    let mut closed = group(&limiter, &[("a", 1), ("c", 1)]);
    limiter.close();
    assert_eq!(cause(failed(&mut closed)), Some(AcquireError::Closed));
    assert_eq!(waiting(&all), [0; 3]);
}

/// It steps aside after 60 ms, for those who wait and for those who do not.
#[test]
fn one_that_nobody_polls_holds_nobody_up_for_long() {
    for in_line in [true, false] {
        // It waits for a place in flight in `b`, which nobody knows the time of.
        let (time, limiter, all) = exhausted(Limit::per_second(100).burst(1));
        time.advance(10 * MS);
        limiter.configure("b", Limit::per_second(100).burst(1).max_in_flight(1)).unwrap();
        let place = all[1].try_acquire().unwrap();
        all[0].check().unwrap();
        let mut held = group(&limiter, &[("a", 1), ("b", 1)]);
        time.advance(10 * MS);
        assert!(is_waiting(&mut held));
        let mut behind = in_line.then(|| single(&all[0], 1));
        let mut is_free = || match &mut behind {
            Some(behind) => !is_waiting(behind),
            None => all[0].check().is_ok(),
        };
        time.advance(40 * MS);
        assert!(!is_free(), "not before its time: {in_line}");
        // The call it gets, and its turn.
        let mut waited = 40;
        while !is_free() {
            time.advance(5 * MS);
            waited += 5;
            assert!(waited <= 75, "held up for {waited} ms: {in_line}");
        }
        drop(behind);
        time.advance(10 * MS);
        assert_eq!(all[0].check(), Ok(()), "and not for the next one either");
        // It has its place again when it comes.
        let mut late = single(&all[0], 1);
        drop(place);
        time.advance(10 * MS);
        assert!(!is_waiting(&mut held) && is_waiting(&mut late), "{in_line}");
    }
}

#[test]
fn a_place_in_flight_of_each() {
    let (_, limiter, all) = {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let make = |name| limiter.configure(name, Limit::per_second(100).max_in_flight(1)).unwrap();
        let all = ["a", "b", "c"].map(make);
        (time, limiter, all)
    };
    let (a, b) = (all[0].try_acquire().unwrap(), all[1].try_acquire().unwrap());
    let mut both = group(&limiter, &[("a", 5), ("c", 1), ("b", 5)]);
    let full = limiter.try_acquire_all(&[("c", 1), ("a", 1)]).unwrap_err();
    assert_eq!(full.cause, TryAcquireError::TooManyInFlight);
    drop(a);
    assert!(is_waiting(&mut both));
    assert_eq!(all.each_ref().map(|one| one.capacity().in_flight), [0, 1, 0]);
    drop(b);
    let Poll::Ready(Ok(permits)) = poll(&mut both) else { panic!("it waits") };
    assert_eq!(all.each_ref().map(|one| one.capacity().in_flight), [1; 3]);
    let mut next = group(&limiter, &[("b", 1), ("a", 1)]);
    drop(permits);
    assert!(!is_waiting(&mut next));
    assert_eq!(available(&all), [93, 93, 99]);
}

/// Threads that want the same in opposite orders, and each of them alone, while limits change.
#[test]
fn opposite_orders_do_not_wait_for_each_other() {
    let _watchdog = Watchdog::new();
    let (time, limiter, all) = exhausted(Limit::per_second(2));
    let (served, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let orders: [&[(&str, u64)]; 6] = [
        &[("a", 1), ("b", 1), ("c", 1)],
        &[("c", 1), ("b", 1), ("a", 1)],
        &[("b", 1), ("a", 1)],
        &[("c", 2), ("a", 1)],
        &[("b", 1)],
        &[("a", 1), ("c", 1), ("a", 1)],
    ];
    thread::scope(|scope| {
        for wish in orders {
            let (limiter, served, done) = (&limiter, &served, &done);
            scope.spawn(move || {
                for turn in 0..40 {
                    let timeout = (turn % 4 == 3).then_some(4 * SECOND);
                    match limiter.blocking_acquire_all(wish, timeout) {
                        Ok(permits) => drop(permits),
                        Err(error) => {
                            assert!(matches!(error.cause, AcquireError::TimedOut { .. }));
                        }
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut dice = Dice(11);
        while done.load(Ordering::Relaxed) < 6 {
            time.advance(SECOND / 4);
            let limit = Limit::per_second(2);
            let limit = if dice.roll(2) == 0 { limit } else { Limit::per_minute(600).and(limit) };
            limiter.configure(["a", "b", "c"][dice.roll(3) as usize], limit).expect("a limit");
            thread::sleep(Duration::from_micros(100));
        }
    });
    assert_eq!(served.load(Ordering::Relaxed), 240);
    assert_eq!(waiting(&all), [0; 3]);
    assert!(all.iter().all(|one| one.capacity().in_flight == 0));
}

/// Single requests that come without end, faster than they can be served.
#[test]
fn singles_do_not_starve_a_group() {
    let (time, limiter, all) = exhausted(Limit::per_second(10));
    let mut storm = Vec::new();
    let mut both = group(&limiter, &[("a", 10), ("b", 10)]);
    let mut ticks = 0;
    while is_waiting(&mut both) {
        ticks += 1;
        assert!(ticks <= 100, "starved");
        time.advance(SECOND / 100);
        for one in &all[..2] {
            storm.push(single(one, 1));
            assert!(one.check().is_err() && one.try_acquire().is_err());
        }
    }
    assert_eq!(ticks, 100, "all that accrued was for the group");
    assert_eq!(available(&all)[..2], [0, 0]);
}

#[cfg(feature = "tokio")]
mod on_paused_time {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tollgate::{Clock, Permits};

    /// Half of many, at random, are cancelled while others are served: all the others are, and the
    /// tokens add up.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_cancelled_passes_on() {
        for seed in 1..=4 {
            let mut dice = Dice(seed * 0x9E37_79B9);
            let limiter = MemoryLimiter::with_clock(Clock::tokio());
            for name in ["a", "b", "c"] {
                let limit = Limit::per_second(1_000).burst(20);
                let limit = if name == "b" { limit.and(Limit::per_minute(60_000)) } else { limit };
                limiter.configure(name, limit).unwrap().check_n(20).unwrap();
            }
            let taken: Arc<[AtomicU64; 3]> = Arc::default();
            let served = Arc::new(AtomicU64::new(0));
            let mut tasks: Vec<_> = (0..600)
                .map(|_| {
                    let wish: Vec<(&str, u64)> = (0..=dice.roll(3))
                        .map(|_| (["a", "b", "c"][dice.roll(3) as usize], 1 + dice.roll(4)))
                        .collect();
                    let limiter = limiter.clone();
                    let (taken, served) = (Arc::clone(&taken), Arc::clone(&served));
                    tokio::spawn(async move {
                        let permits = limiter.acquire_all(&wish).await.expect("served");
                        for permit in permits.iter() {
                            let index = (permit.resource().as_bytes()[0] - b'a') as usize;
                            taken[index].fetch_add(permit.tokens(), Ordering::Relaxed);
                        }
                        permits.spend();
                        served.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            let start = tokio::time::Instant::now();
            let mut cancelled = 0;
            for _ in 0..300 {
                let victim = tasks.swap_remove(dice.roll(tasks.len() as u64) as usize);
                cancelled += u64::from(!victim.is_finished());
                victim.abort();
                if dice.roll(4) == 0 {
                    tokio::time::sleep(MS).await;
                }
            }
            for task in tasks {
                let patience = Duration::from_mins(1);
                tokio::time::timeout(patience, task).await.expect("served").expect("no panic");
            }
            assert!(cancelled > 100, "seed {seed}");
            // A task may be cancelled with its permits in hand, and has told of neither then.
            assert!(served.load(Ordering::Relaxed) >= 600 - cancelled, "seed {seed}");
            let accrued = start.elapsed().as_millis() as u64;
            for (name, taken) in ["a", "b", "c"].iter().zip(taken.iter()) {
                let shown = limiter.capacity(name).unwrap();
                assert_eq!((shown.waiting, shown.in_flight), (0, 0), "seed {seed}: {name}");
                let taken = taken.load(Ordering::Relaxed);
                assert!(taken <= accrued + 1, "seed {seed}: {name}, {taken} of {accrued}");
            }
        }
    }

    /// In the order in which they came, wherever they meet.
    #[tokio::test(start_paused = true)]
    async fn tasks_are_served_in_the_order_they_came() {
        let limiter = MemoryLimiter::with_clock(Clock::tokio());
        for name in ["a", "b"] {
            let limit = Limit::per_second(1_000).burst(10);
            limiter.configure(name, limit).unwrap().check_n(10).unwrap();
        }
        let order: Arc<Mutex<Vec<u64>>> = Arc::default();
        let spawn = |number: u64| {
            let (limiter, order) = (limiter.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                let orders: [&[(&str, u64)]; 2] = [&[("a", 1), ("b", 2)], &[("b", 1), ("a", 2)]];
                let wish = orders[number as usize % 2];
                let permits: Permits = limiter.acquire_all(wish).await.expect("served");
                order.lock().expect("no panic").push(number);
                permits.spend();
            })
        };
        let tasks: Vec<_> = (0..300).map(spawn).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert!(order.lock().expect("no panic").iter().copied().eq(0..300));
    }
}

/// The tokens that a group found for itself are charged for, or paused, while it waits for the others:
/// those behind it are served all the same once it is not polled any more.
#[test]
fn whoever_is_behind_a_group_whose_tokens_went_away_is_served() {
    let wakes = |act: &dyn Fn(&Resource, tollgate::Permit<'static>)| {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let a = limiter.configure("a", Limit::per_second(1).burst(2)).unwrap();
        let b = limiter.configure("b", Limit::per_hour(2).max_in_flight(1)).unwrap();
        // Nobody knows when its place is free: so a token of `a` is kept for the group.
        let _place = b.try_acquire().unwrap();
        let permit = a.try_acquire().unwrap().into_owned();
        let mut both = group(&limiter, &[("a", 1), ("b", 1)]);
        assert!(is_waiting(&mut both));
        let mut behind = single(&a, 1);
        act(&a, permit);
        (0..3_000).any(|_| {
            time.advance(10 * MS);
            !is_waiting(&mut behind)
        })
    };
    assert!(wakes(&|_, permit| permit.settle(2)), "charged");
    assert!(wakes(&|_, permit| permit.settle(12)), "in debt");
    assert!(wakes(&|a, _permit| a.pause_for(5 * SECOND)), "paused");
}
