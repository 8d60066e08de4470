//! Tokens admitted as metrics count them: never more than were taken, and as many once all calls have returned.
//!
//! As in `stripes.rs`, a bucket of 64 reserves 4 tokens for each of 2 stripes.

use loom::thread;
use tollgate::{Limit, ManualClock, OnRelease, Resource};

use crate::{HOUR, alone, long_model, model, take};

const ALL: u64 = 64;

/// A resource with open stripes, of whose tokens 8 are left, all in the stripes.
fn striped(limit: Limit) -> Resource {
    let resource = alone(0, limit, &ManualClock::new());
    resource.open_stripes();
    resource.check_n(ALL - 8).unwrap();
    resource
}

/// What the stripes hold as they are closed is not counted as handed out.
#[test]
fn reading_beside_drain() {
    model(|| {
        let resource = striped(Limit::per_hour(ALL));
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(5).map_or(0, |()| 5));
        let read = resource.admitted();
        assert!(read <= ALL - 8 + 5, "counted twice: {read}");
        let taken = beside.join().unwrap();
        assert_eq!(resource.admitted(), ALL - 8 + taken, "miscounted");
    });
}

/// Nor is what comes to them when they are opened again.
#[test]
fn reading_beside_opening() {
    long_model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        let other = resource.clone();
        let beside = thread::spawn(move || {
            assert!(other.check_n(ALL).is_ok()); // drains the stripes
            time.advance(2 * HOUR);
            other.open_stripes();
        });
        let read = resource.admitted();
        assert!(read <= ALL, "counted twice: {read}");
        beside.join().unwrap();
        assert_eq!(resource.admitted(), ALL, "miscounted");
    });
}

/// A batch is in its stripe before it counts as handed to it.
#[test]
fn reading_beside_refill() {
    model(|| {
        let resource = alone(0, Limit::per_hour(ALL), &ManualClock::new());
        resource.open_stripes();
        let other = resource.clone();
        let beside = thread::spawn(move || {
            // The second call finds too little in this thread's stripe.
            u64::from(other.check_n(3).is_ok()) * 3 + u64::from(other.check_n(2).is_ok()) * 2
        });
        let read = resource.admitted();
        assert!(read <= 5, "counted twice: {read}");
        assert_eq!(beside.join().unwrap(), 5);
        assert_eq!(resource.admitted(), 5, "miscounted");
    });
}

/// A token that comes back to a cache is there before it counts as given back.
#[test]
fn reading_beside_give() {
    model(|| {
        let resource = striped(Limit::new(ALL, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || other.admitted());
        drop(permit);
        let read = beside.join().unwrap();
        assert!(read <= ALL - 7, "counted twice: {read}");
        assert_eq!(resource.admitted(), ALL - 7, "miscounted");
    });
}

/// A take that the closer has charged for keeps its token, also if the stripes are open again by then.
#[test]
fn cached_take_beside_two_epochs() {
    long_model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        assert_eq!(take(&resource, 1), 1); // one more is in the cache
        let other = resource.clone();
        let beside = thread::spawn(move || {
            let taken = other.check_n(60).map_or(0, |()| 60); // drains the stripes
            time.advance(2 * HOUR);
            other.open_stripes();
            taken
        });
        let taken = 1 + take(&resource, 1) + beside.join().unwrap();
        assert_eq!(resource.admitted(), taken, "miscounted");
    });
}
