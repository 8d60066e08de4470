//! Shares of a swarm's quota: what is allotted beside takes, refunds and waiters.
//!
//! Time stands still unless a model moves it. A share's burst is then all that can be taken of it.

use std::time::Duration;

use loom::thread;
use tollgate::{Limit, ManualClock, OnRelease, Permit, Resource};

use crate::{HOUR, SECOND, alone, long_model, longest_model, model, poll_once, take};

/// A share in tokens a second, its burst, and its end.
type Share = (u64, u32, Duration);

const ALL: u64 = 64;

fn quota() -> Limit {
    Limit::new(ALL, HOUR)
}

/// A resource that has this share, which is full.
fn shared(share: Share) -> (Resource, ManualClock) {
    let time = ManualClock::new();
    let resource = alone(0, quota(), &time);
    assert!(resource.share(quota(), HOUR));
    resource.allot_shares(&[share]);
    time.advance(SECOND);
    assert_eq!(resource.capacity().available, u64::from(share.1));
    (resource, time)
}

/// A permit of `n` tokens of this share, which then holds `left`, and its resource.
fn granted(share: Share, n: u64, left: u64) -> (Permit<'static>, Resource) {
    let (resource, _) = shared(share);
    resource.check_n(u64::from(share.1) - n - left).unwrap();
    let permit = resource.try_acquire_n(n).unwrap().into_owned();
    assert_eq!(resource.capacity().available, left);
    (permit, resource)
}

/// It is so many seconds later than at the start. By a store, not by an RMW after a load of its own: loom looks only
/// at the last load, and would not let time pass between two loads of another thread.
fn pass(time: &ManualClock, seconds: u64) {
    time.set(seconds * 1_000_000_000);
}

/// What is left of a share at this moment.
fn take_all(resource: &Resource) -> u64 {
    std::iter::repeat_with(|| resource.check()).take_while(Result::is_ok).count() as u64
}

// ---- takes ------------------------------------------------------------------------------------

#[test]
fn takes_beside_a_larger_share() {
    model(|| {
        let (resource, _) = shared((2, 2, HOUR));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 3));
        resource.allot_shares(&[(4, 4, HOUR)]);
        let taken = beside.join().unwrap() + take_all(&resource);
        assert!(taken <= 2, "over-issued: {taken}");
        assert_eq!(taken, 2, "lost");
    });
}

/// A take that was decided before the share became smaller does not spend what it has no room for any more.
#[test]
fn take_beside_a_smaller_share() {
    model(|| {
        let (resource, _) = shared((2, 2, HOUR));
        let other = resource.clone();
        let beside = thread::spawn(move || u64::from(other.check_n(2).is_ok()) * 2);
        resource.allot_shares(&[(2, 1, HOUR)]);
        let left = take_all(&resource);
        let taken = beside.join().unwrap();
        assert!(taken + left <= 2, "over-issued: {taken} and {left}");
        assert_eq!(left, u64::from(taken == 0), "lost");
    });
}

/// Tokens of a share that is lost do not come back with it.
#[test]
fn take_beside_a_share_that_is_lost_and_regained() {
    longest_model(|| {
        let (resource, _) = shared((2, 2, HOUR));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 1));
        resource.allot_shares(&[]);
        resource.allot_shares(&[(2, 2, HOUR)]);
        let left = take_all(&resource);
        assert_eq!(left, 0, "over-issued");
        assert!(beside.join().unwrap() <= 1);
    });
}

#[test]
fn takes_beside_the_end_of_a_share() {
    model(|| {
        let (resource, time) = shared((2, 2, 2 * SECOND));
        let other = resource.clone();
        let beside = thread::spawn(move || {
            pass(&time, 2);
            take(&other, 1)
        });
        let taken = take(&resource, 1);
        assert_eq!(beside.join().unwrap(), 0, "over-issued: after the end");
        assert_eq!(take_all(&resource), 0, "over-issued: {taken} before");
    });
}

/// Time passes beside a change. What a share earns ends with it, however late the change takes effect.
fn earn_beside_a_change(shares: &[Share], most: u64, change: impl Fn(&Resource)) {
    let time = ManualClock::new();
    let resource = alone(0, quota(), &time);
    assert!(resource.share(quota(), HOUR));
    resource.allot_shares(shares);
    let beside = thread::spawn(move || pass(&time, 3));
    change(&resource);
    beside.join().unwrap();
    let left = take_all(&resource);
    assert!(left <= most, "over-issued: {left}");
}

#[test]
fn allotment_beside_the_end_of_a_share() {
    model(|| {
        earn_beside_a_change(&[(4, 16, SECOND)], 4 + 2, |resource| {
            resource.allot_shares(&[(1, 16, HOUR)]);
        });
    });
}

