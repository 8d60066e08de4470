//! Waiting tasks: how much of the rate arrives, what a wake-up costs, and who goes first:
//! `cargo bench --bench waiting`.
//!
//! The control takes the next slot of one word and sleeps until it is due, by tokio's timer: the
//! least that pacing costs there. Its slots are given out ahead, so that what is late piles up and
//! is let through at once, in bursts above the limit; tollgate's bound holds over any window.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use governor::{DefaultDirectRateLimiter, Quota};
use tokio::runtime::{Builder, Runtime};
use tollgate::{Limit, MemoryLimiter, Resource};

trait Pace: Send + Sync + 'static {
    /// `rate` a second.
    fn new(rate: u32, burst: u32) -> Self;
    fn turn(&self) -> impl Future<Output = ()> + Send;
}

impl Pace for Resource {
    fn new(rate: u32, burst: u32) -> Self {
        let limit = Limit::per_second(rate.into()).burst(burst.into());
        MemoryLimiter::new().configure("api", limit).expect("a limit")
    }

    async fn turn(&self) {
        drop(self.acquire().await.expect("a permit"));
    }
}

impl Pace for DefaultDirectRateLimiter {
    fn new(rate: u32, burst: u32) -> Self {
        let [rate, burst] = [rate, burst].map(|n| NonZeroU32::new(n).expect("above zero"));
        Self::direct(Quota::per_second(rate).allow_burst(burst))
    }

    async fn turn(&self) {
        self.until_ready().await;
    }
}

/// The control.
struct Ticket {
    start: tokio::time::Instant,
    /// When the bucket is full again, in nanoseconds since the start.
    full_at: AtomicU64,
    token: u64,
    bucket: u64,
}

impl Pace for Ticket {
    fn new(rate: u32, burst: u32) -> Self {
        let token = 1_000_000_000 / u64::from(rate);
        let bucket = token * u64::from(burst);
        Self { start: tokio::time::Instant::now(), full_at: AtomicU64::new(0), token, bucket }
    }

    async fn turn(&self) {
        let now = self.start.elapsed().as_nanos() as u64;
        let after = |full_at: u64| full_at.max(now) + self.token;
        let take = |full_at| Some(after(full_at));
        let full_at = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let due = full_at.map_or(0, after).saturating_sub(self.bucket);
        if due > now {
            tokio::time::sleep_until(self.start + Duration::from_nanos(due)).await;
        }
    }
}

/// What a run came to.
struct Outcome {
    granted: usize,
    wall: Duration,
    cpu: Duration,
    /// Grants for which somebody who had asked before was still waiting.
    inversions: usize,
}

#[derive(Clone, Copy)]
enum Until {
    Passed(Duration),
    /// Each task had so many turns.
    Turns(usize),
}

fn run<P: Pace>(runtime: &Runtime, rate: u32, burst: u32, tasks: usize, until: Until) -> Outcome {
    let turns = if let Until::Turns(turns) = until { turns } else { usize::MAX };
    let order = Arc::new(Mutex::new(Vec::<u64>::with_capacity(1 << 20)));
    let asked = Arc::new(AtomicU64::new(0));
    let (cpu, start) = (ProcessTime::now(), Instant::now());
    let wall = runtime.block_on(async {
        let limiter = Arc::new(P::new(rate, burst));
        let task = || {
            let (limiter, asked, order) = (limiter.clone(), asked.clone(), order.clone());
            tokio::spawn(async move {
                for _ in 0..turns {
                    let number = asked.fetch_add(1, Ordering::AcqRel);
                    limiter.turn().await;
                    order.lock().expect("no panic").push(number);
                }
            })
        };
        let running: Vec<_> = (0..tasks).map(|_| task()).collect();
        if let Until::Passed(time) = until {
            tokio::time::sleep(time).await;
            running.iter().for_each(tokio::task::JoinHandle::abort);
        }
        for task in running {
            // Done or aborted, which is as good.
            let _ = task.await;
        }
        start.elapsed()
    });
    let cpu = cpu.elapsed();
    let order = order.lock().expect("no panic");
    Outcome { granted: order.len(), wall, cpu, inversions: inversions(&order) }
}

fn inversions(order: &[u64]) -> usize {
    let last = order.iter().max().map_or(0, |last| *last as usize);
    let mut served = vec![false; last + 2];
    let mut first_waiting = 0;
    let mut count = 0;
    for number in order.iter().map(|number| *number as usize) {
        count += usize::from(first_waiting < number);
        served[number] = true;
        while served[first_waiting] {
            first_waiting += 1;
        }
    }
    count
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn row(name: &str, rate: u32, burst: u32, outcome: &Outcome) {
    let Outcome { granted, wall, cpu, inversions } = outcome;
    let (granted, seconds) = (*granted as f64, wall.as_secs_f64());
    let delivered = granted / (f64::from(burst) + f64::from(rate) * seconds) * 100.0;
    let cpu = cpu.as_secs_f64() * 1e6 / granted;
    let inversions = *inversions as f64 / granted * 100.0;
    println!("| {name} | {seconds:.3} | {delivered:.1} | {cpu:.1} | {inversions:.2} |");
}

fn compare(rate: u32, burst: u32, tasks: usize, until: Until) {
    for workers in [1, 2] {
        let runtime = || match workers {
            1 => Builder::new_current_thread().enable_time().build(),
            _ => Builder::new_multi_thread().worker_threads(workers).enable_time().build(),
        };
        let runtime = || runtime().expect("a runtime");
        let on = if workers == 1 { "current_thread" } else { "multi_thread(2)" };
        println!("| **{rate}/s, burst {burst}, {tasks} tasks, {on}** | | | | |");
        row(
            "ticket and sleep_until",
            rate,
            burst,
            &run::<Ticket>(&runtime(), rate, burst, tasks, until),
        );
        let governor = run::<DefaultDirectRateLimiter>(&runtime(), rate, burst, tasks, until);
        row("governor", rate, burst, &governor);
        row("tollgate", rate, burst, &run::<Resource>(&runtime(), rate, burst, tasks, until));
    }
}

fn main() {
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if is_bench { 2_000 } else { 20 });
    println!("| | wall, s | delivered, % | CPU, us a turn | out of order, % |");
    println!("|---|---:|---:|---:|---:|");
    for (rate, burst) in [(1_000, 10), (1_000, 1), (100, 1), (20_000, 200), (200_000, 2_000)] {
        compare(rate, burst, 64, Until::Passed(time));
    }
    compare(20_000, 200, 1_000, Until::Turns(if is_bench { 20 } else { 1 }));
}
