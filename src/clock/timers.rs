//! Timers as a sorted map of wakers, and the one thread that serves those of the machine's time.
//!
//! The first wait of the process starts the thread. It sleeps while nothing is due, and holds no
//! lock while it wakes. Because of it `acquire` works on any executor and on none, and a wait queue
//! whose head is a future that nobody polls is still served.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

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

    /// Remove a timer and return its waker. Drop that without the lock: it may be the last owner of
    /// something that drops a timer of its own, which takes the lock.
    pub(super) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.due.remove(&key)
    }

    /// Remove the wakers that are due at `now`, in order. Wake them without the lock.
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
struct Service {
    timers: Mutex<Timers>,
    earlier: Condvar,
    start: Instant,
}

static SERVICE: OnceLock<Option<&'static Service>> = OnceLock::new();

/// A timer of the machine's time. Dropping it disarms it.
#[derive(Debug)]
pub(crate) struct ThreadTimer(TimerKey);

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        if let Some(Some(service)) = SERVICE.get() {
            let waker = service.timers.lock().remove(self.0);
            drop(waker);
        }
    }
}

/// Wake `waker` after `delay` of the machine's time. `None` if the thread cannot be started.
pub(super) fn in_thread(delay: Duration, waker: Waker) -> Option<ThreadTimer> {
    let service = (*SERVICE.get_or_init(start))?;
    let at = nanos(service.start.elapsed().saturating_add(delay));
    let mut timers = service.timers.lock();
    let key = timers.add(at, waker);
    let is_first = timers.first() == Some(key);
    drop(timers);
    if is_first {
        service.earlier.notify_one();
    }
    Some(ThreadTimer(key))
}

fn start() -> Option<&'static Service> {
    // Leaked: like its thread, it lives as long as the process.
    let service: &'static Service = Box::leak(Box::new(Service {
        timers: Mutex::default(),
        earlier: Condvar::new(),
        start: Instant::now(),
    }));
    let thread = std::thread::Builder::new().name("tollgate-timer".into());
    thread.spawn(|| service.run()).ok().map(|_| service)
}

impl Service {
    fn run(&self) {
        let mut timers = self.timers.lock();
        loop {
            let now = nanos(self.start.elapsed());
            let due = timers.take_due(now);
            if !due.is_empty() {
                MutexGuard::unlocked(&mut timers, || due.into_iter().for_each(wake));
                continue;
            }
            match timers.first() {
                Some((at, _)) => {
                    self.earlier.wait_for(&mut timers, Duration::from_nanos(at - now));
                }
                None => self.earlier.wait(&mut timers),
            }
        }
    }
}

/// A foreign waker's panic must not end the thread, which serves all timers.
fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
