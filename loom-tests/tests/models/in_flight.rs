//! Permits in flight: bounds that are set and lifted, permits that are forgotten or end elsewhere.
//!
//! Threads are numbered in the order in which they are spawned, the model's own thread is 0. Threads 0
//! and 1 own a stripe each; thread 2 shares that of thread 0.

use loom::thread;
use tollgate::{Limit, ManualClock, Permit, Resource};

use crate::{alone, explore, long_model, model, resource};

const UNBOUNDED: Limit = Limit::per_hour(64);

fn at_most(max: u64) -> Limit {
    UNBOUNDED.max_in_flight(max)
}

/// A resource with stripes, which count its permits, and which were drained of their tokens.
fn striped() -> Resource {
    let resource = alone(0, UNBOUNDED, &ManualClock::new());
    resource.open_stripes();
    resource.check_n(58).unwrap();
    resource
}

fn hold(resource: &Resource) -> Option<Permit<'static>> {
    resource.try_acquire().ok().map(Permit::into_owned)
}

#[test]
fn concurrent_bounded_enters() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(5).max_in_flight(1));
        let other = resource.clone();
        let beside = thread::spawn(move || {
            let permit = other.try_acquire();
            let count = other.capacity().in_flight;
            assert!(count <= 1, "too many in flight: {count}");
            permit.is_ok()
        });
        let permit = resource.try_acquire();
        let held = permit.is_ok();
        drop(permit);
        assert!(beside.join().unwrap() || held);
        assert_eq!(resource.capacity().in_flight, 0);
    });
}

/// Either the enterer sees the bound, or the setter sees the count.
fn enter_beside_new_bound(resource: &Resource) {
    let other = resource.clone();
    let setter = thread::spawn(move || {
        other.reconfigure(at_most(1)).unwrap();
        hold(&other)
    });
    let own = hold(resource);
    let others = setter.join().unwrap();
    assert!(own.is_none() || others.is_none(), "too many in flight");
}

/// The enterer counts itself in by a plain store, as the owner of its stripe.
#[test]
fn owner_enters_beside_new_bound() {
    model(|| enter_beside_new_bound(&striped()));
}

/// The same, and it takes its token from its cache. One preemption shows what would be wrong.
#[test]
fn owner_enters_from_cache_beside_new_bound() {
    explore(1, || {
        let resource = alone(0, UNBOUNDED, &ManualClock::new());
        resource.open_stripes();
        resource.check().unwrap(); // fills the cache
        enter_beside_new_bound(&resource);
    });
}

#[test]
fn enter_without_stripes_beside_new_bound() {
    model(|| enter_beside_new_bound(&resource(UNBOUNDED).0));
}

/// A caller looks under one bound. Its CAS must not succeed under the next one, which was set after a
/// permit was taken without a bound. One preemption shows it: the caller is preempted after its look.
#[test]
fn bounded_enter_beside_bound_that_is_set_again() {
    explore(1, || {
        let resource = striped();
        resource.reconfigure(at_most(1)).unwrap();
        let other = resource.clone();
        let setter = thread::spawn(move || {
            other.reconfigure(UNBOUNDED).unwrap();
            let permit = hold(&other);
            other.reconfigure(at_most(1)).unwrap();
            (permit, other.capacity().in_flight)
        });
        let own = hold(&resource);
        let (others, before) = setter.join().unwrap();
        let after = resource.capacity().in_flight;
        assert!(after <= before.max(1), "too many in flight: {after} after {before}");
        drop((own, others));
        assert_eq!(resource.capacity().in_flight, 0, "miscounted");
    });
}

/// A permit that is forgotten moves from its stripe to the common word, and is counted meanwhile.
#[test]
fn forget_beside_bounded_enter() {
    model(|| {
        let resource = striped();
        let permit = resource.try_acquire().unwrap();
        resource.reconfigure(at_most(1)).unwrap();
        let other = resource.clone();
        let bounded = thread::spawn(move || hold(&other));
        permit.forget();
        assert!(bounded.join().unwrap().is_none(), "too many in flight");
        assert_eq!(resource.capacity().in_flight, 1, "miscounted");
    });
}

/// A waiter that found the permit counted twice is notified.
#[test]
fn forget_beside_waiter() {
    model(|| {
        let resource = striped();
        let permit = resource.try_acquire().unwrap();
        resource.reconfigure(at_most(2)).unwrap();
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(Permit::forget));
        permit.forget();
        waiter.join().unwrap().unwrap();
        assert_eq!(resource.capacity().in_flight, 2, "miscounted");
    });
}

#[test]
fn permit_end_beside_waiter() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(5).max_in_flight(1));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(drop));
        drop(permit);
        waiter.join().unwrap().unwrap();
        assert_eq!(resource.capacity().in_flight, 0);
    });
}

/// A permit that was taken without a bound ends while a bound is set, and its first waiter is about to
/// sleep.
fn permit_end_beside_new_bound(resource: &Resource) {
    let permit = resource.try_acquire().unwrap();
    let other = resource.clone();
    let waiter = thread::spawn(move || {
        other.reconfigure(at_most(1)).unwrap();
        other.blocking_acquire().map(drop)
    });
    drop(permit);
    waiter.join().unwrap().unwrap();
    assert_eq!(resource.capacity().in_flight, 0, "miscounted");
}

/// The owner of the stripe counts the permit out by a plain store.
#[test]
fn owners_permit_end_beside_new_bound() {
    model(|| permit_end_beside_new_bound(&striped()));
}

#[test]
fn permit_end_without_stripes_beside_new_bound() {
    model(|| permit_end_beside_new_bound(&resource(UNBOUNDED).0));
}

#[test]
fn permits_end_on_other_threads() {
    long_model(|| {
        let resource = striped();
        let (one, own) = (hold(&resource).unwrap(), hold(&resource).unwrap());
        let second = thread::spawn(move || drop(one));
        let sharing = resource.clone();
        let third = thread::spawn(move || drop(hold(&sharing)));
        drop(own);
        second.join().unwrap();
        third.join().unwrap();
        assert_eq!(resource.capacity().in_flight, 0, "miscounted");
        resource.release();
        assert_eq!(resource.capacity().in_flight, 0, "miscounted");
    });
}
