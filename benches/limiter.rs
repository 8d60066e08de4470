//! Each contender alone, with criterion: `cargo bench --bench limiter`. For ratios see `ratios.rs`.

mod contenders;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use contenders::{Contender, GROUPS};
use criterion::{Criterion, criterion_group, criterion_main};

/// Time for `calls` on each of `threads` threads, started together, and the number admitted.
fn timed(contender: &Contender, threads: usize, calls: u64) -> (Duration, u64) {
    let start = Barrier::new(threads);
    let work = || {
        start.wait();
        let begun = Instant::now();
        let admitted = contender.run(0..calls);
        (begun.elapsed(), admitted)
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        others.into_iter().fold(mine, |(time, admitted), other| {
            let (its_time, its_admitted) = other.join().expect("a thread's calls");
            (time.max(its_time), admitted + its_admitted)
        })
    })
}

fn limiters(criterion: &mut Criterion) {
    for make in GROUPS {
        let group = make();
        for threads in [1, 2] {
            let mut bench = criterion.benchmark_group(format!("{}, {threads}T", group.name));
            for contender in &group.contenders {
                let (mut made, mut admitted) = (0, 0);
                bench.bench_function(contender.name, |bencher| {
                    bencher.iter_custom(|calls| {
                        let (time, ok) = timed(contender, threads, calls);
                        made += calls * threads as u64;
                        admitted += ok;
                        time
                    });
                });
                let wanted = if group.admitted { "all" } else { "none" };
                if made > 0 {
                    println!("{:24}{admitted} of {made} admitted; wanted: {wanted}", "");
                }
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .without_plots();
    targets = limiters
}
criterion_main!(benches);