/// Of what is allotted, the first share counts up to its own end.
#[test]
fn allotment_of_two_beside_the_end_of_a_share() {
    model(|| {
        earn_beside_a_change(&[(2, 16, SECOND)], 2 + 1 + 4, |resource| {
            resource.allot_shares(&[(1, 16, 2 * SECOND), (4, 16, HOUR)]);
        });
    });
}

#[test]
fn cut_beside_the_next_share() {
    model(|| {
        earn_beside_a_change(&[(4, 16, SECOND), (1, 16, HOUR)], 4 + 2, |resource| {
            resource.announce_reduced("429");
        });
    });
}

/// What an upstream says is left counts in each share.
#[test]
fn report_beside_allotment() {
    model(|| {
        let (resource, _) = shared((4, 4, HOUR));
        let other = resource.clone();
        let beside = thread::spawn(move || other.observe_remaining(1));
        resource.allot_shares(&[(8, 8, HOUR)]);
        beside.join().unwrap();
        let left = take_all(&resource);
        assert!(left <= 1, "over-issued: {left} are left");
        assert_eq!(left, 1, "lost");
    });
}

/// What was used beyond the estimate is charged to one share.
#[test]
fn charge_beside_allotment() {
    model(|| {
        let (permit, resource) = granted((8, 8, HOUR), 1, 7);
        let other = resource.clone();
        let beside = thread::spawn(move || other.allot_shares(&[(16, 16, HOUR)]));
        permit.settle(4);
        beside.join().unwrap();
        assert_eq!(resource.capacity().available, 4, "not conserved");
    });
}

// ---- refunds ----------------------------------------------------------------------------------

/// A permit from before the resource was shared ends while it becomes so. Its tokens are of no share.
fn end_beside_the_first_share(limit: Limit, n: u64, end: impl Fn(Permit<'static>)) {
    let time = ManualClock::new();
    let resource = alone(0, limit, &time);
    let permit = resource.try_acquire_n(n).unwrap().into_owned();
    end_beside_sharing(&resource, permit, &[(1, 8, HOUR)], end);
}

/// The same where no share follows, which is shorter. What came back would be admitted even so.
fn end_beside_none(resource: &Resource, n: u64) {
    let permit = resource.try_acquire_n(n).unwrap().into_owned();
    end_beside_sharing(resource, permit, &[], Permit::refund);
}

fn end_beside_sharing(
    resource: &Resource,
    permit: Permit<'static>,
    shares: &'static [Share],
    end: impl Fn(Permit<'static>),
) {
    let other = resource.clone();
    let beside = thread::spawn(move || {
        assert!(other.share(quota(), HOUR));
        if !shares.is_empty() {
            other.allot_shares(shares);
        }
    });
    end(permit);
    beside.join().unwrap();
    let left = take_all(resource);
    assert_eq!(left, 0, "over-issued");
}

#[test]
fn refund_beside_the_first_share() {
    model(|| end_beside_the_first_share(quota(), 1, Permit::refund));
}

#[test]
fn settlement_beside_the_first_share() {
    model(|| end_beside_the_first_share(quota(), 3, |permit| permit.settle(1)));
}

/// With several windows, as beside a waiter, a refund takes the lock of the queue.
#[test]
fn refund_to_two_windows_beside_the_first_share() {
    long_model(|| {
        let limit = quota().and(Limit::per_day(2 * ALL));
        end_beside_none(&alone(0, limit, &ManualClock::new()), 1);
    });
}

#[test]
fn release_beside_the_first_share() {
    model(|| {
        let time = ManualClock::new();
        let limit = quota().on_release(OnRelease::Refund);
        let resource = alone(0, limit, &time);
        resource.try_acquire().unwrap().forget();
        let permit = resource.try_acquire().unwrap().into_owned();
        let releases = resource.clone();
        end_beside_sharing(&resource, permit, &[(1, 8, HOUR)], |permit| {
            permit.spend();
            releases.release();
        });
    });
}

fn refund_to_open_stripes(n: u64) {
    let resource = alone(0, quota(), &ManualClock::new());
    resource.open_stripes();
    end_beside_none(&resource, n);
}

#[test]
fn refund_to_a_cache_beside_the_first_share() {
    long_model(|| refund_to_open_stripes(1));
}

/// No cache takes two.
#[test]
fn refund_to_a_stripe_beside_the_first_share() {
    long_model(|| refund_to_open_stripes(2));
}

#[test]
fn refund_beside_a_share_that_is_lost_and_regained() {
    model(|| {
        let (permit, resource) = granted((2, 2, HOUR), 1, 0);
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.allot_shares(&[]);
            other.allot_shares(&[(2, 2, HOUR)]);
        });
        permit.refund();
        beside.join().unwrap();
        assert_eq!(take_all(&resource), 0, "over-issued");
    });
}

