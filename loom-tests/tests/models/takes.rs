//! One bucket in one word: takes, refunds and reconfigurations.

use std::time::Duration;

use loom::thread;
use tollgate::{Limit, Resource};

use crate::{HOUR, SECOND, long_model, model, resource, take};

#[test]
fn concurrent_takes() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(3));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let taken = take(&resource, 2) + beside.join().unwrap();
        assert_eq!(taken, 3, "over-issued, or lost");
    });
}

#[test]
fn refund_beside_take() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(2));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        permit.refund();
        let taken = beside.join().unwrap();
        assert_eq!(resource.capacity().available, 2 - taken, "not conserved");
        assert_eq!(resource.capacity().in_flight, 0);
    });
}

#[test]
fn charge_beside_take() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(5));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 1));
        permit.settle(3);
        let taken = beside.join().unwrap();
        assert_eq!(resource.capacity().available, 2 - taken, "not conserved");
    });
}

#[test]
fn reconfigure_beside_takes() {
    model(|| {
        // The slot that is written next still has a capacity of ten.
        let (resource, _) = resource(Limit::per_hour(10));
        resource.reconfigure(Limit::per_hour(2)).unwrap();
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 3));
        resource.reconfigure(Limit::per_hour(3)).unwrap();
        let taken = beside.join().unwrap();
        let left = resource.capacity().available;
        assert!(taken <= 2, "over-issued: {taken}");
        assert_eq!(taken + left, 2, "lost");
    });
}

/// One token is there throughout, so every denial is based on a torn slot.
fn find_token_beside_slot_rewrite(look: impl Fn(&Resource) -> bool) {
    let (resource, _) = resource(Limit::per_hour(1));
    let other = resource.clone();
    let writer = thread::spawn(move || {
        other.reconfigure(Limit::per_day(1)).unwrap();
        other.reconfigure(Limit::per_hour(1)).unwrap();
    });
    assert!(look(&resource), "denied a token that was there");
    writer.join().unwrap();
}

#[test]
fn take_beside_slot_rewrite() {
    model(|| find_token_beside_slot_rewrite(|resource| resource.check().is_ok()));
}

#[test]
fn peek_beside_slot_rewrite() {
    model(|| find_token_beside_slot_rewrite(|resource| resource.peek(1).is_ok()));
}

/// All numbers of a denial come from one slot.
#[test]
fn retry_after_beside_slot_rewrite() {
    long_model(|| {
        let (resource, _) = resource(Limit::per_hour(1));
        assert!(resource.check().is_ok());
        let other = resource.clone();
        let writer = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(1)).unwrap();
            other.reconfigure(Limit::per_hour(1 << 52)).unwrap();
        });
        let refused = resource.check().unwrap_err();
        let after = refused.retry_after().unwrap();
        writer.join().unwrap();
        assert!(after == HOUR || after == Duration::from_nanos(1), "of two slots: {after:?}");
    });
}

/// A torn slot may hold any unit: neither `n * unit` nor `position + n * unit` may overflow.
#[test]
fn torn_slot_does_not_overflow() {
    // With per_day(1) a token is 86.4e12 units. n tokens, modulo 2^64, are just below 2^64.
    let unit = 86_400_000_000_000_u64;
    let n = (1..1_u64 << 40).find(|n| n.wrapping_mul(unit) > u64::MAX - (1 << 50)).expect("one");
    model(move || {
        let (resource, _) = resource(Limit::per_hour(1 << 52));
        assert!(resource.check_n(1 << 51).is_ok());
        let other = resource.clone();
        let writer = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(1 << 52).burst(1 << 51)).unwrap();
            other.reconfigure(Limit::per_day(1)).unwrap();
        });
        let _ = resource.check_n(n);
        writer.join().unwrap();
    });
}

#[test]
fn reconfigure_settles_time_once() {
    model(|| {
        let (resource, time) = resource(Limit::per_second(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let passing = time.clone();
        let beside = thread::spawn(move || {
            passing.advance(10 * SECOND);
            take(&other, 1)
        });
        // A faster rate shows time that is settled twice.
        resource.reconfigure(Limit::per_second(100).burst(1)).unwrap();
        let taken = beside.join().unwrap() + take(&resource, 2);
        assert_eq!(taken, 1, "over-issued, or lost");
    });
}

/// Past the horizon every take needs a fresh anchor first.
#[test]
fn reanchor_beside_takes() {
    model(|| {
        let (resource, time) = resource(Limit::per_hour(2));
        assert_eq!(take(&resource, 2), 2);
        // Past every horizon. The bucket is full again.
        time.advance(100_000 * HOUR);
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let taken = take(&resource, 2) + beside.join().unwrap();
        assert_eq!(taken, 2, "over-issued, or lost");
    });
}

/// Two reports of what is left, each before a take: neither raises what the other has left.
#[test]
fn report_beside_takes() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(6));
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.observe_remaining(4);
            take(&other, 1)
        });
        resource.observe_remaining(3);
        let taken = take(&resource, 1) + beside.join().unwrap();
        let left = resource.capacity().available;
        assert!(left <= 2, "over-issued: {left} are left");
        assert!(taken == 2 && left >= 1, "lost: {left} are left");
    });
}

#[test]
fn report_beside_refund() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(6));
        let permit = resource.try_acquire_n(2).unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || other.observe_remaining(3));
        permit.refund();
        beside.join().unwrap();
        let left = resource.capacity().available;
        assert!(left == 3 || left == 5, "over-issued, or lost: {left} are left");
    });
}

#[test]
fn report_beside_reconfigure() {
    model(|| {
        // The slot that is written next still has a capacity of ten.
        let (resource, _) = resource(Limit::per_hour(10));
        resource.reconfigure(Limit::per_hour(6)).unwrap();
        let other = resource.clone();
        let beside = thread::spawn(move || other.observe_remaining(3));
        resource.reconfigure(Limit::per_hour(8)).unwrap();
        beside.join().unwrap();
        let left = take(&resource, 5);
        assert!(left <= 3, "over-issued: {left} are left");
        assert_eq!(left, 3, "lost");
    });
}

/// What a decision says is left is as of its own take.
#[test]
fn decisions_beside_each_other() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(3));
        let other = resource.clone();
        let beside = thread::spawn(move || other.decide(1).remaining);
        let mut left = [resource.decide(1).remaining, beside.join().unwrap()];
        left.sort_unstable();
        assert_eq!(left, [1, 2], "another look");
    });
}

/// What accrues between the look at the level and the new rate is not kept.
#[test]
fn pace_beside_accrual() {
    model(|| {
        let (resource, time) = resource(Limit::per_hour(4));
        assert_eq!(take(&resource, 4), 4);
        let passing = time.clone();
        let beside = thread::spawn(move || passing.advance(HOUR));
        resource.observe_remaining_until(2, 2 * HOUR);
        beside.join().unwrap();
        let left = take(&resource, 3);
        assert!(left <= 2, "over-issued: {left} of 2");
    });
}
