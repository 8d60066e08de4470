//! A worker pool with one shared limit: threads take jobs from a queue, and one permit per job.
//!
//! ```text
//! cargo run --release --example worker_pool
//! ```

use std::error::Error;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tollgate::{Limit, MemoryLimiter, Resource};

const JOBS: u32 = 105;
const WORKERS: usize = 4;
const RATE: u32 = 50;
const BURST: u32 = 5;

struct Job(u32);

fn main() -> Result<(), Box<dyn Error>> {
    let limiter = MemoryLimiter::new();
    let limit = Limit::per_second(RATE.into()).burst(BURST.into());
    // A handle avoids the name lookup in hot paths.
    let database = limiter.configure("database", limit)?;

    let (queue, jobs) = mpsc::channel();
    for id in 1..=JOBS {
        queue.send(Job(id))?;
    }
    drop(queue); // closes the queue: the workers end after the last job

    println!("{JOBS} jobs, {WORKERS} workers, {RATE} jobs a second after a burst of {BURST}:");
    let start = Instant::now();
    let jobs = Mutex::new(jobs);
    let done: Vec<u32> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|_| scope.spawn(|| worker(&database, &jobs))).collect();
        // A worker that panicked counts no jobs. Its permit has ended nevertheless.
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).collect()
    });
    let seconds = start.elapsed().as_secs_f64();

    for (worker, done) in done.iter().enumerate() {
        println!("  worker {}: {done} jobs", worker + 1);
    }
    let done: u32 = done.iter().sum();
    let allowed = f64::from(BURST) + f64::from(RATE) * seconds;
    println!("{done} of {JOBS} jobs done in {seconds:.2} s: {:.1}/s", f64::from(done) / seconds);
    println!("{:.1} % of the {allowed:.1} that are allowed", 100.0 * f64::from(done) / allowed);
    Ok(())
}

/// Processes jobs until the queue is empty and closed; returns how many.
fn worker(database: &Resource, jobs: &Mutex<mpsc::Receiver<Job>>) -> u32 {
    let mut done = 0;
    let next = || jobs.lock().ok()?.recv().ok();
    while let Some(job) = next() {
        // First come, first served. Fails only if the limiter is closed.
        let Ok(permit) = database.blocking_acquire() else { break };
        process(&job);
        drop(permit); // no longer in flight; the token stays spent: this limit counts requests
        done += 1;
    }
    done
}

fn process(job: &Job) {
    let a_few = 2 + u64::from(job.0 % 5);
    thread::sleep(Duration::from_millis(a_few));
}
