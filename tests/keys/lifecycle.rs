//! Keys of a template: made on first use, gone when they are as new, and bound all the same.

use std::any::Any;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::common::keys::{FULL, MINUTE, SECOND, available, drain, limiter, tens};
use tollgate::{
    AcquireError, ConfigError, Limit, MemoryLimiter, OnRelease, Recovery, TryAcquireError,
};

#[test]
fn each_key_has_a_bucket_of_its_own() {
    let (limiter, time) = tens();
    for name in ["user:ann", "user:bob", "user:"] {
        assert_eq!(drain(&limiter, name), 10, "{name}");
    }
    time.advance(SECOND / 2);
    assert_eq!(drain(&limiter, "user:ann"), 5);
    time.advance(MINUTE);
    assert_eq!(drain(&limiter, "user:ann"), 10);
    assert_eq!(
        limiter.check_n("user:ann", 11),
        Err(TryAcquireError::ExceedsCapacity { capacity: 10 })
    );
    assert_eq!(limiter.check("use"), Err(TryAcquireError::UnknownResource));
    assert_eq!(limiter.check("other:ann"), Err(TryAcquireError::UnknownResource));
}

#[test]
fn a_refusal_says_when() {
    let (limiter, time) = limiter();
    // A nanosecond accrues no whole number of units by the last of these.
    for (prefix, tokens, window) in [
        ("a", 10, SECOND),
        ("b", 7, SECOND),
        ("c", 999_983, MINUTE),
        ("d", 3, Duration::from_nanos(999_983)),
    ] {
        limiter.per_key(prefix, Limit::new(tokens, window).burst(2)).unwrap();
        time.advance(Duration::from_nanos(12_345_678_901));
        assert!(limiter.check_n(prefix, 2).is_ok());
        for n in [1, 2, 1] {
            let refused = limiter.check_n(prefix, n).unwrap_err();
            let wait = refused.retry_after().unwrap();
            assert_eq!(limiter.peek(prefix, n), Err(refused));
            time.advance(wait.saturating_sub(Duration::from_nanos(1)));
            let left = limiter.check_n(prefix, n).unwrap_err().retry_after();
            assert_eq!(left, Some(Duration::from_nanos(1)), "{prefix}");
            time.advance(Duration::from_nanos(1));
            assert_eq!(limiter.check_n(prefix, n), Ok(()), "{prefix}");
        }
    }
}

#[test]
fn every_verb_makes_a_key() {
    let (limiter, _) = tens();
    assert!(limiter.try_acquire("user:try").is_ok());
    assert!(limiter.blocking_acquire("user:blocking").is_ok());
    assert!(limiter.blocking_acquire_timeout("user:timeout", SECOND).is_ok());
    assert!(limiter.check_all(&[("user:one", 3), ("user:two", 1), ("user:one", 1)]).is_ok());
    assert!(limiter.try_acquire_all(&[("user:all", 2)]).is_ok());
    assert!(limiter.blocking_acquire_all(&[("user:wait", 2)], None).is_ok());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(limiter.acquire_n("user:future", 2)).poll(&mut cx).is_ready());
    assert!(pin!(limiter.acquire_all(&[("user:futures", 2)])).poll(&mut cx).is_ready());
    assert!(limiter.resource("user:handle").unwrap().check().is_ok());
    for (name, left) in [
        ("try", 9),
        ("blocking", 9),
        ("timeout", 9),
        ("one", 6),
        ("two", 9),
        ("all", 8),
        ("wait", 8),
        ("future", 8),
        ("futures", 8),
        ("handle", 9),
    ] {
        assert_eq!(available(&limiter, &format!("user:{name}")), left, "{name}");
    }
    assert_eq!(limiter.resources(), []);
}

