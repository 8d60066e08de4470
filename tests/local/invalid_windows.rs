//! What nobody should ask of windows and groups: each gets its own error, and changes nothing.

use std::time::Duration;

use tollgate::{
    AcquireError, ConfigError, Limit, ManualClock, MemoryLimiter, OnRelease, RateLimiter, Recovery,
    TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const MOST: u64 = 1 << 52;

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

fn refused() -> Vec<(Limit, ConfigError)> {
    use ConfigError::{
        InvalidBurst, InvalidCapacity, InvalidInFlight, InvalidMinRate, InvalidWindow, RateTooHigh,
        SettingNotOnFirstWindow, TooManyWindows,
    };
    let one = Limit::per_second(10);
    let four = one.and(Limit::per_minute(20)).and(Limit::per_hour(30)).and(Limit::per_day(40));
    let mut all = vec![
        (four.and(one), TooManyWindows),
        (one.and(four), TooManyWindows),
        (four.and(four), TooManyWindows),
        (one.and(one).and(one.and(one).and(one)), TooManyWindows),
        (Limit::at_most(0, SECOND), InvalidCapacity),
        (Limit::at_most(0, SECOND).burst(1), InvalidCapacity),
        (Limit::at_most(MOST + 1, Duration::from_secs(1 << 34)), InvalidCapacity),
        (Limit::at_most(u64::MAX, SECOND), InvalidCapacity),
        (Limit::at_most(1, Duration::ZERO), InvalidWindow),
        (Limit::at_most(1, Duration::MAX), InvalidWindow),
        (Limit::at_most(10, SECOND).burst(0), InvalidBurst),
        (Limit::at_most(10, SECOND).burst(11), InvalidBurst),
        (Limit::at_most(10, SECOND).burst(u64::MAX), InvalidBurst),
        (Limit::at_most(1, SECOND).burst(2), InvalidBurst),
        (Limit::at_most(MOST, Duration::from_nanos(1)).burst(1), RateTooHigh),
        (one.max_in_flight(0).and(one), InvalidInFlight),
        // In any of them.
        (one.and(Limit::per_minute(0)), InvalidCapacity),
        (one.and(one).and(one).and(Limit::new(1, Duration::ZERO)), InvalidWindow),
        (one.and(Limit::per_day(5).burst(0)), InvalidBurst),
        (one.and(Limit::at_most(5, SECOND).burst(6)), InvalidBurst),
        (one.and(Limit::per_second(MOST)), RateTooHigh),
        // What the second says of all.
        (one.and(one.on_release(OnRelease::Spend)), SettingNotOnFirstWindow),
        (one.and(one.max_in_flight(3)), SettingNotOnFirstWindow),
        (one.and(one.max_waiting(0)), SettingNotOnFirstWindow),
        (one.and(one.recovery(Recovery::default())), SettingNotOnFirstWindow),
        (one.and(one.no_recovery()), SettingNotOnFirstWindow),
        (one.and(one.min_rate(1)), SettingNotOnFirstWindow),
        (one.min_rate(0), InvalidMinRate),
        (one.min_rate(11).and(Limit::per_minute(100)), InvalidMinRate),
        (one.min_rate(u64::MAX), InvalidMinRate),
        (one.and(one.cooldown(SECOND)), SettingNotOnFirstWindow),
        (one.and(one.and(one.max_in_flight(3))), SettingNotOnFirstWindow),
    ];
    for strict in [true, false] {
        let limit = if strict { Limit::at_most(9, SECOND) } else { one };
        all.push((limit.and(Limit::per_day(1).burst(MOST + 1)), InvalidBurst));
    }
    all
}

#[test]
fn limits_that_make_no_sense_leave_the_present_one() {
    for (limit, error) in refused() {
        let (_, limiter) = limiter();
        assert_eq!(limiter.configure("new", limit).map(drop), Err(error.clone()), "{limit:?}");
        assert!(limiter.resources().is_empty());
        let present = Limit::per_second(10).and(Limit::at_most(9, SECOND).burst(5));
        let api = limiter.configure("api", present).unwrap();
        api.check_n(4).unwrap();
        let before = api.capacity();
        assert_eq!(limiter.configure("api", limit).map(drop), Err(error.clone()), "{limit:?}");
        assert_eq!(api.capacity(), before);
        let says = match error {
            ConfigError::TooManyWindows => "4 windows",
            ConfigError::SettingNotOnFirstWindow => "first",
            ConfigError::InvalidBurst => "burst",
            _ => "",
        };
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// What belongs to all may be said before the other windows or after them.
#[test]
fn limits_at_the_edge_are_accepted() {
    let forever = Duration::from_nanos(u64::MAX);
    let recovery = Recovery { interval: Duration::from_millis(1), factor: f64::MAX, cap: false };
    let one = Limit::per_second(1);
    for limit in [
        Limit::at_most(1, Duration::from_nanos(1)),
        Limit::at_most(1, forever),
        Limit::at_most(MOST, forever).burst(MOST),
        Limit::at_most(MOST, forever).burst(1).and(Limit::new(1, forever)),
        Limit::new(MOST, forever).and(Limit::new(1, Duration::from_nanos(1)).burst(MOST)),
        Limit::at_most(7, SECOND).and(Limit::at_most(7, SECOND)).recovery(recovery),
        one.max_in_flight(5).and(one).max_waiting(3).and(one).cooldown(SECOND).and(one),
        one.and(one.and(one.and(one))).on_release(OnRelease::Refund).burst(7),
        one.min_rate(1).and(one),
        Limit::new(MOST, forever).min_rate(MOST).no_recovery(),
    ] {
        let (time, limiter) = limiter();
        let api = limiter.configure("api", limit).unwrap();
        for now in [0, 1, 1 << 40, 1 << 62, u64::MAX, 5, u64::MAX] {
            time.set(now);
            let total = api.capacity().burst;
            for n in [0, 1, total / 2, total, total + 1, u64::MAX] {
                for error in [api.check_n(n).err(), api.peek(n).err()].into_iter().flatten() {
                    let _ = (error.to_string(), error.retry_after());
                }
                if let Ok(permit) = api.try_acquire_n(n) {
                    permit.settle(n / 2);
                }
                if let Ok(permits) = limiter.try_acquire_all(&[("api", n), ("api", 0)]) {
                    permits.settle(&[("api", n.saturating_add(1))]).unwrap();
                }
                let _ = limiter.blocking_acquire_all(&[("api", n)], Some(Duration::ZERO));
                let shown = api.capacity();
                assert!(shown.windows.iter().all(|window| window.available <= window.burst));
            }
            api.announce_reduced("429");
            api.pause_for(Duration::from_nanos(1));
            limiter.configure("api", limit).unwrap();
        }
        limiter.close();
        assert_eq!(api.capacity().available, 0);
    }
}

/// The first window's settings survive `and`, on either side of it.
#[test]
fn settings_of_the_whole_are_the_firsts() {
    let (_, limiter) = limiter();
    let other = Limit::per_day(100);
    for limit in [
        Limit::per_second(5).burst(3).max_in_flight(2).on_release(OnRelease::Refund).and(other),
        Limit::per_second(5).and(other).burst(3).max_in_flight(2).on_release(OnRelease::Refund),
    ] {
        let api = limiter.configure("api", limit).unwrap();
        let shown = api.capacity();
        assert_eq!(
            (
                shown.configured_burst,
                shown.windows[0].configured_burst,
                shown.windows[1].configured_burst
            ),
            (3, 3, 100)
        );
        let held = (api.try_acquire().unwrap(), api.try_acquire().unwrap());
        assert_eq!(api.try_acquire().unwrap_err(), TryAcquireError::TooManyInFlight);
        drop(held);
        assert_eq!(api.capacity().available, 3);
    }
}

/// The verbs for several, as `dyn RateLimiter`, of names that are not there, and after the close.
#[test]
fn groups_as_dyn() {
    let (_, limiter) = limiter();
    limiter.configure("a", Limit::per_second(5)).unwrap();
    let dynamic: &dyn RateLimiter = &limiter;
    let all_fail = |wish: &[(&str, u64)], error: TryAcquireError, waits: AcquireError| {
        assert_eq!(dynamic.try_acquire_all(wish).unwrap_err().cause, error);
        assert_eq!(dynamic.blocking_acquire_all(wish, None).unwrap_err().cause, waits);
        let mut wait = std::pin::pin!(dynamic.acquire_all(wish).timeout(SECOND));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::future::Future::poll(wait.as_mut(), &mut context) {
            std::task::Poll::Ready(result) => assert_eq!(result.unwrap_err().cause, waits),
            std::task::Poll::Pending => panic!("it waits"),
        }
    };
    let (unknown, unknown_too) = (TryAcquireError::UnknownResource, AcquireError::UnknownResource);
    all_fail(&[("a", 1), ("b", 1)], unknown, unknown_too);
    all_fail(&[("b", 0)], unknown, unknown_too);
    let capacity = 5;
    let never = TryAcquireError::ExceedsCapacity { capacity };
    all_fail(&[("a", 3), ("a", 3)], never, AcquireError::ExceedsCapacity { capacity });
    drop(dynamic.try_acquire_all(&[("a", 2), ("a", 3)]).unwrap());
    dynamic.close();
    for wish in [[("a", 1), ("b", 1)], [("a", 1), ("a", 0)], [("a", 0), ("a", 0)]] {
        all_fail(&wish, TryAcquireError::Closed, AcquireError::Closed);
    }
}
