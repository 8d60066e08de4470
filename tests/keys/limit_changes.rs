//! Keys whose template is given another limit, or is removed, and keys that leave it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::common::keys::{FULL, MINUTE, SECOND, available, drain, limiter, tens};
use tollgate::{AcquireError, ConfigError, Limit, RateLimiter, TryAcquireError};

#[test]
fn another_limit_for_all_keys() {
    let (limiter, time) = tens();
    assert!(limiter.check_n("user:light", 4).is_ok());
    let whole = limiter.resource("user:whole").unwrap();
    assert!(whole.check_n(4).is_ok());
    assert!(limiter.check("user:own").is_ok());
    limiter.configure("user:own", Limit::per_second(10)).unwrap();
    limiter.per_key("user:", Limit::per_second(5)).unwrap();
    for name in ["user:light", "user:whole"] {
        assert_eq!(available(&limiter, name), 5, "{name}");
        assert_eq!(drain(&limiter, name), 5, "{name}");
    }
    assert_eq!(available(&limiter, "user:new"), 5);
    assert_eq!(available(&limiter, "user:own"), 9);
    limiter.per_key("user:", Limit::per_second(20)).unwrap();
    for name in ["user:light", "user:whole"] {
        assert_eq!(available(&limiter, name), 0, "{name}");
    }
    time.advance(SECOND / 2);
    for name in ["user:light", "user:whole"] {
        assert_eq!(drain(&limiter, name), 10, "{name}");
    }
    // Several windows, and back.
    limiter.per_key("user:", Limit::per_second(20).and(Limit::per_minute(100))).unwrap();
    time.advance(SECOND / 4);
    assert_eq!(drain(&limiter, "user:light"), 5);
    limiter.per_key("user:", Limit::per_second(2)).unwrap();
    time.advance(SECOND / 2);
    assert_eq!(drain(&limiter, "user:light"), 1);
    assert_eq!(drain(&limiter, "user:whole"), 2);
}

/// What was spent in a strict window stays spent.
#[test]
fn another_strict_limit_for_all_keys() {
    let (limiter, time) = limiter();
    let strict = |burst| Limit::at_most(100, MINUTE).burst(burst);
    limiter.per_key("", strict(50)).unwrap();
    let configured = limiter.configure("by name", strict(50)).unwrap();
    for name in ["light", "by name"] {
        assert!(limiter.check_n(name, 30).is_ok());
    }
    limiter.per_key("", strict(10)).unwrap();
    limiter.configure("by name", strict(10)).unwrap();
    for _ in 0..100 {
        time.advance(SECOND);
        assert_eq!(limiter.check("light").is_ok(), configured.check().is_ok());
        assert_eq!(available(&limiter, "light"), configured.capacity().available);
    }
}

#[test]
fn a_longer_prefix_takes_its_keys_over() {
    let (limiter, time) = tens();
    let whole = limiter.resource("user:vip:whole").unwrap();
    for name in ["user:vip:light", "user:vip:whole", "user:other"] {
        assert_eq!(drain(&limiter, name), 10);
    }
    limiter.per_key_at_most("user:vip:", Limit::per_second(100), 2).unwrap();
    time.advance(SECOND / 10);
    assert_eq!(drain(&limiter, "user:vip:light"), 10);
    assert_eq!(drain(&limiter, "user:vip:whole"), 10);
    assert_eq!(drain(&limiter, "user:other"), 1);
    // They count where they are.
    let full = TryAcquireError::TooManyKeys { most: 2 };
    assert_eq!(limiter.check("user:vip:third"), Err(full));
    // And back: what is held is kept, up to the smaller burst.
    assert!(limiter.remove_per_key("user:vip:"));
    assert!(!limiter.remove_per_key("user:vip:"));
    time.advance(SECOND / 10);
    assert_eq!(drain(&limiter, "user:vip:light"), 1);
    assert_eq!(whole.capacity().available, 1);
    assert!(limiter.remove_per_key("user:"));
    assert_eq!(whole.check(), Err(TryAcquireError::UnknownResource));
    assert_eq!(limiter.check("user:vip:light"), Err(TryAcquireError::UnknownResource));
    assert_eq!(limiter.capacity("user:other"), None);
}

#[test]
fn removing_a_template_ends_waits() {
    let (limiter, _) = tens();
    assert_eq!(drain(&limiter, "user:a"), 10);
    let mut waiting = pin!(limiter.acquire("user:a"));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    limiter.remove_per_key("user:");
    let ended = waiting.poll(&mut cx).map(|result| result.map(drop));
    assert_eq!(ended, Poll::Ready(Err(AcquireError::UnknownResource)));
}

#[test]
fn a_key_that_is_configured_leaves() {
    let (limiter, time) = limiter();
    limiter.per_key_at_most("", Limit::per_second(10), 1).unwrap();
    assert!(limiter.check_n("a", 10).is_ok());
    assert_eq!(
        limiter.configure("a", Limit::per_second(0)).unwrap_err(),
        ConfigError::InvalidCapacity
    );
    assert_eq!(limiter.check("b"), Err(FULL));
    let own = limiter.configure("a", Limit::per_second(100)).unwrap();
    time.advance(SECOND / 100);
    assert_eq!(drain(&limiter, "a"), 1);
    // There is room for another one, and none for it when it comes back.
    assert!(limiter.check_n("b", 10).is_ok());
    limiter.per_key_at_most("", Limit::per_second(5), 1).unwrap();
    assert_eq!(own.capacity().burst, 100);
    assert_eq!(limiter.resources().len(), 1);
    assert!(limiter.remove("a"));
    assert_eq!(limiter.check("a"), Err(FULL));
}

/// Through the trait, and callbacks that come back while keys are moved.
#[test]
fn callbacks_may_come_back() {
    let (limiter, _) = limiter();
    let dynamic: &dyn RateLimiter = &limiter;
    dynamic.per_key("", Limit::per_second(10)).unwrap();
    let held: Vec<_> = (0..20).map(|key| limiter.resource(&format!("{key}")).unwrap()).collect();
    let inner = limiter.clone();
    limiter.on_capacity_change(move |update| {
        inner.per_key("nested", Limit::per_second(update.new_capacity)).unwrap();
        inner.configure(&update.resource, Limit::per_second(3)).unwrap();
        inner.check("another").unwrap();
    });
    dynamic.per_key_at_most("", Limit::per_second(5), 100).unwrap();
    assert!(held.iter().all(|key| key.capacity().burst == 3));
    assert!(dynamic.remove_per_key(""));
    assert!(held.iter().all(|key| key.check().is_ok()));
}

#[test]
fn a_limit_that_does_not_fit_is_refused() {
    let limiter = tens().0;
    assert_eq!(limiter.per_key("user:", Limit::per_second(0)), Err(ConfigError::InvalidCapacity));
    assert_eq!(drain(&limiter, "user:a"), 10);
}
