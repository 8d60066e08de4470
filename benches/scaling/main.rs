//! How limiters scale, side by side: `cargo bench --bench scaling`, or one part with `-- threads`,
//! `-- keys` or `-- waiters`. `--json FILE` also writes the results for `scripts/charts.py`.
//!
//! * Threads that call one limiter.
//! * Keys, one per call, distributed uniformly or by Zipf's law.
//! * Tasks that wait for one limiter.
//!
//! The first two are measured as in `ratios.rs`, the last as in `waiting.rs`.

#[allow(dead_code)] // the groups are for `ratios.rs`
#[path = "../contenders/mod.rs"]
mod contenders;
mod keys;
#[allow(dead_code)] // parts are for `waiting.rs` only
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
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
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
