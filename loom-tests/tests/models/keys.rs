//! Keys of a template that are taken from while they are evicted, promoted or migrated. The map is made of
//! loom's primitives. All else is the shipped code.

use loom::thread;
use tollgate::{Limit, ManualClock, MemoryLimiter, Permit};

use crate::{HOUR, SECOND, long_model, model};

/// A compact key that is idle and full, so that creating another key evicts it.
fn one_idle_key(limit: Limit) -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("", limit).unwrap();
    limiter.check("key").unwrap();
    time.advance(HOUR + 11 * SECOND);
    (limiter, time)
}

/// The same with a promoted key.
fn one_idle_promoted_key(limit: Limit) -> MemoryLimiter {
    let (limiter, time) = one_idle_key(limit);
    drop(limiter.resource("key").unwrap());
    time.advance(11 * SECOND);
    limiter
}

fn take(limiter: &MemoryLimiter, times: usize) -> u64 {
    (0..times).map(|_| u64::from(limiter.check("key").is_ok())).sum()
}

/// A take beside the eviction of its compact key is counted there or by the next key of this name.
#[test]
fn take_beside_eviction() {
    model(|| {
        let (limiter, _) = one_idle_key(Limit::per_hour(1));
        let other = limiter.clone();
        let beside = thread::spawn(move || take(&other, 1));
        limiter.check("another").unwrap();
        let taken = beside.join().unwrap() + take(&limiter, 1);
        assert_eq!(taken, 1, "over-issued, or lost");
    });
}

#[test]
fn two_takes_beside_eviction() {
    long_model(|| {
        let (limiter, _) = one_idle_key(Limit::per_hour(1));
        let (one, other) = (limiter.clone(), limiter.clone());
        let one = thread::spawn(move || take(&one, 1));
        let other = thread::spawn(move || take(&other, 1));
        limiter.check("another").unwrap();
        assert_eq!(one.join().unwrap() + other.join().unwrap(), 1, "over-issued, or lost");
    });
}

/// A take beside the promotion of its compact key is counted by the promoted one.
#[test]
fn take_beside_promotion() {
    model(|| {
        let (limiter, _) = one_idle_key(Limit::per_hour(2));
        let other = limiter.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let handle = limiter.resource("key").unwrap();
        let taken = u64::from(handle.check().is_ok()) + beside.join().unwrap();
        assert_eq!(taken, 2, "over-issued, or lost");
        assert_eq!(handle.capacity().available, 0, "over-issued");
    });
}

/// A handle that is fetched beside an eviction keeps its key, or belongs to the next one.
#[test]
fn handle_beside_eviction() {
    model(|| {
        let limiter = one_idle_promoted_key(Limit::per_hour(1));
        let other = limiter.clone();
        let beside = thread::spawn(move || {
            let handle = other.resource("key").unwrap();
            assert_eq!(handle.check(), Ok(()), "the key has gone");
        });
        limiter.check("another").unwrap();
        beside.join().unwrap();
        assert_eq!(take(&limiter, 1), 0, "over-issued");
    });
}

/// A permit that is granted beside an eviction is in flight in the key that is found afterwards.
#[test]
fn permit_beside_eviction() {
    model(|| {
        let limiter = one_idle_promoted_key(Limit::per_hour(2).max_in_flight(1));
        let other = limiter.clone();
        let beside = thread::spawn(move || other.try_acquire("key").map(Permit::forget).is_ok());
        limiter.check("another").unwrap();
        assert!(beside.join().unwrap(), "the key has gone");
        assert_eq!(limiter.capacity("key").unwrap().in_flight, 1, "lost");
        assert!(limiter.try_acquire("key").is_err(), "too many in flight");
        limiter.release("key");
        assert!(limiter.try_acquire("key").is_ok());
    });
}

/// A cut beside an eviction is not lost.
#[test]
fn cut_beside_eviction() {
    long_model(|| {
        let limiter = one_idle_promoted_key(Limit::per_hour(4));
        let other = limiter.clone();
        let beside = thread::spawn(move || other.announce_reduced("key", "429"));
        limiter.check("another").unwrap();
        beside.join().unwrap();
        assert_eq!(limiter.capacity("key").unwrap().burst, 3, "the cut was lost");
    });
}

