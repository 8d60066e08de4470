//! What nobody should ask for: each gets its own error, and changes nothing.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::common::watchdog::Watchdog;
use tollgate::{
    AcquireError, Capacity, Clock, ConfigError, Limit, ManualClock, MemoryLimiter, OnRelease,
    Permit, RateLimiter, Recovery, Resource, TryAcquireError, UpdateKind,
};

const SECOND: Duration = Duration::from_secs(1);
const MOST: u64 = 1 << 52;

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

/// One poll, which must be enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn recovery(interval: Duration, factor: f64) -> Limit {
    Limit::per_second(10).recovery(Recovery { interval, factor, cap: true })
}

fn refused() -> Vec<(Limit, ConfigError)> {
    use ConfigError::{
        InvalidAdaptive, InvalidBurst, InvalidCapacity, InvalidInFlight, InvalidRecovery,
        InvalidWindow, RateTooHigh,
    };
    let mut all = vec![
        (Limit::new(0, SECOND), InvalidCapacity),
        (Limit::per_second(0), InvalidCapacity),
        (Limit::per_day(0).burst(5), InvalidCapacity),
        (Limit::new(MOST + 1, Duration::from_secs(1 << 34)), InvalidCapacity),
        (Limit::new(u64::MAX, SECOND), InvalidCapacity),
        (Limit::new(1, Duration::ZERO), InvalidWindow),
        (Limit::new(1, Duration::from_nanos(u64::MAX) + Duration::from_nanos(1)), InvalidWindow),
        (Limit::new(1, Duration::MAX), InvalidWindow),
        (Limit::per_second(1).burst(0), InvalidBurst),
        (Limit::per_second(1).burst(MOST + 1), InvalidBurst),
        (Limit::per_second(1).burst(u64::MAX), InvalidBurst),
        (Limit::per_second(1).max_in_flight(0), InvalidInFlight),
        (Limit::new(MOST, Duration::from_nanos(1)).burst(1), RateTooHigh),
        (Limit::per_second(MOST), RateTooHigh),
        (Limit::per_second(5_100_000_000_000), RateTooHigh),
        (Limit::per_second(5).adaptive(0, 10), InvalidAdaptive),
        (Limit::per_second(5).adaptive(6, 10), InvalidAdaptive),
        (Limit::per_second(5).adaptive(1, 4), InvalidAdaptive),
        (Limit::per_second(5).adaptive(9, 1), InvalidAdaptive),
        (Limit::per_second(5).adaptive(1, MOST + 1), InvalidCapacity),
        (Limit::per_second(5).adaptive(1, u64::MAX), InvalidCapacity),
        (Limit::per_second(5).adaptive(1, 10).back_in(Duration::ZERO), InvalidAdaptive),
        (Limit::at_most(5, SECOND).adaptive(1, 10), InvalidAdaptive),
        (Limit::per_second(5).adaptive(1, 10).and(Limit::per_day(100)), InvalidAdaptive),
        (Limit::per_second(5).adaptive(1, MOST), RateTooHigh),
        (recovery(Duration::ZERO, 1.1), InvalidRecovery),
        (recovery(Duration::from_nanos(100), 1.0 + 1e-9), InvalidRecovery),
        (recovery(Duration::from_nanos(999_999), 1.1), InvalidRecovery),
    ];
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -2.0, 1.0, 0.99, 1e-300] {
        all.push((recovery(SECOND, factor), InvalidRecovery));
    }
    all
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for (limit, error) in refused() {
        let (_, limiter) = limiter();
        assert_eq!(limiter.configure("api", limit).map(|_| ()), Err(error), "{limit:?}");
        assert!(limiter.resource("api").is_none(), "{limit:?} left something behind");
        assert!(limiter.resources().is_empty());
    }
    let (_, limiter) = limiter();
    assert_eq!(limiter.set_capacity("api", 0, SECOND), Err(ConfigError::InvalidCapacity));
    assert_eq!(limiter.set_capacity("api", 1, Duration::ZERO), Err(ConfigError::InvalidWindow));
    assert_eq!(limiter.set_capacity("", 1, SECOND), Err(ConfigError::EmptyName));
}

