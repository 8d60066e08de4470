//! Corners that were wrong once, each in its smallest form.
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::manual;
use crate::common::watchdog::Watchdog;
use tollgate::{AcquireError, Limit, ManualClock, MemoryLimiter, OnRelease, Recovery};

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_debt_outlives_a_reconfiguration() {
    let limit = Limit::per_second(1).burst(10);
    let (limiter, api, time) = manual(limit);
    time.set(100 * SECOND);
    assert!(api.check_n(10).is_ok());
    time.set(0);
    limiter.configure("api", limit).unwrap();
    time.set(100 * SECOND);
    assert!(api.check_n(1).is_err(), "11 tokens at one reading from a burst of 10");
}

#[test]
fn nothing_is_granted_in_debt() {
    let (_, api, time) = manual(Limit::per_second(1));
    time.set(100 * SECOND);
    assert!(api.check().is_ok());
    time.set(0);
    assert_eq!(api.peek(0), Ok(()));
    assert_eq!(api.check_n(0), Ok(()));
}

#[test]
fn a_waiter_in_debt_is_woken() {
    let (_, api, time) = manual(Limit::per_second(1));
    time.set(100 * SECOND);
    assert!(api.check().is_ok());
    time.set(0);
    let _watchdog = Watchdog::new();
    let waiter = api.clone();
    let waiter = std::thread::spawn(move || waiter.blocking_acquire().is_ok());
    while api.capacity().waiting == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(20));
    time.set(101 * SECOND);
    assert!(waiter.join().unwrap());
}

#[test]
fn a_pause_for_ever_says_so() {
    let (_, api, _) = manual(Limit::per_second(1));
    api.pause_for(Duration::MAX);
    let denial = api.check().unwrap_err();
    assert_eq!(denial.retry_after(), Some(Duration::from_nanos(u64::MAX)));
}

#[test]
fn a_full_bucket_stays_full_when_it_is_configured_anew() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.set_capacity("api", 5, Duration::from_secs(1)).unwrap();
    time.advance(Duration::from_hours(5));
    limiter.set_capacity("api", 5, Duration::from_secs(1)).unwrap();
    assert_eq!(limiter.capacity("api").unwrap().available, 5);
    assert_eq!(limiter.check_n("api", 5), Ok(()));
}

#[test]
fn a_full_bucket_stays_full_past_its_horizon() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.set_capacity("api", 5, Duration::from_nanos((1 << 61) - 1)).unwrap();
    time.set(u64::MAX / 4);
    assert_eq!(limiter.check_n("api", 5), Ok(()));
}

#[test]
fn a_long_recovery_earns_at_each_rate_of_its_own_time() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let recovery = Recovery { interval: Duration::from_secs(1), factor: 1.01, cap: true };
    let limit =
        Limit::per_second(100).burst(100_000_000).recovery(recovery).cooldown(Duration::ZERO);
    let (asked, alone) =
        (limiter.configure("asked", limit).unwrap(), limiter.configure("alone", limit).unwrap());
    for _ in 0..20 {
        asked.announce_reduced("429");
        alone.announce_reduced("429");
    }
    let drain = |name: &tollgate::Resource| {
        let held = name.capacity().available;
        name.check_n(held).unwrap();
    };
    drain(&asked);
    drain(&alone);
    for _ in 0..400 {
        time.advance(Duration::from_secs(1));
        let _ = asked.peek(1);
    }
    assert_eq!(alone.capacity().available, asked.capacity().available);
}

#[test]
fn a_recovery_is_told_whoever_notices_it() {
    for by_pause in [true, false] {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        limiter.on_capacity_change(move |update| tell.lock().unwrap().push(update.new_capacity));
        let limit = Limit::per_second(100).recovery(Recovery::default());
        let api = limiter.configure("api", limit).unwrap();
        api.announce_reduced("429");
        time.advance(Duration::from_hours(1));
        if by_pause {
            api.pause_for(Duration::from_secs(1));
        } else {
            limiter.configure("api", limit).unwrap();
        }
        assert_eq!(api.capacity().burst, 100);
        assert_eq!(told.lock().unwrap().last(), Some(&100), "{by_pause}");
    }
}

#[test]
fn a_limit_that_was_accepted_takes_effect() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let recovery = Recovery { interval: Duration::from_secs(1), factor: 2.0, cap: false };
    let limit = Limit::per_second(100).recovery(recovery);
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    time.advance(Duration::from_secs(100));
    assert_eq!(api.capacity().burst, 102_400);
    let huge = Limit::per_second(4_000_000_000_000).burst(7).recovery(recovery);
    limiter.configure("api", huge).unwrap();
    assert_ne!(api.capacity().burst, 102_400, "{}", api.capacity());
}

