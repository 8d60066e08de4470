//! How limiters scale, side by side: `cargo bench --bench scaling`, or one part of it by `-- threads`,
//! `-- keys` or `-- waiters`. With `--json FILE` it writes what it found for `scripts/charts.py`, too.
//!
//! * Threads that call one limiter.
//! * Keys, of which each call names one: all as often, or by Zipf's law.
//! * Tasks that wait for one limiter.
//!
//! The first two are measured as in `ratios.rs`, the last as in `waiting.rs`.

#[allow(dead_code)] // the groups are those of `ratios.rs`
#[path = "../contenders/mod.rs"]
mod contenders;
mod keys;
#[allow(dead_code)] // some of it is for `waiting.rs` alone
#[path = "../contenders/pace.rs"]
mod pace;
mod threads;
#[path = "../contenders/turns.rs"]
mod turns;
mod waiters;

use std::fs;

use serde_json::{Value, json};

type Part = fn(is_bench: bool) -> Vec<Value>;

const PARTS: [(&str, Part); 3] =
    [("threads", threads::run), ("keys", keys::run), ("waiters", waiters::run)];

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn machine() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{} vCPUs of an {}", cores(), model.map_or("unknown CPU", |(_, model)| model.trim()))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let file = args.iter().skip_while(|arg| *arg != "--json").nth(1);
    let names = || args.iter().filter(|arg| !arg.starts_with("--") && Some(*arg) != file);
    let mut found = json!({ "machine": machine(), "command": "cargo bench --bench scaling" });
    for (name, run) in PARTS {
        if names().count() == 0 || names().any(|wanted| wanted == name) {
            found[name] = run(is_bench).into();
        }
    }
    if let Some(file) = file {
        fs::write(file, format!("{found:#}\n")).expect("a file that can be written");
    }
}
