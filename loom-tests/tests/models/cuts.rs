//! Cuts, those of a neighbour and our own, beside other changes.

use loom::thread;
use std::time::Duration;
use tollgate::{Limit, Recovery};

use crate::{SECOND, long_model, model, resource, take};

#[test]
fn remote_cut_beside_takes_and_reconfigure() {
    long_model(|| {
        let (resource, _) = resource(Limit::per_hour(4));
        let (other, neighbour) = (resource.clone(), resource.clone());
        let beside = thread::spawn(move || take(&other, 3));
        let neighbour = thread::spawn(move || neighbour.hear(1, 0.5));
        resource.reconfigure(Limit::per_hour(6)).unwrap();
        assert!(neighbour.join().unwrap());
        let (taken, after) = (beside.join().unwrap(), resource.capacity());
        assert_eq!(
            (after.burst, after.configured_burst),
            (3, 6),
            "the cut, or the limit, was lost"
        );
        assert!(taken + after.available <= 4, "over-issued: {taken} and {}", after.available);
        assert!(taken + after.available >= 2, "lost: {taken} and {}", after.available);
    });
}

/// Eight tokens at once can only be granted before the cut. So their refusal belongs to the incident of
/// the cut, whichever of the two comes first.
#[test]
fn refusal_of_earlier_grant_joins_remote_cut() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(8).cooldown(Duration::ZERO));
        let other = resource.clone();
        let neighbour = thread::spawn(move || other.hear(1, 0.5));
        if let Ok(permit) = resource.try_acquire_n(8) {
            permit.throttled("429");
        }
        neighbour.join().unwrap();
        assert_eq!(resource.capacity().burst, 4, "cut twice");
    });
}

#[test]
fn concurrent_refusals_cut_once() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(8).cooldown(Duration::ZERO));
        let (one, other) = (resource.try_acquire().unwrap(), resource.clone());
        let permit = other.try_acquire().unwrap().into_owned();
        let beside = thread::spawn(move || permit.throttled("429"));
        one.throttled("429");
        beside.join().unwrap();
        assert_eq!(resource.capacity().burst, 6, "cut twice");
    });
}

/// A neighbour's cut has no effect, because an earlier one is deeper, while a recovery step of that one
/// falls due.
#[test]
fn ineffective_cut_beside_recovery_step() {
    model(|| {
        let recovery = Recovery { interval: SECOND, factor: 1.1, cap: true };
        let (resource, time) = resource(Limit::per_hour(10).recovery(recovery));
        assert!(resource.hear(1, 0.5));
        let other = resource.clone();
        let neighbour = thread::spawn(move || other.hear(2, 0.9));
        time.advance(SECOND);
        assert!(!neighbour.join().unwrap());
        assert_eq!(take(&resource, 1), 1);
    });
}
