//! Any bytes are published on the subjects of a bus with two limiters. No limiter panics, none
//! raises a limit above its configuration, and every limit recovers once the bus is quiet.
//!
//! The input is lines. The first byte of a line says what to do: `c`, `q` and `s` publish the rest of
//! the line on `ratelimit.capacity`, `ratelimit.query` and `ratelimit.state`; `a` announces a 429 by
//! a limiter itself; `t` lets time pass. Any other byte stands for one of these.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokio::time::sleep;
use tollgate::{Clock, DistributedConfig, DistributedLimiter, Limit, MemoryBus, MessageBus};

/// A message on a [`MemoryBus`] has arrived by then.
const A_MOMENT: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_secs(1);
/// The deepest cut is to one 2^20th, and each step doubles: 20 steps undo it, and the rest allows for
/// announcements that are repeated late.
const ALL_STEPS: Duration = Duration::from_secs(60);
const RESOURCES: [&str; 3] = ["plain", "windows", "user:ann"];

async fn limiter(bus: &Arc<dyn MessageBus>, id: &str) -> DistributedLimiter {
    let limiter = DistributedLimiter::new(DistributedConfig {
        recovery_interval: STEP,
        recovery_factor: 2.0,
        cooldown: Duration::from_millis(100),
        clock: Clock::tokio(),
        ..DistributedConfig::new(Arc::clone(bus), id)
    })
    .await
    .expect("a configuration that is valid");
    let two_windows = Limit::per_minute(1_000).burst(100).and(Limit::at_most(50_000, 3_600 * STEP));
    limiter.configure("plain", Limit::per_second(10)).expect("a valid limit");
    limiter.configure("windows", two_windows).expect("a valid limit");
    limiter.per_key("user:", Limit::per_second(1 << 40)).expect("a valid limit");
    limiter.try_acquire("user:ann").expect("a new bucket is full").forget(); // its key is kept
    limiter
}

/// Of each window of each resource: what it holds at most and what accrues in it.
fn limits(limiter: &DistributedLimiter) -> Vec<(u64, u64)> {
    let windows = RESOURCES.map(|name| limiter.capacity(name).expect("a resource").windows);
    windows.iter().flatten().map(|window| (window.burst, window.per_window)).collect()
}

async fn run(input: &[u8]) {
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    let limiters = [limiter(&bus, "one").await, limiter(&bus, "other").await];
    let configured = limiters.each_ref().map(limits);
    let never_above = || {
        for (limiter, configured) in limiters.iter().zip(&configured) {
            for (now, most) in limits(limiter).iter().zip(configured) {
                assert!(now.0 <= most.0 && now.1 <= most.1, "{now:?} of {most:?}");
            }
        }
    };
    for line in input.split(|byte| *byte == b'\n') {
        let Some((first, rest)) = line.split_first() else { continue };
        let subject = match first {
            b'c' => 0,
            b'q' => 1,
            b's' => 2,
            b'a' => 3,
            b't' => 4,
            other => other % 5,
        };
        match subject {
            3 => limiters[rest.len() % 2].announce_reduced(RESOURCES[rest.len() % 3], "429"),
            4 => sleep(STEP * rest.len() as u32 / 4).await,
            subject => {
                let subjects = ["ratelimit.capacity", "ratelimit.query", "ratelimit.state"];
                let published = bus.publish(subjects[usize::from(subject)], rest.to_vec()).await;
                published.expect("this bus takes every message");
            }
        }
        sleep(A_MOMENT).await;
        never_above();
    }
    sleep(ALL_STEPS).await;
    assert_eq!(limiters.each_ref().map(limits), configured, "recovery always arrives");
    for limiter in &limiters {
        limiter.close().await;
    }
}

fuzz_target!(|input: &[u8]| {
    fastrand::seed(0); // the limiters' random delays: the same input runs the same way
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run(input));
});