/// Another limit keeps what was taken.
#[test]
fn take_beside_new_template() {
    long_model(|| {
        let (limiter, _) = one_idle_key(Limit::per_hour(3));
        limiter.check("key").unwrap();
        let other = limiter.clone();
        let beside = thread::spawn(move || take(&other, 1));
        limiter.per_key("", Limit::per_day(3)).unwrap();
        let taken = beside.join().unwrap() + take(&limiter, 3);
        assert_eq!(taken, 2, "over-issued, or lost");
    });
}

/// A faster limit beside a take with a later reading: no time is counted twice.
#[test]
fn new_template_settles_time_once() {
    model(|| {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key("", Limit::per_second(100).burst(3)).unwrap();
        // The take below extends the sweep window. No sweep is due after it.
        time.advance(SECOND);
        limiter.check_n("key", 3).unwrap();
        let (other, clock) = (limiter.clone(), time.clone());
        let beside = thread::spawn(move || {
            clock.advance(SECOND / 100);
            take(&other, 1)
        });
        limiter.per_key("", Limit::per_second(10_000).burst(3)).unwrap();
        let taken = beside.join().unwrap() + take(&limiter, 3);
        // The time passed at the old rate, or at the new one.
        assert!(taken == 1 || taken == 3, "over-issued, or lost: {taken}");
    });
}

/// By an old reading a key that was evicted and created again is no fuller than one that stayed.
#[test]
fn old_reading_beside_eviction() {
    model(|| {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key("", Limit::per_second(1)).unwrap();
        limiter.check("key").unwrap();
        let (other, clock) = (limiter.clone(), time.clone());
        let beside = thread::spawn(move || {
            clock.advance(11 * SECOND);
            other.check("another").unwrap();
            clock.set(0);
        });
        // At a reading of eleven seconds, or denied.
        take(&limiter, 1);
        beside.join().unwrap();
        assert_eq!(take(&limiter, 1), 0, "over-issued");
    });
}

/// A limiter is closed beside a take that creates a key. No key admits afterwards.
#[test]
fn close_beside_takes() {
    model(|| {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time);
        limiter.per_key("", Limit::per_hour(5)).unwrap();
        let other = limiter.clone();
        let beside = thread::spawn(move || take(&other, 2));
        limiter.close();
        assert_eq!(take(&limiter, 1), 0, "open");
        beside.join().unwrap();
        assert_eq!(take(&limiter, 1), 0, "open");
    });
}

/// A key is created while a template of a longer prefix is set: exactly one template counts it.
#[test]
fn new_key_beside_longer_prefix() {
    model(|| {
        let limiter = MemoryLimiter::with_clock(ManualClock::new());
        limiter.per_key_at_most("", Limit::per_hour(1), 1).unwrap();
        let other = limiter.clone();
        let beside = thread::spawn(move || other.resource("a key").unwrap().check());
        limiter.per_key_at_most("a ", Limit::per_hour(1), 1).unwrap();
        assert_eq!(beside.join().unwrap(), Ok(()));
        assert_eq!(limiter.check("b key"), Ok(()), "the shorter one's count is wrong");
        assert!(limiter.check("c key").is_err(), "the shorter one's count is wrong");
        assert!(limiter.remove("a key"));
        assert_eq!(limiter.check("a new key"), Ok(()), "the longer one's count is wrong");
        assert!(limiter.check("a third key").is_err(), "the longer one's count is wrong");
    });
}

/// The same for a key that is evicted meanwhile.
#[test]
fn eviction_beside_longer_prefix() {
    model(|| {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        time.advance(HOUR);
        limiter.per_key_at_most("", Limit::per_hour(1), 1).unwrap();
        drop(limiter.resource("a key").unwrap());
        let other = limiter.clone();
        // There is room for one key.
        let beside = thread::spawn(move || other.check("b key").is_ok());
        limiter.per_key_at_most("a ", Limit::per_hour(1), 1).unwrap();
        beside.join().unwrap();
        limiter.remove("a key");
        limiter.remove("b key");
        assert_eq!(limiter.check("a new key"), Ok(()), "the longer one's count is wrong");
        assert!(limiter.check("a third key").is_err(), "the longer one's count is wrong");
        assert_eq!(limiter.check("b new key"), Ok(()), "the shorter one's count is wrong");
        assert!(limiter.check("c key").is_err(), "the shorter one's count is wrong");
    });
}
