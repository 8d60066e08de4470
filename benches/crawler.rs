//! A crawl in real time: groups over a global limit and one for each host, beside a wait for the host and then
//! for the global limit: `cargo bench --bench crawler`.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tollgate::{Limit, MemoryLimiter};

const PAGES: usize = 4;

async fn crawl(order: &[usize], as_group: bool) -> Duration {
    let limiter = MemoryLimiter::new();
    limiter.configure("global", Limit::per_second(2_000).burst(50)).expect("a limit");
    limiter.per_key("host:", Limit::per_second(1)).expect("a limit");
    let start = Instant::now();
    let mut pages = JoinSet::new();
    for host in order {
        let (limiter, host) = (limiter.clone(), format!("host:{host}"));
        pages.spawn(async move {
            if as_group {
                drop(limiter.acquire_all(&[("global", 1), (&host, 1)]).await.expect("permits"));
            } else {
                drop(limiter.acquire(&host).await.expect("a permit"));
                drop(limiter.acquire("global").await.expect("a permit"));
            }
        });
    }
    pages.join_all().await;
    start.elapsed()
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let hosts = if is_bench { 5_000 } else { 5 };
    let in_order: Vec<usize> = (0..hosts).flat_map(|host| [host; PAGES]).collect();
    let reversed: Vec<usize> = in_order.iter().rev().copied().collect();
    let interleaved: Vec<usize> = (0..PAGES).flat_map(|_| 0..hosts).collect();
    println!(
        "| {hosts} hosts, {PAGES} pages each | host, then global: s | as a group: s | ratio |"
    );
    println!("|---|---:|---:|---:|");
    for (name, order) in
        [("in host order", in_order), ("reversed", reversed), ("interleaved", interleaved)]
    {
        let seconds = |as_group| {
            let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
            runtime.block_on(crawl(&order, as_group)).as_secs_f64()
        };
        let (alone, group) = (seconds(false), seconds(true));
        println!("| {name} | {alone:.2} | {group:.2} | {:.2} |", group / alone);
    }
}
