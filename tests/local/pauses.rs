//! Pauses that are ended early, and debts that have an end.

use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, Resource};

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
