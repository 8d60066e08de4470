//! The routes behind servers in this process, and `wrk` as their client.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;

use axum::Router;
use cpu_time::ProcessTime;
use tokio::net::TcpListener;

use crate::contenders::{CASES, Case, PEER, contenders};
use crate::median;

const KEYS_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/door/keys.lua");

/// Serves on a port that is free, on a thread of its own, until the process ends.
fn serve(app: Router) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket of tokio's");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::from_std(listener).expect("a socket of tokio's");
            let service = app.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.expect("a server");
        });
    });
    address
}

/// A second of wrk.
struct Run {
    /// Requests a second.
    rate: f64,
    /// Microseconds of the server's CPU for a request.
    cpu: f64,
    admitted: f64,
}

/// The number after `label` in wrk's report.
fn number(report: &str, label: &str) -> Option<f64> {
    let rest = report.split_once(label)?.1.trim_start();
    rest.split(|c: char| c.is_whitespace()).next()?.parse().ok()
}

#[allow(clippy::cast_precision_loss)] // microseconds
fn run(address: SocketAddr, case: Case) -> Run {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c32", "-d1s"]);
    if case.has_many_keys {
        wrk.args(["-s", KEYS_SCRIPT]);
    }
    let cpu = ProcessTime::now();
    let done = wrk.arg(format!("http://{address}/")).output().expect("wrk: apt-get install wrk");
    let cpu = cpu.elapsed().as_micros() as f64;
    let report = String::from_utf8_lossy(&done.stdout);
    let rate = number(&report, "Requests/sec:").unwrap_or_else(|| panic!("wrk said: {report}"));
    let total =
        report.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let total: f64 = total.unwrap_or_else(|| panic!("wrk said: {report}"));
    let refused = number(&report, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    assert!(!report.contains("Socket errors"), "wrk said: {report}");
    Run { rate, cpu: cpu / total, admitted: 1.0 - refused / total }
}

pub(crate) fn compare(rounds: usize) {
    println!(
        "| by wrk | requests a second | x bare | x tower_governor | CPU, us a request | x tower_governor | admitted |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for case in CASES {
        let contenders: Vec<_> =
            contenders(case).into_iter().map(|one| (one.name, serve(one.app))).collect();
        let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for ((_, address), runs) in contenders.iter().zip(&mut runs) {
                let run = run(*address, case);
                // In the first round connections and keys are new.
                if round > 0 {
                    runs.push(run);
                }
            }
        }
        println!("| **{}** | | | | | | |", case.name);
        for ((name, _), own) in contenders.iter().zip(&runs) {
            let against = |other: &[Run], of: fn(&Run) -> f64| {
                median(own.iter().zip(other).map(|(own, other)| of(own) / of(other)))
            };
            let peer = &runs[PEER];
            println!(
                "| {name} | {:.0} | {:.2} | {:.2} | {:.1} | {:.2} | {:.4} |",
                median(own.iter().map(|run| run.rate)),
                against(&runs[0], |run| run.rate),
                against(peer, |run| run.rate),
                median(own.iter().map(|run| run.cpu)),
                against(peer, |run| run.cpu),
                median(own.iter().map(|run| run.admitted)),
            );
        }
    }
}