#[test]
fn a_refused_limit_leaves_the_present_one() {
    for (limit, error) in refused() {
        let (time, limiter) = limiter();
        let present = Limit::per_second(10).max_in_flight(3).recovery(Recovery::default());
        let api = limiter.configure("api", present).unwrap();
        api.check_n(4).unwrap();
        let held: Vec<_> = (0..3).map(|_| api.try_acquire().unwrap()).collect();
        let before = api.capacity();
        assert_eq!(limiter.configure("api", limit).map(|_| ()), Err(error), "{limit:?}");
        assert_eq!(api.capacity(), before);
        assert_eq!(api.try_acquire().unwrap_err(), TryAcquireError::TooManyInFlight);
        drop(held);
        // Refill, policy and recovery go on.
        assert_eq!(api.capacity().available, 3);
        time.advance(SECOND / 10);
        assert_eq!(api.capacity().available, 4);
        api.announce_reduced("429");
        time.advance(Duration::from_mins(2));
        assert_eq!(api.capacity().burst, 10);
    }
}

/// The extremes that are accepted work: no wrap-around, no panic.
#[test]
fn limits_at_the_edge_are_accepted() {
    let forever = Duration::from_nanos(u64::MAX);
    for limit in [
        Limit::new(1, Duration::from_nanos(1)),
        Limit::new(1, forever),
        Limit::new(MOST, forever),
        Limit::new(MOST, Duration::from_hours(1)).burst(1),
        Limit::new(1, forever).burst(MOST),
        Limit::new(1, Duration::from_nanos(1)).burst(MOST),
        Limit::per_second(5_000_000_000_000).burst(1),
        recovery(Duration::from_millis(1), f64::MAX),
        recovery(Duration::MAX, 1.0 + f64::EPSILON),
        Limit::per_second(1).max_in_flight(u64::MAX).max_waiting(u64::MAX),
    ] {
        let (time, limiter) = limiter();
        let api = limiter.configure("api", limit).unwrap();
        let total = api.capacity().burst;
        for now in [0, 1, 1 << 40, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX, 5, u64::MAX] {
            time.set(now);
            for n in [0, 1, total / 2, total, total + 1, u64::MAX / 2, u64::MAX] {
                if let Err(error) = api.check_n(n) {
                    let _ = (error.to_string(), error.retry_after());
                }
                if let Err(error) = api.peek(n) {
                    let _ = (error.to_string(), error.retry_after());
                }
                api.try_acquire_n(n).map(Permit::refund).unwrap_or_default();
                api.release_n(n);
                let _ = api.blocking_acquire_n(n, Some(Duration::ZERO));
                assert!(api.capacity().available <= api.capacity().burst);
            }
            api.announce_reduced("429");
            api.pause_for(Duration::from_nanos(1));
            limiter.configure("api", limit).unwrap();
            let _ = (format!("{api:?} {limiter:?}"), limiter.resources());
        }
        time.set(7);
        api.pause_for(Duration::MAX);
        assert!(api.check().is_err());
        time.advance(Duration::MAX);
        let _ = api.peek(1);
        limiter.close();
    }
}

#[test]
fn durations_without_end() {
    let (time, limiter) = limiter();
    let api = limiter.configure("api", Limit::per_second(1)).unwrap();
    api.check().unwrap();
    // A deadline beyond the clock's end is none.
    let mut wait = pin!(api.acquire().timeout(Duration::MAX));
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    time.advance(SECOND);
    assert!(wait.as_mut().poll(&mut context).is_ready());
    let threads = api.clone();
    let waits = thread::spawn(move || threads.blocking_acquire_timeout(Duration::MAX).is_ok());
    while api.capacity().waiting == 0 {
        thread::yield_now();
    }
    time.advance(SECOND);
    assert!(waits.join().unwrap());
    time.set(u64::MAX);
    time.advance(Duration::MAX);
    assert_eq!(time.now(), 3 << 62, "where a manual clock ends");
    drop(Clock::coarse(Duration::ZERO));
    // It reads the time at least once a second: one that stood still would end no wait.
    let clock = Clock::coarse(Duration::MAX);
    let first = clock.now();
    while clock.now() == first {
        thread::sleep(Duration::from_millis(10));
    }
}

