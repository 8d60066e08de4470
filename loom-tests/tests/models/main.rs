//! Each model is explored by loom over every interleaving of its threads (up to a number of
//! preemptions), on the shipped code: a resource's handle and a manual clock.
//!
//! A model counts only if it can fail. `TOLLGATE_SEED=name` compiles nothing anew but switches one
//! fault on inside the crate, and [`every_seeded_fault_is_caught`] requires that the model named
//! beside it then fails, and how.
#![cfg(loom)]

mod clock;
mod cuts;
mod groups;
mod keys;
mod stripes;
mod windows;

use std::future::Future;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use loom::thread;
use tollgate::{AcquireError, Limit, ManualClock, OnRelease, Permit, Resource};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// fault, the model that catches it, what it then says
const FAULTS: &[(&str, &str, &str)] = &[
    ("take-without-cas", "two_takers_never_over_issue", "over-issued"),
    ("refund-without-cas", "a_refund_beside_a_take_conserves_tokens", "not conserved"),
    ("swing-before-slot", "a_reconfiguration_makes_no_token", "over-issued"),
    ("torn-denial", "a_reader_of_a_slot_being_rewritten_looks_again", "denied a token"),
    ("torn-view", "a_look_at_a_slot_being_rewritten_is_repeated", "denied a token"),
    ("clock-before-word", "a_reconfiguration_settles_time_once", "over-issued"),
    ("join-without-bit", "a_refund_wakes_who_is_about_to_sleep", "deadlock"),
    ("listen-after-join", "a_refund_wakes_who_is_about_to_sleep", "deadlock"),
    ("cancel-keeps-turn", "a_cancelled_head_passes_its_turn_on", "deadlock"),
    ("close-without-call", "closing_wakes_who_waits", "deadlock"),
    ("in-flight-check-then-add", "never_more_in_flight_than_allowed", "too many in flight"),
    ("leave-without-look", "a_permit_that_ends_lets_the_next_in", "deadlock"),
    (
        "incident-before-cut",
        "cuts::a_refusal_of_what_was_granted_before_a_cut_joins_it",
        "cut twice",
    ),
    ("line-without-mark", "clock::a_late_reader_beside_a_correction", "stepped back"),
    ("locks-in-any-order", "groups::two_in_opposite_order", "deadlock"),
    ("group-without-bit", "groups::one_beside_a_single_call", "not conserved"),
    ("take-and-roll-back", "groups::a_refusal_beside_a_refill_makes_no_token", "over-issued"),
    ("take-and-roll-back", "groups::a_refusal_beside_a_reconfiguration_makes_no_token", "made"),
    ("swing-without-lock", "groups::one_beside_a_reconfiguration", "not conserved"),
    ("charge-without-lock", "groups::one_beside_a_settlement", "not conserved"),
    ("ready-without-look", "groups::a_wait_for_two_hears_of_what_was_there_before", "deadlock"),
    ("ready-though-full", "groups::a_place_that_is_taken_beside_a_wait_for_two", "deadlock"),
    ("step-without-slot", "cuts::a_cut_that_changes_nothing_beside_a_step", "branches"),
    ("reshape-without-bit", "windows::another_window_beside_a_taker", "over-issued"),
    (
        "limit-before-lock",
        "cuts::a_neighbours_cut_beside_takers_and_a_reconfiguration",
        "the cut, or the limit, was lost",
    ),
    ("evict-without-dead", "keys::a_take_beside_an_eviction", "over-issued"),
    ("promote-without-dead", "keys::a_take_beside_a_promotion", "over-issued"),
    ("evict-without-look", "keys::a_handle_beside_an_eviction", "the key has gone"),
    ("evict-without-look", "keys::a_cut_beside_an_eviction", "the cut was lost"),
    ("use-without-look", "keys::a_permit_beside_an_eviction", "the key has gone"),
    ("turn-by-old-clock", "keys::another_limit_settles_time_once", "over-issued"),
    ("new-without-time", "keys::an_old_reading_beside_an_eviction", "over-issued"),
    ("names-after-template", "keys::a_key_beside_a_longer_prefix", "count is wrong"),
    ("names-after-template", "keys::an_eviction_beside_a_longer_prefix", "count is wrong"),
    ("arm-without-look", "time_that_passes_wakes_who_waits", "deadlock"),
    (
        "stash-without-barrier",
        "stripes::a_take_from_the_stash_beside_who_takes_back",
        "over-issued",
    ),
    (
        "stash-in-use-gathered",
        "stripes::a_take_from_the_stash_beside_who_takes_back",
        "over-issued",
    ),
    ("charged-in-vain", "stripes::a_take_from_the_stash_beside_who_takes_back", "lost"),
    ("stash-of-another-opening", "stripes::a_stash_of_another_opening", "over-issued"),
    ("deposit-without-look", "stripes::a_stripe_is_filled_beside_who_takes_back", "lost"),
    ("gathered-beside-a-filler", "stripes::a_stripe_is_filled_beside_who_takes_back", "lost"),
    ("batch-without-look", "stripes::a_stripe_is_filled_beside_one_in_line", "deadlock"),
    ("wait-beside-stripes", "stripes::who_waits_has_what_is_in_stripes", "deadlock"),
    ("clock-before-gathering", "stripes::time_that_passes_while_stripes_are_closed", "over-issued"),
    ("clock-before-claim", "stripes::time_that_passes_while_a_stripe_is_filled", "over-issued"),
    ("swing-beside-stripes", "stripes::a_reconfiguration_beside_stripes", "lost"),
    ("swing-beside-stripes", "stripes::opening_beside_a_reconfiguration", "over-issued"),
    ("filled-in-vain", "stripes::a_stripe_is_filled_in_vain_beside_one_in_line", "deadlock"),
    ("denial-by-a-part", "stripes::a_denial_beside_who_takes_back", "denied what is there"),
    ("leave-without-cas", "stripes::permits_end_on_other_stripes", "miscounted"),
];

