//! Cost of waiting and share of the rate delivered, by number of waiting tasks.

use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use serde_json::{Value, json};
use tollgate::Resource;

use crate::pace::{Load, Outcome, Ticket, Until, run as pace};
use crate::turns::median;

type Run = fn(&Load, usize) -> Outcome;

const CONTENDERS: [(&str, Run); 4] = [
    ("ticket and sleep_until", pace::<Ticket>),
    ("governor", pace::<DefaultDirectRateLimiter>),
    ("leaky-bucket", pace::<leaky_bucket::RateLimiter>),
    ("tollgate", pace::<Resource>),
];

pub(crate) fn run(is_bench: bool) -> Vec<Value> {
    let (rate, burst) = (20_000, 200);
    let (rounds, time) = if is_bench { (3, 700) } else { (1, 20) };
    let until = Until::Passed(Duration::from_millis(time));
    println!("| {rate}/s, burst {burst} | delivered, % | CPU, us a turn | out of order, % |");
    println!("|---|---:|---:|---:|");
    let mut rows = Vec::new();
    for (workers, on) in [(1, "current_thread"), (2, "multi_thread(2)")] {
        for tasks in [1, 64, 1_000] {
            println!("| **tasks: {tasks}, {on}** | | | |");
            let load = Load { rate, burst, tasks, until };
            let round = || CONTENDERS.map(|(_, run)| run(&load, workers));
            let outcomes: Vec<_> = (0..rounds).map(|_| round()).collect();
            for (i, (name, _)) in CONTENDERS.iter().enumerate() {
                let of = |of: fn(&Outcome) -> f64| {
                    median(outcomes.iter().map(|round| of(&round[i])).collect())
                };
                let delivered = of(|outcome| outcome.delivered * 100.0);
                let micros = of(|outcome| outcome.micros);
                let out_of_order = of(|outcome| outcome.out_of_order * 100.0);
                println!("| {name} | {delivered:.1} | {micros:.1} | {out_of_order:.2} |");
                rows.push(json!({
                    "limit": format!("{rate}/s, burst {burst}"),
                    "tasks": tasks,
                    "runtime": on,
                    "contender": name,
                    "delivered": delivered,
                    "micros": micros,
                    "out_of_order": out_of_order,
                }));
            }
        }
    }
    println!();
    rows
}
