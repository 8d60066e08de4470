//! Pauses, which are told to observers and may be ended early; and debts that have an end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::{
    CapacityUpdate, Limit, ManualClock, MemoryLimiter, OnRelease, Recovery, Resource, UpdateKind,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Seconds since 1970, taken for a delay.
const ABSURD: Duration = Duration::from_secs(1_767_225_600);

fn manual(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resource = limiter.configure("api", limit).unwrap();
    (limiter, resource, time)
}

fn drain(resource: &Resource) -> u64 {
    std::iter::repeat_with(|| resource.check()).take_while(Result::is_ok).count() as u64
}

#[test]
fn a_pause_can_be_ended() {
    let two_windows = Limit::per_second(10).and(Limit::per_minute(100));
    for limit in [Limit::per_second(10), two_windows] {
        let (limiter, api, time) = manual(limit);
        api.check_n(4).unwrap();
        api.pause_for(ABSURD);
        time.advance(SECOND);
        assert!(api.check().is_err());
        // Another limit does not end it.
        limiter.configure("api", limit.burst(8)).unwrap();
        assert!(api.check().is_err());
        limiter.resume("api");
        // What was there before; nothing accrued in between.
        assert_eq!(drain(&api), 6);
        time.advance(SECOND / 2);
        assert_eq!(drain(&api), 5);
        // There is no pause to end.
        api.resume();
        assert_eq!(drain(&api), 0);
        limiter.resume("nobody");
    }
}

#[test]
fn who_waits_is_served_when_a_pause_ends() {
    let (_, api, _) = manual(Limit::per_second(10));
    api.pause_for(ABSURD);
    let waiter = std::thread::spawn({
        let api = api.clone();
        move || api.blocking_until_ready()
    });
    while api.capacity().waiting == 0 {
        std::thread::yield_now();
    }
    api.resume();
    waiter.join().unwrap().unwrap();
    assert_eq!(api.capacity().available, 9);
}

/// The time before a pause is not counted twice, however the clock steps.
#[test]
fn a_clock_that_steps_back_makes_no_tokens() {
    let (_, api, time) = manual(Limit::per_second(10));
    api.check_n(10).unwrap();
    time.advance(SECOND / 2);
    api.pause_for(10 * SECOND);
    for back in [0, 100, 400] {
        time.set(back * 1_000_000);
        api.resume();
        api.pause_for(10 * SECOND);
    }
    api.resume();
    assert!(drain(&api) <= 5);
    time.set(500_000_000);
    assert_eq!(drain(&api), 0, "the five of the first half second are gone");
    time.advance(SECOND);
    assert_eq!(drain(&api), 10);
}

/// A number that is wrong by far makes a debt of a day, or of a burst that takes longer to earn.
#[test]
fn a_debt_has_an_end() {
    for (limit, most) in [
        (Limit::per_second(10), DAY),
        (Limit::per_minute(1), DAY),
        (Limit::per_day(1_000), DAY),
        (Limit::new(100, 30 * DAY), 30 * DAY),
        (Limit::per_second(10).and(Limit::new(1_000, 7 * DAY)), 7 * DAY),
    ] {
        for paused in [false, true] {
            let (_, api, time) = manual(limit);
            if paused {
                api.pause_for(SECOND);
            }
            let window = limit.get_windows().map(|window| window.window).max().unwrap();
            for actual in [u64::MAX, u64::MAX / 2, 1 << 40] {
                api.try_acquire_n(0).unwrap().settle(actual);
                let shown = api.capacity();
                assert!(shown.dropped_charges > 0, "{limit}");
                let wait = api.check().unwrap_err().retry_after().unwrap();
                // A token's time more, and what a pause adds.
                let token = window.min(DAY) + SECOND;
                assert!(wait <= most + token, "{limit}: {wait:?}");
                assert!(wait + token >= DAY, "{limit}: {wait:?}");
            }
            time.advance(most + window.min(DAY) + SECOND);
            assert!(api.check().is_ok(), "{limit}");
        }
    }
}

/// A debt that fits is kept to the token.
#[test]
fn an_ordinary_debt_is_kept() {
    let (_, api, time) = manual(Limit::per_second(10));
    api.try_acquire().unwrap().settle(1_010);
    assert_eq!(api.capacity().dropped_charges, 0);
    assert_eq!(api.check().unwrap_err().retry_after(), Some(SECOND * 1_001 / 10));
    time.advance(SECOND * 1_001 / 10);
    assert_eq!(drain(&api), 1);
}

