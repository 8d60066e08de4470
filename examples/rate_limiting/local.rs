//! Part 1: the in-process limiter.

use std::error::Error;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use tollgate::{MemoryLimiter, TryAcquireError};

const SECOND: Duration = Duration::from_secs(1);
const WORKERS: usize = 5;
const REQUESTS: usize = 10;

pub(crate) async fn tour() -> Result<(), Box<dyn Error>> {
    let limiter = MemoryLimiter::new();
    // With `set_capacity` a released permit gives its tokens back at once.
    limiter.set_capacity("openai-api", 5, SECOND)?;
    limiter.set_capacity("database", 10, SECOND)?;
    limiter.set_capacity("external-service", 3, SECOND)?;
    println!("Configured rate limits:");
    for resource in ["openai-api", "database", "external-service"] {
        show(&limiter, resource);
    }

    try_acquire(&limiter)?;
    release(&limiter);
    acquire(&limiter).await?;
    reduce(&limiter);
    concurrently(&limiter).await;

    limiter.close();
    Ok(())
}

fn show(limiter: &MemoryLimiter, resource: &str) {
    if let Some(capacity) = limiter.capacity(resource) {
        println!("  {capacity}");
    }
}

fn try_acquire(limiter: &MemoryLimiter) -> Result<(), TryAcquireError> {
    println!("\nTryAcquire demo (non-blocking):");
    for request in 1..=7 {
        match limiter.try_acquire("openai-api") {
            Ok(permit) => {
                println!("  ✓ Request {request}: acquired token");
                // A dropped permit would end here. A forgotten one stays in flight until `release`.
                permit.forget();
            }
            Err(TryAcquireError::Exhausted { .. }) => {
                println!("  ✗ Request {request}: rate limited (no token available)");
            }
            Err(other) => return Err(other),
        }
    }
    println!("\nCapacity after consuming tokens:");
    show(limiter, "openai-api");
    Ok(())
}

fn release(limiter: &MemoryLimiter) {
    println!("\nReleasing tokens...");
    for _ in 0..3 {
        limiter.release("openai-api");
    }
    println!("Capacity after releasing 3 tokens:");
    show(limiter, "openai-api");
}

async fn acquire(limiter: &MemoryLimiter) -> Result<(), Box<dyn Error>> {
    println!("\nBlocking Acquire demo (with timeout):");
    let start = Instant::now();
    let permit = limiter.acquire("openai-api").timeout(2 * SECOND).await?;
    println!("  ✓ Acquired token in {}ms", start.elapsed().as_millis());
    drop(permit);
    Ok(())
}

fn reduce(limiter: &MemoryLimiter) {
    println!("\nSimulating 429 response - announcing reduced capacity:");
    println!("  Before:");
    show(limiter, "external-service");
    limiter.announce_reduced("external-service", "received 429 from API");
    println!("  After (capacity reduced by 25%):");
    show(limiter, "external-service");
}

/// Fifty requests at once; the database admits ten and ten more a second, so the last time out.
async fn concurrently(limiter: &MemoryLimiter) {
    println!("\nConcurrent access pattern ({WORKERS} workers, {REQUESTS} requests each):");
    let workers: JoinSet<usize> = (0..WORKERS).map(|_| worker(limiter.clone())).collect();
    let succeeded: usize = workers.join_all().await.iter().sum();
    let all = WORKERS * REQUESTS;
    println!("  Results: {succeeded}/{all} succeeded, {} failed (timeout)", all - succeeded);
}

/// Sends its requests concurrently; returns how many succeeded.
async fn worker(limiter: MemoryLimiter) -> usize {
    let requests: JoinSet<bool> = (0..REQUESTS).map(|_| request(limiter.clone())).collect();
    requests.join_all().await.into_iter().filter(|succeeded| *succeeded).count()
}

async fn request(limiter: MemoryLimiter) -> bool {
    let timeout = Duration::from_millis(650);
    let Ok(_permit) = limiter.acquire("database").timeout(timeout).await else { return false };
    sleep(Duration::from_millis(250)).await; // the query; the permit is held until it is done
    true
}