fn model(f: impl Fn() + Send + Sync + 'static) {
    explore(3, f);
}

/// Every fault below shows with two preemptions; long models stop there.
fn long_model(f: impl Fn() + Send + Sync + 'static) {
    explore(2, f);
}

fn explore(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 100_000;
    builder.check(f);
}

fn resource(limit: Limit) -> (Resource, ManualClock) {
    let time = ManualClock::new();
    (alone(0, limit, &time), time)
}

fn alone(id: u64, limit: Limit, time: &ManualClock) -> Resource {
    Resource::alone(id, limit, time.clone()).expect("a limit that fits")
}

/// Two resources of one clock.
fn two(one: Limit, other: Limit) -> (Resource, Resource, ManualClock) {
    let time = ManualClock::new();
    (alone(1, one, &time), alone(2, other, &time), time)
}

fn take(resource: &Resource, times: usize) -> u64 {
    (0..times).map(|_| u64::from(resource.check().is_ok())).sum()
}

/// A future that is polled by hand.
fn polled_once(future: std::pin::Pin<&mut impl Future>) -> bool {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    future.poll(&mut Context::from_waker(&waker)).is_ready()
}

#[test]
fn two_takers_never_over_issue() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(3));
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let taken = take(&resource, 2) + beside.join().unwrap();
        assert_eq!(taken, 3, "over-issued, or lost");
    });
}

