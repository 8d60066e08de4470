//! Which keys exist, which only the registry knows.

use std::time::Duration;

use super::super::{Limit, MemoryLimiter};
use super::Registration;
use super::sweep::{PER_KEY, PER_SWEEP};
use crate::bucket::Snapshot;
use crate::clock::ManualClock;
use crate::sync::NameRef;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(68);

fn limiter(limit: Limit) -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("", limit).unwrap();
    (limiter, time)
}

fn make(limiter: &MemoryLimiter, keys: usize) {
    (0..keys).for_each(|key| limiter.check(&format!("{key}")).unwrap());
}

fn count(limiter: &MemoryLimiter) -> usize {
    let inner = &limiter.0;
    let count = inner.entries.pin().len();
    let template = inner.template_of("").unwrap();
    assert_eq!(template.count(), count as u64);
    assert!(inner.keys.lock().names.len() >= count);
    count
}

fn is_compact(limiter: &MemoryLimiter, name: &str) -> bool {
    matches!(limiter.0.entries.pin().get(&NameRef(name)), Some(Registration::Compact(_)))
}

#[test]
fn each_key_that_is_made_has_two_looked_at() {
    let (limiter, time) = limiter(Limit::per_second(1));
    make(&limiter, 1_000);
    assert_eq!(count(&limiter), 1_000);
    time.advance(11 * SECOND);
    // Within a sweep interval of that.
    limiter.check("tick").unwrap();
    let before = count(&limiter);
    for key in 0..100 {
        limiter.check(&format!("new {key}")).unwrap();
        assert_eq!(count(&limiter), before + (key + 1) - PER_KEY * (key + 1));
    }
}

/// Without new keys, idle ones are evicted all the same, at most this many in a sweep.
#[test]
fn time_has_some_looked_at() {
    for limit in [Limit::per_second(1), Limit::per_second(1).and(Limit::per_minute(60))] {
        let (limiter, time) = limiter(limit);
        make(&limiter, 1_000);
        time.advance(11 * SECOND);
        let mut left = 1_000;
        while left > 1 {
            time.advance(TICK);
            let before = left;
            for _ in 0..10 {
                let _ = limiter.check("999");
            }
            left = count(&limiter);
            assert!((1..=PER_SWEEP).contains(&(before - left)), "{before} to {left}");
        }
    }
}

#[test]
fn a_long_time_has_all_looked_at() {
    let (limiter, time) = limiter(Limit::per_second(1));
    make(&limiter, 5_000);
    // Half of a round.
    time.advance(Duration::from_hours(32));
    limiter.check("0").unwrap();
    assert!((2_400..=2_600).contains(&count(&limiter)), "{}", count(&limiter));
    time.advance(Duration::from_hours(1_000));
    limiter.check("0").unwrap();
    assert_eq!(count(&limiter), 1);
}

/// A key that is used now and then stays, although its bucket is full each time.
#[test]
fn keys_in_use_stay() {
    let (limiter, time) = limiter(Limit::per_second(1_000_000));
    for turn in 0..100 {
        make(&limiter, 1_000);
        assert_eq!(count(&limiter), 1_000, "{turn}");
        time.advance(SECOND / 2);
    }
}

/// Each key that stays is visited in its turn.
#[test]
fn keys_that_stay_hold_nobody_up() {
    let (limiter, time) = limiter(Limit::per_second(10));
    let held: Vec<_> = (0..300).map(|key| limiter.resource(&format!("held {key}"))).collect();
    make(&limiter, 300);
    time.advance(11 * SECOND);
    for _ in 0..4 {
        time.advance(TICK);
        limiter.check("held 0").unwrap();
    }
    assert_eq!(count(&limiter), held.len());
}

#[test]
fn what_a_key_is() {
    let (limiter, time) = limiter(Limit::per_second(10));
    limiter.check("a").unwrap();
    limiter.peek("a", 3).unwrap();
    limiter.capacity("a").unwrap();
    limiter.release("a");
    limiter.check_n("a", 0).unwrap();
    assert!(is_compact(&limiter, "a"));
    drop(limiter.try_acquire("a").unwrap());
    assert!(!is_compact(&limiter, "a"));
    limiter.check("a").unwrap();
    time.advance(11 * SECOND);
    // Visited and idle, so evicted; compact when it is created again.
    limiter.check("b").unwrap();
    assert_eq!(count(&limiter), 1);
    limiter.check("a").unwrap();
    assert!(is_compact(&limiter, "a"));
    // A window whose fractions have no period that is short enough: promoted from the start.
    let odd = Limit::new(1, Duration::from_nanos((1 << 61) - 1)).burst(1 << 30);
    limiter.per_key("odd", odd).unwrap();
    limiter.check("odd").unwrap();
    assert!(!is_compact(&limiter, "odd"));
}