fn capacities(limiter: &MemoryLimiter) -> Capacity {
    limiter.capacity("api").expect("it was added")
}

#[test]
fn nothing_is_granted_and_takes_nothing() {
    let (_, limiter) = limiter();
    let api = limiter.configure("api", Limit::per_second(2).max_in_flight(1)).unwrap();
    for exhausted in [false, true] {
        let before = capacities(&limiter);
        assert_eq!(api.check_n(0), Ok(()));
        assert_eq!(api.peek(0), Ok(()));
        assert_eq!(limiter.check_n("api", 0), Ok(()));
        assert_eq!(limiter.peek("api", 0), Ok(()));
        let permits = [
            api.try_acquire_n(0).unwrap().into_owned(),
            limiter.try_acquire_n("api", 0).unwrap(),
            api.blocking_acquire_n(0, None).unwrap(),
            limiter.blocking_acquire_n("api", 0, Some(Duration::ZERO)).unwrap(),
            now(api.acquire_n(0)).unwrap(),
            now(limiter.acquire_n("api", 0)).unwrap(),
        ];
        assert_eq!(capacities(&limiter), before, "exhausted: {exhausted}");
        for permit in permits {
            assert_eq!(permit.tokens(), 0);
            permit.refund();
        }
        api.release_n(0);
        limiter.release_n("api", 0);
        assert_eq!(capacities(&limiter), before);
        if !exhausted {
            api.try_acquire_n(2).unwrap().forget();
        }
    }
    api.pause_for(SECOND);
    assert_eq!(api.check_n(0), Ok(()));
}

#[test]
fn more_than_the_burst_fails_at_once() {
    let (time, limiter) = limiter();
    let api = limiter.configure("api", Limit::per_second(100).burst(5)).unwrap();
    for n in [6, 100, MOST + 1, u64::MAX] {
        for paused in [false, true] {
            let too_many = TryAcquireError::ExceedsCapacity { capacity: 5 };
            assert_eq!(api.check_n(n), Err(too_many));
            assert_eq!(limiter.check_n("api", n), Err(too_many));
            assert_eq!(api.peek(n), Err(too_many));
            assert_eq!(limiter.peek("api", n), Err(too_many));
            assert_eq!(api.try_acquire_n(n).unwrap_err(), too_many);
            assert_eq!(limiter.try_acquire_n("api", n).unwrap_err(), too_many);
            assert_eq!(too_many.retry_after(), None);
            let too_many = AcquireError::ExceedsCapacity { capacity: 5 };
            assert_eq!(now(api.acquire_n(n)).unwrap_err(), too_many);
            assert_eq!(now(limiter.acquire_n("api", n)).unwrap_err(), too_many);
            assert_eq!(now(api.acquire_n(n).timeout(SECOND)).unwrap_err(), too_many);
            assert_eq!(api.blocking_acquire_n(n, None).unwrap_err(), too_many);
            assert_eq!(limiter.blocking_acquire_n("api", n, Some(SECOND)).unwrap_err(), too_many);
            if paused {
                time.advance(SECOND);
            } else {
                api.pause_for(SECOND);
            }
        }
    }
    assert_eq!((api.capacity().available, api.capacity().in_flight), (5, 0));
    // A cut leaves 3; with a recovery there will be 5 again.
    api.announce_reduced("429");
    assert!(api.check_n(4).unwrap_err().retry_after().is_some());
    assert_eq!(api.check_n(6), Err(TryAcquireError::ExceedsCapacity { capacity: 3 }));
    limiter.configure("api", Limit::per_hour(5).no_recovery()).unwrap();
    assert_eq!(api.check_n(4), Err(TryAcquireError::ExceedsCapacity { capacity: 3 }));
}

