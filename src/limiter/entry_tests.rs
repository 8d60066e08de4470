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
