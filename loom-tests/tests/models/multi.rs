//! Calls that want several resources: all or none, and a denial changes nothing.

use loom::thread;
use tollgate::{AcquireAllError, Limit, OnRelease, Permits, Resource};

use crate::{HOUR, SECOND, long_model, model, poll_once, take, two};

/// Spawns a thread that waits for a token of each, and gives them back.
fn spawn_wait(one: &Resource, other: &Resource) -> thread::JoinHandle<Result<(), AcquireAllError>> {
    let (one, other) = (one.clone(), other.clone());
    thread::spawn(move || Resource::blocking_acquire_all(&[(&one, 1), (&other, 1)]).map(drop))
}

#[test]
fn two_calls_in_opposite_order() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(2), Limit::per_hour(2));
        let (other_a, other_b) = (a.clone(), b.clone());
        let beside = thread::spawn(move || {
            let wanted = [(&other_b, 2), (&other_a, 1)];
            Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok()
        });
        let wanted = [(&a, 1), (&b, 2)];
        let taken = Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok();
        assert!(taken != beside.join().unwrap(), "both, or neither");
        assert_eq!((a.capacity().available, b.capacity().available), (1, 0), "not conserved");
        assert_eq!((a.capacity().in_flight, b.capacity().in_flight), (1, 1));
    });
}

#[test]
fn call_beside_take_of_its_first_bucket() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(1), Limit::per_hour(1));
        let other = a.clone();
        let beside = thread::spawn(move || take(&other, 1));
        let wanted = [(&a, 1), (&b, 1)];
        let both = u64::from(Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok());
        let single = beside.join().unwrap();
        assert_eq!(both + single, 1, "not conserved");
        assert_eq!(b.capacity().available, 1 - both, "not conserved");
    });
}

/// The last bucket is not locked: it is taken by a CAS.
#[test]
fn call_beside_take_of_its_last_bucket() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(1), Limit::per_hour(1));
        let other = b.clone();
        let beside = thread::spawn(move || take(&other, 1));
        let wanted = [(&a, 1), (&b, 1)];
        let both = u64::from(Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok());
        assert_eq!(both + beside.join().unwrap(), 1, "not conserved");
        assert_eq!(a.capacity().available, 1 - both, "not conserved");
        assert_eq!((a.capacity().in_flight, b.capacity().in_flight), (both, both));
    });
}

/// The first bucket is full again before the call is denied. A roll-back would add to a full bucket.
#[test]
fn denial_beside_accrual() {
    long_model(|| {
        let (a, b, time) = two(Limit::per_second(2), Limit::per_day(1));
        assert_eq!(take(&b, 1), 1);
        let other = a.clone();
        let beside = thread::spawn(move || {
            time.advance(SECOND);
            take(&other, 3)
        });
        let wanted = [(&a, 2), (&b, 1)];
        assert!(Resource::try_acquire_all(&wanted).is_err());
        assert!(beside.join().unwrap() + take(&a, 1) <= 2, "over-issued");
    });
}

#[test]
fn denial_beside_reconfigure() {
    long_model(|| {
        let (a, b, _) = two(Limit::per_hour(4), Limit::per_day(1));
        assert_eq!(take(&b, 1), 1);
        let other = a.clone();
        let beside = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(2)).unwrap();
            other.reconfigure(Limit::per_hour(4)).unwrap();
        });
        let wanted = [(&a, 4), (&b, 1)];
        assert!(Resource::try_acquire_all(&wanted).is_err());
        beside.join().unwrap();
        assert_eq!(a.capacity().available, 2, "made, or lost");
    });
}

#[test]
fn call_beside_reconfigure() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(2), Limit::per_hour(1));
        let other = a.clone();
        let beside = thread::spawn(move || other.reconfigure(Limit::per_hour(1)).unwrap());
        let wanted = [(&a, 2), (&b, 1)];
        let both = u64::from(Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok());
        beside.join().unwrap();
        assert_eq!(a.capacity().available, 1 - both, "not conserved");
        assert_eq!(b.capacity().available, 1 - both, "not conserved");
        assert_eq!(b.capacity().in_flight, both);
    });
}

