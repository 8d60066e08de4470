//! Permits settled by what they cost in the end: debts, late settlements and those of nothing.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::{
    Limit, ManualClock, MemoryLimiter, OnRelease, Permits, Recovery, Resource, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

fn with(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let (time, limiter) = limiter();
    let api = limiter.configure("api", limit).expect("a limit");
    (time, limiter, api)
}

fn poll<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn permit(api: &Resource, n: u64) -> tollgate::Permit<'_> {
    api.try_acquire_n(n).expect("there are enough")
}

fn due(api: &Resource, n: u64) -> Duration {
    api.peek(n).expect_err("a debt").retry_after().expect("it ends")
}

#[test]
fn what_was_not_used_is_given_back() {
    for policy in [OnRelease::Spend, OnRelease::Refund] {
        let limit = Limit::per_second(10).and(Limit::per_day(50)).on_release(policy);
        let (_, _, api) = with(limit);
        let held = || api.capacity().windows.iter().map(|each| each.available).collect::<Vec<_>>();
        for (granted, actual, left) in
            [(4, 1, [9, 49]), (4, 4, [5, 45]), (5, 0, [5, 45]), (1, 3, [2, 42]), (0, 2, [0, 40])]
        {
            permit(&api, granted).settle(actual);
            assert_eq!(held(), left, "{granted} as {actual}, {policy:?}");
            assert_eq!(api.capacity().in_flight, 0);
        }
    }
}

/// A debt delays the next ones by exactly what is owed, up to a day of the rate or a full bucket: also by
/// more than the word holds.
#[test]
fn a_debt_delays_by_what_is_owed() {
    for owed in [1, 7, 100, 3_599, 3_601, 86_400, 1 << 20, 1 << 31] {
        for burst in [1, 5, 1_000, 1 << 25] {
            for settled in [1, 4] {
                let (time, _, api) = with(Limit::per_second(1).burst(burst));
                api.check_n(burst - 1).unwrap();
                // At once or in parts.
                permit(&api, 1).settle(1 + owed % settled);
                (0..settled).for_each(|_| permit(&api, 0).settle(owed / settled));
                let wait = Duration::from_secs(owed.min(86_400.max(burst)) + 1);
                assert_eq!(due(&api, 1), wait);
                time.advance(wait.checked_sub(Duration::from_nanos(1)).unwrap());
                assert_eq!(due(&api, 1), Duration::from_nanos(1));
                time.advance(Duration::from_nanos(1));
                assert_eq!((api.check(), api.check().is_ok()), (Ok(()), false));
            }
        }
    }
}

#[test]
fn a_debt_in_one_of_several_windows() {
    let (time, _, api) = with(Limit::per_second(10).and(Limit::per_minute(60).burst(100)));
    permit(&api, 10).settle(400);
    // 390 at 10 a second, and 300 at one a second.
    assert_eq!(due(&api, 1), Duration::from_secs(301));
    time.advance(Duration::from_mins(5));
    assert_eq!(api.capacity().windows.iter().map(|each| each.available).min(), Some(0));
    assert_eq!(api.capacity().windows[0].available, 10);
    time.advance(SECOND);
    assert_eq!(api.check(), Ok(()));
}

/// What is owed beyond what the line holds is owed in tokens: another rate pays it off sooner or later, a
/// cut later, and nothing does during a pause.
#[test]
fn a_debt_goes_on_at_the_new_rate() {
    let minutely = Limit::per_hour(60).burst(1);
    for (limit, wait) in [
        (minutely, 1_001 * 60_000),
        (Limit::per_second(10).burst(1), 100_100),
        (Limit::per_day(1), 1_001 * 86_400_000),
        (Limit::per_second(10).burst(1).and(Limit::per_minute(1)), 100_100),
        (minutely.and(Limit::per_day(1)), 1_001 * 60_000),
    ] {
        let (time, limiter, api) = with(minutely);
        // After ten minutes a thousand are owed.
        permit(&api, 1).settle(1_011);
        time.advance(Duration::from_mins(10));
        assert_eq!(due(&api, 1), Duration::from_mins(1_001));
        for _ in 0..10 {
            limiter.configure("api", limit).unwrap();
        }
        let off = due(&api, 1).abs_diff(Duration::from_millis(wait));
        assert!(off < Duration::from_micros(1), "{limit:?}: {:?}, not {wait} ms", due(&api, 1));
        let before = due(&api, 1);
        api.pause_for(Duration::from_hours(1));
        let off = due(&api, 1).abs_diff(before + Duration::from_hours(1));
        assert!(off < Duration::from_micros(1), "{limit:?}: {:?}, not {before:?}", due(&api, 1));
    }
    let (_, _, api) = with(minutely);
    permit(&api, 1).settle(1_001);
    api.announce_reduced("429");
    let off = due(&api, 1).abs_diff(Duration::from_secs(1_001 * 80));
    assert!(off < Duration::from_micros(1), "{:?}", due(&api, 1));
}

