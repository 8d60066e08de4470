//! Several windows on one resource, whose number changes.

use loom::thread;
use tollgate::Limit;

use crate::{long_model, model, resource, take};

#[test]
fn concurrent_takes_of_two_windows() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(3).and(Limit::per_day(2)));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let taken = take(&resource, 2) + beside.join().unwrap();
        assert_eq!(taken, 2, "over-issued, or lost");
        assert_eq!(resource.capacity().windows[0].available, 1, "burnt by a refusal");
    });
}

/// A take without the lock, while the first window moves under the lock, is counted.
#[test]
fn window_added_beside_takes() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(3));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        resource.reconfigure(Limit::per_hour(3).and(Limit::per_day(9))).unwrap();
        let taken = beside.join().unwrap();
        let left = resource.capacity().windows[0].available;
        assert!(taken + left <= 3, "over-issued: {taken} and {left}");
        assert_eq!(taken + left, 3, "lost");
    });
}

#[test]
fn window_removed_beside_takes() {
    long_model(|| {
        let (resource, _) = resource(Limit::per_hour(3).and(Limit::per_day(2)));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 3));
        resource.reconfigure(Limit::per_day(2)).unwrap();
        let taken = beside.join().unwrap();
        assert_eq!(taken + resource.capacity().available, 2, "over-issued, or lost");
    });
}

/// A refund while a window is added reaches the first window.
#[test]
fn window_added_beside_refund() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(2));
        let permit = resource.try_acquire().unwrap().into_owned();
        let beside = thread::spawn(move || permit.refund());
        resource.reconfigure(Limit::per_hour(2).and(Limit::per_day(9))).unwrap();
        beside.join().unwrap();
        assert_eq!(resource.capacity().windows[0].available, 2, "lost");
    });
}