/// A smaller share holds one token at this moment, whatever comes back.
fn end_beside_a_smaller_share(n: u64, end: impl Fn(Permit<'static>)) {
    let (permit, resource) = granted((4, 4, HOUR), n, 4 - n);
    let other = resource.clone();
    let beside = thread::spawn(move || {
        other.allot_shares(&[(4, 1, HOUR)]);
        take(&other, 1)
    });
    end(permit);
    let taken = beside.join().unwrap();
    assert_eq!(taken, 1, "lost");
    assert_eq!(take_all(&resource), 0, "over-issued");
}

#[test]
fn refund_beside_a_smaller_share() {
    model(|| end_beside_a_smaller_share(1, Permit::refund));
}

#[test]
fn settlement_beside_a_smaller_share() {
    model(|| end_beside_a_smaller_share(3, |permit| permit.settle(1)));
}

/// What was granted beside the change is of the smaller share only if it was taken from that.
#[test]
fn grant_beside_a_smaller_share() {
    model(|| {
        let (resource, _) = shared((2, 2, HOUR));
        let other = resource.clone();
        let beside = thread::spawn(move || {
            other.allot_shares(&[(2, 1, HOUR)]);
            take(&other, 1)
        });
        let permit = resource.try_acquire().ok();
        let taken = beside.join().unwrap();
        if let Some(permit) = permit {
            permit.refund();
        }
        let left = take_all(&resource);
        assert!(taken + left <= 1, "over-issued: {taken} and {left}");
    });
}

/// A share ends by time alone, and the same one comes after a while.
#[test]
fn refund_beside_the_end_of_a_share() {
    model(|| {
        let (resource, time) = shared((2, 2, 2 * SECOND));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let beside = thread::spawn(move || {
            pass(&time, 2);
            other.allot_shares(&[(2, 2, HOUR)]);
        });
        permit.refund();
        beside.join().unwrap();
        assert_eq!(take_all(&resource), 0, "over-issued");
    });
}

// ---- waiters ----------------------------------------------------------------------------------

/// A thread waits for `n` tokens while a change is made that brings them.
fn wait_beside(resource: &Resource, n: u64, change: impl Fn()) {
    let other = resource.clone();
    let waiter = thread::spawn(move || other.blocking_until_ready_n(n, None).unwrap());
    change();
    waiter.join().unwrap();
    assert_eq!(take_all(resource), 0, "over-issued");
}

#[test]
fn first_share_beside_waiter() {
    longest_model(|| {
        let time = ManualClock::new();
        let resource = alone(0, Limit::per_day(1), &time);
        assert_eq!(take(&resource, 1), 1);
        wait_beside(&resource, 1, || {
            assert!(resource.share(quota(), HOUR));
            resource.allot_shares(&[(1, 2, HOUR)]);
            time.advance(SECOND);
        });
    });
}

/// Nobody looks again before an hour is over: the share itself must wake it.
#[test]
fn share_beside_waiter() {
    model(|| {
        let time = ManualClock::new();
        let resource = alone(0, quota(), &time);
        assert!(resource.share(quota(), HOUR));
        wait_beside(&resource, 1, || {
            resource.allot_shares(&[(1, 2, HOUR)]);
            time.advance(SECOND);
        });
    });
}

#[test]
fn share_that_is_lost_and_regained_beside_waiter() {
    longest_model(|| {
        let (resource, time) = shared((2, 2, HOUR));
        assert_eq!(take(&resource, 2), 2);
        wait_beside(&resource, 1, || {
            resource.allot_shares(&[]);
            resource.allot_shares(&[(1, 2, HOUR)]);
            time.advance(SECOND);
        });
    });
}

/// The share ends while it waits, and so does its timer.
#[test]
fn end_of_a_share_beside_waiter() {
    long_model(|| {
        let (resource, time) = shared((1, 1, 2 * SECOND));
        assert_eq!(take(&resource, 1), 1);
        wait_beside(&resource, 1, || {
            time.advance(SECOND / 2);
            resource.allot_shares(&[(0, 0, 2 * SECOND), (1, 1, HOUR)]);
            time.advance(2 * SECOND);
        });
    });
}

/// Others pass a waiter for more than the share holds, until it holds that.
#[test]
fn larger_share_beside_waiter_for_more() {
    long_model(|| {
        let (resource, time) = shared((1, 1, HOUR));
        wait_beside(&resource, 2, || {
            resource.allot_shares(&[(1, 2, HOUR)]);
            time.advance(SECOND);
        });
    });
}

/// The next task is served from a share that is too small for the head.
#[test]
fn smaller_share_beside_waiter_behind_one_for_more() {
    long_model(|| {
        let (resource, time) = shared((4, 4, HOUR));
        resource.check_n(4).unwrap();
        let mut head = Box::pin(resource.acquire_n(4));
        assert!(!poll_once(head.as_mut()));
        wait_beside(&resource, 1, || {
            resource.allot_shares(&[(1, 1, HOUR)]);
            time.advance(SECOND);
        });
        drop(head);
    });
}
