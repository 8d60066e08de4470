//! What a scrape of 1,000 resources takes, beside threads that take from them: `cargo bench --bench scrape
//! --features benches/metrics`. The recorder has an atomic for each metric, as Prometheus' has.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tollgate::metrics::Exporter;
use tollgate::{Limit, MemoryLimiter};

const RESOURCES: u64 = 1_000;
const KEYS: u64 = 1_000_000;

/// Keeps its metrics by their handles alone.
struct Atomics;

struct Samples(AtomicU64);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Recorder for Atomics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(AtomicU64::new(0)))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(AtomicU64::new(0)))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Samples(AtomicU64::new(0))))
    }
}

/// Median and maximum of 100 scrapes.
fn scrapes(exporter: &Exporter) -> (Duration, Duration) {
    let scrape = |_| {
        let begin = Instant::now();
        black_box(exporter.update());
        begin.elapsed()
    };
    let mut times: Vec<Duration> = (0..100).map(scrape).collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn main() {
    metrics::set_global_recorder(Atomics).unwrap_or_else(|_| panic!("the only recorder"));
    let limiter = MemoryLimiter::new();
    let limit = Limit::per_second(1 << 40);
    let resources: Vec<_> = (0..RESOURCES)
        .map(|index| limiter.configure(&format!("resource {index}"), limit).expect("a limit"))
        .collect();
    let exporter = Exporter::new(&limiter);
    let begin = Instant::now();
    exporter.update();
    println!("| scrape of {RESOURCES} resources | median | maximum |\n|---|---:|---:|");
    println!("| the first | {:.0?} | |", begin.elapsed());
    let (median, most) = scrapes(&exporter);
    println!("| at rest | {median:.0?} | {most:.0?} |");
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for resource in &resources {
                    let _ = black_box(resource.check());
                }
            }
        });
        let (median, most) = scrapes(&exporter);
        println!("| beside a thread that takes | {median:.0?} | {most:.0?} |");
        is_done.store(true, Ordering::Relaxed);
    });
    limiter.per_key("key:", Limit::per_second(10)).expect("a limit");
    for key in 0..KEYS {
        let _ = black_box(limiter.check(&format!("key:{key}")));
    }
    let (median, most) = scrapes(&exporter);
    println!("| with {KEYS} keys | {median:.0?} | {most:.0?} |");
}
