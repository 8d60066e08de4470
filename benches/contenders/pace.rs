//! Waiting tasks: share of the rate delivered, cost of a wake-up, order.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use governor::{DefaultDirectRateLimiter, Quota};
use tokio::runtime::Builder;
use tollgate::{Limit, MemoryLimiter, Resource};

/// A limiter that tasks wait for.
pub(crate) trait Pace: Send + Sync + 'static {
    /// `rate` grants a second.
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

/// Fair, as by default. It loses its timer's lateness at each refill, so it refills as rarely as
/// possible: a whole burst at a time.
impl Pace for leaky_bucket::RateLimiter {
    fn new(rate: u32, burst: u32) -> Self {
        let (most, mut builder) = (burst as usize, Self::builder());
        builder.max(most).initial(most).refill(most);
        builder.interval(Duration::from_secs(1) * burst / rate).build()
    }

    async fn turn(&self) {
        self.acquire_one().await;
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

/// The control: takes the next slot of one atomic word and sleeps until it is due, with tokio's
/// timer: the lower bound for pacing there. Slots are assigned in advance, so late grants pile up
/// and pass together, in bursts above the limit.
pub(crate) struct Ticket {
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

/// The result of a run.
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Grants over what the limit allowed: burst + rate x time.
    pub(crate) delivered: f64,
    /// CPU time of the whole process per grant.
    pub(crate) micros: f64,
    /// Share of grants that overtook an earlier request.
    pub(crate) out_of_order: f64,
}

/// `rate` grants a second.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    pub(crate) tasks: usize,
    pub(crate) until: Until,
}

#[derive(Clone, Copy)]
pub(crate) enum Until {
    Passed(Duration),
    /// Each task had this many grants.
    Turns(usize),
}

/// Runs the tasks, on the calling thread or on `workers` threads.
pub(crate) fn run<P: Pace>(load: &Load, workers: usize) -> Outcome {
    let Load { rate, burst, tasks, until } = *load;
    let runtime = match workers {
        1 => Builder::new_current_thread().enable_time().build(),
        _ => Builder::new_multi_thread().worker_threads(workers).enable_time().build(),
    };
    let runtime = runtime.expect("a runtime");
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
            // Finished or aborted: both are fine.
            let _ = task.await;
        }
        start.elapsed()
    });
    let cpu = cpu.elapsed();
    let order = order.lock().expect("no panic");
    outcome(load, wall.as_secs_f64(), cpu.as_secs_f64(), &order)
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn outcome(load: &Load, seconds: f64, cpu: f64, order: &[u64]) -> Outcome {
    let granted = order.len() as f64;
    Outcome {
        seconds,
        delivered: granted / (f64::from(load.burst) + f64::from(load.rate) * seconds),
        micros: cpu * 1e6 / granted,
        out_of_order: inversions(order) as f64 / granted,
    }
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
