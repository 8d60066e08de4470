//! Wakers that poll, drop, lock, panic, or own what they wake, by whatever rings them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tollgate::{Acquire, Limit, ManualClock, MemoryLimiter, OnRelease, Permit, Resource};

use crate::child;

const SECOND: Duration = Duration::from_secs(1);

/// What rings the wakers of those that wait for one token each.
struct Bell {
    time: ManualClock,
    limiter: MemoryLimiter,
    api: Resource,
    ring: Box<dyn FnOnce() + Send>,
}

fn bell(ring: &str) -> Bell {
    let time = ManualClock::new();
    let limiter = match ring {
        "timer" => MemoryLimiter::new(),
        _ => MemoryLimiter::with_clock(time.clone()),
    };
    let configure = |limit: Limit| limiter.configure("api", limit).unwrap();
    let hour = Limit::per_hour(8).on_release(OnRelease::Refund);
    let (api, ring): (Resource, Box<dyn FnOnce() + Send>) = match ring {
        "timer" => {
            let api = configure(Limit::per_second(20).burst(1));
            api.check().unwrap();
            (api, Box::new(|| thread::sleep(Duration::from_millis(300))))
        }
        "permit" => {
            let api = configure(hour);
            let permit = api.try_acquire_n(8).unwrap().into_owned();
            (api, Box::new(move || drop(permit)))
        }
        "advance" => {
            let api = configure(Limit::per_second(8));
            api.check_n(8).unwrap();
            let time = time.clone();
            (api, Box::new(move || time.advance(SECOND)))
        }
        "close" => {
            let api = configure(hour);
            api.check_n(8).unwrap();
            let limiter = limiter.clone();
            (api, Box::new(move || limiter.close()))
        }
        "reconfigure" => {
            let api = configure(hour.max_in_flight(1));
            api.try_acquire().unwrap().forget();
            let limiter = limiter.clone();
            (api, Box::new(move || drop(limiter.configure("api", hour).unwrap())))
        }
        other => panic!("{other}"),
    };
    Bell { time, limiter, api, ring }
}

type Task = Mutex<Option<Pin<Box<Acquire>>>>;

/// An executor as small as can be: its waker does what the scenario says.
struct Odd {
    kind: String,
    task: Task,
    /// The executor's own lock, which it holds while it polls.
    lock: Mutex<()>,
    owned: Mutex<Option<(Pin<Box<Acquire>>, Permit<'static>)>>,
    was_woken: AtomicBool,
}

impl Odd {
    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = task.as_mut() else { return };
        if let Poll::Ready(granted) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            *task = None;
            drop(task);
            drop(granted);
        }
    }
}

impl Wake for Odd {
    fn wake(self: Arc<Self>) {
        self.was_woken.store(true, Ordering::Release);
        match self.kind.as_str() {
            "poll" => self.poll(),
            "drop" => {
                let task = self.task.lock().unwrap().take();
                drop(task);
            }
            "lock" => {
                let _lock = self.lock.lock().unwrap();
                self.poll();
            }
            "panic" => panic!("a waker's"),
            "own" => {
                let task = self.task.lock().unwrap().take();
                let owned = self.owned.lock().unwrap().take();
                drop(owned);
                drop(task);
            }
            other => panic!("{other}"),
        }
    }
}

const KINDS: [&str; 5] = ["poll", "drop", "lock", "panic", "own"];
const RINGS: [&str; 5] = ["timer", "permit", "advance", "close", "reconfigure"];

