//! Timers as a sorted map of wakers, and the one thread that serves those of the machine's time.
//!
//! The thread is started with the first wait of the process, sleeps while nothing is due, and
//! holds no locks while it wakes. It is what makes `acquire` work on any executor and on none, and
//! what serves a line whose head is a future that nobody polls.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::Alarm;

/// Wakers by the time they are due.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(u64, u64), Waker>,
    next: u64,
}

impl Timers {
    /// The new timer's key, and whether it is now the first.
    fn add(&mut self, at: u64, waker: Waker) -> ((u64, u64), bool) {
        let key = (at, self.next);
        self.next += 1;
        self.due.insert(key, waker);
        (key, self.due.first_key_value().is_some_and(|(first, _)| *first == key))
    }

    /// The wakers that are due at `now`, in their order; to be woken without the lock.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push(entry.remove());
        }
        due
    }
}

/// Timers that several hold; the thread of the machine's time waits on `earlier`.
#[derive(Debug, Default)]
pub(super) struct Shared {
    timers: parking_lot::Mutex<Timers>,
    earlier: Condvar,
}

impl Shared {
    pub(super) fn arm(self: &Arc<Self>, at: u64, waker: Waker) -> Alarm {
        let (key, first) = self.timers.lock().add(at, waker);
        if first {
            self.earlier.notify_one();
        }
        Alarm::Timer(Key { timers: Arc::clone(self), key })
    }

    pub(super) fn wake_due(&self, now: u64) {
        let due = self.timers.lock().take_due(now);
        due.into_iter().for_each(Waker::wake);
    }
}

/// Disarms when it drops.
#[derive(Debug)]
pub(crate) struct Key {
    timers: Arc<Shared>,
    key: (u64, u64),
}

impl Drop for Key {
    fn drop(&mut self) {
        // The waker may be the last owner of something that drops a timer of its own: let it go
        // after the lock.
        let waker = self.timers.timers.lock().due.remove(&self.key);
        drop(waker);
    }
}

struct Thread {
    shared: Arc<Shared>,
    start: Instant,
}

/// Wake after `delay` of the machine's time. `None` where the thread could not be started.
pub(super) fn in_thread(delay: Duration, waker: Waker) -> Option<Alarm> {
    static THREAD: OnceLock<Option<Thread>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let shared = Arc::new(Shared::default());
        let start = Instant::now();
        let serve = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("tollgate-timer".into())
            .spawn(move || run(&serve, start))
            .ok()
            .map(|_| Thread { shared, start })
    });
    let thread = thread.as_ref()?;
    let at = nanos(thread.start.elapsed().saturating_add(delay));
    Some(thread.shared.arm(at, waker))
}

fn run(shared: &Shared, start: Instant) {
    let mut timers = shared.timers.lock();
    loop {
        let now = nanos(start.elapsed());
        let due = timers.take_due(now);
        if !due.is_empty() {
            parking_lot::MutexGuard::unlocked(&mut timers, || {
                for waker in due {
                    // A foreign waker's panic must not end everybody's timers.
                    let wake = std::panic::AssertUnwindSafe(|| waker.wake());
                    let _ = std::panic::catch_unwind(wake);
                }
            });
            continue;
        }
        match timers.due.first_key_value() {
            Some((&(at, _), _)) => {
                shared.earlier.wait_for(&mut timers, Duration::from_nanos(at - now));
            }
            None => shared.earlier.wait(&mut timers),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
