//! Ratios between limiters, measured side by side: `cargo bench --bench ratios`.
//!
//! The contenders of a group take turns of 2 ms, in an order that rotates, and each round gives one
//! ratio to the floor and one to governor, or to the peer in its place; the table has the medians.
//! What slows the whole machine for a while falls out of them. Time is the threads' CPU time, and a
//! turn counts only if each of its threads had a CPU for itself and they ran side by side.
//!
//! `cargo bench --bench ratios -- denied` runs the groups with "denied" in their names.
//! `ratios --calls "GROUP/CONTENDER" N` makes N calls and ends, for counting instructions.

mod contenders;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use contenders::{Contender, GROUPS, Group};
use cpu_time::ThreadTime;

const ROUNDS: u64 = 120;
const TURN: Duration = Duration::from_millis(2);
/// Calls between two looks at the time.
const CALLS: u64 = 256;

/// One thread's turn.
#[derive(Clone, Copy)]
struct Turn {
    calls: u64,
    admitted: u64,
    cpu: Duration,
    start: Instant,
    end: Instant,
}

impl Turn {
    fn take(contender: &Contender, from: u64) -> Self {
        let (mut calls, mut admitted) = (from, 0);
        let (cpu, start) = (ThreadTime::now(), Instant::now());
        while start.elapsed() < TURN {
            admitted += contender.run(calls..calls + CALLS);
            calls += CALLS;
        }
        Self { calls: calls - from, admitted, cpu: cpu.elapsed(), start, end: Instant::now() }
    }
}

/// Whether no thread was kept from its CPU, and all ran at the same time.
fn undisturbed(turns: &[Turn]) -> bool {
    let first_end = turns.iter().map(|turn| turn.end).min();
    let last_start = turns.iter().map(|turn| turn.start).max();
    let together = first_end.zip(last_start).map_or(Duration::ZERO, |(end, start)| end - start);
    let most = |time: Duration| time.mul_f64(0.95);
    together > most(TURN) && turns.iter().all(|turn| turn.cpu > most(turn.end - turn.start))
}

/// What a contender did on all threads, turn by turn.
#[derive(Default)]
struct Score {
    calls: u64,
    admitted: u64,
    /// Nanoseconds a call for each round; `None` where the turn was disturbed.
    nanos: Vec<Option<f64>>,
}

impl Score {
    fn add(&mut self, turns: &[Turn]) {
        let calls = turns.iter().map(|turn| turn.calls).sum::<u64>();
        let cpu = turns.iter().map(|turn| turn.cpu.as_secs_f64()).sum::<f64>();
        self.calls += calls;
        self.admitted += turns.iter().map(|turn| turn.admitted).sum::<u64>();
        self.nanos.push(undisturbed(turns).then(|| cpu * 1e9 / float(calls)));
    }

    fn share(&self) -> f64 {
        float(self.admitted) / float(self.calls)
    }

    fn median(&self) -> f64 {
        median(self.nanos.iter().copied().flatten().collect())
    }

    /// The median of the rounds' ratios.
    fn over(&self, other: &Self) -> f64 {
        let rounds = self.nanos.iter().zip(&other.nanos);
        median(rounds.filter_map(|(a, b)| Some(a.as_ref()? / b.as_ref()?)).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn float(n: u64) -> f64 {
    n as f64
}

/// All contenders on `threads` threads that start each turn together.
fn compete(group: &Group, threads: u64, rounds: u64) -> Vec<Score> {
    let count = group.contenders.len() as u64;
    let arrived = AtomicU64::new(0);
    let order = |turn: u64| ((turn + turn / count) % count) as usize;
    let take_all = || {
        let take = |turn: u64| {
            // Who has slept is soon given a CPU, and a free one.
            thread::sleep(Duration::from_micros(100));
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < (turn + 1) * threads {
                thread::yield_now();
            }
            Turn::take(&group.contenders[order(turn)], turn << 20)
        };
        (0..rounds * count).map(take).collect::<Vec<_>>()
    };
    let turns: Vec<Vec<Turn>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take_all)).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread's turns")).collect()
    });
    let mut scores: Vec<Score> = group.contenders.iter().map(|_| Score::default()).collect();
    for turn in 0..rounds * count {
        let all: Vec<Turn> = turns.iter().map(|thread| thread[turn as usize]).collect();
        scores[order(turn)].add(&all);
    }
    scores
}

/// The group's rows; the share of turns that were undisturbed, with 1 and 2 threads.
fn report(group: &Group, rounds: u64) -> [f64; 2] {
    println!("| **{}** | | | | | | | | |", group.name);
    let wanted = if group.admitted { 1.0 } else { 0.0 };
    let by_threads = [1, 2].map(|threads| compete(group, threads, rounds));
    for (i, contender) in group.contenders.iter().enumerate() {
        print!("| {} |", contender.name);
        for scores in &by_threads {
            let (nanos, share) = (scores[i].median(), scores[i].share());
            let (governor, floor) = (scores[i].over(&scores[1]), scores[i].over(&scores[0]));
            let mark = if (share - wanted).abs() > 0.001 { "**" } else { "" };
            print!(" {nanos:.1} | {governor:.2} | {floor:.2} | {mark}{share:.4}{mark} |");
        }
        println!();
    }
    by_threads.map(|scores| {
        let turns = || scores.iter().flat_map(|score| &score.nanos);
        float(turns().flatten().count() as u64) / float(turns().count() as u64)
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
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let rounds = if args.iter().any(|arg| arg == "--bench") { ROUNDS } else { 2 };
    let wanted = args.iter().find(|arg| !arg.starts_with("--")).map_or("", String::as_str);
    let half = "ns a call | x governor | x floor | admitted |";
    println!("| | 1 thread: {half} 2 threads: {half}\n|---|{}", "---:|".repeat(8));
    let mut counted = Vec::new();
    for group in GROUPS.into_iter().map(|make| make()) {
        if group.name.contains(wanted) {
            counted.push(report(&group, rounds));
        }
    }
    let share = |i: usize| median(counted.iter().map(|shares| shares[i] * 100.0).collect());
    println!("\nUndisturbed turns: {:.0} % with 1 thread, {:.0} % with 2.", share(0), share(1));
}
