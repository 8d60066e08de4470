//! Waiting: first come first served, whatever is cancelled, stalled, held or cut meanwhile.
//!
//! Everything here runs on manual or paused time, but for the two tests at the end, which show that
//! the machine's time works on any executor, and assert no speed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tollgate::{
    AcquireError, Clock, Limit, ManualClock, MemoryLimiter, OnRelease, Resource, TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn manual(limit: Limit) -> (MemoryLimiter, Resource, ManualClock) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resource = limiter.configure("api", limit).expect("a limit that fits");
    (limiter, resource, time)
}

/// On tokio's time, which these tests pause.
#[cfg(feature = "tokio")]
fn paused(limit: Limit) -> (MemoryLimiter, Resource) {
    let limiter = MemoryLimiter::with_clock(Clock::tokio());
    let resource = limiter.configure("api", limit).expect("a limit that fits");
    (limiter, resource)
}

fn drain(resource: &Resource) -> u64 {
    std::iter::repeat_with(|| resource.check()).take_while(Result::is_ok).count() as u64
}

/// A thread that waits, once it is known to be in line.
fn waiting_thread<T: Send + 'static>(
    resource: &Resource,
    wait: impl FnOnce(&Resource) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let before = resource.capacity().waiting;
    let handle = resource.clone();
    let thread = thread::spawn(move || wait(&handle));
    until(|| resource.capacity().waiting > before);
    thread
}

/// Let other threads run until it is so; the test runner's own timeout is the limit.
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::sleep(Duration::from_micros(50));
    }
}

/// Poll by hand, with a waker that counts for nothing.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Nobody))))
}

/// An executor as small as can be: it has no timers of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn threads_are_served_in_the_order_they_came() {
    const WAITERS: u64 = 400;
    let (_, resource, time) = manual(Limit::per_second(1));
    assert_eq!(drain(&resource), 1);
    let served = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..WAITERS)
        .map(|number| {
            let served = Arc::clone(&served);
            waiting_thread(&resource, move |resource| {
                let permit = resource.blocking_acquire().expect("served");
                served.lock().expect("no panic").push(number);
                drop(permit);
            })
        })
        .collect();
    for number in 0..WAITERS {
        time.advance(SECOND);
        until(|| served.lock().expect("no panic").len() as u64 > number);
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(served.lock().expect("no panic").iter().copied().eq(0..WAITERS));
}

/// The wait timed out, and a new call may succeed after `retry_after`.
#[track_caller]
fn timed_out<T>(result: Result<T, AcquireError>, retry_after: Duration) {
    let error = result.map(drop).expect_err("it cannot end in time");
    assert!(matches!(error, AcquireError::TimedOut { .. }), "{error}");
    assert_eq!(error.retry_after(), Some(retry_after));
}

#[test]
fn a_timeout_is_on_time_and_takes_nothing() {
    // Another permit in flight may be refunded at any time, so the wait is not hopeless.
    let (_, resource, time) = manual(Limit::per_hour(1).on_release(OnRelease::Refund));
    let permit = resource.try_acquire().expect("full");
    let waiter =
        waiting_thread(&resource, |resource| resource.blocking_acquire_timeout(SECOND).map(drop));
    time.advance(SECOND.checked_sub(Duration::from_nanos(1)).unwrap());
    thread::sleep(5 * MS);
    assert_eq!(resource.capacity().waiting, 1);
    time.advance(Duration::from_nanos(1));
    timed_out(waiter.join().expect("no panic"), 3_599 * SECOND);
    assert_eq!(resource.capacity().waiting, 0);
    drop(permit);
    assert_eq!(drain(&resource), 1);
}

#[test]
fn a_wait_that_cannot_end_in_time_fails_at_once() {
    let (_, resource, time) = manual(Limit::per_second(1));
    assert_eq!(drain(&resource), 1);
    let one_short = SECOND.checked_sub(Duration::from_nanos(1)).unwrap();
    timed_out(resource.blocking_acquire_timeout(one_short), SECOND);
    timed_out(block_on(resource.acquire().timeout(one_short)), SECOND);
    // One that ends to the nanosecond is worth waiting for.
    let waiter =
        waiting_thread(&resource, |resource| resource.blocking_acquire_timeout(SECOND).map(drop));
    time.advance(SECOND);
    assert_eq!(waiter.join().expect("no panic"), Ok(()));
    // A pause that outlasts the timeout makes the wait as hopeless as an empty bucket.
    time.advance(SECOND);
    resource.pause_for(2 * SECOND);
    timed_out(resource.blocking_acquire_timeout(SECOND), 2 * SECOND);
}