/// A permit that cost more than its estimate is settled beside a call.
#[test]
fn call_beside_settlement() {
    long_model(|| {
        let (a, b, _) = two(Limit::per_hour(4), Limit::per_hour(1));
        let permit = a.try_acquire().unwrap().into_owned();
        let beside = thread::spawn(move || permit.settle(3));
        let wanted = [(&a, 2), (&b, 1)];
        let both = u64::from(Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok());
        beside.join().unwrap();
        assert_eq!(a.capacity().available, 1 - both, "not conserved");
        assert_eq!(b.capacity().available, 1 - both, "not conserved");
    });
}

/// A settlement, a reconfiguration and a call: the debt stays, in any order.
#[test]
fn settlement_beside_reconfigure() {
    long_model(|| {
        let (a, b, time) = two(Limit::per_hour(1), Limit::per_hour(4));
        let permit = b.try_acquire_n(2).unwrap().into_owned();
        let (other_a, other_b) = (a.clone(), b.clone());
        let settling = thread::spawn(move || permit.settle(6));
        let beside = thread::spawn(move || {
            let wanted = [(&other_a, 1), (&other_b, 2)];
            u64::from(Resource::try_acquire_all(&wanted).map(Permits::forget).is_ok())
        });
        b.reconfigure(Limit::per_hour(8)).unwrap();
        settling.join().unwrap();
        let both = beside.join().unwrap();
        assert_eq!(a.capacity().available, 1 - both, "not conserved");
        // The permit held 2. Its settlement charged 4 more, and the call took 2 if it was admitted.
        let owed = 2 + 2 * both;
        time.advance(HOUR / 8 * u32::try_from(owed).unwrap());
        assert_eq!(b.capacity().available, 0, "forgiven");
        time.advance(HOUR / 8);
        assert_eq!(b.capacity().available, 1, "charged twice");
    });
}

/// One token returns before, during or after the wait for the other.
#[test]
fn waiter_for_two_beside_two_refunds() {
    long_model(|| {
        let limit = Limit::new(1, HOUR).on_release(OnRelease::Refund);
        let (a, b, _) = two(limit, limit);
        let (one, other) = (a.try_acquire().unwrap(), b.try_acquire().unwrap());
        let (one, other) = (one.into_owned(), other.into_owned());
        let waiter = spawn_wait(&b, &a);
        drop(one);
        drop(other);
        waiter.join().unwrap().unwrap();
        assert_eq!((a.capacity().available, b.capacity().available), (1, 1), "not conserved");
    });
}

/// A token that was available when the waiter joined is charged for, and accrues again.
#[test]
fn waiter_for_two_beside_charge_and_refund() {
    long_model(|| {
        let refunds = |n| Limit::new(n, HOUR).on_release(OnRelease::Refund);
        let (a, b, time) = two(refunds(2), refunds(1));
        let costly = a.try_acquire().unwrap().into_owned();
        let held = b.try_acquire().unwrap().into_owned();
        let waiter = spawn_wait(&a, &b);
        costly.settle(2);
        drop(held);
        time.advance(HOUR / 2);
        waiter.join().unwrap().unwrap();
    });
}

/// Both waiters are served, whichever is first in the queue.
#[test]
fn waiter_for_two_beside_waiter_for_one() {
    long_model(|| {
        let limit = Limit::new(1, HOUR).on_release(OnRelease::Refund);
        let (a, b, _) = two(limit, limit);
        let held = b.try_acquire().unwrap().into_owned();
        let first = spawn_wait(&a, &b);
        let second = thread::spawn({
            let a = a.clone();
            move || a.blocking_acquire().map(drop)
        });
        drop(held);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        assert_eq!((a.capacity().available, b.capacity().available), (1, 1), "not conserved");
    });
}

