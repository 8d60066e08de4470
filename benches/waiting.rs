//! Waiting tasks: share of the rate delivered, cost of a wake-up, order:
//! `cargo bench --bench waiting`.

#[path = "contenders/pace.rs"]
mod pace;

use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use pace::{Load, Outcome, Pace, Ticket, Until, run};
use tollgate::Resource;

fn row<P: Pace>(name: &str, load: &Load, workers: usize) {
    let Outcome { seconds, delivered, micros, out_of_order } = run::<P>(load, workers);
    let [delivered, out_of_order] = [delivered, out_of_order].map(|share| share * 100.0);
    println!("| {name} | {seconds:.3} | {delivered:.1} | {micros:.1} | {out_of_order:.2} |");
}

fn compare(load: &Load) {
    let Load { rate, burst, tasks, .. } = load;
    for (workers, on) in [(1, "current_thread"), (2, "multi_thread(2)")] {
        println!("| **{rate}/s, burst {burst}, {tasks} tasks, {on}** | | | | |");
        row::<Ticket>("ticket and sleep_until", load, workers);
        row::<DefaultDirectRateLimiter>("governor", load, workers);
        row::<leaky_bucket::RateLimiter>("leaky-bucket", load, workers);
        row::<Resource>("tollgate", load, workers);
    }
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let until = Until::Passed(Duration::from_millis(if is_bench { 2_000 } else { 20 }));
    println!("| | wall, s | delivered, % | CPU, us a turn | out of order, % |");
    println!("|---|---:|---:|---:|---:|");
    for (rate, burst) in [(1_000, 10), (1_000, 1), (100, 1), (20_000, 200), (200_000, 2_000)] {
        compare(&Load { rate, burst, tasks: 64, until });
    }
    let until = Until::Turns(if is_bench { 20 } else { 1 });
    compare(&Load { rate: 20_000, burst: 200, tasks: 1_000, until });
}