#[test]
fn unknown_and_empty_names() {
    let (_, limiter) = limiter();
    limiter.set_capacity("api", 1, SECOND).unwrap();
    for name in ["", "API", "api ", "other", "\0", "\u{1f980}"] {
        all_fail(&limiter, name, TryAcquireError::UnknownResource, AcquireError::UnknownResource);
        limiter.announce_reduced(name, "429");
        limiter.pause_for(name, SECOND);
        limiter.release(name);
        limiter.release_n(name, u64::MAX);
        assert!(!limiter.remove(name));
        assert!(limiter.resource(name).is_none() && limiter.capacity(name).is_none());
    }
    assert_eq!(limiter.resources().len(), 1);
    assert_eq!(limiter.configure("", Limit::per_second(1)).unwrap_err(), ConfigError::EmptyName);
    // A bad limit under a bad name, and a name of any other kind.
    assert_eq!(limiter.configure("", Limit::per_second(0)).unwrap_err(), ConfigError::EmptyName);
    let long = "x".repeat(1 << 20);
    limiter.set_capacity(&long, 1, SECOND).unwrap();
    limiter.check(&long).unwrap();
}

/// Every verb, on the limiter and as `dyn RateLimiter`.
fn all_fail(limiter: &MemoryLimiter, name: &str, try_error: TryAcquireError, error: AcquireError) {
    assert_eq!(limiter.check(name), Err(try_error));
    assert_eq!(limiter.check_n(name, 3), Err(try_error));
    assert_eq!(limiter.peek(name, 1), Err(try_error));
    assert_eq!(limiter.try_acquire(name).unwrap_err(), try_error);
    assert_eq!(limiter.try_acquire_n(name, 2).unwrap_err(), try_error);
    assert_eq!(now(limiter.acquire(name)).unwrap_err(), error);
    assert_eq!(now(limiter.acquire_n(name, 2).timeout(SECOND)).unwrap_err(), error);
    assert_eq!(limiter.blocking_acquire(name).unwrap_err(), error);
    assert_eq!(limiter.blocking_acquire_timeout(name, SECOND).unwrap_err(), error);
    assert_eq!(limiter.blocking_acquire_n(name, 2, None).unwrap_err(), error);
    let limiter: &dyn RateLimiter = limiter;
    assert_eq!(limiter.check(name), Err(try_error));
    assert_eq!(limiter.peek(name, 1), Err(try_error));
    assert_eq!(limiter.try_acquire(name).unwrap_err(), try_error);
    assert_eq!(now(limiter.acquire(name)).unwrap_err(), error);
    assert_eq!(limiter.blocking_acquire(name).unwrap_err(), error);
    assert_eq!(limiter.blocking_acquire_timeout(name, SECOND).unwrap_err(), error);
}

fn all_fail_by_handle(api: &Resource, try_error: TryAcquireError, error: AcquireError) {
    for n in [0, 1, 2, u64::MAX] {
        assert_eq!(api.check_n(n), Err(try_error), "{n}");
        assert_eq!(api.peek(n), Err(try_error), "{n}");
        assert_eq!(api.try_acquire_n(n).unwrap_err(), try_error, "{n}");
        assert_eq!(now(api.acquire_n(n)).unwrap_err(), error, "{n}");
        assert_eq!(api.blocking_acquire_n(n, None).unwrap_err(), error, "{n}");
    }
    assert_eq!(api.check(), Err(try_error));
    assert_eq!(api.try_acquire().unwrap_err(), try_error);
    assert_eq!(now(api.acquire()).unwrap_err(), error);
    assert_eq!(api.blocking_acquire().unwrap_err(), error);
    assert_eq!(api.blocking_acquire_timeout(SECOND).unwrap_err(), error);
    // Harmless.
    api.announce_reduced("429");
    api.pause_for(SECOND);
    api.release();
    api.release_n(9);
    assert_eq!(api.capacity().available, 0);
}