#[test]
fn more_than_can_be_owed() {
    for limit in [
        Limit::per_second(1),
        Limit::per_day(1).and(Limit::per_second(1_000_000)),
        Limit::new(1, Duration::from_nanos(u64::MAX)),
        Limit::new(1, Duration::from_nanos(1)).burst(1 << 40),
        Limit::at_most(100, Duration::from_mins(1)),
    ] {
        let (time, limiter, api) = with(limit.recovery(Recovery::default()));
        let early = api.try_acquire().unwrap();
        for actual in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 55, u64::MAX] {
            api.try_acquire_n(0).unwrap().settle(actual);
            assert_eq!(api.capacity().available, 0, "{limit:?}");
            assert!(api.check().unwrap_err().retry_after() >= Some(Duration::from_millis(1)));
            assert!(api.capacity().dropped_charges > 1 << 54, "{limit:?}");
        }
        limiter.configure("api", limit).unwrap();
        api.announce_reduced("429");
        api.pause_for(SECOND);
        early.settle(u64::MAX);
        assert_eq!(api.check_n(0), Ok(()));
        assert!(api.check().is_err(), "{limit:?}");
        time.advance(Duration::from_hours(24 * 365 * 60));
        // A token that takes 584 years is not back.
        let is_slow =
            limit.get_windows().any(|window| window.window > Duration::from_hours(1_000_000));
        assert_eq!(api.check().is_err(), is_slow, "{limit:?}");
        assert_eq!(api.capacity().in_flight, 0);
    }
}

/// The limit of that time counts: after a reconfiguration, a cut, a pause, the end.
#[test]
fn settled_late() {
    let limit = Limit::per_second(10).on_release(OnRelease::Refund);
    let (time, limiter, api) = with(limit);
    let held: Vec<_> = (0..5).map(|_| permit(&api, 2)).collect();
    let mut held = held.into_iter();
    let mut settle = |actual| held.next().expect("one is left").settle(actual);
    limiter.configure("api", Limit::per_second(4).and(Limit::per_minute(30))).unwrap();
    settle(0);
    let left = || api.capacity().windows.iter().map(|each| each.available).collect::<Vec<_>>();
    assert_eq!(left(), [2, 30], "what a full window is given back is lost");
    api.announce_reduced("429");
    settle(4);
    assert_eq!(left(), [0, 20]);
    time.advance(SECOND);
    assert_eq!(left(), [3, 20]);
    api.pause_for(SECOND);
    settle(5);
    assert_eq!((due(&api, 1), left()), (SECOND + SECOND / 3 + Duration::from_nanos(1), vec![0, 0]));
    time.advance(SECOND);
    assert_eq!(left(), [0, 17]);
    limiter.remove("api");
    limiter.configure("api", Limit::per_second(3)).unwrap();
    settle(9);
    assert_eq!(limiter.capacity("api").unwrap().available, 3, "another of the same name");
    limiter.close();
    settle(u64::MAX);
    assert_eq!(api.check(), Err(TryAcquireError::UnknownResource));
    assert_eq!(api.capacity().in_flight, 0);
}

