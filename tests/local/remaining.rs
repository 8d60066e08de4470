//! What an upstream says is left: `observe_remaining`, and `observe_remaining_until`.

use std::time::Duration;

use crate::common::manual;
use tollgate::{Limit, RateLimiter, TryAcquireError};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_report_is_about_the_first_window() {
    let (limiter, api, time) = manual(Limit::per_minute(100).and(Limit::per_hour(1_000)));
    let held = || api.capacity().windows.iter().map(|each| each.available).collect::<Vec<_>>();
    limiter.observe_remaining("api", 60);
    assert_eq!(held(), [60, 1_000]);
    let dynamic: &dyn RateLimiter = &limiter;
    dynamic.observe_remaining("api", 70);
    api.observe_remaining(500);
    assert_eq!(held(), [60, 1_000]);
    time.advance(6 * SECOND);
    assert_eq!(held(), [70, 1_000]);
}

#[test]
fn a_report_keeps_a_debt() {
    let (_, api, time) = manual(Limit::per_second(1).burst(10));
    api.try_acquire_n(10).unwrap().settle(15);
    api.observe_remaining(3);
    api.observe_remaining(0);
    assert_eq!(api.check().unwrap_err().retry_after(), Some(6 * SECOND));
    time.advance(6 * SECOND);
    assert_eq!((api.check(), api.check().is_ok()), (Ok(()), false));
}

#[test]
fn a_report_of_what_is_not_there_does_nothing() {
    let (limiter, api, _) = manual(Limit::per_second(5));
    limiter.observe_remaining("nobody", 0);
    assert!(limiter.capacity("nobody").is_none());
    limiter.per_key("user:", Limit::per_day(5)).unwrap();
    limiter.observe_remaining("user:ann", 2);
    assert_eq!(limiter.capacity("user:ann").unwrap().available, 2);
    limiter.close();
    api.observe_remaining(1);
    assert_eq!(api.check(), Err(TryAcquireError::Closed));
}