/// A look at an unused name, or a denied call, creates no key.
#[test]
fn who_looks_or_is_refused_makes_no_key() {
    let (limiter, _) = limiter(Limit::per_second(10));
    limiter.peek("a", 3).unwrap();
    limiter.capacity("a").unwrap();
    limiter.release("a");
    limiter.check_n("a", 0).unwrap();
    limiter.check_n("a", 11).unwrap_err();
    #[cfg(feature = "swarm")]
    assert!(limiter.hear("a", &[]).is_none() && limiter.standing("a").is_none());
    assert_eq!(count(&limiter), 0);
}

/// Visits leave the stripes of a key in use open, and drain those of an idle one.
#[test]
fn looks_close_the_stripes_of_idle_keys() {
    let (limiter, time) = limiter(Limit::per_second(1_000_000));
    drop(limiter.resource("hot").unwrap());
    let is_striped = || {
        limiter.0.promoted("hot").is_some_and(|entry| {
            let windows = entry.bucket.window_snapshots(entry.bucket.clock().now());
            windows.iter().any(Snapshot::is_striped)
        })
    };
    time.advance(SECOND);
    limiter.check("hot").unwrap();
    limiter.0.promoted("hot").unwrap().bucket.open_stripes();
    (0..300).for_each(|_| limiter.check("hot").unwrap());
    for tick in 0..1_000 {
        time.advance(TICK);
        // Through another key: a call that uses a key keeps it from eviction.
        limiter.check("another").unwrap();
        assert!(is_striped(), "{tick}");
        (0..300).for_each(|_| limiter.check("hot").unwrap());
    }
    for _ in 0..2 {
        time.advance(11 * SECOND);
        limiter.check("another").unwrap();
    }
    assert_eq!(count(&limiter), 1, "all but the other one");
}

/// Whatever happens to the templates, each key is counted once, in its own.
#[test]
fn each_key_counts_where_it_is() {
    let (limiter, _) = limiter(Limit::per_second(10));
    let inner = &limiter.0;
    let counted = |prefix: &str| inner.template_of(prefix).map_or(0, |template| template.count());
    let all = || (counted("x"), counted("1x"), counted("12x"));
    for key in ["1", "12", "123", "2", "21"] {
        limiter.check_n(key, 5).unwrap();
        limiter.resource(&format!("{key} whole")).unwrap().check_n(5).unwrap();
    }
    assert_eq!(all(), (10, 10, 10));
    limiter.per_key("1", Limit::per_second(20)).unwrap();
    assert_eq!(all(), (4, 6, 6));
    limiter.per_key("12", Limit::per_second(30).and(Limit::per_minute(500))).unwrap();
    assert_eq!(all(), (4, 2, 4));
    limiter.per_key("1", Limit::per_second(10)).unwrap();
    limiter.per_key("", Limit::per_second(10)).unwrap();
    assert_eq!(all(), (4, 2, 4));
    limiter.configure("12", Limit::per_second(1)).unwrap();
    limiter.configure("1 whole", Limit::per_second(1)).unwrap();
    assert!(limiter.remove("123 whole") && limiter.remove("2"));
    assert_eq!(all(), (3, 1, 2));
    assert!(limiter.remove_per_key("12"));
    assert_eq!(all(), (3, 3, 3));
    assert!(limiter.remove_per_key("1"));
    assert_eq!(all(), (6, 6, 6));
    assert!(limiter.remove_per_key(""));
    assert_eq!(inner.entries.pin().len(), 2);
    assert!(inner.keys.lock().names.is_empty());
}

/// A scrape takes no lock that a take may take: neither a queue's nor that of the keys. It does not end here if it does.
#[cfg(feature = "metrics")]
#[test]
fn readings_take_no_lock_of_takes() {
    let (limiter, _) = limiter(Limit::per_second(5_000));
    limiter.try_acquire("promoted").unwrap().forget();
    let plain = limiter.configure("plain", Limit::per_second(5_000)).unwrap();
    let limit = Limit::per_second(10).and(Limit::per_hour(100));
    let compound = limiter.configure("compound", limit).unwrap();
    let inner = &limiter.0;
    let (_admin, _keys) = (inner.admin.lock(), inner.keys.lock());
    let read = || std::thread::scope(|scope| scope.spawn(|| limiter.readings()).join().unwrap());
    let readings = plain.0.bucket.with_queue_locked(|| compound.0.bucket.with_queue_locked(read));
    assert_eq!(readings.len(), 3);
}
