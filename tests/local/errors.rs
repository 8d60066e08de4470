//! What errors say: what happened, to which resource, and what to do next. Each variant is read aloud.

use std::time::Duration;

use tollgate::{
    AcquireError, ConfigError, Limit, ManualClock, MemoryLimiter, Permits, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);

fn limiter() -> MemoryLimiter {
    MemoryLimiter::with_clock(ManualClock::new())
}

/// Each error of a call that does not wait, by a call that meets it.
#[test]
fn calls_that_do_not_wait() {
    let limiter = limiter();
    limiter.configure("api", Limit::per_second(2).burst(1).max_in_flight(1)).unwrap();
    limiter.per_key_at_most("user:", Limit::per_second(1), 0).unwrap();
    let _held = limiter.try_acquire("api").unwrap();
    let told = |resource: &str, n: u64| {
        let error = limiter.try_acquire_n(resource, n).unwrap_err();
        // The same, of a call for several.
        let all = limiter.try_acquire_all(&[(resource, n)]).unwrap_err();
        assert_eq!(all, error.for_resource(resource));
        assert_eq!(all.to_string(), format!("{resource:?}: {error}"));
        assert_eq!(all.retry_after(), error.retry_after());
        (error, error.to_string())
    };
    let (error, text) = told("api", 1);
    assert!(matches!(error, TryAcquireError::Exhausted { .. }));
    assert_eq!(text, "rate limited: retry after 500ms");
    limiter.configure("api", Limit::per_second(2).burst(5).max_in_flight(1)).unwrap();
    limiter.configure("full", Limit::per_second(2).max_in_flight(1)).unwrap();
    let _full = limiter.try_acquire("full").unwrap();
    let (error, text) = told("full", 1);
    assert_eq!(error, TryAcquireError::TooManyInFlight);
    assert_eq!(text, "too many permits in flight: end one, or raise the limit's `max_in_flight`");
    let (error, text) = told("api", 6);
    assert_eq!(error, TryAcquireError::ExceedsCapacity { capacity: 5 });
    assert_eq!(text, "more than the burst at present: ask for at most 5, or raise the burst");
    let (error, text) = told("user:ann", 1);
    assert_eq!(error, TryAcquireError::TooManyKeys { most: 0 });
    assert_eq!(
        text,
        "the prefix has as many keys as it may, 0: refuse this call, or raise the maximum by `per_key_at_most`"
    );
    let (error, text) = told("nobody", 1);
    assert_eq!(error, TryAcquireError::UnknownResource);
    assert_eq!(
        text,
        "unknown resource: configure it, or a prefix of its name by `per_key`; a handle may be of a \
         resource that was removed, or of another limiter"
    );
    limiter.close();
    let (error, text) = told("api", 1);
    assert_eq!(error, TryAcquireError::Closed);
    assert_eq!(text, "the limiter is closed");
}

/// Each error of a wait, by a call that meets it.
#[test]
fn waits() {
    let limiter = limiter();
    limiter.configure("api", Limit::per_second(1)).unwrap();
    limiter.per_key_at_most("user:", Limit::per_second(1), 0).unwrap();
    let timeout = Some(Duration::from_millis(10));
    let told = |resource: &str, n: u64| {
        let error = limiter.blocking_acquire_n(resource, n, timeout).unwrap_err();
        let ready = limiter.blocking_until_ready_n(resource, n, timeout).unwrap_err();
        let all = limiter.blocking_acquire_all(&[(resource, n)], timeout).unwrap_err();
        assert_eq!((ready, &all), (error, &error.for_resource(resource)));
        assert_eq!(all.to_string(), format!("{resource:?}: {error}"));
        assert_eq!(all.retry_after(), error.retry_after());
        (error, error.to_string())
    };
    limiter.check("api").unwrap();
    let (error, text) = told("api", 1);
    assert_eq!(error.retry_after(), Some(SECOND));
    assert_eq!(text, "no success before the timeout: retry after 1s");
    let (error, text) = told("api", 2);
    assert_eq!(error, AcquireError::ExceedsCapacity { capacity: 1 });
    assert!(
        text.starts_with("more than the burst at present: ask for at most 1, or raise"),
        "{text}"
    );
    limiter.configure("api", Limit::per_second(1).max_waiting(0)).unwrap();
    let (error, text) = told("api", 1);
    assert_eq!(error, AcquireError::QueueFull);
    assert_eq!(
        text,
        "as many calls wait as the limit allows: shed this one, or raise the limit's `max_waiting`"
    );
    let (error, _) = told("user:ann", 1);
    assert_eq!(error, AcquireError::TooManyKeys { most: 0 });
    let (error, _) = told("nobody", 1);
    assert_eq!(error, AcquireError::UnknownResource);
    limiter.close();
    let (error, _) = told("api", 1);
    assert_eq!(error, AcquireError::Closed);
}

