//! Requests through the layer for servers, beside `tower_governor`'s:
//! `cargo bench --features door --bench door`, or `-- direct`, `-- wrk`.
//!
//! The second part needs `wrk`, of a package of that name. Server and client have a thread each.

mod contenders;
mod direct;
mod over_http;

/// The middle one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let args: Vec<_> = std::env::args().skip(1).collect();
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let part = args.iter().find(|arg| !arg.starts_with('-')).map(String::as_str);
    if part.is_none_or(|part| part == "direct") {
        direct::compare(if is_bench { 200 } else { 1 });
    }
    if is_bench && part.is_none_or(|part| part == "wrk") {
        println!();
        over_http::compare(5);
    }
}