#[test]
fn a_large_request_is_served_amid_small_ones() {
    let (_, resource, time) = manual(Limit::per_second(10));
    assert_eq!(drain(&resource), 10);
    let small = waiting_thread(&resource, |resource| resource.blocking_acquire().map(drop));
    let large =
        waiting_thread(&resource, |resource| resource.blocking_acquire_n(10, None).map(drop));
    let late: Vec<_> = (0..20)
        .map(|_| waiting_thread(&resource, |resource| resource.blocking_acquire().map(drop)))
        .collect();
    time.advance(SECOND / 10);
    assert_eq!(small.join().expect("no panic"), Ok(()));
    time.advance(SECOND.checked_sub(Duration::from_nanos(1)).unwrap());
    thread::sleep(5 * MS);
    assert_eq!(resource.capacity().waiting, 21, "somebody overtook the large request");
    time.advance(Duration::from_nanos(1));
    assert_eq!(large.join().expect("no panic"), Ok(()));
    for (served, thread) in late.into_iter().enumerate() {
        time.advance(SECOND / 10);
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        assert_eq!(resource.capacity().waiting, 19 - served as u64);
    }
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let (limiter, resource, time) = manual(Limit::per_second(10));
    assert_eq!(drain(&resource), 10);
    let mut large = Box::pin(resource.acquire_n(10));
    assert!(poll(large.as_mut()).is_pending());
    time.advance(SECOND / 2);
    // Five tokens are there, for who came first.
    let refused = limiter.try_acquire("api").expect_err("in line");
    assert!(matches!(refused, TryAcquireError::Exhausted { .. }));
    assert_eq!(refused.retry_after(), Some(SECOND / 2 + SECOND / 10));
    assert!(limiter.check("api").is_err() && limiter.peek("api", 1).is_err());
    time.advance(SECOND / 2);
    assert!(matches!(poll(large.as_mut()), Poll::Ready(Ok(_))));
    assert_eq!(drain(&resource), 0);
}

#[test]
fn a_future_that_is_held_and_not_polled_blocks_nobody() {
    let (limiter, resource, time) = manual(Limit::per_second(1));
    assert_eq!(drain(&resource), 1);
    let mut held: Vec<_> = (0..3).map(|_| Box::pin(resource.acquire())).collect();
    for future in &mut held {
        assert!(poll(future.as_mut()).is_pending());
    }
    let waiter = waiting_thread(&resource, |resource| resource.blocking_acquire().map(drop));
    // A token is there after a second. The first lets its turn of 10 ms pass; with the second, the third
    // is skipped too, and the thread takes the token.
    time.advance(SECOND);
    for _ in 0..2 {
        assert_eq!(resource.capacity().waiting, 4);
        time.advance(10 * MS);
    }
    assert_eq!(waiter.join().expect("no panic"), Ok(()));
    // Nor do they block who does not wait.
    time.advance(SECOND);
    for _ in 0..4 {
        let _ = limiter.check("api");
        time.advance(10 * MS);
    }
    assert_eq!(resource.capacity().available, 0, "a call without waiting was held up");
    // They have their places again when they come.
    time.advance(SECOND);
    assert!(poll(held[1].as_mut()).is_ready());
    time.advance(SECOND);

    assert!(poll(held[0].as_mut()).is_ready());
    time.advance(SECOND);
    assert!(poll(held[2].as_mut()).is_ready());
}

/// On the clock alone, so that each step is seen: 600 ms, in which sixty turns come, nobody polls.
#[test]
fn a_stall_on_manual_time_is_followed_by_no_flood() {
    const WAITERS: usize = 80;
    let (_, resource, time) = manual(Limit::per_second(100).burst(1));
    assert_eq!(drain(&resource), 1);
    let mut tasks: Vec<_> = (0..WAITERS).map(|_| Some(Box::pin(resource.acquire()))).collect();
    // Each that still waits, in the order they came; says who was served.
    let mut poll_all = || {
        let mut served = Vec::new();
        for (number, task) in tasks.iter_mut().enumerate() {
            let Some(future) = task else { continue };
            if let Poll::Ready(permit) = poll(future.as_mut()) {
                permit.expect("served").spend();
                served.push(number);
                *task = None;
            }
        }
        served
    };
    assert!(poll_all().is_empty());
    for _ in 0..600 {
        time.advance(MS);
    }
    // What the bucket holds, to the first of those whose turns have come.
    let mut served = poll_all();
    assert_eq!(served, [0]);
    for ms in 1..=WAITERS * 10 {
        time.advance(MS);
        served.extend(poll_all());
        assert_eq!(served.len(), WAITERS.min(1 + ms / 10), "{ms} ms after the stall");
    }
    assert!(served.into_iter().eq(0..WAITERS));
    assert_eq!(resource.capacity().waiting, 0);
}

