//! More corners that were wrong once, found by attacking the line, the anchors and the timers.

#![allow(clippy::similar_names, clippy::items_after_statements)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::turns;
use crate::common::watchdog::Watchdog;
use tollgate::*;

const SECOND: Duration = Duration::from_secs(1);

fn manual(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resource = limiter.configure("api", limit).expect("a limit that fits");
    (limiter, resource, time)
}
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Nobody))))
}

#[test]
fn a_cut_at_the_floor_does_not_hang_everybody() {
    let _watchdog = Watchdog::new();
    let (l, r, time) =
        manual(Limit::per_second(2).recovery(Recovery::default()).cooldown(Duration::ZERO));
    for _ in 0..4 {
        l.announce_reduced("api", "429");
    }
    time.advance(10 * SECOND);
    l.announce_reduced("api", "429"); // already at the floor: moves `due`, not the slot's `until`
    time.advance(25 * SECOND); // past `until`, before `due`
    let _ = r.check();
}

#[test]
fn reanchor_makes_no_token() {
    // unit 2^12, period 5^9 ns
    let (rate, burst, period) = (999_999_937_u128, 1_953_000_u128, 1_953_125_u128);
    let room = (1_u128 << 55) - 1 - 2 * burst * 4096;
    let horizon = (room * 1_000_000_000).div_ceil(rate * 4096);
    let edge = (horizon - 1) / period * period;
    let first = edge + 1;
    let fill = (burst * 1_000_000_000).div_ceil(rate);
    let full = first + fill;
    assert!(first < horizon && full >= horizon && full < edge + period);
    let (_, r, time) = manual(Limit::per_second(rate as u64).burst(burst as u64));
    let c = burst as u64;
    time.set(first as u64);
    assert!(r.check_n(c).is_ok());
    assert!(r.check_n(10).is_err());
    time.set(full as u64);
    let _ = r.peek(1); // re-anchors
    time.set(first as u64); // the reading of a thread that stalled, or a step back
    let stale = r.check_n(c).is_ok();
    time.set(full as u64);
    let fresh = r.check_n(c).is_ok();
    let total = c * (1 + u64::from(stale) + u64::from(fresh));
    let bound = c + (fill * rate / 1_000_000_000) as u64 + 1;
    println!("stale {stale} fresh {fresh}");
    assert!(total <= bound, "{total} > {bound}");
}

#[test]
fn a_deadline_survives_a_step_back() {
    let (_, r, time) = manual(Limit::per_hour(1).on_release(OnRelease::Refund));
    let _permit = r.try_acquire().unwrap();
    let mut w = Box::pin(r.acquire().timeout(SECOND));
    struct Count(std::sync::atomic::AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let count = Arc::new(Count(0.into()));
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(w.as_mut().poll(&mut cx).is_pending());
    time.set(1_000_000_000); // called
    time.set(0);
    assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert!(w.as_mut().poll(&mut cx).is_pending());
    time.set(2_000_000_000);
    assert_eq!(
        count.0.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "its deadline passed and nobody called"
    );
}

#[test]
fn the_end_of_time_is_no_loop() {
    let _watchdog = Watchdog::new();
    let (_, r, time) = manual(Limit::per_second(1));
    time.advance(Duration::MAX);
    while r.check().is_ok() {}
    let mut w = Box::pin(r.acquire());
    assert!(poll(w.as_mut()).is_pending());
}

#[test]
fn an_unbounded_debt_is_owed_on_the_fast_path_too() {
    let (l, r, time) = manual(Limit::per_hour(1 << 52));
    time.advance(Duration::from_hours(5));
    assert!(r.check_n(1 << 52).is_ok());
    time.set(0);
    l.configure("api", Limit::per_day(1)).unwrap();
    assert!(r.check().is_err());
    time.set(200 * 86_400_000_000_000);
    assert!(r.peek(1).is_err(), "the slow path");
    assert!(r.check().is_err(), "the fast path: the anchor at u64::MAX wrapped");
}

#[cfg(feature = "tokio")]
#[test]
fn a_runtime_that_ends_takes_nobody_s_timer_along() {
    let _watchdog = Watchdog::new();
    let limiter = MemoryLimiter::with_clock(Clock::tokio());
    let r = limiter.configure("api", Limit::per_second(100).burst(1)).unwrap();
    assert!(r.check().is_ok());
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut first = Box::pin(r.acquire());
    rt.block_on(async {
        assert!(poll(first.as_mut()).is_pending());
    });
    drop(rt);
    r.blocking_until_ready().unwrap();
}

#[cfg(feature = "tokio")]
#[test]
fn a_limiter_survives_the_runtime_it_was_made_in() {
    let _watchdog = Watchdog::new();
    let new = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limiter = new().block_on(async { MemoryLimiter::with_clock(Clock::tokio()) });
    let r = limiter.configure("api", Limit::per_second(100).burst(1)).unwrap();
    assert!(r.check().is_ok());
    new().block_on(async {
        r.until_ready().await.unwrap();
    });
}

/// Threads that try without end, beside one that waits: each of them has the place in flight at most
/// once more after the other came into line.
#[test]
fn try_acquire_does_not_starve_the_head() {
    const THREADS: u64 = 3;
    let _watchdog = Watchdog::new();
    // Time stands still: nobody lets a turn pass, however long its thread is kept from running.
    let (_, r, _) = manual(Limit::per_hour(1 << 40).max_in_flight(1));
    let (over, tries) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let granted = r.try_acquire().is_ok();
                    tries.fetch_add(granted.into(), Ordering::SeqCst);
                }
            });
        }
        for _ in 0..turns(1_000, 300) {
            drop(r.blocking_acquire().unwrap());
            let mut head = Box::pin(r.acquire());
            if poll(head.as_mut()).is_pending() {
                let before = tries.load(Ordering::SeqCst);
                while poll(head.as_mut()).is_pending() {
                    thread::yield_now();
                }
                let passed = tries.load(Ordering::SeqCst) - before;
                assert!(passed <= THREADS, "{passed} passed one in line");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}
