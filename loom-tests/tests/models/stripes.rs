//! Prepaid batches: opened, filled and closed beside those who take.
//!
//! Here a bucket of 64 sets 4 tokens apart for each of 2 stripes, of which the first two threads, this
//! one and the first that is spawned, keep 2 as a stash each.

use loom::thread;
use tollgate::{Limit, ManualClock, OnRelease, Resource};

use crate::{HOUR, alone, long_model, model, take};

const ALL: u64 = 64;

/// With open stripes, and only `left` tokens in the word, at a time that stands still.
fn striped(left: u64) -> (Resource, ManualClock) {
    let time = ManualClock::new();
    let resource = alone(0, Limit::per_hour(ALL), &time);
    resource.open_stripes();
    resource.check_n(ALL - 8 - left).unwrap();
    assert_eq!(resource.capacity().available, 8 + left);
    (resource, time)
}

/// All that is left, token by token.
fn drain(resource: &Resource) -> u64 {
    std::iter::repeat_with(|| resource.check()).take_while(Result::is_ok).count() as u64
}

#[test]
fn a_take_from_the_stash_beside_who_takes_back() {
    model(|| {
        let (resource, _) = striped(0);
        assert_eq!(take(&resource, 1), 1); // one more is in the stash
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(5).map_or(0, |()| 5));
        let taken = take(&resource, 1);
        let taken = 1 + taken + beside.join().unwrap();
        let all = taken + drain(&resource);
        assert!(all <= 8, "over-issued: {all}");
        assert_eq!(all, 8, "lost");
    });
}

#[test]
fn a_stripe_is_filled_beside_who_takes_back() {
    model(|| {
        let (resource, _) = striped(40);
        resource.check_n(4).unwrap(); // this thread's stripe is empty
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(42).map_or(0, |()| 42));
        let taken = take(&resource, 1);
        let taken = 4 + taken + beside.join().unwrap();
        let all = taken + drain(&resource);
        assert!(all <= 48, "over-issued: {all}");
        assert_eq!(all, 48, "lost");
    });
}

#[test]
fn a_stripe_is_filled_beside_one_in_line() {
    long_model(|| {
        let (resource, _) = striped(40);
        resource.check_n(4).unwrap();
        let other = resource.clone();
        // It has to have what the other one moves from here to there, too.
        let beside = thread::spawn(move || other.blocking_acquire_n(43, None).map(drop));
        let taken = take(&resource, 1);
        beside.join().unwrap().unwrap();
        assert_eq!(4 + taken + 43 + drain(&resource), 48, "over-issued, or lost");
    });
}

#[test]
fn who_waits_has_what_is_in_stripes() {
    model(|| {
        let (resource, _) = striped(0);
        let other = resource.clone();
        let beside = thread::spawn(move || other.blocking_acquire_n(7, None).map(drop));
        let taken = take(&resource, 1);
        beside.join().unwrap().unwrap();
        assert_eq!(taken + 7 + drain(&resource), 8, "over-issued, or lost");
    });
}

/// A stash that was closed is not taken from when the stripes are opened again.
#[test]
fn a_stash_of_another_opening() {
    model(|| {
        let (resource, time) = striped(0);
        assert_eq!(take(&resource, 1), 1); // one more is in the stash
        let other = resource.clone();
        let passing = time.clone();
        let beside = thread::spawn(move || {
            assert!(other.check_n(60).is_err()); // takes back
            passing.advance(2 * HOUR);
            other.open_stripes();
        });
        let taken = take(&resource, 1);
        beside.join().unwrap();
        let all = drain(&resource);
        assert!(all <= ALL, "over-issued: {all} after {taken}");
    });
}

#[test]
fn opening_beside_takers() {
    long_model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.check_n(20).unwrap();
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.open_stripes();
            take(&other, 1)
        });
        let taken = take(&resource, 1) + beside.join().unwrap();
        assert_eq!(20 + taken + drain(&resource), ALL, "over-issued, or lost");
    });
}

/// What a full word could not hold while the stripes were in use is not made up for: the clock is read
/// after they were closed.
#[test]
fn time_that_passes_while_stripes_are_closed() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(ALL).is_ok());
        time.advance(HOUR);
        let taken = take(&resource, 1);
        // At this one moment: one was taken before it, so that the other one never finds all there.
        let burst = if beside.join().unwrap() { ALL } else { 0 };
        let all = taken + burst + drain(&resource);
        assert!(all <= ALL, "over-issued: {all}");
    });
}