#[test]
fn reconfigure_pause_remove_and_close_reach_those_who_wait() {
    let (limiter, resource, time) = manual(Limit::per_hour(10));
    let wait = |resource: &Resource| resource.blocking_acquire().map(drop);

    assert_eq!(drain(&resource), 10);
    let waiter = waiting_thread(&resource, wait);
    limiter.configure("api", Limit::per_second(10).no_recovery()).expect("fits");
    time.advance(SECOND / 10);
    assert_eq!(waiter.join().expect("no panic"), Ok(()));

    time.advance(SECOND);
    limiter.pause_for("api", SECOND);
    let waiter = waiting_thread(&resource, wait);
    limiter.pause_for("api", SECOND / 2); // the later end counts
    time.advance(SECOND.checked_sub(Duration::from_nanos(1)).unwrap());
    thread::sleep(2 * MS);
    assert_eq!(resource.capacity().waiting, 1);
    time.advance(Duration::from_nanos(1));
    assert_eq!(waiter.join().expect("no panic"), Ok(()));

    drain(&resource);
    let large =
        waiting_thread(&resource, |resource| resource.blocking_acquire_n(10, None).map(drop));
    limiter.announce_reduced("api", "429");
    let failed = large.join().expect("no panic");
    assert_eq!(failed, Err(AcquireError::ExceedsCapacity { capacity: 7 }));

    let waiter = waiting_thread(&resource, wait);
    assert!(limiter.remove("api"));
    assert_eq!(waiter.join().expect("no panic"), Err(AcquireError::UnknownResource));

    let resource = limiter.configure("api", Limit::per_hour(1)).expect("fits");
    assert_eq!(drain(&resource), 1);
    let waiters: Vec<_> = (0..3).map(|_| waiting_thread(&resource, wait)).collect();
    limiter.close();
    for waiter in waiters {
        assert_eq!(waiter.join().expect("no panic"), Err(AcquireError::Closed));
    }
}

#[test]
fn a_limit_on_permits_and_on_waiters() {
    let (_, resource, _) = manual(Limit::per_hour(100).max_in_flight(2).max_waiting(1));
    let first = resource.try_acquire().expect("room");
    let second = resource.try_acquire().expect("room");
    assert_eq!(resource.try_acquire().err(), Some(TryAcquireError::TooManyInFlight));
    assert!(resource.check().is_ok(), "check takes no part in in-flight");
    let waiter = waiting_thread(&resource, |resource| resource.blocking_acquire().map(drop));
    let refused = block_on(resource.acquire()).map(drop);
    assert_eq!(refused, Err(AcquireError::QueueFull));
    drop(first);
    assert_eq!(waiter.join().expect("no panic"), Ok(()));
    assert_eq!(resource.capacity().in_flight, 1);
    drop(second);
    assert_eq!(resource.capacity().in_flight, 0);
    assert_eq!(resource.capacity().available, 96);
}

#[cfg(feature = "tokio")]
mod on_paused_time {
    use super::*;
    use tokio::task::{JoinHandle, yield_now};
    use tokio::time::{Instant, advance, sleep};

    /// Let every task that can run come to rest. Paused time does not move meanwhile.
    async fn settle() {
        for _ in 0..100 {
            yield_now().await;
        }
    }

    fn spawn_waiters(
        resource: &Resource,
        count: u64,
        served: &Arc<Mutex<Vec<u64>>>,
    ) -> Vec<JoinHandle<()>> {
        let spawn = |number| {
            let (resource, served) = (resource.clone(), Arc::clone(served));
            tokio::spawn(async move {
                resource.acquire().await.expect("served").spend();
                served.lock().expect("no panic").push(number);
            })
        };
        (0..count).map(spawn).collect()
    }