#[test]
fn after_the_close() {
    for paused in [false, true] {
        let (time, limiter) = limiter();
        let limit =
            Limit::per_second(5).on_release(OnRelease::Refund).recovery(Recovery::default());
        let api = limiter.configure("api", limit).unwrap();
        let early = now(limiter.acquire("api")).unwrap();
        let future = limiter.acquire("api");
        let told = Arc::new(AtomicU64::new(0));
        let tell = Arc::clone(&told);
        limiter.on_capacity_change(move |_| _ = tell.fetch_add(1, Ordering::SeqCst));
        api.announce_reduced("429");
        assert_eq!(told.load(Ordering::SeqCst), 1);
        if paused {
            api.pause_for(SECOND);
        }
        limiter.close();
        limiter.close();
        for later in [0, 1, 3_600] {
            time.set(later * 1_000_000_000);
            all_fail_by_handle(&api, TryAcquireError::Closed, AcquireError::Closed);
            for name in ["api", "other", ""] {
                all_fail(&limiter, name, TryAcquireError::Closed, AcquireError::Closed);
            }
            limiter.announce_reduced("api", "429");
            limiter.pause_for("api", SECOND);
            assert_eq!(limiter.set_capacity("api", 1, SECOND), Err(ConfigError::Closed));
            assert_eq!(limiter.set_capacity("new", 1, SECOND), Err(ConfigError::Closed));
            assert!(limiter.resource("new").is_none());
            assert!(limiter.capacity("api").is_some() && limiter.resources().len() == 1);
        }
        assert_eq!(now(future).unwrap_err(), AcquireError::Closed);
        // `release` in there has ended the one that was out; this ends nothing twice.
        drop(early);
        assert_eq!(api.capacity().in_flight, 0);
        // The cut, and the pause, whose end is not told any more.
        assert_eq!(told.load(Ordering::SeqCst), 1 + u64::from(paused));
        let _ = limiter.remove("api");
        all_fail_by_handle(&api, TryAcquireError::Closed, AcquireError::Closed);
    }
}

#[test]
fn removed_is_removed() {
    let (time, limiter) = limiter();
    let old = limiter.configure("api", Limit::per_second(5)).unwrap();
    let permit = old.try_acquire().unwrap().into_owned();
    let future = old.acquire();
    assert!(limiter.remove("api"));
    assert!(!limiter.remove("api"));
    for again in [false, true] {
        if again {
            let new = limiter.configure("api", Limit::per_second(1)).unwrap();
            assert_eq!((new.capacity().available, new.capacity().in_flight), (1, 0));
        }
        time.advance(Duration::from_hours(1));
        all_fail_by_handle(&old, TryAcquireError::UnknownResource, AcquireError::UnknownResource);
    }
    assert_eq!(now(future).unwrap_err(), AcquireError::UnknownResource);
    permit.refund();
    assert_eq!(limiter.capacity("api").unwrap().available, 1);
    assert_eq!(limiter.check("api"), Ok(()));
    limiter.close();
    assert_eq!(old.check(), Err(TryAcquireError::UnknownResource));
}

#[test]
fn release_without_acquire() {
    let (_, limiter) = limiter();
    limiter.set_capacity("api", 5, SECOND).unwrap();
    // Spent without a permit: there is nothing to end.
    limiter.check_n("api", 4).unwrap();
    for _ in 0..3 {
        limiter.release("api");
        limiter.release_n("api", u64::MAX);
    }
    let capacity = capacities(&limiter);
    assert_eq!((capacity.available, capacity.in_flight), (1, 0));
    // One permit ends once, and the bucket never holds more than its capacity.
    limiter.try_acquire("api").unwrap().forget();
    limiter.release_n("api", u64::MAX);
    limiter.release("api");
    let capacity = capacities(&limiter);
    assert_eq!((capacity.available, capacity.in_flight), (5, 0));
}