/// A wait for a place in flight is not over by time alone.
#[test]
fn a_timeout_for_want_of_a_place_in_flight() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(10).max_in_flight(1)).unwrap();
    let _held = api.try_acquire().unwrap();
    let error = api.blocking_acquire_timeout(Duration::ZERO).unwrap_err();
    assert!(matches!(error, AcquireError::TimedOut { retry_after: None, .. }));
    assert_eq!(error.retry_after(), None);
    assert_eq!(
        error.to_string(),
        "no success before the timeout: too many permits are in flight, end one first"
    );
    // A wait without a permit does not look at what is in flight.
    assert_eq!(api.blocking_until_ready_n(1, Some(Duration::ZERO)), Ok(()));
}

#[test]
fn limits() {
    let limiter = limiter();
    for (limit, error, text) in [
        (
            Limit::per_second(0),
            ConfigError::InvalidCapacity,
            "the number of tokens in a window must be 1 to 2^52",
        ),
        (
            Limit::new(1, Duration::ZERO),
            ConfigError::InvalidWindow,
            "the window must be 1 ns to 2^64 ns (584 years)",
        ),
        (
            Limit::per_second(1).burst(0),
            ConfigError::InvalidBurst,
            "the burst must be 1 to 2^52 tokens, and of a strict limit no more than it allows",
        ),
        (
            Limit::per_second(1).max_in_flight(0),
            ConfigError::InvalidInFlight,
            "max_in_flight must be at least 1",
        ),
        (
            Limit::new(1 << 52, Duration::from_nanos(1)),
            ConfigError::RateTooHigh,
            "the rate must be below 5e12 tokens a second",
        ),
        (
            Limit::per_second(1).and(Limit::per_minute(2).max_waiting(3)),
            ConfigError::SettingNotOnFirstWindow,
            "on_release, max_in_flight, max_waiting, recovery, min_rate and cooldown belong to the first \
             of several limits, not to what `and` adds",
        ),
        (
            (1..=5).map(Limit::per_second).reduce(Limit::and).unwrap(),
            ConfigError::TooManyWindows,
            "a limit has at most 4 windows",
        ),
        (
            Limit::per_second(1).recovery(tollgate::Recovery {
                interval: Duration::ZERO,
                factor: 2.0,
                cap: true,
            }),
            ConfigError::InvalidRecovery,
            "a recovery needs an interval of at least 1 ms and a finite factor above 1",
        ),
        (
            Limit::per_second(10).min_rate(11),
            ConfigError::InvalidMinRate,
            "min_rate must be 1 to the number of tokens in a window of the limit",
        ),
    ] {
        assert_eq!(limit.validate(), Err(error.clone()));
        assert_eq!(limiter.configure("api", limit).unwrap_err(), error);
        assert_eq!(error.to_string(), text);
        let all = limiter.configure_all(&[("other", Limit::per_second(1)), ("api", limit)]);
        let all = all.unwrap_err();
        assert_eq!((&*all.resource, &all.cause), ("api", &error));
        assert_eq!(all.to_string(), format!("\"api\": {text}"));
    }
    let unnamed =
        limiter.configure_all(&[("api", Limit::per_second(1)), ("", Limit::per_second(1))]);
    assert_eq!(unnamed.unwrap_err().to_string(), "\"\": a resource needs a name");
    assert!(limiter.resources().is_empty(), "all or none");
    let two = [("a", Limit::per_second(1)), ("b", Limit::per_second(2))];
    assert_eq!(limiter.configure_all(&two).unwrap().len(), 2);
    assert_eq!(limiter.resources().len(), 2);
    limiter.close();
    let closed = limiter.configure_all(&two).unwrap_err();
    assert_eq!(closed.to_string(), "\"a\": the limiter is closed");
}

#[test]
fn costs_of_no_permit() {
    let limiter = limiter();
    limiter.configure("tokens", Limit::per_second(10)).unwrap();
    let permits: Permits = limiter.try_acquire_all(&[("tokens", 2)]).unwrap();
    let error = permits.settle(&[("tokns", 1)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"no permit of "tokns", whose cost was not charged: the permits are of ["tokens"]"#
    );
}