    fn count(served: &Mutex<Vec<u64>>) -> usize {
        served.lock().expect("no panic").len()
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_are_served_in_the_order_they_came() {
        for limit in [Limit::per_second(100).burst(1), Limit::per_second(5_000).burst(50)] {
            let (_limiter, resource) = paused(limit);
            drain(&resource);
            let served = Arc::default();
            let tasks = spawn_waiters(&resource, 400, &served);
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(served.lock().expect("no panic").iter().copied().eq(0..400));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_followed_by_no_flood() {
        let (_limiter, resource) = paused(Limit::per_second(100).burst(1));
        drain(&resource);
        let served = Arc::default();
        let tasks = spawn_waiters(&resource, 80, &served);
        settle().await;
        sleep(35 * MS).await;
        let before = count(&served);
        assert_eq!(before, 3);
        // Nothing runs for 600 ms, in which sixty turns would have come.
        advance(600 * MS).await;
        settle().await;
        for _ in 0..5 {
            advance(MS).await;
            settle().await;
        }
        let after = count(&served) - before;
        assert!((1..=2).contains(&after), "{after} were served in 5 ms after the stall");
        tasks.iter().for_each(JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_cancelled_passes_on() {
        let (_limiter, resource) = paused(Limit::per_second(1_000).burst(10));
        drain(&resource);
        let served = Arc::default();
        let start = Instant::now();
        let mut tasks = spawn_waiters(&resource, 2_000, &served);
        settle().await;
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut cancelled = 0;
        // Half of them, at random, while others are being served.
        while cancelled < 1_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let victim = tasks.swap_remove(random as usize % tasks.len());
            cancelled += u64::from(!victim.is_finished());
            victim.abort();
            if random.is_multiple_of(8) {
                sleep(MS).await;
            }
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        settle().await;
        let served = served.lock().expect("no panic");
        assert_eq!(served.len(), 1_000);
        assert!(served.is_sorted());
        // The tokens add up: what accrued is what was taken and what is left.
        let accrued = start.elapsed().as_millis() as u64;
        let left = resource.capacity().available;
        assert!(left <= 10);
        assert!(accrued.abs_diff(1_000 + left) <= 1, "{accrued} accrued, {left} left");
        assert_eq!(resource.capacity().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_rate_is_delivered() {
        for (rate, burst) in [(1_000, 10), (20_000, 200)] {
            let (_limiter, resource) = paused(Limit::per_second(rate).burst(burst));
            drain(&resource);
            let served = Arc::new(std::sync::atomic::AtomicU64::new(0));
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    let (resource, served) = (resource.clone(), Arc::clone(&served));
                    tokio::spawn(async move {
                        while resource.acquire().await.is_ok() {
                            served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            sleep(2 * SECOND).await;
            let served = served.load(std::sync::atomic::Ordering::Relaxed);
            tasks.iter().for_each(JoinHandle::abort);
            assert!(served >= 2 * rate * 99 / 100, "{served} of {} delivered", 2 * rate);
            assert!(served <= 2 * rate + burst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_around_or_inside() {
        let (_limiter, resource) = paused(Limit::per_second(1).on_release(OnRelease::Refund));
        let permit = resource.try_acquire().expect("full");
        let start = Instant::now();
        assert!(tokio::time::timeout(500 * MS, resource.acquire()).await.is_err());
        assert_eq!(start.elapsed(), 500 * MS);
        timed_out(resource.acquire().timeout(300 * MS).await, 200 * MS);
        assert!((800 * MS..=802 * MS).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert_eq!(resource.capacity().waiting, 0);
        drop(permit);
        assert_eq!(drain(&resource), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_select_loop_that_drops_its_acquire_loses_nothing() {
        let (_limiter, resource) = paused(Limit::per_second(10).burst(1));
        drain(&resource);
        let start = Instant::now();
        let mut ticks = 0;
        let permit = loop {
            tokio::select! {
                permit = resource.acquire() => break permit,
                () = sleep(30 * MS) => ticks += 1,
            }
        };
        assert!(permit.is_ok());
        assert_eq!(ticks, 3);
        assert!(start.elapsed() <= 102 * MS);
        assert_eq!(resource.capacity().waiting, 0);
    }
}

/// On the machine's time, outside any runtime, and in a runtime without timers.
#[test]
fn acquire_works_on_any_executor() {
    let limiter = MemoryLimiter::with_clock(Clock::system());
    let resource = limiter.configure("api", Limit::per_second(1_000).burst(1)).expect("fits");
    for _ in 0..5 {
        block_on(resource.acquire()).expect("served").spend();
    }
    #[cfg(feature = "tokio")]
    {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for _ in 0..5 {
            runtime.block_on(resource.acquire()).expect("served").spend();
        }
        // A limiter on tokio's time that was created outside of it falls back to the machine's.
        let limiter = MemoryLimiter::with_clock(Clock::tokio());
        let resource = limiter.configure("api", Limit::per_second(1_000).burst(1)).expect("fits");
        for _ in 0..5 {
            block_on(resource.acquire()).expect("served").spend();
        }
    }
}

#[test]
fn threads_and_tasks_wait_in_one_line_on_the_machines_time() {
    let limiter = MemoryLimiter::with_clock(Clock::coarse(MS));
    let resource = limiter.configure("api", Limit::per_second(2_000).burst(4)).expect("fits");
    thread::scope(|scope| {
        for number in 0..8 {
            let resource = &resource;
            scope.spawn(move || {
                for _ in 0..10 {
                    let permit = if number % 2 == 0 {
                        resource.blocking_acquire()
                    } else {
                        block_on(resource.acquire())
                    };
                    permit.expect("served").spend();
                }
            });
        }
    });
    assert_eq!(resource.capacity().waiting, 0);
}
