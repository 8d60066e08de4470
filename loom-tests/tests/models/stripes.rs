//! Prepaid batches that are opened, refilled and drained beside takes.
//!
//! In a model a bucket of 64 reserves 4 tokens for each of 2 stripes. The model's own thread and the first
//! that it spawns own a stripe each, and cache up to 2 tokens of it.

use loom::thread;
use tollgate::{Limit, ManualClock, OnRelease, Resource};

use crate::{HOUR, alone, long_model, model, take};

const ALL: u64 = 64;

/// A resource with open stripes, and `left` tokens in the word. Its time stands still.
fn striped(left: u64) -> (Resource, ManualClock) {
    let time = ManualClock::new();
    let resource = alone(0, Limit::per_hour(ALL), &time);
    resource.open_stripes();
    resource.check_n(ALL - 8 - left).unwrap();
    assert_eq!(resource.capacity().available, 8 + left);
    (resource, time)
}

/// Takes all that is left, token by token.
fn take_all(resource: &Resource) -> u64 {
    std::iter::repeat_with(|| resource.check()).take_while(Result::is_ok).count() as u64
}

#[test]
fn cached_take_beside_drain() {
    model(|| {
        let (resource, _) = striped(0);
        assert_eq!(take(&resource, 1), 1); // one more is in the cache
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(5).map_or(0, |()| 5));
        let taken = take(&resource, 1);
        let taken = 1 + taken + beside.join().unwrap();
        let all = taken + take_all(&resource);
        assert!(all <= 8, "over-issued: {all}");
        assert_eq!(all, 8, "lost");
    });
}

#[test]
fn cached_give_beside_drain() {
    long_model(|| {
        let time = ManualClock::new();
        let limit = Limit::new(ALL, HOUR).on_release(OnRelease::Refund);
        let resource = alone(0, limit, &time);
        resource.open_stripes();
        resource.check_n(ALL - 8).unwrap();
        let permit = resource.try_acquire().unwrap().into_owned();
        resource.check().unwrap(); // leaves one in the cache, and room for one
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(5).map_or(0, |()| 5));
        drop(permit);
        let taken = beside.join().unwrap();
        let left = take_all(&resource);
        assert!(1 + taken + left <= 8, "over-issued: {taken} and {left}");
        assert_eq!(1 + taken + left, 8, "lost");
    });
}

#[test]
fn refill_beside_drain() {
    model(|| {
        let (resource, _) = striped(40);
        resource.check_n(4).unwrap(); // this thread's stripe is empty
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(42).map_or(0, |()| 42));
        let taken = take(&resource, 1);
        let taken = 4 + taken + beside.join().unwrap();
        let all = taken + take_all(&resource);
        assert!(all <= 48, "over-issued: {all}");
        assert_eq!(all, 48, "lost");
    });
}

#[test]
fn refill_beside_waiter() {
    long_model(|| {
        let (resource, _) = striped(40);
        resource.check_n(4).unwrap();
        let other = resource.clone();
        // It needs the tokens of the refill, too.
        let beside = thread::spawn(move || other.blocking_acquire_n(43, None).map(drop));
        let taken = take(&resource, 1);
        beside.join().unwrap().unwrap();
        assert_eq!(4 + taken + 43 + take_all(&resource), 48, "over-issued, or lost");
    });
}

#[test]
fn waiter_drains_stripes() {
    model(|| {
        let (resource, _) = striped(0);
        let other = resource.clone();
        let beside = thread::spawn(move || other.blocking_acquire_n(7, None).map(drop));
        let taken = take(&resource, 1);
        beside.join().unwrap().unwrap();
        assert_eq!(taken + 7 + take_all(&resource), 8, "over-issued, or lost");
    });
}

/// A cache that was drained is not taken from when the stripes are opened again.
#[test]
fn cache_of_an_earlier_epoch() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL).on_release(OnRelease::Refund), &time);
        resource.open_stripes();
        resource.check_n(ALL - 8).unwrap();
        drop(resource.try_acquire().unwrap()); // two are in the cache
        let other = resource.clone();
        let passing = time.clone();
        let beside = thread::spawn(move || {
            assert!(other.check_n(60).is_err()); // drains the stripes
            passing.advance(2 * HOUR);
            other.open_stripes();
        });
        let taken = take(&resource, 1);
        beside.join().unwrap();
        let all = take_all(&resource);
        assert!(all <= ALL, "over-issued: {all} after {taken}");
    });
}