#[test]
fn callbacks_that_panic_or_call_back() {
    let (time, limiter) = limiter();
    let told = Arc::new(Mutex::new(Vec::new()));
    limiter.on_capacity_change(|_| panic!("the first callback"));
    let (tell, again) = (Arc::clone(&told), limiter.clone());
    limiter.on_capacity_change(move |update| {
        tell.lock().unwrap().push((update.resource.clone(), update.new_capacity, update.kind));
        if update.resource != "api" {
            return;
        }
        // Every verb, on the same resource and on others.
        again.check("api").unwrap();
        drop(again.try_acquire("api").unwrap());
        drop(now(again.acquire("api")).unwrap());
        again.release("api");
        let other = Limit::per_second(update.new_capacity).no_recovery();
        again.configure("other", other).unwrap();
        again.announce_reduced("other", "too");
        again.pause_for("other", SECOND);
        again.set_capacity("third", 1, SECOND).unwrap();
        assert!(again.resource("api").is_some() && again.resources().len() == 3);
        assert!(again.remove("third") && again.capacity("third").is_none());
        let late = Arc::clone(&tell);
        again.on_capacity_change(move |update| {
            let name = format!("late {}", update.resource);
            late.lock().unwrap().push((name, update.new_capacity, update.kind));
        });
    });
    limiter.on_capacity_change(|_| panic!("the last callback"));
    let limit = Limit::per_second(1_010).recovery(Recovery::default());
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    time.advance(Duration::from_secs(30));
    api.check().unwrap();
    let name = |name: &str, total, kind| (name.to_string(), total, kind);
    assert_eq!(
        *told.lock().unwrap(),
        [
            name("api", 757, UpdateKind::Cut),
            name("other", 567, UpdateKind::Cut),
            name("other", 567, UpdateKind::Pause),
            name("api", 833, UpdateKind::Recovery),
            // Of a second round: the end of the pause, another limit, scaled by the factor of its cut, then a cut.
            name("other", 567, UpdateKind::Resume),
            name("late other", 567, UpdateKind::Resume),
            name("other", 624, UpdateKind::Config),
            name("late other", 624, UpdateKind::Config),
            name("other", 468, UpdateKind::Cut),
            name("late other", 468, UpdateKind::Cut),
            name("other", 468, UpdateKind::Pause),
            name("late other", 468, UpdateKind::Pause),
            name("late api", 833, UpdateKind::Recovery),
        ]
    );
    assert_eq!(api.capacity().in_flight, 0);
}

/// From a callback of `configure` itself.
#[test]
fn a_callback_of_configure_may_configure() {
    let _watchdog = Watchdog::new();
    let (_, limiter) = limiter();
    let again = limiter.clone();
    limiter.on_capacity_change(move |update| {
        if update.new_capacity < 5 {
            let limit = Limit::per_second(update.new_capacity + 1);
            again.configure(&update.resource, limit).unwrap();
            again.remove("other");
        } else {
            again.close();
        }
    });
    limiter.set_capacity("api", 1, SECOND).unwrap();
    limiter.set_capacity("other", 1, SECOND).unwrap();
    limiter.set_capacity("api", 2, SECOND).unwrap();
    assert_eq!(limiter.capacity("api").unwrap().burst, 5);
    assert_eq!(limiter.check("api"), Err(TryAcquireError::Closed));
}

