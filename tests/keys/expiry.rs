//! Keys and time: clocks that step back while keys are looked at, and many keys that nobody uses.

use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// Keys of ten a second, of which "a" was drained at `now`.
fn drained(now: u64) -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("", Limit::per_second(10)).unwrap();
    time.set(now);
    assert!(limiter.check_n("a", 10).is_ok());
    (limiter, time)
}

/// A key that is looked at by a reading from weeks before it was used stays as it is.
#[test]
fn a_look_from_weeks_before() {
    for back in [1, 100, 200, 300, 400, 600, 799] {
        let (limiter, time) = drained(800 * HOUR);
        time.set((800 - back) * HOUR);
        drop(limiter.resource("b"));
        drop(limiter.resource("c"));
        time.set(800 * HOUR);
        assert!(limiter.check("a").is_err(), "{back} hours");
    }
}

/// So it does where it is another limit's by then.
#[test]
fn another_limit_weeks_before() {
    for back in [1, 100, 200, 300, 400, 600, 799] {
        let (limiter, time) = drained(800 * HOUR);
        time.set((800 - back) * HOUR);
        limiter.per_key("", Limit::per_second(10)).unwrap();
        time.set(800 * HOUR);
        assert!(limiter.check("a").is_err(), "{back} hours");
    }
}

/// A key that went as its template was given another limit is full from then on, and not before.
#[test]
fn another_limit_an_hour_before() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("", Limit::per_second(10)).unwrap();
    limiter.per_key("slow ", Limit::per_day(1)).unwrap();
    time.set(800 * HOUR - 120 * SECOND);
    // So many that it is not looked at before.
    (0..1_000).for_each(|key| limiter.check(&format!("slow {key}")).unwrap());
    limiter.check_n("a", 10).unwrap();
    time.set(800 * HOUR);
    limiter.check("b").unwrap();
    time.set(799 * HOUR);
    limiter.per_key("", Limit::per_second(10)).unwrap();
    time.set(800 * HOUR - 120 * SECOND + 1);
    assert!(limiter.check("a").is_err());
}

/// A key of several windows that went has earned nothing before it did.
#[test]
fn several_windows_a_moment_before() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let limit = Limit::per_second(10).and(Limit::per_minute(60));
    limiter.per_key_at_most("", limit, 1).unwrap();
    time.set(200 * SECOND);
    limiter.check_n("a", 10).unwrap();
    // As new ten seconds ago.
    time.set(260 * SECOND);
    limiter.check("b").unwrap();
    limiter.remove("b");
    let mut taken = 0;
    for second in 201..=250 {
        time.set(second * SECOND);
        taken += (0..100).filter(|_| limiter.check("a").is_ok()).count();
    }
    assert_eq!(taken, 10);
}

/// A whole key is as new from when it is known to be full, and no earlier.
#[test]
fn a_whole_key_that_is_new_for_a_moment() {
    let (limiter, time) = drained(90 * SECOND);
    time.set(99 * SECOND);
    drop(limiter.resource("a"));
    time.set(100 * SECOND);
    limiter.check("b").unwrap();
    time.set(91 * SECOND);
    let taken = (0..100).filter(|_| limiter.check("a").is_ok()).count();
    time.set(92 * SECOND);
    let taken = taken + (0..100).filter(|_| limiter.check("a").is_ok()).count();
    assert!(taken <= 10, "{taken}");
}

/// However many keys go, those that are left are looked at in time.
#[test]
fn the_last_of_many_keys() {
    const KEYS: u64 = 300_000;
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("", Limit::per_second(10)).unwrap();
    for key in 0..KEYS {
        limiter.check(&key.to_string()).unwrap();
    }
    for hour in 1..600 {
        time.set(hour * HOUR);
        limiter.check("in use").unwrap();
        let looked = limiter.peek(&(KEYS - 1).to_string(), 10);
        assert_eq!(looked, Ok(()), "after {hour} hours");
    }
}

/// So they are where the limiter is used once in days.
#[test]
fn keys_of_a_limiter_that_rests() {
    for rest in [60, 100, 127, 128, 200, 255] {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key("", Limit::per_second(10)).unwrap();
        for key in 0..50_000 {
            limiter.check(&key.to_string()).unwrap();
        }
        for turn in 1..9 {
            time.advance(Duration::from_hours(rest));
            limiter.check("in use").unwrap();
            for key in 49_800..50_000 {
                let looked = limiter.peek(&key.to_string(), 10);
                assert_eq!(looked, Ok(()), "key {key} after {turn} times {rest} hours");
            }
        }
    }
}

/// Whole keys that nobody has used for a day make room at once, however many they are.
#[test]
fn whole_keys_that_rest_make_room() {
    for limit in [Limit::per_second(10), Limit::per_second(10).and(Limit::per_minute(100))] {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key_at_most("", limit, 2_000).unwrap();
        for key in 0..2_000 {
            drop(limiter.try_acquire(&key.to_string()).unwrap());
        }
        time.set(24 * HOUR);
        assert_eq!(limiter.check("new"), Ok(()));
        time.set(48 * HOUR);
        assert_eq!(limiter.check("newer"), Ok(()));
    }
}

/// So do those that fill up for longer than an anchor is good for.
#[test]
fn whole_keys_that_fill_up_slowly_make_room() {
    for hours in [1, 24, 24 * 30, 24 * 365] {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let limit = Limit::new(2, Duration::from_hours(hours));
        limiter.per_key_at_most("", limit, 1).unwrap();
        for name in ["a", "b", "c"] {
            drop(limiter.try_acquire_n(name, 2).unwrap());
            for _ in 0..3 {
                time.advance(Duration::from_hours(hours) / 4);
                assert!(limiter.check("new").is_err(), "{name}, {hours} hours");
            }
            time.advance(Duration::from_hours(hours) / 4);
        }
    }
}
