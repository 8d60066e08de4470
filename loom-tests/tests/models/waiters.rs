//! Waiters of one resource: each is woken by what it waits for.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::thread;
use tollgate::{Acquire, AcquireError, Limit, OnRelease, Permit, Recovery};

use crate::{HOUR, SECOND, long_model, model, poll_once, resource, take};

#[test]
fn refund_beside_waiter() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(drop));
        drop(permit);
        waiter.join().unwrap().unwrap();
        assert_eq!(resource.capacity().available, 1, "not conserved");
    });
}

#[test]
fn cancelled_head_beside_next_waiter() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let mut head = Box::pin(resource.acquire());
        assert!(!poll_once(head.as_mut()));
        let other = resource.clone();
        let next = thread::spawn(move || other.blocking_acquire().map(drop));
        // The head is notified, and dropped before it is polled.
        drop(permit);
        drop(head);
        next.join().unwrap().unwrap();
        assert_eq!(resource.capacity().available, 1, "not conserved");
    });
}

#[test]
fn close_beside_waiter() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(drop));
        resource.close();
        assert_eq!(waiter.join().unwrap(), Err(AcquireError::Closed));
    });
}

#[test]
fn timer_beside_waiter() {
    model(|| {
        let (resource, time) = resource(Limit::per_second(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(drop));
        time.advance(SECOND);
        waiter.join().unwrap().unwrap();
        assert_eq!(take(&resource, 1), 0, "over-issued");
    });
}

/// The clock advances and steps back while a timer is armed.
#[test]
fn clock_step_back_beside_waiter() {
    long_model(|| {
        let (resource, time) = resource(Limit::per_second(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(drop));
        time.set(1_000_000_000);
        time.set(0);
        time.advance(2 * SECOND);
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn notified_waiter_beside_take() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let waiter = resource.acquire();
        let mut waiter = pin!(async { waiter.await.map(Permit::forget) });
        assert!(!poll_once(waiter.as_mut()));
        let other = resource.clone();
        // A newcomer must not overtake the waiter.
        let overtaker = thread::spawn(move || take(&other, 1));
        drop(permit);
        loom::future::block_on(waiter).unwrap();
        assert_eq!(overtaker.join().unwrap(), 0, "overtaken");
    });
}

#[test]
fn cut_beside_waiter_for_more() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(4).no_recovery());
        assert!(resource.check_n(4).is_ok());
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire_n(4, None).map(drop));
        resource.announce_reduced("429");
        let failed = waiter.join().unwrap();
        assert_eq!(failed, Err(AcquireError::ExceedsCapacity { capacity: 3 }));
    });
}

/// The steps of the recovery fall due beside a waiter for more than the cut bucket holds.
#[test]
fn recovery_beside_waiter_for_more() {
    model(|| {
        let recovery = Recovery { interval: SECOND, factor: 2.0, cap: true };
        let (resource, time) = resource(Limit::per_second(4).recovery(recovery));
        resource.announce_reduced("429");
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire_n(4, None).map(drop));
        time.advance(SECOND);
        time.advance(SECOND);
        waiter.join().unwrap().unwrap();
    });
}

