//! Waiting for more than a cut bucket holds: it is served when the limit has recovered, keeps its place, and
//! meanwhile holds up nobody who wants less.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::watchdog::Watchdog;
use tollgate::{
    Acquire, AcquireError, Limit, ManualClock, MemoryLimiter, Permit, Recovery, Resource,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

type Wait = Pin<Box<dyn Future<Output = Result<(), AcquireError>>>>;

fn manual(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", limit).expect("a limit");
    (time, limiter, api)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn is_waiting(wait: &mut Wait) -> bool {
    match poll(wait) {
        Poll::Pending => true,
        Poll::Ready(Ok(())) => false,
        Poll::Ready(Err(error)) => panic!("{error}"),
    }
}

/// A wait whose permit ends at once.
fn single(api: &Resource, n: u64) -> Wait {
    timed(api.acquire_n(n))
}

fn timed(wait: Acquire) -> Wait {
    Box::pin(async { wait.await.map(drop) })
}

#[track_caller]
fn waits(api: &Resource, n: u64) -> Wait {
    let mut wait = single(api, n);
    assert!(is_waiting(&mut wait));
    wait
}

/// What a poll fails with.
fn failed(wait: &mut Wait) -> Option<AcquireError> {
    match poll(wait) {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn small_ones_pass_until_it_has_recovered_and_then_it_is_first() {
    let (time, _, api) = manual(Limit::per_second(100));
    api.announce_reduced("429");
    let mut large = waits(&api, 80);
    // Until the step at 30 s, but for what it will find then.
    for _ in 0..29 {
        let mut small = timed(api.acquire());
        assert!(!is_waiting(&mut small));
        (0..50).for_each(|_| api.check().unwrap());
        assert!(is_waiting(&mut large));
        time.advance(SECOND);
    }
    time.advance(SECOND.saturating_sub(MS));
    // What accrues by then is for it.
    let mut behind = waits(&api, 1);
    assert!(api.check().is_err());
    time.advance(MS);
    assert!(is_waiting(&mut large) && is_waiting(&mut behind));
    // 75 tokens at the step, and 5 more at 82.5/s.
    time.advance(Duration::from_nanos(60_606_060));
    assert!(is_waiting(&mut large) && is_waiting(&mut behind));
    time.advance(NS);
    assert!(!is_waiting(&mut large));
    assert!(is_waiting(&mut behind));
    time.advance(13 * MS);
    assert!(!is_waiting(&mut behind));
}

#[test]
fn whatever_the_small_ones_take_it_is_not_starved() {
    for burst in [100, 1_000] {
        let (time, _, api) = manual(Limit::per_second(100).burst(burst).cooldown(Duration::ZERO));
        (0..3).for_each(|_| api.announce_reduced("429"));
        let mut large = waits(&api, burst);
        let mut taken = 0;
        let mut served = None;
        for ms in 0..600_000_u64 {
            while api.check().is_ok() {
                taken += 1;
            }
            time.advance(MS);
            if !is_waiting(&mut large) {
                served = Some(ms);
                break;
            }
        }
        // 0.75^3 needs ten steps, and the bucket fills up in its burst's time.
        let served = served.expect("it is served");
        assert!((300_000..300_000 + burst * 10 + 100).contains(&served), "{burst}: {served}");
        assert!(taken > 15_000, "{burst}: {taken}");
    }
}

#[test]
fn it_waits_where_its_timeout_allows_it() {
    let (time, _, api) = manual(Limit::per_second(100));
    api.announce_reduced("429");
    let told = api.peek(100).unwrap_err().retry_after();
    // A nanosecond more, as a factor is no exact fraction.
    assert_eq!(told, Some(Duration::from_nanos(120_001_750_001)));
    // The rate alone rules it out: at once.
    for timeout in [Duration::ZERO, SECOND, 31 * SECOND, told.unwrap().saturating_sub(NS)] {
        let mut wait = timed(api.acquire_n(100).timeout(timeout));
        assert_eq!(failed(&mut wait).map(|error| error.retry_after()), Some(told));
        let blocking = api.blocking_acquire_n(100, Some(timeout)).map(drop);
        assert_eq!(blocking.unwrap_err().retry_after(), told);
    }
    let mut wait = timed(api.acquire_n(100).timeout(told.unwrap()));
    assert!(is_waiting(&mut wait));
    time.advance(told.unwrap().saturating_sub(NS));
    assert!(is_waiting(&mut wait));
    time.advance(NS);
    assert!(!is_waiting(&mut wait));

    // Cut again while it waits: it ends in time, and knows when to come again.
    time.advance(SECOND);
    api.announce_reduced("429");
    let mut wait = timed(api.acquire_n(80).timeout(40 * SECOND));
    assert!(is_waiting(&mut wait));
    time.advance(10 * SECOND);
    api.announce_reduced("429");
    time.advance((30 * SECOND).saturating_sub(NS));
    assert!(is_waiting(&mut wait));
    time.advance(NS);
    let told = api.peek(80).unwrap_err().retry_after();
    assert_eq!(failed(&mut wait).map(|error| error.retry_after()), Some(told));
    assert_eq!(api.capacity().waiting, 0);
}

#[test]
fn above_the_configured_burst_or_without_recovery_it_fails() {
    let (time, limiter, api) = manual(Limit::per_second(100));
    api.announce_reduced("429");
    let never = |capacity| Some(AcquireError::ExceedsCapacity { capacity });
    assert_eq!(failed(&mut single(&api, 101)), never(75));
    assert_eq!(api.blocking_acquire_n(101, None).map(drop).err(), never(75));
    // Configured anew while it waits.
    let (mut large, mut small) = (waits(&api, 100), waits(&api, 76));
    limiter.configure("api", Limit::per_second(120).burst(90)).unwrap();
    assert_eq!(failed(&mut large), never(67));
    assert!(is_waiting(&mut small));
    limiter.configure("api", Limit::per_second(100).no_recovery()).unwrap();
    assert_eq!(failed(&mut small), never(75));
    limiter.configure("api", Limit::per_second(100)).unwrap();
    let (mut large, mut small) = (waits(&api, 100), waits(&api, 76));
    limiter.configure("api", Limit::per_second(200)).unwrap();
    time.advance(SECOND);
    assert!(!is_waiting(&mut large) && is_waiting(&mut small));
    assert!(limiter.remove("api"));
    assert_eq!(failed(&mut small), Some(AcquireError::UnknownResource));
}

#[test]
fn those_beyond_keep_their_order_and_leave_freely() {
    let (time, _, api) = manual(Limit::per_second(100).cooldown(Duration::ZERO));
    api.check_n(100).unwrap();
    let mut before = waits(&api, 50);
    let mut first = waits(&api, 100);
    let mut gone = waits(&api, 99);
    let mut less = waits(&api, 90);
    let mut second = waits(&api, 100);
    let mut small = waits(&api, 10);
    // All but two of them wanted what there was.
    api.announce_reduced("429");
    api.announce_reduced("429");
    for wait in [&mut first, &mut gone, &mut less, &mut second, &mut small] {
        assert!(is_waiting(wait));
    }
    time.advance(SECOND / 2);
    assert!(is_waiting(&mut before) && is_waiting(&mut small), "behind one that wants less");
    drop(before);
    assert!(!is_waiting(&mut small));
    drop(gone);
    assert_eq!(api.capacity().waiting, 3);
    assert_eq!(api.check_n(10), Ok(()));
    // Of 56.25, ninety fit after five steps, and 100 after seven.
    time.advance(150 * SECOND);
    assert!(is_waiting(&mut second) && is_waiting(&mut first));
    assert!(!is_waiting(&mut less), "it passes those for more, who lose nothing");
    time.advance(60 * SECOND);
    assert!(is_waiting(&mut second) && !is_waiting(&mut first), "in their order");
    assert!(is_waiting(&mut second) && api.check().is_err());
    time.advance(SECOND);
    assert!(!is_waiting(&mut second));
    assert_eq!(api.capacity().waiting, 0);
}

/// Its place in flight is not kept for it while it waits for the recovery.
#[test]
fn a_place_in_flight_is_for_others_meanwhile() {
    let (time, _, api) = manual(Limit::per_second(100).max_in_flight(1));
    api.announce_reduced("429");
    let mut large = waits(&api, 76);
    for _ in 0..20 {
        let permit = api.try_acquire().unwrap();
        drop(permit);
        time.advance(SECOND);
        assert!(is_waiting(&mut large));
    }
    time.advance(11 * SECOND);
    assert!(!is_waiting(&mut large));
}

#[test]
fn a_group_with_one_part_above_a_cut_bucket_waits() {
    let (time, limiter, api) = manual(Limit::per_second(100));
    let other = limiter.configure("other", Limit::per_second(10)).unwrap();
    api.announce_reduced("429");
    let mut group = Box::pin(limiter.acquire_all(&[("api", 80), ("other", 5)]));
    assert!(poll(&mut group).is_pending());
    for _ in 0..29 {
        // Both are passed, where it loses nothing.
        assert_eq!(other.check_n(10), Ok(()));
        assert_eq!(api.check_n(70), Ok(()));
        time.advance(SECOND);
        assert!(poll(&mut group).is_pending());
    }
    time.advance(SECOND);
    assert!(poll(&mut group).is_pending());
    assert!(other.check_n(6).is_err(), "what it wants is kept");
    time.advance(61 * MS);
    let Poll::Ready(Ok(permits)) = poll(&mut group) else { panic!("it waits") };
    assert_eq!(permits.iter().map(Permit::tokens).sum::<u64>(), 85);
    drop(permits);

    api.announce_reduced("429");
    let mut group = Box::pin(limiter.acquire_all(&[("api", 80), ("other", 5)]).timeout(SECOND));
    let Poll::Ready(Err(error)) = poll(&mut group) else { panic!("it waits") };
    assert_eq!(&*error.resource, "api");
    assert_eq!(error.retry_after(), api.peek(80).unwrap_err().retry_after());
    let blocking = limiter.blocking_acquire_all(&[("api", 80), ("other", 5)], Some(SECOND));
    assert_eq!(blocking.map(drop).unwrap_err(), error);
    let never = limiter.blocking_acquire_all(&[("api", 101), ("other", 5)], Some(SECOND));
    assert!(matches!(never.unwrap_err().cause, AcquireError::ExceedsCapacity { .. }));
}

#[test]
fn keys_and_several_windows_recover_too() {
    let (time, limiter, _) = manual(Limit::per_second(1));
    limiter.per_key("user:", Limit::per_second(100).and(Limit::per_minute(90))).unwrap();
    limiter.announce_reduced("user:ann", "429");
    let mut large = timed(limiter.acquire_n("user:ann", 90));
    assert!(is_waiting(&mut large));
    for _ in 0..60 {
        assert_eq!(limiter.check("user:ann"), Ok(()));
        time.advance(SECOND);
    }
    time.advance(119 * SECOND);
    assert!(!is_waiting(&mut large));
}

#[test]
fn a_thread_is_served_when_it_has_recovered() {
    let _watchdog = Watchdog::new();
    let (time, _, api) = manual(Limit::per_second(10).cooldown(Duration::ZERO));
    api.check_n(10).unwrap();
    let other = api.clone();
    let waiter = thread::spawn(move || other.blocking_acquire_n(10, None).map(drop));
    while api.capacity().waiting == 0 {
        thread::yield_now();
    }
    api.announce_reduced("429");
    for _ in 0..122 {
        time.advance(SECOND);
        thread::yield_now();
    }
    assert_eq!(waiter.join().unwrap(), Ok(()));
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits of all sizes amid cuts, pauses and takes, each polled only when it is woken: all of them end.
#[test]
fn no_wake_up_is_lost() {
    fastrand::seed(15);
    for _ in 0..30 {
        let recovery = Recovery { interval: 3 * SECOND, factor: 1.2, cap: true };
        let limit = Limit::per_second(100).burst(50).cooldown(Duration::ZERO).recovery(recovery);
        let (time, limiter, api) = manual(limit.min_rate(5));
        limiter.configure("other", limit).unwrap();
        let mut waits: Vec<(Wait, Arc<Flag>)> = Vec::new();
        for step in 0..400 {
            match fastrand::u8(..12) {
                0..=2 => {
                    let n = fastrand::u64(1..=50);
                    let wait: Wait = if fastrand::bool() {
                        single(&api, n)
                    } else {
                        let group = limiter.acquire_all(&[("api", n), ("other", 51 - n)]);
                        Box::pin(async { group.await.map(drop).map_err(AcquireError::from) })
                    };
                    waits.push((wait, Arc::new(Flag(AtomicBool::new(true)))));
                }
                3 if step < 300 => api.announce_reduced("429"),
                4 if step < 300 => limiter.announce_reduced("other", "429"),
                5 => api.pause_for(Duration::from_millis(fastrand::u64(..2_000))),
                6 => drop(api.check_n(fastrand::u64(1..=50))),
                7 if !waits.is_empty() => {
                    drop(waits.swap_remove(fastrand::usize(..waits.len())));
                }
                _ => time.advance(Duration::from_millis(fastrand::u64(..3_000))),
            }
            run(&mut waits);
        }
        for _ in 0..200 {
            time.advance(SECOND);
            run(&mut waits);
        }
        assert_eq!(waits.len(), 0, "left");
        assert_eq!(api.capacity().waiting, 0);
    }
}

/// Polls those that were woken, until none is.
fn run(waits: &mut Vec<(Wait, Arc<Flag>)>) {
    for turn in 0.. {
        assert!(turn < 10_000, "they wake each other");
        let mut woken = false;
        waits.retain_mut(|(wait, flag)| {
            if !flag.0.swap(false, Ordering::SeqCst) {
                return true;
            }
            woken = true;
            let waker = Waker::from(Arc::clone(flag));
            match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => true,
                Poll::Ready(result) => result.map_or_else(|error| panic!("{error}"), |()| false),
            }
        });
        if !woken {
            return;
        }
    }
}

/// Groups for two resources, behind one that waits for a third. Each lacks the resource where another is
/// first, and is first where that one lacks it. One of them goes.
#[test]
fn groups_do_not_wake_each_other_in_turns() {
    fastrand::seed(15);
    for _ in 0..60 {
        let limit = Limit::per_second(100).burst(50);
        let (time, limiter, api) = manual(limit);
        limiter.configure("other", limit).unwrap();
        limiter.configure("third", limit).unwrap();
        limiter.pause_for("third", 1_000 * SECOND);
        let group = |wish: &[(&str, u64)]| {
            let group = limiter.acquire_all(wish);
            let wait: Wait = Box::pin(async { group.await.map(drop).map_err(AcquireError::from) });
            (wait, Arc::new(Flag(AtomicBool::new(true))))
        };
        let mut waits = vec![group(&[("api", 1), ("other", 1), ("third", 1)])];
        run(&mut waits);
        for _ in 0..200 {
            let pause = Duration::from_millis(fastrand::u64(..2_000));
            match fastrand::u8(..12) {
                0..=2 => {
                    let n = fastrand::u64(1..=50);
                    waits.push(group(&[("api", n), ("other", 51 - n)]));
                }
                3 => limiter.pause_for("api", pause),
                4 => limiter.pause_for("other", pause),
                5 => drop(api.check_n(fastrand::u64(1..=50))),
                6 => {
                    let wait = single(&api, fastrand::u64(1..=50));
                    waits.push((wait, Arc::new(Flag(AtomicBool::new(true)))));
                }
                7 if waits.len() > 1 => {
                    drop(waits.swap_remove(fastrand::usize(1..waits.len())));
                }
                _ => time.advance(pause),
            }
            run(&mut waits);
        }
        for _ in 0..300 {
            time.advance(SECOND);
            run(&mut waits);
        }
        assert_eq!(waits.len(), 1, "left");
    }
}