/// Each once, also where it ends by time alone, and with the capacity as it was.
#[test]
fn observers_are_told_of_a_pause_and_of_its_end() {
    let (limiter, api, time) = manual(Limit::per_second(10));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    limiter.on_capacity_change(move |update| tell.lock().unwrap().push(update.clone()));
    let kinds = || -> Vec<UpdateKind> {
        told.lock().unwrap().drain(..).map(|update: CapacityUpdate| update.kind).collect()
    };
    api.resume();
    api.pause_for(Duration::ZERO);
    assert_eq!((kinds(), api.capacity().paused_until), (vec![], None));
    api.pause_for(SECOND);
    api.pause_for(2 * SECOND); // longer: the same pause
    api.pause_here_for(SECOND);
    assert_eq!(told.lock().unwrap()[0].new_capacity, 10);
    assert_eq!((kinds(), api.capacity().paused_until), (vec![UpdateKind::Pause], Some(2 * SECOND)));
    time.advance(Duration::from_nanos(1_999_999_999));
    assert_eq!(api.capacity().paused_until, Some(Duration::from_nanos(1)));
    assert_eq!(kinds(), []);
    time.advance(Duration::from_nanos(1));
    assert_eq!(kinds(), [], "nobody has looked");
    assert_eq!(api.capacity().paused_until, None);
    api.check().unwrap();
    assert_eq!(told.lock().unwrap()[0].new_capacity, 10);
    assert_eq!(kinds(), [UpdateKind::Resume]);
    // What ends one begins the next.
    api.pause_for(SECOND);
    time.advance(SECOND);
    api.pause_for(Duration::MAX);
    api.resume();
    api.resume();
    let (pause, resume) = (UpdateKind::Pause, UpdateKind::Resume);
    assert_eq!(kinds(), [pause, resume, pause, resume]);
    // A debt that denies for a while is no pause.
    api.try_acquire().unwrap().settle(1_000_000);
    assert_eq!(api.capacity().paused_until, None);
    api.pause_for(SECOND);
    assert_eq!(api.capacity().paused_until, Some(SECOND));
    time.advance(SECOND);
    assert_eq!(api.capacity().paused_until, None);
    time.advance(2 * DAY);
    api.check().unwrap();
    assert_eq!(kinds(), [pause, resume]);
}

/// A step of the recovery in a pause, and one at its end.
#[test]
fn steps_of_a_recovery_and_the_end_of_a_pause_are_told_once_each() {
    let recovery = Recovery { interval: SECOND, factor: 1.5, cap: true };
    let (limiter, api, time) = manual(Limit::per_second(100).recovery(recovery));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    limiter.on_capacity_change(move |update| tell.lock().unwrap().push(update.kind));
    api.announce_reduced("429");
    api.pause_for(SECOND);
    time.advance(SECOND);
    api.check().unwrap();
    assert_eq!(api.capacity().burst, 100);
    let (cut, pause) = (UpdateKind::Cut, UpdateKind::Pause);
    let expected = [cut, pause, UpdateKind::Recovery, UpdateKind::Resume];
    assert_eq!(*told.lock().unwrap(), expected);
}

/// Nothing gets through: the pause that a refusal opens is told too, and what permits give back in it is void.
#[test]
fn a_pause_that_a_refusal_opens_is_told_and_ends_empty() {
    let limit = Limit::per_second(100).recovery(Recovery::default()).on_release(OnRelease::Refund);
    let (limiter, api, time) = manual(limit);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    limiter.on_capacity_change(move |update| tell.lock().unwrap().push(update.kind));
    for _ in 0..4 {
        api.try_acquire().unwrap().throttled("429");
        time.advance(3 * SECOND / 2);
    }
    let held = api.try_acquire_n(10).unwrap();
    api.try_acquire().unwrap().throttled("429");
    assert_eq!(*told.lock().unwrap(), [UpdateKind::Cut, UpdateKind::Pause]);
    assert_eq!(api.capacity().paused_until, Some(5 * SECOND));
    held.refund();
    time.advance(5 * SECOND);
    assert_eq!((api.capacity().available, api.capacity().paused_until), (0, None));
    assert_eq!(told.lock().unwrap()[2..], [UpdateKind::Resume]);
}
