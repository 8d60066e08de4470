//! Timers as a sorted map of wakers, and the one thread that serves those of the machine's time.
//!
//! The first wait of the process starts the thread. It sleeps while nothing is due, and holds no
//! lock while it wakes. Because of it `acquire` works on any executor and on none, and a wait queue
//! whose head is a future that nobody polls is still served.
//!
//! If the thread cannot be started, each later arming tries again.
//!
//! # Forks
//!
//! A forked child has a copy of the service, without its thread, and with a lock that the thread may have
//! held. So a service serves the process that made it, and a child makes its own. The thread waits on std's
//! primitives: `parking_lot` keeps all parked threads of a process in one table, in which the child would
//! find those of the parent.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};
use std::{io, process, ptr};

use crossbeam_utils::atomic::AtomicCell;

/// When a timer is due, and a number that is unique among the timers.
pub(super) type TimerKey = (u64, u64);

/// Wakers by due time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<TimerKey, Waker>,
    next: u64,
}

impl Timers {
    pub(super) fn add(&mut self, at: u64, waker: Waker) -> TimerKey {
        let key = (at, self.next);
        self.next += 1;
        self.due.insert(key, waker);
        key
    }

    /// Removes a timer and returns its waker. Drop that without the lock: it may be the last owner of
    /// something that drops a timer of its own, which takes the lock.
    pub(super) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.due.remove(&key)
    }

    /// Removes the wakers that are due at `now`, in order. Wake them without the lock.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push(entry.remove());
        }
        due
    }

    fn first(&self) -> Option<TimerKey> {
        self.due.first_key_value().map(|(key, _)| *key)
    }
}

/// What the thread serves: timers in nanoseconds since `start`.
#[derive(Debug)]
struct Service {
    process: u32,
    timers: Mutex<Timers>,
    earlier: Condvar,
    start: Instant,
    has_thread: Mutex<bool>,
}

/// Services are told apart by their addresses.
#[derive(Clone, Copy, Debug)]
struct ServiceRef(&'static Service);

impl PartialEq for ServiceRef {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for ServiceRef {}

/// The service of the process, or that of its parent. Lock-free: a lock could be held at a fork.
static SERVICE: AtomicCell<Option<ServiceRef>> = AtomicCell::new(None);

/// A timer of the machine's time. Dropping it disarms it.
#[derive(Debug)]
pub(crate) struct ThreadTimer {
    service: ServiceRef,
    key: TimerKey,
}

impl ThreadTimer {
    /// Whether this process armed it. In a forked child the timers of the parent never fire.
    pub(super) fn is_own(&self) -> bool {
        self.service.0.process == process::id()
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        if self.is_own() {
            let waker = lock(&self.service.0.timers).remove(self.key);
            drop(waker);
        }
    }
}

/// Wakes `waker` after `delay` of the machine's time. `None` if the thread cannot be started.
pub(super) fn in_thread(delay: Duration, waker: Waker) -> Option<ThreadTimer> {
    let service = service();
    start(service.0)?;
    let at = nanos(service.0.start.elapsed().saturating_add(delay));
    let mut timers = lock(&service.0.timers);
    let key = timers.add(at, waker);
    let is_first = timers.first() == Some(key);
    drop(timers);
    if is_first {
        service.0.earlier.notify_one();
    }
    Some(ThreadTimer { service, key })
}

/// The service of this process.
fn service() -> ServiceRef {
    let process = process::id();
    loop {
        let known = SERVICE.load();
        if let Some(service) = known.filter(|service| service.0.process == process) {
            return service;
        }
        // Leaked: like its thread, it lives as long as the process.
        let service = ServiceRef(Box::leak(Box::new(Service {
            process,
            timers: Mutex::default(),
            earlier: Condvar::new(),
            start: Instant::now(),
            has_thread: Mutex::new(false),
        })));
        if SERVICE.compare_exchange(known, Some(service)).is_ok() {
            return service;
        }
    }
}

/// Starts the thread, if there is none.
fn start(service: &'static Service) -> Option<()> {
    let mut has_thread = lock(&service.has_thread);
    if !*has_thread {
        let thread = std::thread::Builder::new().name("tollgate-timer".into());
        match thread.spawn(|| service.run()) {
            Ok(_) => *has_thread = true,
            Err(error) => complain(&error),
        }
    }
    has_thread.then_some(())
}

/// Once: the waits go on, but each of them polls.
fn complain(error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        eprintln!("tollgate: no thread for timers, so waits poll until there is one: {error}");
    });
}

impl Service {
    fn run(&self) {
        let mut timers = lock(&self.timers);
        loop {
            let now = nanos(self.start.elapsed());
            let due = timers.take_due(now);
            if !due.is_empty() {
                drop(timers);
                due.into_iter().for_each(wake);
                timers = lock(&self.timers);
                continue;
            }
            // Without a timer: until one is armed, or a long time.
            let left = timers.first().map_or(u64::MAX, |(at, _)| at - now);
            let waited = self.earlier.wait_timeout(timers, Duration::from_nanos(left));
            (timers, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// No code of others runs under these locks, so that what they guard is whole after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A foreign waker's panic must not end the thread, which serves all timers.
fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
