//! Looking without taking: limits, capacities, and what would be admitted.

use std::sync::Arc;
use std::time::Duration;

use tollgate::{
    Limit, ManualClock, MemoryLimiter, OnRelease, RateLimiter, Recovery, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_limit_shows_what_was_set() {
    let plain = Limit::per_second(10);
    assert_eq!(plain.get_on_release(), OnRelease::Spend);
    assert_eq!((plain.get_max_in_flight(), plain.get_max_waiting()), (None, None));
    assert_eq!((plain.get_recovery(), plain.get_cooldown()), (None, None));
    assert_eq!((plain.get_no_recovery(), plain.get_min_rate()), (false, None));
    let recovery = Recovery { interval: SECOND, factor: 2.0, cap: false };
    let limit = Limit::per_second(10)
        .burst(20)
        .and(Limit::at_most(100, 60 * SECOND))
        .on_release(OnRelease::Refund)
        .max_in_flight(3)
        .max_waiting(4)
        .recovery(recovery)
        .cooldown(SECOND);
    assert_eq!(limit.get_on_release(), OnRelease::Refund);
    assert_eq!((limit.get_max_in_flight(), limit.get_max_waiting()), (Some(3), Some(4)));
    assert_eq!((limit.get_recovery(), limit.get_cooldown()), (Some(recovery), Some(SECOND)));
    // The last call counts.
    let limit = limit.min_rate(2).no_recovery();
    assert_eq!((limit.get_recovery(), limit.get_no_recovery()), (None, true));
    assert_eq!(limit.get_min_rate(), Some(2));
    let limit = limit.recovery(recovery);
    assert_eq!((limit.get_recovery(), limit.get_no_recovery()), (Some(recovery), false));
    let windows: Vec<_> = limit
        .get_windows()
        .map(|window| (window.capacity, window.window, window.burst, window.is_strict))
        .collect();
    assert_eq!(windows, [(10, SECOND, 20, false), (100, 60 * SECOND, 10, true)]);
    assert_eq!(limit.validate(), Ok(()));
}

/// The line of the specification where burst and rate are one; else the rate follows.
#[test]
fn a_capacity_is_one_line() {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    for (limit, line) in [
        (Limit::per_second(5), "api: 5/5 available, 0 in-flight, window=1s"),
        (
            Limit::per_minute(600).burst(10),
            "api: 10/10 available, 0 in-flight, window=60s, rate=600",
        ),
        (
            Limit::per_second(5).and(Limit::at_most(100, 60 * SECOND)),
            "api: 5/5 available, 0 in-flight, window=1s; 10/10, window=60s, rate=91",
        ),
    ] {
        limiter.remove("api");
        limiter.configure("api", limit).unwrap();
        assert_eq!(limiter.capacity("api").unwrap().to_string(), line);
    }
}

#[test]
fn several_can_be_looked_at() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time);
    limiter.configure("fast", Limit::per_second(10)).unwrap();
    limiter.configure("slow", Limit::per_minute(10)).unwrap();
    limiter.per_key("user:", Limit::per_second(3)).unwrap();
    assert_eq!(limiter.peek_all(&[("fast", 10), ("slow", 10), ("user:ann", 3)]), Ok(()));
    assert_eq!(limiter.peek_all(&[]), Ok(()));
    // Nothing was taken.
    limiter.check_all(&[("fast", 9), ("slow", 9), ("user:ann", 3)]).unwrap();
    let error = limiter.peek_all(&[("fast", 2), ("slow", 2), ("user:ann", 0)]).unwrap_err();
    assert_eq!((&*error.resource, error.retry_after()), ("slow", Some(6 * SECOND)));
    // What is named twice is added up, keys too.
    let error = limiter.peek_all(&[("fast", 1), ("user:bob", 2), ("user:bob", 2)]).unwrap_err();
    assert_eq!(&*error.resource, "user:bob");
    assert_eq!(error.cause, TryAcquireError::ExceedsCapacity { capacity: 3 });
    let dynamic: &dyn RateLimiter = &limiter;
    let error = dynamic.peek_all(&[("nobody", 1), ("fast", 99)]).unwrap_err();
    assert_eq!((&*error.resource, error.cause), ("nobody", TryAcquireError::UnknownResource));
}

/// A callback that holds a weak limiter does not keep it alive.
#[test]
fn a_weak_limiter_breaks_the_cycle() {
    let limiter = MemoryLimiter::new();
    let (weak, seen) = (limiter.downgrade(), Arc::new(()));
    let held = (weak.clone(), Arc::clone(&seen));
    limiter.on_capacity_change(move |update| {
        let (weak, _seen) = &held;
        let limiter = weak.upgrade().expect("it calls");
        assert!(limiter.capacity(&update.resource).is_some());
    });
    limiter.configure("api", Limit::per_second(1)).unwrap();
    limiter.configure("api", Limit::per_second(2)).unwrap();
    assert_eq!(Arc::strong_count(&seen), 2);
    drop(limiter);
    assert!(weak.upgrade().is_none());
    assert_eq!(Arc::strong_count(&seen), 1, "the callback is gone");
}
