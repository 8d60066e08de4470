//! Ratios between limiters, measured side by side: `cargo bench --bench ratios`.
//!
//! The contenders of a group run alternately, 2 ms each, in a rotating order. Each round yields the
//! ratios to the group's first and second contender; the table shows medians. A group's row names
//! these two: the floor and governor, or the nearest equivalents. A temporary slowdown of the
//! machine cancels out in the ratios. Time is thread CPU time. A turn counts only if its threads
//! ran in parallel, each on a CPU of its own.
//!
//! `cargo bench --bench ratios -- denied` runs the groups with "denied" in their names.
//! `ratios --calls "GROUP/CONTENDER" N` makes N calls and exits, for counting instructions.

mod contenders;
#[path = "contenders/turns.rs"]
mod turns;

use contenders::{GROUPS, Group};
use turns::{Round, TURN, cell, compete, float, median};

const ROUNDS: u64 = 120;

/// Prints the group's rows; returns the share of undisturbed turns with 1 and 2 threads.
fn report(group: &Group, rounds: u64) -> [f64; 2] {
    let (first, second) = (group.contenders[0].name, group.contenders[1].name);
    let references = format!(" | x {second} | x {first} | |");
    println!("| **{}** |{references}{references} |", group.name);
    let wanted = if group.admitted { 1.0 } else { 0.0 };
    let by_threads = [1, 2].map(|threads| compete(&group.contenders, threads, rounds, TURN));
    for (i, contender) in group.contenders.iter().enumerate() {
        print!("| {} |", contender.name);
        for scores in &by_threads {
            let (nanos, share) = (scores[i].nanos(), scores[i].admitted());
            let (second, first) = (scores[i].over(&scores[1]), scores[i].over(&scores[0]));
            let mark = if (share - wanted).abs() > 0.001 { "**" } else { "" };
            print!(" {} | {} | {} |", cell(nanos, 1), cell(second, 2), cell(first, 2));
            print!(" {mark}{share:.4}{mark} |");
        }
        println!(" {} |", cell(by_threads[1][i].nanos() / by_threads[0][i].nanos(), 2));
    }
    by_threads.map(|scores| {
        let rounds = || scores.iter().flat_map(|score| &score.rounds);
        float(rounds().filter_map(Round::nanos).count() as u64) / float(rounds().count() as u64)
    })
}

fn count(name: &str, calls: u64) {
    for group in GROUPS.into_iter().map(|make| make()) {
        for contender in &group.contenders {
            if format!("{}/{}", group.name, contender.name) == name {
                println!("{} of {calls} admitted", contender.run(0..calls));
                return;
            }
        }
    }
    panic!("no contender {name}");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, calls] = &args[..]
        && flag == "--calls"
    {
        return count(name, calls.parse().expect("a number of calls"));
    }
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that it runs.
    let rounds = if args.iter().any(|arg| arg == "--bench") { ROUNDS } else { 2 };
    let wanted = args.iter().find(|arg| !arg.starts_with("--")).map_or("", String::as_str);
    let half = "ns a call | x 2nd | x 1st | admitted |";
    println!("| | 1 thread: {half} 2 threads: {half} x 1 thread |\n|---|{}", "---:|".repeat(9));
    let mut counted = Vec::new();
    for group in GROUPS.into_iter().map(|make| make()) {
        if group.name.contains(wanted) {
            counted.push(report(&group, rounds));
        }
    }
    let share = |i: usize| median(counted.iter().map(|shares| shares[i] * 100.0).collect());
    println!("\nUndisturbed turns: {:.0} % with 1 thread, {:.0} % with 2.", share(0), share(1));
}