/// As above, for who fills a stripe: the clock is read after the stripe is claimed.
#[test]
fn time_that_passes_while_a_stripe_is_filled() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        let second = thread::spawn(|| ());
        let other = resource.clone();
        // The third thread shares this one's stripe.
        let beside = thread::spawn(move || {
            time.advance(HOUR);
            u64::from(other.check_n(4).is_ok()) * 4
        });
        let before = take(&resource, 1);
        let since = beside.join().unwrap();
        second.join().unwrap();
        let all = since + drain(&resource);
        assert!(all <= ALL, "over-issued: {all} after {before}");
    });
}

#[test]
fn a_reconfiguration_beside_stripes() {
    long_model(|| {
        let (resource, _) = striped(40);
        assert_eq!(take(&resource, 1), 1); // one more is in the stash
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(ALL / 2)).unwrap();
            other.capacity().available
        });
        let taken = take(&resource, 2);
        let found = beside.join().unwrap();
        let left = drain(&resource);
        assert!(left <= found, "over-issued: {left} of {found}");
        assert!(1 + taken + left <= 48, "over-issued: {taken} and {left}");
        assert!(taken + left >= ALL / 2, "lost");
    });
}

/// Stripes that are opened while a limit is installed are the new one's, or closed.
#[test]
fn opening_beside_a_reconfiguration() {
    model(|| {
        let (resource, time) = striped(0);
        resource.check_n(8).unwrap(); // takes back
        time.advance(2 * HOUR);
        let other = resource.clone();
        let beside = thread::spawn(move || other.reconfigure(Limit::per_hour(8)).unwrap());
        resource.open_stripes();
        beside.join().unwrap();
        let left = drain(&resource);
        assert!(left <= 8, "over-issued: {left}");
        assert_eq!(left, 8, "lost");
    });
}

#[test]
fn a_refund_beside_who_takes_back() {
    long_model(|| {
        let time = ManualClock::new();
        let limit = Limit::new(ALL, HOUR).on_release(OnRelease::Refund);
        let resource = alone(0, limit, &time);
        resource.open_stripes();
        resource.check_n(ALL - 8).unwrap();
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(6).map_or(0, |()| 6));
        drop(permit);
        let taken = beside.join().unwrap();
        assert_eq!(taken + drain(&resource), 8, "over-issued, or lost");
    });
}

#[test]
fn permits_end_on_other_stripes() {
    long_model(|| {
        let (resource, _) = striped(0);
        let held = [(), ()].map(|()| resource.try_acquire().unwrap().into_owned());
        let [one, other] = held;
        // That of the second thread is another stripe; the third shares this one's.
        let second = thread::spawn(move || drop(one));
        let sharing = resource.clone();
        let third = thread::spawn(move || drop(sharing.try_acquire()));
        drop(other);
        second.join().unwrap();
        third.join().unwrap();
        assert_eq!(resource.capacity().in_flight, 0, "miscounted");
        resource.release();
        assert_eq!(resource.capacity().in_flight, 0, "miscounted");
    });
}

/// Who fills a stripe, for more than there is, lets those in line have what there is.
#[test]
fn a_stripe_is_filled_in_vain_beside_one_in_line() {
    long_model(|| {
        let (resource, _) = striped(0);
        resource.check_n(3).unwrap(); // leaves one
        let other = resource.clone();
        let second = thread::spawn(move || other.check_n(2).unwrap()); // leaves two
        second.join().unwrap();
        let other = resource.clone();
        let beside = thread::spawn(move || other.blocking_acquire_n(3, None).map(drop));
        assert!(resource.check_n(4).is_err(), "over-issued");
        beside.join().unwrap().unwrap();
        assert_eq!(drain(&resource), 0, "over-issued");
    });
}

/// Who finds too little in the word looks again once another has taken back what was in the stripes.
#[test]
fn a_denial_beside_who_takes_back() {
    model(|| {
        let (resource, _) = striped(0);
        let other = resource.clone();
        let beside = thread::spawn(move || other.peek(8).is_ok());
        assert!(resource.check_n(5).is_ok(), "denied what is there");
        assert!(beside.join().unwrap() || drain(&resource) == 3, "lost");
    });
}
