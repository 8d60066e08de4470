//! Calls a second by number of threads.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::OnRelease;

use crate::contenders::{
    Contender, OPEN, by_name, governor_direct, handle, permit, ratelimit, semaphore_try,
};
use crate::cores;
use crate::turns::{Round, Score, TURN, cell, compete, float, median};

fn contenders() -> Vec<Contender> {
    let mut contenders = vec![handle(OPEN), governor_direct(OPEN), ratelimit(true)];
    contenders.extend(by_name(OPEN, 1));
    contenders.extend([permit(OPEN, "tollgate, permit", OnRelease::Spend), semaphore_try(true)]);
    contenders
}

/// All threads' calls over the time from the first call to the last.
fn calls_a_second(round: &Round) -> Option<f64> {
    let calls = round.0.iter().map(|turn| turn.calls).sum::<u64>();
    let start = round.0.iter().map(|turn| turn.start).min()?;
    let end = round.0.iter().map(|turn| turn.end).max()?;
    Some(float(calls) / (end - start).as_secs_f64())
}

fn row(contender: &Contender, score: &Score, threads: u64, crowded: bool) -> Value {
    let counted = score.rounds.iter().filter(|round| crowded || round.nanos().is_some());
    let rate = median(counted.filter_map(calls_a_second).collect());
    let nanos = if crowded { f64::NAN } else { score.nanos() };
    let (name, admitted) = (contender.name, score.admitted());
    println!("| {name} | {} | {} | {admitted:.4} |", cell(rate / 1e6, 1), cell(nanos, 1));
    json!({
        "threads": threads,
        "crowded": crowded,
        "contender": name,
        "calls_a_second": rate,
        "nanos": nanos,
        "admitted": admitted,
    })
}

pub(crate) fn run(is_bench: bool) -> Vec<Value> {
    let contenders = contenders();
    println!("| one full bucket of 1e9 | million calls a second | CPU, ns a call | admitted |");
    println!("|---|---:|---:|---:|");
    let mut rows = Vec::new();
    for threads in [1, 2, 4, 8] {
        // More threads than CPUs disturb each other in every turn. So a turn lasts several time
        // slices, in which all threads run, and calls are counted per wall-clock time.
        let crowded = threads > cores() as u64;
        let mark = if crowded { ", more than there are CPUs" } else { "" };
        println!("| **threads: {threads}{mark}** | | | |");
        let (rounds, length) = if crowded { (24, TURN * 20) } else { (120, TURN) };
        let (rounds, length) =
            if is_bench { (rounds, length) } else { (2, Duration::from_millis(1)) };
        let scores = compete(&contenders, threads, rounds, length);
        let each = contenders.iter().zip(&scores);
        rows.extend(each.map(|(contender, score)| row(contender, score, threads, crowded)));
    }
    println!();
    rows
}