/// What only looks makes none, and answers as for a new one.
#[test]
fn looking_makes_no_key() {
    let (limiter, _) = limiter();
    limiter.per_key_at_most("", Limit::per_second(10).and(Limit::per_minute(100)), 0).unwrap();
    limiter.per_key_at_most("light", Limit::per_second(5), 0).unwrap();
    for (name, capacity) in [("heavy", 10), ("light", 5)] {
        assert_eq!(limiter.peek(name, capacity), Ok(()));
        assert_eq!(limiter.peek(name, 0), Ok(()));
        assert_eq!(limiter.check_n(name, 0), Ok(()));
        let refused = TryAcquireError::ExceedsCapacity { capacity };
        assert_eq!(limiter.peek(name, capacity + 1), Err(refused));
        let seen = limiter.capacity(name).unwrap();
        assert_eq!((seen.resource.as_str(), seen.available), (name, capacity));
        limiter.release(name);
        let full = TryAcquireError::TooManyKeys { most: 0 };
        assert_eq!(limiter.check(name), Err(full));
        assert_eq!(limiter.try_acquire(name).unwrap_err(), full);
        assert_eq!(limiter.check_all(&[(name, 1)]), Err(full.for_resource(name)));
        let full = AcquireError::TooManyKeys { most: 0 };
        assert_eq!(limiter.blocking_acquire(name).unwrap_err(), full);
        let all = limiter.blocking_acquire_all(&[(name, 1)], None);
        assert_eq!(all.unwrap_err(), full.for_resource(name));
        assert!(limiter.resource(name).is_none());
        limiter.pause_for(name, SECOND);
        limiter.announce_reduced(name, "429");
        assert_eq!(limiter.peek(name, capacity), Ok(()));
    }
    assert!(FULL.to_string().contains("as many keys as it may, 1"), "{FULL}");
}

#[test]
fn the_longest_prefix_counts() {
    let (limiter, _) = limiter();
    limiter.per_key("", Limit::per_second(1)).unwrap();
    limiter.per_key("user:", Limit::per_second(10)).unwrap();
    limiter.per_key("user:vip:", Limit::per_second(100)).unwrap();
    limiter.configure("user:vip:own", Limit::per_second(7)).unwrap();
    for (name, burst) in [
        ("x", 1),
        ("", 1),
        ("user:a", 10),
        ("user:vip", 10),
        ("user:vip:a", 100),
        ("user:vip:own", 7),
    ] {
        assert_eq!(drain(&limiter, name), burst, "{name}");
    }
}

#[test]
fn idle_keys_make_room() {
    let (limiter, time) = limiter();
    limiter.per_key_at_most("", Limit::per_second(10), 1).unwrap();
    assert!(limiter.check("a").is_ok());
    assert_eq!(limiter.check("b"), Err(FULL));
    time.advance(Duration::from_nanos(99_999_999));
    assert_eq!(limiter.check("b"), Err(FULL));
    time.advance(Duration::from_nanos(1));
    assert!(limiter.check("b").is_ok());
    // There is no room for the first one now.
    assert_eq!(limiter.check("a"), Err(FULL));
    assert!(limiter.remove("b"));
    assert!(!limiter.remove("b"));
    assert!(limiter.check("a").is_ok());
}

