//! Limits recover from cuts: by default, down to a floor at most, and calls for more than a cut bucket holds
//! are told when it will.

use std::time::Duration;

use tollgate::{
    ConfigError, Limit, ManualClock, MemoryLimiter, Recovery, Resource, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const NS: Duration = Duration::from_nanos(1);
const DAY: Duration = Duration::from_secs(86_400);

fn manual(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", limit).expect("a limit");
    (time, limiter, api)
}

fn cut(api: &Resource, times: u32) {
    (0..times).for_each(|_| api.announce_reduced("429"));
}

#[test]
fn isolated_refusals_a_day_apart_find_the_limit_whole() {
    let (time, limiter, api) = manual(Limit::per_second(100));
    limiter.per_key("user:", Limit::per_minute(6)).unwrap();
    limiter.set_capacity("spec", 10, SECOND).unwrap();
    let configured =
        |name: &str| limiter.capacity(name).map(|seen| (seen.burst, seen.per_window)).unwrap();
    for _ in 0..20 {
        let whole = [(100, 100), (6, 6), (10, 10)];
        assert_eq!(["api", "user:ann", "spec"].map(configured), whole);
        api.try_acquire().unwrap().throttled("429");
        limiter.announce_reduced("user:ann", "429");
        limiter.announce_reduced("spec", "429");
        assert_eq!(["api", "user:ann", "spec"].map(configured), [(75, 75), (4, 4), (7, 7)]);
        time.advance(DAY);
    }
}

#[test]
fn the_default_is_a_tenth_every_half_minute() {
    for limit in [Limit::per_second(1_000), Limit::per_second(1_000).recovery(Recovery::default())]
    {
        let (time, _, api) = manual(limit.cooldown(Duration::ZERO));
        cut(&api, 2);
        for rate in [562, 618, 680, 748, 823, 905, 996, 1_000, 1_000] {
            assert_eq!(api.capacity().per_window, rate);
            time.advance((30 * SECOND).saturating_sub(NS));
            assert_eq!(api.capacity().per_window, rate);
            time.advance(NS);
        }
    }
}

#[test]
fn without_a_recovery_a_cut_stays_until_there_is_one() {
    let (time, limiter, api) = manual(Limit::per_second(100).no_recovery());
    cut(&api, 1);
    time.advance(100 * DAY);
    let never = TryAcquireError::ExceedsCapacity { capacity: 75 };
    assert_eq!((api.check_n(76), api.peek(76)), (Err(never), Err(never)));
    assert_eq!(limiter.check_all(&[("api", 76)]).unwrap_err().cause, never);
    assert_eq!(api.capacity().per_window, 75);
    limiter.configure("api", Limit::per_second(100)).unwrap();
    assert!(api.check_n(76).unwrap_err().retry_after().is_some());
    time.advance(30 * SECOND);
    assert_eq!(api.capacity().per_window, 82);
}

#[test]
fn the_floor_of_cuts_bounds_them() {
    let limit = Limit::per_minute(600).burst(60).and(Limit::per_hour(6_000)).min_rate(60);
    let (time, limiter, api) = manual(limit.cooldown(Duration::ZERO));
    let shown = |api: &Resource| {
        api.capacity().windows.iter().map(|window| window.per_window).collect::<Vec<_>>()
    };
    cut(&api, 1);
    assert_eq!(shown(&api), [450, 4_500]);
    cut(&api, 1_000);
    assert_eq!((shown(&api), api.capacity().burst), (vec![60, 600], 6));
    // Twice as much after 8 steps, whatever came before.
    time.advance(8 * 30 * SECOND);
    assert_eq!(shown(&api), [128, 1_286]);
    // A higher floor takes effect at once, and a lower one does not cut.
    limiter.configure("api", limit.min_rate(300)).unwrap();
    assert_eq!(shown(&api), [300, 3_000]);
    limiter.configure("api", limit.min_rate(600)).unwrap();
    cut(&api, 3);
    assert_eq!(shown(&api), [600, 6_000]);
    let above = limit.min_rate(601);
    assert_eq!(limiter.configure("api", above).unwrap_err(), ConfigError::InvalidMinRate);
    assert_eq!(shown(&api), [600, 6_000]);
}

/// A call for more than a cut bucket holds is admitted at the nanosecond that it is told, and not before.
#[track_caller]
fn comes_on_time(time: &ManualClock, api: &Resource, n: u64) -> Duration {
    let told = api.peek(n).unwrap_err().retry_after().expect("it recovers");
    assert_eq!(api.check_n(n).unwrap_err().retry_after(), Some(told));
    assert_eq!(api.try_acquire_n(n).unwrap_err().retry_after(), Some(told));
    time.advance(told.saturating_sub(NS));
    assert_eq!(api.check_n(n).unwrap_err().retry_after(), Some(NS));
    time.advance(NS);
    assert_eq!(api.check_n(n), Ok(()), "after {told:?}");
    told
}

#[test]
fn more_than_a_cut_bucket_holds_is_told_when_it_will() {
    let per_second = Limit::per_second(100);
    for (limit, n, seconds) in [
        // Full with 75: at the first step it holds 82, and the rest accrues at 82.5/s.
        (per_second, 76, 30.0 + 1.0 / 82.5),
        (per_second, 82, 30.0 + 7.0 / 82.5),
        (per_second, 83, 60.0 + 0.5 / 90.75),
        // Full with 99.825.
        (per_second, 100, 120.0 + 0.175 / 100.0),
        (per_second.burst(1_000), 1_000, 120.0 + 1.75 / 100.0),
        // Slow: less than a token accrues between two steps.
        (Limit::per_hour(100).burst(40), 31, 60.0 + (1.0 - 82.5 / 120.0) * 3_600.0 / 90.75),
        (per_second.and(Limit::per_minute(90)), 90, 120.0 + 0.157_5 / 1.5),
    ] {
        let (time, _, api) = manual(limit);
        cut(&api, 1);
        let told = comes_on_time(&time, &api, n);
        assert!((told.as_secs_f64() - seconds).abs() < 1e-6, "{limit} {n}: {told:?}");
    }
}

/// Whatever the level, the windows, a pause and the number of cuts.
#[test]
fn what_it_is_told_is_exact() {
    fastrand::seed(15);
    for _ in 0..400 {
        let windows = [
            Limit::per_second(fastrand::u64(2..1_000)),
            Limit::per_minute(fastrand::u64(2..5_000)).burst(fastrand::u64(2..100)),
            Limit::at_most(fastrand::u64(30..3_000), 3_600 * SECOND),
        ];
        let count = fastrand::usize(1..=3);
        let limit = windows[..count].iter().copied().reduce(Limit::and).unwrap();
        let recovery = Recovery {
            interval: Duration::from_millis(fastrand::u64(1..100_000)),
            factor: 1.01 + fastrand::f64(),
            cap: fastrand::bool(),
        };
        let limit = limit.recovery(recovery).cooldown(Duration::ZERO);
        let (time, _, api) = manual(limit);
        cut(&api, fastrand::u32(1..8));
        time.advance(Duration::from_millis(fastrand::u64(..5_000)));
        let seen = api.capacity();
        let least = |of: fn(&tollgate::WindowCapacity) -> u64| seen.windows.iter().map(of).min();
        let (holds, most) = (least(|w| w.burst), least(|w| w.configured_burst));
        let (holds, most) = (holds.unwrap(), most.unwrap());
        if holds >= most {
            continue;
        }
        let _ = api.check_n(fastrand::u64(..=holds));
        if fastrand::bool() {
            api.pause_for(Duration::from_millis(fastrand::u64(1..200_000)));
        }
        let n = fastrand::u64(holds + 1..=most);
        comes_on_time(&time, &api, n);
        let above = api.check_n(most + 1).unwrap_err();
        assert!(matches!(above, TryAcquireError::ExceedsCapacity { .. }) || !recovery.cap);
    }
}

#[test]
fn groups_and_keys_are_told_too() {
    let (time, limiter, api) = manual(Limit::per_second(100));
    limiter.per_key("user:", Limit::per_second(10)).unwrap();
    limiter.configure("other", Limit::per_second(10)).unwrap();
    cut(&api, 1);
    limiter.announce_reduced("user:ann", "429");
    let parts = [("other", 1), ("api", 77), ("user:ann", 8)];
    let told = limiter.check_all(&parts).unwrap_err();
    assert_eq!(&*told.resource, "user:ann");
    assert_eq!(told.retry_after(), limiter.peek("user:ann", 8).unwrap_err().retry_after());
    assert_eq!(limiter.peek_all(&parts).unwrap_err().retry_after(), told.retry_after());
    // Nothing was taken.
    assert_eq!(limiter.capacity("other").unwrap().available, 10);
    time.advance(told.retry_after().unwrap());
    assert_eq!(limiter.check_all(&parts), Ok(()));
    // One part for good, whatever the others.
    limiter.announce_reduced("api", "429");
    let never = limiter.check_all(&[("api", 101), ("user:ann", 10)]).unwrap_err();
    assert!(matches!(never.cause, TryAcquireError::ExceedsCapacity { .. }));
}

/// A large bucket that is in great demand keeps its tokens in stripes.
#[test]
fn a_large_bucket_is_told_exactly() {
    let (time, _, api) = manual(Limit::per_second(100_000));
    cut(&api, 1);
    (0..5_000).for_each(|_| api.check().unwrap());
    comes_on_time(&time, &api, 80_000);
}

/// An absurd recovery is planned for a thousand steps; what is told is then a lower bound.
#[test]
fn a_recovery_of_too_many_steps_is_a_lower_bound() {
    let recovery = Recovery { interval: Duration::from_millis(1), factor: 1.000_01, cap: true };
    let (time, _, api) = manual(Limit::per_second(100).recovery(recovery));
    cut(&api, 1);
    let told = api.check_n(100).unwrap_err().retry_after().unwrap();
    assert_eq!(told, SECOND);
    time.advance(3_600 * SECOND);
    let told = api.check_n(100).unwrap_err().retry_after().unwrap();
    assert!(told < SECOND);
    time.advance(told);
    assert_eq!(api.check_n(100), Ok(()));
}

/// A refusal of one who sends less than the least leaves that.
#[test]
fn no_ceiling_is_below_the_least() {
    let (time, _, api) = manual(Limit::per_second(1_000).min_rate(100));
    for i in 0..100 {
        time.advance(SECOND / 10);
        let permit = api.try_acquire().unwrap();
        if i == 99 {
            permit.throttled("429");
        }
    }
    assert_eq!(api.capacity().per_window, 100);
    time.advance(30 * SECOND);
    assert_eq!(api.capacity().per_window, 110);
}

#[test]
fn an_adaptive_limit_begins_with_its_own_rate_or_at_a_ceiling() {
    let (time, limiter, api) = manual(Limit::per_second(1_000));
    let adaptive = |n| limiter.configure("api", Limit::per_second(n).adaptive(1, 20_000)).unwrap();
    assert_eq!(adaptive(10).capacity().per_window, 10);
    limiter.configure("api", Limit::per_second(1_000)).unwrap();
    for i in 0..100 {
        time.advance(SECOND / 10);
        let permit = api.try_acquire().unwrap();
        if i == 99 {
            permit.throttled("429");
        }
    }
    assert_eq!(api.capacity().per_window, 7);
    assert_eq!(adaptive(100).capacity().per_window, 7);
    // What it has found stays.
    assert_eq!(adaptive(50).capacity().per_window, 7);
}

/// What accrues after the pace, and before the step.
#[test]
fn a_pace_that_ends_before_the_step_is_counted() {
    for (left, until) in [(0, 5), (1, 5), (3, 20), (2, 40), (5, 100)] {
        let (time, _, api) = manual(Limit::per_second(10));
        cut(&api, 1);
        api.check_n(7).unwrap();
        api.observe_remaining_until(left, until * SECOND);
        let told = api.check_n(8).unwrap_err().retry_after().unwrap();
        time.advance(told.saturating_sub(SECOND / 100));
        assert!(api.check_n(8).is_err(), "{left} until {until}: {told:?} is too late");
        time.advance(SECOND / 100);
        assert_eq!(api.check_n(8), Ok(()), "{left} until {until}: {told:?} is too early");
    }
}

/// What waited for the pause goes no faster than it came.
#[test]
fn a_pause_after_refusals_sets_a_ceiling() {
    let (time, _, api) = manual(Limit::per_second(1_000));
    let mut sent = 0;
    while api.capacity().paused_until.is_none() {
        time.advance(SECOND / 50);
        api.try_acquire().unwrap().throttled("503");
        sent += 1;
    }
    assert!((250..=260).contains(&sent), "{sent}");
    let rate = api.capacity().per_window;
    assert!((45..=52).contains(&rate), "{rate}");
}

/// The time of a pause is none in which anything could be sent.
#[test]
fn a_refusal_after_a_pause_cuts_from_what_was_sent_before_it() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(1_000)).unwrap();
    let send = |tenths: u64| {
        for _ in 0..5 * tenths {
            drop(api.try_acquire().unwrap());
            time.advance(Duration::from_millis(20)); // 50 a second
        }
    };
    send(30);
    api.pause_for(Duration::from_secs(10));
    time.advance(Duration::from_secs(10));
    send(5);
    api.try_acquire().unwrap().throttled("429");
    let rate = api.capacity().per_window;
    assert!((35..=39).contains(&rate), "{rate}");
}