fn run(kind: &str, ring: &str) {
    if kind == "panic" {
        std::panic::set_hook(Box::new(|_| {})); // it is expected
    }
    let Bell { time, limiter, api, ring: pull } = bell(ring);
    let another = limiter.configure("another", Limit::per_hour(1)).unwrap();
    let odd: Vec<Arc<Odd>> = (0..3)
        .map(|_| {
            let owned = (kind == "own").then(|| {
                let mut wait = Box::pin(api.acquire());
                assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                // A permit of the same resource that takes no tokens, and one of another.
                (wait, api.try_acquire_n(0).unwrap().into_owned())
            });
            let task = Mutex::new(Some(Box::pin(api.acquire())));
            let odd = Arc::new(Odd {
                kind: kind.to_string(),
                task,
                lock: Mutex::new(()),
                owned: Mutex::new(owned),
                was_woken: AtomicBool::new(false),
            });
            odd.poll();
            odd
        })
        .collect();
    // An ordinary waiter behind them, and pollers that hold the executor's lock.
    let bystander = {
        let api = api.clone();
        thread::spawn(move || api.blocking_acquire().map(drop))
    };
    while api.capacity().waiting < if kind == "own" { 7 } else { 4 } {
        thread::yield_now();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let pollers: Vec<_> = odd
        .iter()
        .map(|odd| {
            let (odd, stop) = (Arc::clone(odd), Arc::clone(&stop));
            thread::spawn(move || {
                while odd.kind == "lock" && !stop.load(Ordering::Acquire) {
                    let lock = odd.lock.lock().unwrap();
                    odd.poll();
                    drop(lock);
                    thread::yield_now();
                }
            })
        })
        .collect();
    pull();
    // Heads that do not arrive are skipped as time passes.
    while !bystander.is_finished() {
        thread::sleep(Duration::from_millis(1));
        time.advance(Duration::from_millis(1));
    }
    let served = bystander.join().expect("no panic");
    assert_eq!(served.is_ok(), ring != "close");
    stop.store(true, Ordering::Release);
    for poller in pollers {
        poller.join().expect("no panic");
    }
    // The head was rung. Whoever was not (a future that was dropped by another) is out of the queue.
    assert!(odd.iter().any(|odd| odd.was_woken.load(Ordering::Acquire)));
    drop(odd);
    // Waits of other limiters go on, and time out.
    let fresh = MemoryLimiter::new();
    let fresh = fresh.configure("fresh", Limit::per_second(100).burst(1)).unwrap();
    fresh.check().unwrap();
    fresh.blocking_until_ready().unwrap();
    if ring != "close" {
        another.check().unwrap();
        assert_eq!(api.capacity().waiting, 0);
    }
}

#[test]
fn odd_wakers() {
    let pairs: Vec<String> =
        KINDS.iter().flat_map(|kind| RINGS.map(|ring| format!("{kind} {ring}"))).collect();
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    child::each("wakers::odd_wakers", &pairs, |pair| {
        let (kind, ring) = pair.split_once(' ').expect("two words");
        run(kind, ring);
    });
}

/// A waker that is replaced owns the last permit, which ends when the waker is dropped.
#[test]
fn a_replaced_waker_owns_the_last_permit() {
    struct Owns(#[allow(dead_code)] Option<Permit<'static>>); // held for its drop
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    child::each("wakers::a_replaced_waker_owns_the_last_permit", &["once"], |_| {
        let limiter = MemoryLimiter::with_clock(ManualClock::new());
        let limit = Limit::per_hour(1).on_release(OnRelease::Refund);
        let api = limiter.configure("api", limit).unwrap();
        let permit = api.try_acquire().unwrap().into_owned();
        let mut wait = Box::pin(api.acquire());
        for owned in [Some(permit), None] {
            let waker = Waker::from(Arc::new(Owns(owned)));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

/// After a waker's panic the same future may be polled again, with another waker.
#[test]
fn a_future_whose_waker_panicked_can_be_polled_again() {
    child::each("wakers::a_future_whose_waker_panicked_can_be_polled_again", &["once"], |_| {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a waker's");
            }
        }
        std::panic::set_hook(Box::new(|_| {})); // it is expected
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let api = limiter.configure("api", Limit::per_second(1)).unwrap();
        api.check().unwrap();
        let mut wait = Box::pin(api.acquire());
        let panics = Waker::from(Arc::new(Panics));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
        time.advance(SECOND);
        assert!(pollster::block_on(wait).is_ok());
    });
}
