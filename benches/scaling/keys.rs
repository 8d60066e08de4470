//! Cost of a call by number of keys.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::contenders::{Named, OPEN};
use crate::turns::{TURN, cell, compete};

/// The distribution of calls over keys.
#[derive(Clone, Copy)]
enum Law {
    /// All keys equally often.
    Uniform,
    /// The k-th key with a frequency proportional to 1/k.
    Zipf,
}

impl Law {
    fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "Zipf",
        }
    }

    /// Keys drawn in advance, so that fetching the next one is a sequential memory access.
    fn draw(self, keys: usize) -> Arc<[u32]> {
        let mut random = Rng::with_seed(1);
        let mut draw: Box<dyn FnMut() -> usize> = match self {
            Self::Uniform => Box::new(move || random.usize(..keys)),
            Self::Zipf => {
                let mut sum = 0.0;
                let up_to = |k: u32| {
                    sum += 1.0 / f64::from(k);
                    sum
                };
                let sums: Vec<f64> = (1..=keys as u32).map(up_to).collect();
                Box::new(move || {
                    let at = random.f64() * sum;
                    let rank = sums.partition_point(|sum| *sum <= at).min(keys - 1);
                    // Keeps frequent keys from being adjacent. The factor is prime.
                    rank * 0x9E37_79B1 % keys
                })
            }
        };
        (0..DRAWS).map(|_| draw() as u32).collect()
    }
}

const DRAWS: u64 = 1 << 20;

pub(crate) fn run(is_bench: bool) -> Vec<Value> {
    let half = "CPU, ns a call | x governor keyed | admitted |";
    println!("| a full bucket of 1e9 each, by name | 1 thread: {half} 2 threads: {half}");
    println!("|---|{}", "---:|".repeat(6));
    let mut rows = Vec::new();
    for keys in if is_bench { [1, 10_000, 1_000_000] } else { [1, 10, 1_000] } {
        let named = Named::new(OPEN, keys);
        for law in [Law::Uniform, Law::Zipf] {
            rows.extend(compare(&named, keys, law, if is_bench { 120 } else { 2 }));
        }
    }
    println!();
    rows
}

fn compare(named: &Named, keys: usize, law: Law, rounds: u64) -> Vec<Value> {
    println!("| **keys: {keys}, {}** | | | | | | |", law.name());
    let draws = law.draw(keys);
    // Each turn of each thread starts elsewhere, at keys that were not used just before.
    let contenders = named.contenders(move |i| {
        let start = (i >> 20).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        draws[((start + i) % DRAWS) as usize] as usize
    });
    let by_threads = [1, 2].map(|threads| (threads, compete(&contenders, threads, rounds, TURN)));
    let mut rows = Vec::new();
    for (i, contender) in contenders.iter().enumerate() {
        print!("| {} |", contender.name);
        for (threads, scores) in &by_threads {
            let (nanos, over) = (scores[i].nanos(), scores[i].over(&scores[0]));
            let admitted = scores[i].admitted();
            print!(" {} | {} | {admitted:.4} |", cell(nanos, 1), cell(over, 2));
            rows.push(json!({
                "keys": keys,
                "law": law.name(),
                "threads": threads,
                "contender": contender.name,
                "nanos": nanos,
                "admitted": admitted,
            }));
        }
        println!();
    }
    rows
}
