//! What an upstream says is left: `observe_remaining`, and `observe_remaining_until`.

use std::time::Duration;

use crate::common::{Dice, Log, Terms, manual, turns};
use tollgate::{
    Limit, ManualClock, MemoryLimiter, RateLimiter, Recovery, Resource, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const SECOND_NANOS: u64 = 1_000_000_000;

#[test]
fn a_report_is_about_the_first_window() {
    let (limiter, api, time) = manual(Limit::per_minute(100).and(Limit::per_hour(1_000)));
    let held = || api.capacity().windows.iter().map(|each| each.available).collect::<Vec<_>>();
    limiter.observe_remaining("api", 60);
    assert_eq!(held(), [60, 1_000]);
    let dynamic: &dyn RateLimiter = &limiter;
    dynamic.observe_remaining("api", 70);
    api.observe_remaining(500);
    assert_eq!(held(), [60, 1_000]);
    time.advance(6 * SECOND);
    assert_eq!(held(), [70, 1_000]);
}

#[test]
fn a_report_keeps_a_debt() {
    let (_, api, time) = manual(Limit::per_second(1).burst(10));
    api.try_acquire_n(10).unwrap().settle(15);
    api.observe_remaining(3);
    api.observe_remaining(0);
    assert_eq!(api.check().unwrap_err().retry_after(), Some(6 * SECOND));
    time.advance(6 * SECOND);
    assert_eq!((api.check(), api.check().is_ok()), (Ok(()), false));
}

#[test]
fn a_report_of_what_is_not_there_does_nothing() {
    let (limiter, api, _) = manual(Limit::per_second(5));
    limiter.observe_remaining("nobody", 0);
    assert!(limiter.capacity("nobody").is_none());
    limiter.per_key("user:", Limit::per_day(5)).unwrap();
    limiter.observe_remaining("user:ann", 2);
    assert_eq!(limiter.capacity("user:ann").unwrap().available, 2);
    limiter.close();
    api.observe_remaining(1);
    assert_eq!(api.check(), Err(TryAcquireError::Closed));
}

// ---- until the upstream's window ends ----------------------------------------------------------

/// Takes whatever there is, a nanosecond before and at each reading at which a denial says that there is more.
/// Returns the times since the start.
fn takes_until(api: &Resource, time: &ManualClock, end: Duration) -> Vec<Duration> {
    let start = time.now();
    let mut taken = Vec::new();
    loop {
        let now = Duration::from_nanos(time.now() - start);
        let Err(error) = api.check() else {
            taken.push(now);
            continue;
        };
        let wait = error.retry_after().unwrap();
        if now + wait > end {
            time.advance(end.saturating_sub(now));
            return taken;
        }
        time.advance(wait.saturating_sub(Duration::from_nanos(1)));
        assert!(api.check().is_err(), "before its time");
        time.advance(Duration::from_nanos(1));
        assert!(api.peek(1).is_ok(), "{wait:?} was too short");
    }
}

#[test]
fn a_full_bucket_keeps_what_is_left() {
    let (limiter, api, time) = manual(Limit::per_second(100));
    limiter.observe_remaining_until("api", 60, 10 * SECOND);
    assert_eq!(api.capacity().available, 60);
    let taken = takes_until(&api, &time, 10 * SECOND);
    assert_eq!((taken.len(), *taken.last().unwrap()), (60, Duration::ZERO));
    // The limit's rate counts again, from the end on.
    let taken = takes_until(&api, &time, SECOND);
    assert_eq!((taken.len(), taken[0]), (100, SECOND / 100));
}

#[test]
fn a_denial_knows_when_the_pace_ends() {
    let (_, api, _) = manual(Limit::per_second(100));
    api.observe_remaining_until(60, 10 * SECOND);
    api.check_n(60).unwrap();
    let due = |n| api.peek(n).unwrap_err().retry_after().unwrap();
    assert_eq!((due(1), due(100)), (10 * SECOND + SECOND / 100, 11 * SECOND));
    let decision = api.decide(1);
    assert_eq!((decision.until_next, decision.until_full), (due(1), due(100)));
    // In part before its end: 20 more until then.
    let (_, api, _) = manual(Limit::per_second(100));
    api.check_n(100).unwrap();
    api.observe_remaining_until(20, 10 * SECOND);
    let due = |n| api.peek(n).unwrap_err().retry_after().unwrap();
    assert_eq!((due(1), due(20), due(21)), (SECOND / 2, 10 * SECOND, 10 * SECOND + SECOND / 100));
}

#[test]
fn an_empty_bucket_is_paced_evenly() {
    for (left, most) in
        [(20, 20), (7, 7), (999, 999), (1_000, 1_000), (5_000, 1_000), (u64::MAX, 1_000)]
    {
        let (_, api, time) = manual(Limit::per_second(100));
        api.check_n(100).unwrap();
        api.observe_remaining_until(left, 10 * SECOND);
        let taken = takes_until(&api, &time, 10 * SECOND);
        assert_eq!(taken.len() as u64, most);
        for (index, at) in (1..).zip(taken) {
            let due = (index * 10_000_000_000_u64).div_ceil(most);
            assert_eq!(at, Duration::from_nanos(due), "{index} of {left}");
        }
        assert_eq!(takes_until(&api, &time, SECOND).len(), 100);
    }
}

#[test]
fn the_lower_report_of_an_end_counts() {
    let empty = || {
        let (_, api, time) = manual(Limit::per_second(100));
        api.check_n(100).unwrap();
        (api, time)
    };
    // To the second: reports in any order.
    for reports in
        [[(60, 9_500), (40, 10_000), (80, 10_400)], [(80, 10_000), (60, 10_400), (40, 9_500)]]
    {
        let (api, time) = empty();
        for (left, end) in reports {
            api.observe_remaining_until(left, Duration::from_millis(end));
        }
        let taken = takes_until(&api, &time, 10 * SECOND).len();
        assert!((37..=40).contains(&taken), "{taken}");
    }
    // An earlier end is ignored, and a later one replaces it.
    let (api, time) = empty();
    api.observe_remaining_until(50, 10 * SECOND);
    api.observe_remaining_until(1, 8 * SECOND);
    assert_eq!(takes_until(&api, &time, 5 * SECOND).len(), 25);
    api.observe_remaining_until(100, 10 * SECOND);
    assert_eq!(takes_until(&api, &time, 10 * SECOND).len(), 100);
    // What is under way is not allowed twice: 60 were left, and are sent when the upstream says 59.
    let (_, api, time) = manual(Limit::per_second(100));
    api.observe_remaining_until(60, 10 * SECOND);
    api.check_n(60).unwrap();
    for left in (0..60).rev() {
        api.observe_remaining_until(left, 10 * SECOND);
        assert!(api.check().is_err());
    }
    assert_eq!(takes_until(&api, &time, 11 * SECOND).len(), 100);
}

#[test]
fn nothing_left_is_a_pause() {
    let (_, api, time) = manual(Limit::per_second(100));
    api.observe_remaining_until(0, 5 * SECOND);
    assert_eq!(api.check().unwrap_err().retry_after(), Some(5 * SECOND + SECOND / 100));
    assert_eq!(api.capacity().paused_until, Some(5 * SECOND));
    api.observe_remaining_until(50, 5 * SECOND);
    api.pause_for(SECOND);
    time.advance(Duration::from_nanos(4_999_999_999));
    assert!(api.check().is_err());
    assert_eq!(api.capacity().paused_until, Some(Duration::from_nanos(1)));
    time.advance(Duration::from_nanos(1) + SECOND / 100);
    assert_eq!((api.check(), api.check().is_ok()), (Ok(()), false));
    // It can be ended, and so can a pace.
    api.observe_remaining_until(0, 5 * SECOND);
    api.resume();
    time.advance(SECOND / 100);
    assert_eq!((api.check(), api.check().is_ok()), (Ok(()), false));
    api.observe_remaining_until(1, 5 * SECOND);
    api.resume();
    time.advance(SECOND);
    assert_eq!(api.capacity().available, 100);
}

#[test]
fn a_pace_is_of_a_day_at_most() {
    let day = 86_400 * SECOND;
    for (until, lasts) in
        [(day, day), (Duration::MAX, day), (Duration::from_nanos(1), Duration::from_nanos(1))]
    {
        let (_, api, _) = manual(Limit::per_second(1));
        api.observe_remaining_until(1, until);
        api.check().unwrap();
        assert_eq!(api.check().unwrap_err().retry_after(), Some(lasts + SECOND));
    }
    let (_, api, _) = manual(Limit::per_second(9));
    api.observe_remaining_until(6, Duration::ZERO);
    assert_eq!(
        (api.capacity().available, api.decide(7).until_next),
        (6, Duration::from_nanos(111_111_112))
    );
}

#[test]
fn a_pace_stays_through_changes() {
    let changes: [fn(&MemoryLimiter); 5] = [
        |limiter| drop(limiter.configure("api", Limit::per_second(1_000)).unwrap()),
        |limiter| drop(limiter.configure("api", Limit::new(70, 3 * SECOND).burst(999)).unwrap()),
        |limiter| limiter.announce_reduced("api", "429"),
        |limiter| limiter.pause_for("api", SECOND),
        |limiter| {
            let more = Limit::per_minute(7_000).and(Limit::per_hour(9_000));
            drop(limiter.configure("api", more).unwrap());
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        for held in [0, 10, 100] {
            let (limiter, api, time) = manual(Limit::per_second(100).cooldown(Duration::ZERO));
            api.check_n(100 - held).unwrap();
            api.observe_remaining_until(30, 60 * SECOND);
            let mut taken = takes_until(&api, &time, 20 * SECOND).len();
            change(&limiter);
            taken += takes_until(&api, &time, 20 * SECOND).len();
            change(&limiter);
            taken += takes_until(&api, &time, 20 * SECOND).len();
            // What would have accrued in a pause is not made up for.
            assert!(taken <= 30, "{taken} by change {index}");
            assert!(taken >= if index == 3 { 28 } else { 29 }, "{taken} by change {index}");
            time.advance(600 * SECOND);
            assert_eq!(api.capacity().available, api.capacity().burst);
        }
    }
}

/// That little was sent while little was left says nothing of the upstream's rate.
#[test]
fn a_refusal_during_a_pace_cuts_the_limit_and_not_the_pace() {
    let (_, api, time) = manual(Limit::per_second(100).recovery(Recovery::default()));
    api.observe_remaining_until(0, SECOND); // an empty bucket
    time.advance(SECOND);
    api.observe_remaining_until(20, 20 * SECOND);
    for _ in 0..10 {
        time.advance(SECOND);
        drop(api.try_acquire().unwrap());
    }
    time.advance(SECOND);
    api.try_acquire().unwrap().throttled("429");
    time.advance(15 * SECOND);
    assert_eq!(api.capacity().per_window, 75);
}

#[test]
fn waiters_go_by_the_pace() {
    let (_, api, time) = manual(Limit::per_second(100));
    api.check_n(100).unwrap();
    api.observe_remaining_until(10, 10 * SECOND);
    let waiter = {
        let api = api.clone();
        std::thread::spawn(move || api.blocking_acquire_n(12, None).map(tollgate::Permit::spend))
    };
    while api.capacity().waiting == 0 {
        std::thread::yield_now();
    }
    time.advance(10 * SECOND);
    while api.capacity().waiting > 0 {
        // Two more, at the limit's rate.
        time.advance(SECOND / 100);
        std::thread::yield_now();
    }
    waiter.join().unwrap().unwrap();
    assert!(time.now() >= 10_020_000_000);
}

#[test]
fn a_paced_key_stays() {
    let (limiter, _, time) = manual(Limit::per_second(1));
    limiter.per_key("key:", Limit::per_second(5)).unwrap();
    // Full, but paced.
    limiter.observe_remaining_until("key:1", 5, 600 * SECOND);
    for _ in 0..30 {
        time.advance(SECOND);
        let _ = limiter.check("key:2");
    }
    assert_eq!(limiter.decide("key:1", 5).outcome, Ok(()));
    assert!(limiter.check("key:1").unwrap_err().retry_after() > Some(500 * SECOND));
    time.advance(700 * SECOND);
    for _ in 0..30 {
        time.advance(SECOND);
        let _ = limiter.check("key:2");
    }
    assert_eq!(limiter.key_count("key:"), 1);
}

/// No more than `left` between each report and its end, unless a later end has replaced it; never more than the
/// limit; and a denial knows when it ends.
#[test]
fn no_report_is_exceeded() {
    for seed in 1..=turns(400, 60) {
        let mut dice = Dice(seed);
        let terms = Terms::new(1 + dice.roll(200), SECOND_NANOS, 1 + dice.roll(100));
        let (_, api, time) = manual(terms.limit());
        let mut log = Log::new(terms);
        // What each report leaves, and its end.
        let mut reports: Vec<(u64, u64)> = Vec::new();
        let mut in_force: Option<(u64, u64)> = None;
        for _ in 0..300 {
            let now = time.now();
            reports.retain(|(_, end)| now < *end);
            in_force = in_force.filter(|(_, end)| now < *end);
            match dice.roll(10) {
                0..3 => time.advance(Duration::from_nanos(dice.roll(SECOND_NANOS))),
                3 => {
                    let (left, until) = (dice.roll(150), 1 + dice.roll(20 * SECOND_NANOS));
                    api.observe_remaining_until(left, Duration::from_nanos(until));
                    let end = now + until;
                    let replaces = in_force.is_none_or(|(_, known)| end > known + SECOND_NANOS);
                    let joins = in_force
                        .is_some_and(|(least, known)| left < least && end + SECOND_NANOS >= known);
                    if replaces {
                        reports.clear();
                        in_force = None;
                    }
                    if replaces || joins {
                        reports.push((left, end));
                        in_force = Some((left, in_force.map_or(end, |(_, known)| known.max(end))));
                    }
                }
                _ => {
                    let n = 1 + dice.roll(terms.burst.min(20));
                    if let Err(error) = api.check_n(n) {
                        if dice.roll(4) > 0 {
                            continue;
                        }
                        let wait = error.retry_after().unwrap();
                        time.advance(wait);
                        let now = time.now();
                        reports.retain(|(_, end)| now < *end);
                        api.check_n(n).expect("its time has come");
                    }
                    log.admit(time.now(), n);
                    for (left, _) in &mut reports {
                        *left =
                            left.checked_sub(n).unwrap_or_else(|| panic!("exceeded, seed {seed}"));
                    }
                }
            }
        }
    }
}