#[test]
fn a_refund_beside_a_take_conserves_tokens() {
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
fn a_reconfiguration_makes_no_token() {
    model(|| {
        // The slot that comes next still holds a bucket of ten.
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

/// One token is there throughout, so that any denial is a wrong reading.
fn a_token_is_found_beside_two_reconfigurations(look: impl Fn(&Resource) -> bool) {
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
fn a_reader_of_a_slot_being_rewritten_looks_again() {
    model(|| a_token_is_found_beside_two_reconfigurations(|resource| resource.check().is_ok()));
}

#[test]
fn a_look_at_a_slot_being_rewritten_is_repeated() {
    model(|| a_token_is_found_beside_two_reconfigurations(|resource| resource.peek(1).is_ok()));
}

#[test]
fn a_reconfiguration_settles_time_once() {
    model(|| {
        let (resource, time) = resource(Limit::per_second(1));
        assert_eq!(take(&resource, 1), 1);
        let other = resource.clone();
        let passing = time.clone();
        let beside = thread::spawn(move || {
            passing.advance(10 * SECOND);
            take(&other, 1)
        });
        // Faster, so that time which is settled twice shows.
        resource.reconfigure(Limit::per_second(100).burst(1)).unwrap();
        let taken = beside.join().unwrap() + take(&resource, 2);
        assert_eq!(taken, 1, "over-issued, or lost");
    });
}

#[test]
fn a_refund_wakes_who_is_about_to_sleep() {
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
fn a_cancelled_head_passes_its_turn_on() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let mut head = Box::pin(resource.acquire());
        assert!(!polled_once(head.as_mut()));
        let other = resource.clone();
        let next = thread::spawn(move || other.blocking_acquire().map(drop));
        // The head is called, and gives up without coming.
        drop(permit);
        drop(head);
        next.join().unwrap().unwrap();
        assert_eq!(resource.capacity().available, 1, "not conserved");
    });
}

#[test]
fn closing_wakes_who_waits() {
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
fn never_more_in_flight_than_allowed() {
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

#[test]
fn a_permit_that_ends_lets_the_next_in() {
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

#[test]
fn time_that_passes_wakes_who_waits() {
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

/// A clock that goes on and steps back while a timer is armed.
#[test]
fn time_that_steps_back_loses_no_timer() {
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
fn a_waiter_that_is_called_beside_a_taker_gets_its_token() {
    model(|| {
        let (resource, _) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let waiter = resource.acquire();
        let mut waiter = pin!(async { waiter.await.map(Permit::forget) });
        assert!(!polled_once(waiter.as_mut()));
        let other = resource.clone();
        // Somebody is in line: nobody overtakes.
        let overtaker = thread::spawn(move || take(&other, 1));
        drop(permit);
        loom::future::block_on(waiter).unwrap();
        assert_eq!(overtaker.join().unwrap(), 0, "overtaken");
    });
}

#[test]
fn a_cut_fails_who_waits_for_more() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(4));
        assert!(resource.check_n(4).is_ok());
        let other = resource.clone();
        let waiter = thread::spawn(move || other.blocking_acquire_n(4, None).map(drop));
        resource.announce_reduced("429");
        let failed = waiter.join().unwrap();
        assert_eq!(failed, Err(AcquireError::ExceedsCapacity { capacity: 3 }));
    });
}

/// Two wait for one token each; both come back at once.
#[test]
fn a_refund_of_two_wakes_both_who_wait() {
    model(|| {
        let (resource, _) = resource(Limit::new(2, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire_n(2).unwrap().into_owned();
        let mut first = Box::pin(resource.acquire());
        assert!(!polled_once(first.as_mut()));
        let other = resource.clone();
        let second = thread::spawn(move || other.blocking_acquire().map(Permit::forget));
        drop(permit);
        loom::future::block_on(first).unwrap().forget();
        second.join().unwrap().unwrap();
        assert_eq!(resource.capacity().available, 0, "over-issued, or lost");
        assert_eq!(resource.capacity().in_flight, 2);
    });
}

/// The head's token and its deadline come at the same moment: it has the token, or the next has it.
#[test]
fn a_waiter_that_times_out_while_it_is_called_loses_no_token() {
    model(|| {
        let (resource, time) = resource(Limit::new(1, HOUR).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().unwrap().into_owned();
        let mut head = Box::pin(resource.acquire().timeout(SECOND));
        let mut next = Box::pin(resource.acquire());
        assert!(!polled_once(head.as_mut()) && !polled_once(next.as_mut()));
        let passing = thread::spawn(move || time.advance(SECOND));
        drop(permit);
        match loom::future::block_on(head) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error, AcquireError::TimedOut),
        }
        loom::future::block_on(next).unwrap().forget();
        passing.join().unwrap();
        assert_eq!(resource.capacity().available, 0, "over-issued");
        assert_eq!(resource.capacity().in_flight, 1);
    });
}

/// A faster rate reaches who waits, or is about to, for the slower.
#[test]
fn a_reconfiguration_reaches_who_waits() {
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

/// Nothing is admitted before a pause ends, and whoever waits hears of its end.
#[test]
fn a_pause_ends_for_who_waits() {
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

/// The anchor moves up at the horizon, where everybody is sent the slow way.
#[test]
fn a_fresh_anchor_makes_no_token() {
    model(|| {
        let (resource, time) = resource(Limit::per_hour(2));
        assert_eq!(take(&resource, 2), 2);
        // Past every horizon: the bucket is full again.
        time.advance(100_000 * HOUR);
        let other = resource.clone();
        let beside = thread::spawn(move || take(&other, 2));
        let taken = take(&resource, 2) + beside.join().unwrap();
        assert_eq!(taken, 2, "over-issued, or lost");
    });
}

/// n * (the other slot's unit) may be anything: position + units must not overflow.
#[test]
fn a_torn_slot_does_not_overflow() {
    // per_day(1): 86.4e12 units a token; n of them, modulo 2^64, end just below 2^64
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

/// What a denial tells must come from one slot.
#[test]
fn a_retry_after_is_of_one_slot() {
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

/// A bound on permits that comes while a permit ends.
#[test]
fn a_permit_that_ends_beside_a_new_bound_lets_the_next_in() {
    model(|| {
        let (resource, _) = resource(Limit::per_hour(5));
        let permit = resource.try_acquire().unwrap().into_owned();
        let other = resource.clone();
        let waiter = thread::spawn(move || {
            other.reconfigure(Limit::per_hour(5).max_in_flight(1)).unwrap();
            other.blocking_acquire().map(drop)
        });
        drop(permit);
        waiter.join().unwrap().unwrap();
        assert_eq!(resource.capacity().in_flight, 0);
    });
}

#[test]
fn every_seeded_fault_is_caught() {
    if std::env::var_os("TOLLGATE_SEED").is_some() {
        return;
    }
    let this = std::env::current_exe().expect("a test runs from a file");
    for (fault, model, says) in FAULTS {
        let run = Command::new(&this)
            .args(["--exact", model, "--nocapture"])
            .env("TOLLGATE_SEED", fault)
            .output()
            .expect("the test binary runs again");
        let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success(), "{model} does not catch {fault}");
        assert!(said.contains(says), "{model} fails on {fault}, but not by {says:?}:\n{said}");
        println!("{fault}: caught by {model}");
    }
}
