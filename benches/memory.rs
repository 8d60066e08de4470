//! Memory per key of a template: `cargo bench --bench memory`, or `-- KEYS`. Compact, then
//! promoted.
//!
//! *asked*: bytes requested from the allocator and not freed. *resident*: growth of the process,
//! which includes the allocator's overhead and spare pages.

use std::fs;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use tollgate::{Limit, ManualClock, MemoryLimiter};

/// Resident bytes of the process; 0 where the system does not report them.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Sixteen bytes.
fn name(key: u64) -> String {
    format!("user:{key:011}")
}

#[allow(clippy::cast_precision_loss)] // bytes
fn each(total: f64, keys: u64) -> f64 {
    total / keys as f64
}

fn main() {
    let most = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000_u64);
    println!(
        "| keys | asked, bytes a key | resident, bytes a key | ns to make | all idle: asked |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for keys in [most / 100, most / 10, most].into_iter().filter(|keys| *keys > 0) {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key_at_most("user:", Limit::per_second(10), keys).expect("a limit");
        let before = resident();
        let mut took = Duration::ZERO;
        let asked = measure(|| {
            let start = Instant::now();
            for key in 0..keys {
                limiter.check(&name(key)).expect("it is new");
            }
            took = start.elapsed();
        });
        let grown = resident().saturating_sub(before);
        // A sweep that is hours late examines all keys. Evicted ones are freed a little later.
        time.advance(Duration::from_hours(200));
        let freed = measure(|| {
            for key in 0..1_000 {
                limiter.check(&name(key)).expect("it is new");
                time.advance(Duration::from_secs(1));
            }
        });
        let left = asked.bytes_current + freed.bytes_current;
        #[allow(clippy::cast_precision_loss)]
        let row = [asked.bytes_current as f64, grown as f64, took.as_nanos() as f64, left as f64];
        let [asked, grown, took, left] = row.map(|total| each(total, keys));
        println!("| {keys} | {asked:.1} | {grown:.1} | {took:.0} | {left:.1} |");
    }
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    limiter.per_key("user:", Limit::per_second(10)).expect("a limit");
    let whole = measure(|| (0..1_000).for_each(|key| drop(limiter.try_acquire(&name(key)))));
    println!("\nwhole keys: {} bytes each, asked", whole.bytes_current / 1_000);
}