/// What it is, how it begins and, once what was returned is dropped, ends.
type Case = (&'static str, fn(&MemoryLimiter) -> Box<dyn Any>, fn(&MemoryLimiter));

/// Whatever holds a key keeps it, and it goes once that has ended.
#[test]
fn what_is_in_use_stays() {
    let limit = Limit::per_second(10);
    let cases: [Case; 6] = [
        ("a handle", |limiter| Box::new(limiter.resource("a")), |_| ()),
        ("a permit", |limiter| Box::new(limiter.try_acquire("a")), |_| ()),
        (
            "a forgotten permit",
            |limiter| {
                limiter.try_acquire("a").unwrap().forget();
                Box::new(())
            },
            |limiter| limiter.release("a"),
        ),
        (
            "a waiter",
            |limiter| {
                limiter.check_n("a", 10).unwrap();
                let mut waiting = Box::pin(limiter.acquire_n("a", 5));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(waiting.as_mut().poll(&mut cx).is_pending());
                Box::new(waiting)
            },
            |_| (),
        ),
        (
            "a pause",
            |limiter| {
                limiter.pause_for("a", 3 * MINUTE);
                Box::new(())
            },
            |_| (),
        ),
        (
            "a cut",
            |limiter| {
                limiter.announce_reduced("a", "429");
                Box::new(())
            },
            |_| (),
        ),
    ];
    for (what, hold, end) in cases {
        let (limiter, time) = limiter();
        let recovery = Recovery { interval: MINUTE, factor: 1.5, cap: true };
        let limit = limit.recovery(recovery).on_release(OnRelease::Refund);
        limiter.per_key_at_most("", limit, 1).unwrap();
        let held = hold(&limiter);
        for _ in 0..5 {
            time.advance(Duration::from_secs(11));
            assert_eq!(limiter.check("b"), Err(FULL), "{what}");
        }
        drop(held);
        end(&limiter);
        time.advance(4 * MINUTE);
        assert_eq!(limiter.check("b"), Ok(()), "{what}");
        assert_eq!(limiter.check("a"), Err(FULL), "{what}");
    }
}

#[test]
fn a_key_becomes_whole_at_its_level() {
    let (limiter, time) = tens();
    time.advance(Duration::from_millis(12_345));
    assert!(limiter.check_n("user:a", 7).is_ok());
    time.advance(Duration::from_nanos(99_999_999));
    let handle = limiter.resource("user:a").unwrap();
    assert_eq!(handle.capacity().available, 3);
    let wait = handle.check_n(4).unwrap_err().retry_after();
    assert_eq!(wait, Some(Duration::from_nanos(1)));
    time.advance(Duration::from_nanos(1));
    assert!(handle.check_n(4).is_ok());
    assert!(limiter.check("user:a").is_err());
}

#[test]
fn permits_and_waits_of_keys() {
    let (limiter, time) = limiter();
    limiter.per_key("", Limit::per_second(10).max_in_flight(2)).unwrap();
    let held = [limiter.try_acquire("a").unwrap(), limiter.try_acquire("a").unwrap()];
    assert_eq!(limiter.try_acquire("a").unwrap_err(), TryAcquireError::TooManyInFlight);
    assert_eq!(limiter.capacity("a").unwrap().in_flight, 2);
    assert_eq!(held[0].resource(), "a");
    drop(held);
    assert!(limiter.check_n("a", 8).is_ok());
    let mut waiting = pin!(limiter.acquire("a"));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    time.advance(SECOND / 10);
    assert!(waiting.poll(&mut cx).is_ready());
}

#[test]
fn removed_keys_leave_nothing_behind() {
    let (limiter, _) = limiter();
    limiter.per_key_at_most("", Limit::per_day(10), 3).unwrap();
    assert!(limiter.check("stays").is_ok());
    for round in 0..10_000 {
        assert!(limiter.check_n("a", 10).is_ok(), "{round}");
        if round % 2 == 0 {
            assert!(limiter.try_acquire("a").is_err());
        }
        assert!(limiter.remove("a"));
    }
    assert!(limiter.check("b").is_ok() && limiter.check("c").is_ok());
    assert_eq!(limiter.check("d"), Err(TryAcquireError::TooManyKeys { most: 3 }));
}

#[test]
fn a_cut_or_a_pause_is_the_keys_alone() {
    let (limiter, time) = tens();
    limiter.announce_reduced("user:cut", "429");
    limiter.pause_for("user:paused", SECOND);
    assert!(limiter.check("user:light").is_ok());
    assert_eq!(drain(&limiter, "user:cut"), 7);
    assert_eq!(drain(&limiter, "user:paused"), 0);
    assert_eq!(drain(&limiter, "user:light"), 9);
    time.advance(2 * SECOND);
    assert_eq!(drain(&limiter, "user:paused"), 10);
}

#[test]
fn closing_closes_keys() {
    let (limiter, time) = tens();
    let whole = limiter.resource("user:whole").unwrap();
    assert!(limiter.check("user:light").is_ok());
    limiter.close();
    time.advance(MINUTE);
    for name in ["user:whole", "user:light", "user:new"] {
        assert_eq!(limiter.check(name), Err(TryAcquireError::Closed), "{name}");
        assert_eq!(limiter.peek(name, 1), Err(TryAcquireError::Closed), "{name}");
        assert_eq!(limiter.try_acquire(name).unwrap_err(), TryAcquireError::Closed, "{name}");
        assert_eq!(limiter.blocking_acquire(name).unwrap_err(), AcquireError::Closed, "{name}");
        limiter.pause_for(name, SECOND);
    }
    assert_eq!(whole.check(), Err(TryAcquireError::Closed));
    assert_eq!(limiter.per_key("user:", Limit::per_second(1)), Err(ConfigError::Closed));
    assert!(limiter.remove_per_key("user:"));
}

/// A clock that steps back, by however much, lets nothing more through; nor does its end.
#[test]
fn any_clock() {
    let (limiter, time) = tens();
    let day = 86_400 * crate::common::SECOND;
    time.set(40 * day);
    assert_eq!(drain(&limiter, "user:a"), 10);
    for now in [40 * day - 1, 39 * day, 1, 0] {
        time.set(now);
        assert_eq!(drain(&limiter, "user:a"), 0, "{now}");
        let wait = limiter.check("user:a").unwrap_err().retry_after().unwrap();
        assert!(wait > Duration::ZERO, "{now}");
    }
    for now in [400 * day, 1 << 62, 3 << 62] {
        time.set(now);
        assert_eq!(drain(&limiter, "user:a"), 10, "{now}");
        assert_eq!(drain(&limiter, "user:b"), 10, "{now}");
    }
    // The clock ends there.
    time.set(u64::MAX);
    assert!(limiter.check("user:a").is_err());
    assert_eq!(drain(&limiter, "user:c"), 10);
}