/// A newcomer takes the last permit after the head saw room for one, and ends it.
#[test]
fn waiter_for_two_beside_bounded_take() {
    model(|| {
        let refunds = Limit::new(1, HOUR).on_release(OnRelease::Refund);
        let (a, b, _) = two(Limit::per_hour(9).max_in_flight(1), refunds);
        let held = b.try_acquire().unwrap().into_owned();
        let newcomer = thread::spawn({
            let a = a.clone();
            move || drop(a.try_acquire())
        });
        let mut waiter = Box::pin(Resource::acquire_all(&[(&a, 1), (&b, 1)]));
        if !poll_once(waiter.as_mut()) {
            drop(held);
            drop(loom::future::block_on(waiter).unwrap());
        }
        newcomer.join().unwrap();
    });
}

/// A group waits for a place in flight of the one, and a token of the other is kept for it.
#[test]
fn newcomer_beside_group_that_waits_for_a_place() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(1), Limit::per_hour(2).max_in_flight(1));
        let place = b.try_acquire().unwrap().into_owned();
        let mut group = Box::pin(Resource::acquire_all(&[(&a, 1), (&b, 1)]));
        assert!(!poll_once(group.as_mut()));
        let newcomer = thread::spawn({
            let a = a.clone();
            move || take(&a, 1)
        });
        drop(place);
        loom::future::block_on(group).unwrap().forget();
        assert_eq!(newcomer.join().unwrap(), 0, "over-issued");
    });
}

/// A call for two counts itself in, finds the last bucket changed, and steps out. It is denied then, and a
/// waiter has found the place taken.
#[test]
fn stepping_out_of_a_place_beside_waiter() {
    model(|| {
        let refunds = Limit::per_hour(5).on_release(OnRelease::Refund).max_in_flight(1);
        let (a, b, _) = two(Limit::per_hour(9), refunds);
        let both = thread::spawn({
            let b = b.clone();
            move || drop(Resource::try_acquire_all(&[(&a, 1), (&b, 5)]))
        });
        let _ = b.check_n(2);
        drop(b.blocking_acquire().unwrap());
        both.join().unwrap();
        assert_eq!(b.capacity().in_flight, 0, "miscounted");
    });
}

/// A call takes what its thread's cache holds, and is denied elsewhere. Meanwhile the bucket was drained, and
/// is full again: what would be given back to it is void.
#[test]
fn denied_call_beside_drain_and_accrual() {
    long_model(|| {
        let (a, b, time) = two(Limit::per_hour(64), Limit::per_day(1));
        assert_eq!(take(&b, 1), 1);
        a.open_stripes();
        let other = a.clone();
        let beside = thread::spawn(move || {
            let _ = other.peek(64); // drains the stripes
            time.advance(HOUR);
            if other.check_n(64).is_ok() { 64 } else { 0 }
        });
        assert!(Resource::try_acquire_all(&[(&a, 1), (&b, 1)]).is_err());
        let all = beside.join().unwrap() + take(&a, 65);
        assert!(all <= 64, "over-issued: {all}");
        assert_eq!((a.capacity().in_flight, b.capacity().in_flight), (0, 0));
    });
}

/// The same call beside a thread that takes from another stripe: nothing is lost.
#[test]
fn denied_call_beside_take_from_another_stripe() {
    model(|| {
        let (a, b, _) = two(Limit::per_hour(64), Limit::per_day(1));
        assert_eq!(take(&b, 1), 1);
        a.open_stripes();
        a.check_n(56).unwrap(); // leaves what the stripes hold
        let other = a.clone();
        let beside = thread::spawn(move || take(&other, 1));
        assert!(Resource::try_acquire_all(&[(&a, 1), (&b, 1)]).is_err());
        assert_eq!(beside.join().unwrap() + take(&a, 9), 8, "over-issued, or lost");
    });
}
