//! Keys whose limits adapt: each on its own, until it is idle and as new.

use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter};

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);

fn keys(limit: Limit) -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key_at_most("key ", limit, 200).unwrap();
    (limiter, time)
}

fn rate(limiter: &MemoryLimiter, name: &str) -> u64 {
    limiter.capacity(name).unwrap().per_window
}

#[test]
fn an_adaptive_key_grows() {
    let (limiter, time) = keys(Limit::per_second(10).adaptive(1, 1_000));
    limiter.check("key b").unwrap(); // becomes one with permits
    for _ in 0..600 {
        time.advance(TENTH);
        for name in ["key a", "key b"] {
            while limiter.try_acquire(name).is_ok() {}
        }
    }
    assert_eq!(["key a", "key b"].map(|name| rate(&limiter, name)), [1_000; 2]);
}

#[test]
fn idle_adaptive_keys_make_room() {
    let (limiter, time) = keys(Limit::per_second(10).adaptive(1, 1_000));
    (0..200).for_each(|i| drop(limiter.try_acquire(&format!("key {i}")).unwrap()));
    for i in 200..400 {
        time.advance(20 * SECOND);
        assert!(limiter.try_acquire(&format!("key {i}")).is_ok(), "{i}");
    }
    assert!(limiter.key_count("key ") < 10);
}

/// A ceiling may take longer to recover than the cuts: the key stays until then.
#[test]
fn a_key_below_a_ceiling_stays() {
    let (limiter, time) = keys(Limit::per_second(1_000));
    for i in 0..100 {
        time.advance(TENTH);
        let permit = limiter.try_acquire("key a").unwrap();
        if i == 99 {
            permit.throttled("429");
        }
    }
    assert_eq!(rate(&limiter, "key a"), 7);
    time.advance(121 * SECOND);
    (0..50).for_each(|i| limiter.check(&format!("key {i}")).unwrap());
    assert_eq!(rate(&limiter, "key a"), 10);
    for _ in 0..100 {
        time.advance(30 * SECOND);
        (0..50).for_each(|i| limiter.check(&format!("key {i}")).unwrap());
    }
    assert!(!limiter.keys("key ").iter().any(|key| key.resource == "key a"));
}