/// One refund of two tokens serves two waiters for one token each.
#[test]
fn refund_of_two_wakes_two_waiters() {
    model(|| {
        let (resource, _) = resource(Limit::new(2, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire_n(2).unwrap().into_owned();
        let mut first = Box::pin(resource.acquire());
        assert!(!poll_once(first.as_mut()));
        let other = resource.clone();
        let second = thread::spawn(move || other.blocking_acquire().map(Permit::forget));
        drop(permit);
        loom::future::block_on(first).unwrap().forget();
        second.join().unwrap().unwrap();
        assert_eq!(resource.capacity().available, 0, "over-issued, or lost");
        assert_eq!(resource.capacity().in_flight, 2);
    });
}

/// The token of the head and its deadline come at the same moment: either it or the next waiter gets the
/// token.
#[test]
fn timeout_beside_notification() {
    model(|| {
        let (resource, time) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let mut head = Box::pin(resource.acquire().timeout(SECOND));
        let mut next = Box::pin(resource.acquire());
        assert!(!poll_once(head.as_mut()) && !poll_once(next.as_mut()));
        let passing = thread::spawn(move || time.advance(SECOND));
        drop(permit);
        match loom::future::block_on(head) {
            Ok(permit) => drop(permit),
            Err(error) => assert!(matches!(error, AcquireError::TimedOut { .. })),
        }
        loom::future::block_on(next).unwrap().forget();
        passing.join().unwrap();
        assert_eq!(resource.capacity().available, 0, "over-issued");
        assert_eq!(resource.capacity().in_flight, 1);
    });
}

/// A faster rate shortens a wait that was computed by the slower one.
#[test]
fn reconfigure_beside_waiter() {
    model(|| {
        let (resource, time) = resource(Limit::per_day(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire().map(Permit::forget));
        resource.reconfigure(Limit::per_second(1)).unwrap();
        time.advance(SECOND);
        waiter.join().unwrap().unwrap();
        assert_eq!(take(&resource, 1), 0, "over-issued");
    });
}

/// Nothing is admitted before a pause ends. Its end wakes the waiter.
#[test]
fn pause_end_beside_waiter() {
    model(|| {
        let (resource, time) = resource(Limit::per_hour(1));
        resource.pause_for(SECOND);
        let other = resource.clone();
        let clock = time.clone();
        let waiter = thread::spawn(move || {
            other.blocking_acquire().map(Permit::forget).unwrap();
            assert!(clock.now() >= 1_000_000_000, "in the pause");
        });
        time.advance(SECOND);
        waiter.join().unwrap();
        assert_eq!(take(&resource, 1), 0, "over-issued");
    });
}

/// A waiter that wants no permit is served by time alone while all places in flight are taken.
#[test]
fn until_ready_beside_a_place_that_is_taken() {
    model(|| {
        let (resource, time) = resource(Limit::new(1, HOUR).max_in_flight(1));
        let permit = resource.try_acquire().unwrap();
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_until_ready());
        time.advance(HOUR);
        waiter.join().unwrap().unwrap();
        let shown = resource.capacity();
        assert_eq!((shown.available, shown.in_flight), (0, 1), "over-issued");
        drop(permit);
    });
}

/// A future that was polled by one task is polled by another, which is the one to be woken.
#[test]
fn refund_beside_poll_by_another_task() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let mut wait = Box::pin(resource.acquire());
        assert!(!poll_once(wait.as_mut()));
        let refund = thread::spawn(move || drop(permit));
        loom::future::block_on(wait).unwrap().spend();
        refund.join().unwrap();
        assert_eq!(resource.capacity().available, 0, "over-issued");
    });
}

/// An executor polls and wakes under one lock of its own. Its waker drops the task, as if its queue of
/// tasks were gone, and the next waiter is served.
#[test]
fn waker_takes_the_lock_of_the_poller() {
    struct Executor(Mutex<Option<Pin<Box<Acquire>>>>);
    impl Wake for Executor {
        fn wake(self: Arc<Self>) {
            let task = self.0.lock().unwrap().take();
            drop(task);
        }
    }
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let executor = Arc::new(Executor(Mutex::new(Some(Box::pin(resource.acquire())))));
        let other = Arc::clone(&executor);
        let polls = thread::spawn(move || {
            let waker = Waker::from(Arc::clone(&other));
            let mut task = other.0.lock().unwrap();
            let polled =
                task.as_mut().map(|task| task.as_mut().poll(&mut Context::from_waker(&waker)));
            if let Some(Poll::Ready(granted)) = polled {
                drop(granted);
                *task = None;
            }
        });
        drop(permit);
        polls.join().unwrap();
        resource.blocking_acquire().unwrap().spend();
        assert_eq!(resource.capacity().available, 0, "over-issued");
    });
}
