//! How late blocked threads get their permits: `cargo bench --bench lateness`.
//!
//! A permit is due when its token has accrued, or when it was requested if that is later. Lateness
//! is the time from then until the waiting thread has the permit. The control takes the next slot
//! of one atomic word and sleeps until the slot is due: the lower bound for a blocked thread.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tollgate::{Limit, MemoryLimiter, Resource};

/// A token every `token` nanoseconds, up to `burst`.
#[derive(Clone, Copy)]
struct Load {
    token: u64,
    burst: u64,
    threads: u64,
}

/// When a permit was requested and when it was obtained, in nanoseconds since the start.
#[derive(Clone, Copy)]
struct Grant {
    asked: u64,
    got: u64,
}

/// A bucket reconstructed from the grants: the time at which it is full again.
#[derive(Clone, Copy)]
struct Bucket {
    full_at: u64,
    load: Load,
}

impl Bucket {
    fn new(load: Load) -> Self {
        Self { full_at: 0, load }
    }

    /// When the next token accrues.
    fn due(&self) -> u64 {
        (self.full_at + self.load.token).saturating_sub(self.load.token * self.load.burst)
    }

    fn take(&mut self, at: u64) {
        self.full_at = self.full_at.max(at) + self.load.token;
    }
}

fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("centuries")
}

/// The grants of all threads, in order.
fn run(load: Load, time: Duration, wait: impl Fn(Instant) + Sync) -> Vec<Grant> {
    let start = Instant::now();
    let grants = || {
        let mut grants = Vec::with_capacity(1 << 13);
        while start.elapsed() < time {
            let asked = nanos(start);
            wait(start);
            grants.push(Grant { asked, got: nanos(start) });
        }
        grants
    };
    let mut all: Vec<Grant> = thread::scope(|scope| {
        let threads: Vec<_> = (0..load.threads).map(|_| scope.spawn(grants)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread's grants")).collect()
    });
    all.sort_by_key(|grant| grant.got);
    all
}

/// The sorted lateness of those grants that had to wait.
fn lateness(load: Load, grants: &[Grant]) -> Vec<u64> {
    let mut bucket = Bucket::new(load);
    let mut late = Vec::new();
    for grant in grants {
        let due = bucket.due();
        if due > grant.asked {
            late.push(grant.got.saturating_sub(due));
        }
        bucket.take(grant.got.max(due));
    }
    late.sort_unstable();
    late
}

fn by_sleep(load: Load, time: Duration) -> Vec<u64> {
    let bucket = Mutex::new(Bucket::new(load));
    let late = Mutex::new(Vec::new());
    run(load, time, |start| {
        let now = nanos(start);
        let due = {
            let mut bucket = bucket.lock().expect("no panic");
            let due = bucket.due();
            bucket.take(now.max(due));
            due
        };
        if due > now {
            thread::sleep(Duration::from_nanos(due - nanos(start).min(due)));
            late.lock().expect("no panic").push(nanos(start) - due);
        }
    });
    let mut late = late.into_inner().expect("no panic");
    late.sort_unstable();
    late
}

fn by_tollgate(load: Load, time: Duration) -> Vec<u64> {
    let limit = Limit::new(1, Duration::from_nanos(load.token)).burst(load.burst);
    let resource: Resource = MemoryLimiter::new().configure("api", limit).expect("a limit");
    let grants = run(load, time, |_| drop(resource.blocking_acquire().expect("a permit")));
    lateness(load, &grants)
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn row(name: &str, late: &[u64]) {
    let at = |percent: usize| late.get((late.len() * percent / 100).min(late.len() - 1));
    let [half, most, worst] = [50, 99, 100].map(|at_most| match at(at_most) {
        Some(nanos) => *nanos as f64 / 1e6,
        None => f64::NAN,
    });
    println!("| {name} | {} | {half:.3} | {most:.3} | {worst:.3} |", late.len());
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if is_bench { 5_000 } else { 50 });
    println!("| | waits | median, ms | p99, ms | worst, ms |\n|---|---:|---:|---:|---:|");
    for (rate, burst) in [(100, 1), (100, 10), (1_000, 1), (1_000, 10)] {
        for threads in [1, 4] {
            let load = Load { token: 1_000_000_000 / rate, burst, threads };
            println!("| **{rate}/s, burst {burst}, {threads} threads** | | | | |");
            row("sleep until due", &by_sleep(load, time));
            row("tollgate", &by_tollgate(load, time));
        }
    }
}