#[test]
fn opening_beside_takes() {
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
        assert_eq!(20 + taken + take_all(&resource), ALL, "over-issued, or lost");
    });
}

/// A full word does not accrue. The closer reads the clock after it has closed the stripes: by an earlier
/// reading the word would regain what it could not hold.
#[test]
fn drain_beside_accrual() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(ALL).is_ok());
        time.advance(HOUR);
        let taken = take(&resource, 1);
        // All at one moment. A token was taken before it, so the other thread never finds all.
        let burst = if beside.join().unwrap() { ALL } else { 0 };
        let all = taken + burst + take_all(&resource);
        assert!(all <= ALL, "over-issued: {all}");
    });
}

/// The same for the filler of a stripe: it reads the clock after it has claimed the stripe.
#[test]
fn refill_beside_accrual() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_hour(ALL), &time);
        resource.open_stripes();
        let second = thread::spawn(|| ());
        let other = resource.clone();
        // The third thread shares the stripe of the model's own thread.
        let beside = thread::spawn(move || {
            time.advance(HOUR);
            u64::from(other.check_n(4).is_ok()) * 4
        });
        let before = take(&resource, 1);
        let since = beside.join().unwrap();
        second.join().unwrap();
        let all = since + take_all(&resource);
        assert!(all <= ALL, "over-issued: {all} after {before}");
    });
}

#[test]
fn reconfigure_beside_cached_takes() {
    long_model(|| {
        let (resource, _) = striped(40);
        assert_eq!(take(&resource, 1), 1); // one more is in the cache
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(ALL / 2)).unwrap();
            other.capacity().available
        });
        let taken = take(&resource, 2);
        let found = beside.join().unwrap();
        let left = take_all(&resource);
        assert!(left <= found, "over-issued: {left} of {found}");
        assert!(1 + taken + left <= 48, "over-issued: {taken} and {left}");
        assert!(taken + left >= ALL / 2, "lost");
    });
}

/// Stripes that are opened beside a reconfiguration belong to the new limit, or are closed.
#[test]
fn opening_beside_reconfigure() {
    model(|| {
        let (resource, time) = striped(0);
        resource.check_n(8).unwrap(); // drains the stripes
        time.advance(2 * HOUR);
        let other = resource.clone();
        let beside = thread::spawn(move || other.reconfigure(Limit::per_hour(8)).unwrap());
        resource.open_stripes();
        beside.join().unwrap();
        let left = take_all(&resource);
        assert!(left <= 8, "over-issued: {left}");
        assert_eq!(left, 8, "lost");
    });
}

#[test]
fn refund_beside_drain() {
    long_model(|| {
        let time = ManualClock::new();
        let limit = Limit::new(ALL, HOUR).on_release(OnRelease::Refund);
        let resource = alone(0, limit, &time);
        resource.open_stripes();
        resource.check_n(ALL - 8).unwrap();
        let permit = resource.try_acquire_n(2).unwrap().into_owned(); // no cache takes two
        let other = resource.clone();
        let beside = thread::spawn(move || other.check_n(6).map_or(0, |()| 6));
        drop(permit);
        let taken = beside.join().unwrap();
        assert_eq!(taken + take_all(&resource), 8, "over-issued, or lost");
    });
}

/// A filler that finds too few tokens returns what it holds, and serves the waiter.
#[test]
fn failed_refill_beside_waiter() {
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
        assert_eq!(take_all(&resource), 0, "over-issued");
    });
}

/// A caller that finds too few tokens in the word tries again after another thread has drained the stripes.
#[test]
fn denial_beside_drain() {
    model(|| {
        let (resource, _) = striped(0);
        let other = resource.clone();
        let beside = thread::spawn(move || other.peek(8).is_ok());
        assert!(resource.check_n(5).is_ok(), "denied what is there");
        assert!(beside.join().unwrap() || take_all(&resource) == 3, "lost");
    });
}

/// A report that lowers what the stripes hold, beside takes from them.
#[test]
fn report_beside_cached_take() {
    long_model(|| {
        let (resource, _) = striped(32);
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        resource.observe_remaining(1);
        let before = beside.join().unwrap();
        let left = take_all(&resource);
        assert!(left <= 1, "over-issued: {left} are left");
        assert!(before + left >= 1, "lost: {before} and {left}");
    });
}
