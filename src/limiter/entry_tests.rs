use super::super::{Limit, MemoryLimiter, Resource, TryAcquireError};
use super::*;
use crate::clock::ManualClock;

#[test]
fn a_denial_writes_nothing() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    // The word, the permits in flight, the slots, and the queue.
    let state = |api: &Resource| format!("{:?}", api.0.bucket);
    let limit = Limit::per_second(10);
    for bound in [u64::MAX, 2] {
        let api = limiter.configure(&bound.to_string(), limit.max_in_flight(bound)).unwrap();
        let _held = api.try_acquire_n(10).unwrap();
        time.advance(Duration::from_millis(99)); // nearly one
        for paused in [false, true] {
            if paused {
                api.pause_for(Duration::from_secs(1));
            }
            let before = state(&api);
            for n in [1, 10, 11] {
                assert!(api.check_n(n).is_err());
                assert!(api.try_acquire_n(n).is_err());
                assert!(api.peek(n).is_err());
            }
            assert_eq!(state(&api), before, "paused: {paused}");
        }
    }
    let api = limiter.configure("in flight", limit.max_in_flight(1)).unwrap();
    let _held = api.try_acquire().unwrap();
    let before = state(&api);
    assert_eq!(api.try_acquire().unwrap_err(), TryAcquireError::TooManyInFlight);
    assert_eq!(state(&api), before);
}

#[test]
fn a_denied_group_gives_back_what_was_prepaid() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let large = limiter.configure("large", Limit::per_day(1_000_000)).unwrap();
    let small = limiter.configure("small", Limit::per_day(1)).unwrap();
    small.check().unwrap();
    large.0.bucket.open_stripes();
    for _ in 0..1_000 {
        assert!(limiter.check_all_of(&[(&large, 1), (&small, 1)]).is_err());
        let denied = limiter.try_acquire_all(&[("small", 1), ("large", 1)]).unwrap_err();
        assert_eq!(&*denied.resource, "small");
    }
    let capacity = large.capacity();
    assert_eq!((capacity.available, capacity.in_flight), (1_000_000, 0));
    assert!(large.0.bucket.is_striped(), "the stripes were drained");
    assert_eq!(large.0.tokens_granted(), 0);
    // More than a cache holds, so that it is filled again on the way.
    for taken in 1..=1_000 {
        limiter.check_all(&[("large", 1)]).unwrap();
        assert_eq!(large.capacity().available, 1_000_000 - taken);
        assert!(limiter.check_all_of(&[(&large, 1), (&small, 1)]).is_err());
        assert_eq!(large.capacity().available, 1_000_000 - taken);
    }
}

#[test]
fn a_report_that_lowers_nothing_closes_no_stripe() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_day(10_000)).unwrap();
    api.0.bucket.open_stripes();
    api.check_n(2_000).unwrap();
    let is_striped = || api.0.bucket.is_striped();
    for left in [10_000, 8_000, 9_000, u64::MAX] {
        api.observe_remaining(left);
        assert!(is_striped() && api.capacity().available == 8_000, "{left}");
    }
    api.observe_remaining(7_500);
    assert_eq!((is_striped(), api.capacity().available), (false, 7_500));
    time.advance(std::time::Duration::from_secs(1));
    api.0.bucket.open_stripes();
    assert!(is_striped());
    api.observe_remaining(9_999);
    assert!(is_striped());
}

#[test]
fn groups_that_take_what_was_prepaid_are_measured() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let limit = Limit::per_second(100_000);
    let (a, b) = (limiter.configure("a", limit).unwrap(), limiter.configure("b", limit).unwrap());
    for i in 0..2_000 {
        time.advance(Duration::from_millis(1));
        if i % 100 == 0 {
            a.0.bucket.open_stripes();
            b.0.bucket.open_stripes();
        }
        drop(limiter.try_acquire_all(&[("a", 1), ("b", 1)]).unwrap());
    }
    assert!(a.0.bucket.is_striped());
    limiter.try_acquire("a").unwrap().throttled("429");
    assert!((700..=800).contains(&a.capacity().per_window), "{:?}", a.capacity());
}