/// A step of the recovery falls due in the middle of `configure`, which tells of it: on time that another
/// thread moves on by one step for each call.
#[test]
fn a_callback_may_configure_whoever_calls_it() {
    let _watchdog = Watchdog::new();
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let again = limiter.clone();
    limiter.on_capacity_change(move |_| {
        let _ = again.configure("other", Limit::per_second(1));
    });
    let step = Duration::from_millis(1);
    let recovery = Recovery { interval: step, factor: 1.001, cap: true };
    let limit =
        Limit::per_second(1_000).burst(1_000_000_000).recovery(recovery).cooldown(Duration::ZERO);
    let api = limiter.configure("api", limit).unwrap();
    api.check_n(1_000_000_000).unwrap();
    // Somebody is in line, so that a change of the limit looks at the bucket again.
    let mut waiter = std::pin::pin!(api.acquire_n(1_000_000));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    let (begun, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::SeqCst) {
                let now = begun.load(Ordering::SeqCst);
                if now == seen {
                    std::thread::yield_now();
                } else {
                    seen = now;
                    time.advance(step);
                }
            }
        });
        for _ in 0..100 {
            api.announce_reduced("429");
            for _ in 0..200 {
                begun.fetch_add(1, Ordering::SeqCst);
                limiter.configure("api", limit).unwrap();
            }
        }
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn retry_after_counts_from_a_reading_before_the_anchor() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let limit = Limit::per_second(1);
    time.set(10 * SECOND);
    let api = limiter.configure("api", limit).unwrap();
    assert!(api.check().is_ok());
    time.set(5 * SECOND);
    let wait = api.check().unwrap_err().retry_after().unwrap();
    time.advance(wait);
    assert_eq!(api.check(), Ok(()), "after {wait:?}");
}

#[test]
fn a_bucket_is_full_again_after_a_refund() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.set_capacity("api", 5, Duration::from_secs(1)).unwrap();
    time.advance(Duration::from_nanos(1));
    drop(limiter.try_acquire("api").unwrap());
    assert_eq!(limiter.capacity("api").unwrap().available, 5);
}

#[test]
fn a_factor_that_gives_a_whole_number_shows_it() {
    let limit = Limit::per_second(1_000).recovery(Recovery::default());
    let (_, api, time) = manual(limit);
    api.announce_reduced("429");
    time.advance(Duration::from_secs(30));
    assert_eq!(api.capacity().burst, 825, "1,000 x 0.75 x 1.1");
}

/// With a burst of one the bucket shows nothing of a cut; the rate does, and is told.
#[test]
fn a_change_of_the_rate_alone_is_told() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    limiter.on_capacity_change(move |update| {
        tell.lock().unwrap().push((update.new_capacity, update.per_window));
    });
    let limit = Limit::per_second(100).burst(1).recovery(Recovery::default());
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    for _ in 0..6 {
        time.advance(Duration::from_secs(30));
        assert!(api.peek(1).is_ok());
    }
    assert_eq!(*told.lock().unwrap(), [(1, 75), (1, 82), (1, 90), (1, 99), (1, 100)]);
}

/// A step of the recovery that is due in a pause is seen in it.
#[test]
fn a_limit_recovers_in_a_pause() {
    let limit = Limit::per_second(100).recovery(Recovery::default());
    let (_, api, time) = manual(limit);
    api.announce_reduced("429");
    api.pause_for(Duration::from_hours(1));
    time.advance(Duration::from_mins(30));
    assert_eq!((api.capacity().burst, api.capacity().available), (100, 0));
    let refused = api.check_n(80).unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_mins(30) + Duration::from_millis(50)));
    time.advance(Duration::from_mins(30));
    assert_eq!(api.capacity().available, 75, "none accrue in a pause");
}

/// Tokens that are there for those in line are no reason to ask again at once.
#[test]
fn who_comes_behind_tokens_that_are_taken_soon_waits_a_little() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let one = limiter.configure("one", Limit::per_second(10).burst(1)).unwrap();
    let other = limiter.configure("other", Limit::per_day(2).max_in_flight(1)).unwrap();
    let _place = other.try_acquire().unwrap();
    let mut both = Box::pin(limiter.acquire_all(&[("one", 1), ("other", 1)]));
    assert!(both.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let refused = one.check().unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(100)));
    drop(both);
    assert!(one.check().is_ok());
}

/// Who joins in the middle of a line leaves its timer alone, but where its own time is up before.
#[test]
fn a_timeout_behind_others_is_on_time() {
    let limit = Limit::per_hour(1).on_release(OnRelease::Refund);
    let (_, api, time) = manual(limit);
    // It may be refunded at any time, so the wait is not hopeless.
    let _permit = api.try_acquire().unwrap();
    let mut others = [api.acquire(), api.acquire()].map(Box::pin);
    for other in &mut others {
        assert!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tell(sender)));
    let mut last = Box::pin(api.acquire().timeout(Duration::from_secs(1)));
    assert!(last.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    time.advance(Duration::from_nanos(SECOND - 1));
    assert!(woken.try_recv().is_err());
    time.advance(Duration::from_nanos(1));
    assert!(woken.try_recv().is_ok());
    let ended = last.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(ended, Poll::Ready(Err(AcquireError::TimedOut { .. }))));
}

struct Tell(mpsc::Sender<()>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        self.0.send(()).expect("somebody listens");
    }
}

/// `main` shows the error that it returns by `Debug`.
#[test]
fn an_error_shows_the_time_and_not_what_it_is_worked_out_from() {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    let api = limiter.configure("api", Limit::per_second(2)).unwrap();
    api.check_n(2).unwrap();
    let refused = format!("{:?}", api.check().unwrap_err());
    assert_eq!(refused, "Exhausted { hint: RetryHint { retry_after: 500ms } }");
}