/// The three kinds of change, each told once with what the bucket then holds.
#[test]
fn each_change_is_told() {
    let (time, limiter) = limiter();
    let told = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let tell = Arc::clone(&told);
        limiter.on_capacity_change(move |update| {
            assert_eq!((&*update.resource, &*update.agent_id), ("api", "local"));
            tell.lock().unwrap().push((update.new_capacity, update.reason.clone(), update.kind));
        });
    }
    let limit = Limit::per_second(10).recovery(Recovery::default());
    let api = limiter.configure("api", limit).unwrap();
    limiter.configure("api", limit).unwrap();
    assert!(told.lock().unwrap().is_empty());
    api.announce_reduced("429");
    time.set(45_000_000_000);
    api.check().unwrap();
    limiter.configure("api", Limit::per_second(20).recovery(Recovery::default())).unwrap();
    let told = told.lock().unwrap();
    let told: Vec<_> = told.iter().map(|(total, why, kind)| (*total, &**why, *kind)).collect();
    let expected = [
        (7, "429", UpdateKind::Cut),
        (8, "recovery", UpdateKind::Recovery),
        (16, "configured", UpdateKind::Config),
    ];
    assert_eq!(told, expected.map(|change| [change; 2]).concat());
}

#[test]
fn an_old_handle_sees_a_new_limit() {
    let (time, limiter) = limiter();
    let old = limiter.configure("api", Limit::per_second(5)).unwrap();
    let clone = old.clone();
    limiter.configure("api", Limit::per_second(50).max_in_flight(1)).unwrap();
    time.advance(SECOND);
    assert_eq!(old.capacity().burst, 50);
    assert_eq!(clone.check_n(50), Ok(()));
    time.advance(SECOND);
    let one = old.try_acquire().unwrap();
    assert_eq!(clone.try_acquire().unwrap_err(), TryAcquireError::TooManyInFlight);
    drop(one);
    // The policy of a permit's end is the one in force when it ends.
    let permit = clone.try_acquire_n(49).unwrap();
    limiter.set_capacity("api", 50, SECOND).unwrap();
    assert_eq!(old.capacity().available, 0);
    drop(permit);
    assert_eq!(old.capacity().available, 49);
    limiter.configure("api", Limit::per_second(2)).unwrap();
    assert_eq!(old.check_n(3), Err(TryAcquireError::ExceedsCapacity { capacity: 2 }));
}

#[test]
fn errors_say_what_to_do() {
    let (_, limiter) = limiter();
    let api = limiter.configure("api", Limit::per_second(2).max_in_flight(1)).unwrap();
    let says = |error: &dyn std::error::Error, words: &[&str]| {
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        assert!(!text.contains("Some(") && !text.ends_with('.'));
    };
    says(&api.check_n(3).unwrap_err(), &["at most 2", "burst"]);
    says(&now(api.acquire_n(3)).unwrap_err(), &["at most 2", "burst"]);
    let held = api.try_acquire().unwrap();
    says(&api.try_acquire().unwrap_err(), &["in flight", "end one"]);
    api.check().unwrap();
    drop(held);
    says(&api.check().unwrap_err(), &["retry after 500ms"]);
    says(&limiter.check("nobody").unwrap_err(), &["unknown", "configure", "per_key"]);
    says(&limiter.blocking_acquire("nobody").unwrap_err(), &["unknown", "configure"]);
    says(&api.blocking_acquire_timeout(Duration::ZERO).unwrap_err(), &["timeout"]);
    limiter.configure("full", Limit::per_second(1).max_waiting(0)).unwrap().check().unwrap();
    says(&limiter.blocking_acquire("full").unwrap_err(), &["waiting"]);
    for (limit, error) in refused() {
        let word = match error {
            ConfigError::InvalidCapacity => "1 to 2^52",
            ConfigError::InvalidWindow => "584 years",
            ConfigError::InvalidBurst => "burst",
            ConfigError::InvalidInFlight => "at least 1",
            ConfigError::InvalidRecovery => "at least 1 ms",
            ConfigError::InvalidAdaptive => "min <= the limit <= max",
            _ => "5e12",
        };
        says(&limiter.configure("bad", limit).unwrap_err(), &[word]);
    }
    says(&limiter.set_capacity("", 1, SECOND).unwrap_err(), &["name"]);
    limiter.close();
    says(&api.check().unwrap_err(), &["closed"]);
    says(&now(api.acquire()).unwrap_err(), &["closed"]);
    says(&limiter.set_capacity("x", 1, SECOND).unwrap_err(), &["closed"]);
}
