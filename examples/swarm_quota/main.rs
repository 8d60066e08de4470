//! One limit for many processes: they share it by a quota, and the upstream refuses none of their requests,
//! also while agents join, leave and are killed.
//!
//! ```text
//! cargo run --release --features nats --example swarm_quota -- --kill 2 --join 1 --chart quota.svg
//! cargo run --release --features nats --example swarm_quota -- --no-share
//! ```
//!
//! The program starts a NATS server, an upstream that answers 429 past its limit, and itself once for each agent. An
//! agent sends as many requests as it may. The first takes part in the quota from a term after the start on. So the
//! run begins after two, and so do all figures.
//!
//! The agents' burst is smaller than the upstream's: requests that were sent apart may arrive together. See
//! `--jitter`.
//!
//! The last line is JSON. `utilisation` is `admitted` in parts of what the limit is in that time, without its burst.

mod agent;
mod args;
mod chart;
mod crew;
#[path = "../shared/http.rs"]
mod http;
mod nats;
#[path = "../shared/options.rs"]
mod options;
mod run;
#[path = "../shared/server.rs"]
mod server;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, interval_at, sleep_until};
use tollgate::NatsBus;
use tollgate::async_nats::jetstream;

use args::{Args, USAGE};
use crew::{Crew, Said, name};
use run::Run;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return Ok(stop.exit(USAGE)),
    };
    if let Some(name) = &args.agent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(agent::run(&args, name))?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Runtime::new()?.block_on(conduct(&args))
}

async fn conduct(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let own = if args.nats.is_none() { Some(nats::Server::start().await?) } else { None };
    let nats =
        args.nats.as_deref().or(own.as_ref().map(|own| own.url.as_str())).unwrap_or_default();
    let client = NatsBus::options().connect(nats).await?;
    // A log for each run. The agents open it too: if it cannot be used, this says so once.
    let swarm = format!("quota-{:016x}", fastrand::u64(..));
    if args.is_shared {
        agent::ledger(client.clone(), &swarm, args.term).await?;
    }
    let url = match &args.upstream {
        Some(url) => url.clone(),
        None => server::start("127.0.0.1:0", args.limit, args.burst).await?,
    };
    println!("An upstream of {} a second and a burst of {}: {url}", args.limit, args.burst);
    if args.is_shared {
        let (rate, burst) = (f64::from(args.limit) * 0.999, args.quota_burst());
        println!("{} agents share {rate} a second and a burst of {burst}.", args.agents);
    } else {
        println!("{} agents take all of it each.", args.agents);
    }
    println!("\n{:>5} {:>6} {:>8} {:>4}  shares", "time", "agents", "admitted", "429");

    let (crew, said) = Crew::new(args, nats, &url.to_string(), &swarm);
    let run = follow(args, crew, said).await?;
    if own.is_none() && args.is_shared {
        jetstream::new(client).delete_stream(format!("TOLLGATE_{swarm}")).await?;
    }
    report(args, &run)
}

/// Who is to do what, and when: evenly over the run.
fn plan(args: &Args, begin: Instant) -> Vec<(Instant, &'static str)> {
    let mut verbs = Vec::new();
    for round in 0..args.kill.max(args.leave).max(args.join) {
        let all = [("killed", args.kill), ("joins", args.join), ("leaves", args.leave)];
        verbs.extend(all.iter().filter(|(_, times)| round < *times).map(|(verb, _)| *verb));
    }
    let count = u32::try_from(verbs.len()).unwrap_or(u32::MAX);
    let time = |at: u32| begin + args.duration * (at + 1) / (count + 1);
    (0..count).map(time).zip(verbs).collect()
}

/// Runs until its time is over, or until Ctrl-C.
async fn follow(
    args: &Args,
    mut crew: Crew,
    mut said: UnboundedReceiver<Said>,
) -> Result<Run, Box<dyn Error>> {
    let mut run = Run::new();
    for agent in 0..args.agents as usize {
        crew.start()?;
        run.mark(agent, "starts");
    }
    let start = Instant::now();
    let begin = start + 2 * args.term;
    let end = begin + args.duration;
    let mut plan = plan(args, begin).into_iter().peekable();
    let mut ticks = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    loop {
        let due = plan.peek().map_or(end, |(at, _)| *at);
        tokio::select! {
            Some(said) = said.recv() => run.note(&said),
            _ = ticks.tick() => println!("{}", run.line(2.0 * args.term.as_secs_f64())),
            () = sleep_until(due) => {
                let Some((_, verb)) = plan.next() else { break };
                let agent = match verb {
                    "killed" => crew.kill().await?,
                    "leaves" => crew.leave(),
                    _ => {
                        crew.start()?;
                        Some(run.agents.len())
                    }
                };
                if let Some(agent) = agent {
                    println!("      {} {verb}", name(agent));
                    run.mark(agent, verb);
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    crew.end().await;
    while let Some(said) = said.recv().await {
        run.note(&said);
    }
    Ok(run)
}

fn report(args: &Args, run: &Run) -> Result<ExitCode, Box<dyn Error>> {
    let begin = 2.0 * args.term.as_secs_f64();
    let end = begin + args.duration.as_secs_f64();
    let tally = run.tally(begin, end);
    let before = run.tally(0.0, begin);
    println!();
    if before.refused > 0 {
        println!("{} x 429 before the run began", before.refused);
    }
    println!(
        "{} admitted, {} x 429, {} x no answer or another status",
        tally.admitted, tally.refused, tally.failed
    );
    if let Some(file) = &args.chart {
        std::fs::write(file, chart::draw(args, run, end))?;
        println!("drawn: {}", file.display());
    }
    let utilisation =
        f64::from(tally.admitted) / (f64::from(args.limit) * args.duration.as_secs_f64());
    println!(
        r#"{{"agents":{},"limit":{},"admitted":{},"status_429":{},"utilisation":{utilisation:.4}}}"#,
        args.agents, args.limit, tally.admitted, tally.refused
    );
    Ok(if tally.admitted > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