/// One that is not in flight any more was settled by whoever released it.
#[test]
fn released_and_settled() {
    let (_, limiter, api) = with(Limit::per_second(10));
    let kept = permit(&api, 3);
    limiter.release("api");
    kept.settle(9);
    assert_eq!(api.capacity().available, 7);
    let kept = permit(&api, 2);
    kept.forget();
    permit(&api, 1).settle(2);
    assert_eq!((api.capacity().available, api.capacity().in_flight), (3, 1));
    limiter.release("api");
    limiter.release("api");
    assert_eq!((api.capacity().available, api.capacity().in_flight), (3, 0));
}

#[test]
fn in_a_panic_the_policy_settles() {
    for (policy, left) in [(OnRelease::Spend, 6), (OnRelease::Refund, 10)] {
        let (_, _, api) = with(Limit::per_hour(10).on_release(policy));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let permit = permit(&api, 4);
            if permit.tokens() == 4 {
                resume_unwind(Box::new(()));
            }
            permit.settle(9);
        }));
        assert!(panicked.is_err());
        assert_eq!((api.capacity().available, api.capacity().in_flight), (left, 0));
    }
}

#[test]
fn several_are_settled_by_name() {
    let (_, limiter) = limiter();
    for name in ["a", "b", "c"] {
        limiter.configure(name, Limit::per_hour(20)).unwrap();
    }
    let held = || ["a", "b", "c"].map(|name| limiter.capacity(name).unwrap().available);
    let take = || limiter.try_acquire_all(&[("c", 2), ("a", 3), ("b", 1), ("a", 2)]).unwrap();
    let unknown = take().settle(&[("b", 4), ("a", 1), ("nobody", 99), ("a", 1), ("", 1)]);
    let unknown = unknown.unwrap_err();
    assert_eq!(
        (unknown.name.as_str(), unknown.known),
        ("nobody", vec!["a".into(), "b".into(), "c".into()])
    );
    assert_eq!(held(), [18, 16, 18]);
    take().settle(&[]).unwrap();
    assert_eq!(held(), [13, 15, 16]);
    take().settle(&[("a", u64::MAX), ("a", 1), ("c", 0), ("c", 0)]).unwrap();
    assert_eq!(held(), [0, 14, 16]);
    assert!(limiter.resources().iter().all(|shown| shown.in_flight == 0));
}

/// A permit of nothing is charged for what it cost, whether it was there at once or was waited for.
#[test]
fn nothing_at_first() {
    let estimate = [("requests", 1), ("tokens", 0)];
    let settle = |permits: Permits| {
        assert_eq!(permits.get("tokens").map(tollgate::Permit::tokens), Some(0));
        assert_eq!(permits.iter().count(), 2);
        permits.settle(&[("tokens", 400)]).unwrap();
    };
    let (time, limiter) = limiter();
    limiter.configure("requests", Limit::per_second(1)).unwrap();
    let tokens = limiter.configure("tokens", Limit::per_hour(1_000)).unwrap();
    settle(limiter.try_acquire_all(&estimate).unwrap());
    assert_eq!(tokens.capacity().available, 600);
    let mut waiting = pin!(limiter.acquire_all(&estimate));
    assert!(poll(&mut waiting).is_pending());
    time.advance(SECOND);
    let Poll::Ready(Ok(permits)) = poll(&mut waiting) else { panic!("it waits") };
    settle(permits);
    assert_eq!((tokens.capacity().available, tokens.capacity().in_flight), (200, 0));
}

/// Who waits for a place in flight is let in by a settlement, and finds its charge.
#[test]
fn a_settlement_lets_the_next_one_in() {
    let (time, _, api) = with(Limit::per_second(10).max_in_flight(1));
    let held = permit(&api, 1);
    let mut waiting = pin!(api.acquire_n(5));
    assert!(poll(&mut waiting).is_pending());
    held.settle(8);
    assert!(poll(&mut waiting).is_pending(), "two are left");
    time.advance(Duration::from_nanos(299_999_999));
    assert!(poll(&mut waiting).is_pending());
    time.advance(Duration::from_nanos(1));
    let Poll::Ready(Ok(permit)) = poll(&mut waiting) else { panic!("it waits") };
    permit.settle(0);
    assert_eq!(api.capacity().available, 5);
}
