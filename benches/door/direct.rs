//! The routes called in the process: what the layers cost by themselves, without a connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use cpu_time::ThreadTime;
use tower::Service;

use crate::contenders::{CASES, Case, Contender, KEYS, PEER, contenders};
use crate::median;

/// Long enough for a thousand requests, short enough to be mostly undisturbed.
const TURN: Duration = Duration::from_millis(4);

/// A contender's turns.
#[derive(Default)]
struct Score {
    nanos: Vec<f64>,
    requests: u64,
    admitted: u64,
}

pub(crate) fn compare(rounds: usize) {
    println!("| in the process | us a request | of it the layer's | x tower_governor | admitted |");
    println!("|---|---:|---:|---:|---:|");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for case in CASES {
        let mut contenders = contenders(case);
        let mut scores: Vec<_> = contenders.iter().map(|_| Score::default()).collect();
        for round in 0..=rounds {
            for (contender, score) in contenders.iter_mut().zip(&mut scores) {
                // In the first round each key is new.
                let (turn, until) =
                    if round == 0 { (Duration::MAX, KEYS) } else { (TURN, u32::MAX) };
                let done = runtime.block_on(take_turn(contender, case, turn, until));
                if round > 0 {
                    score.nanos.push(done.nanos);
                    score.requests += done.requests;
                    score.admitted += done.admitted;
                }
            }
        }
        print(case, &contenders, &scores);
    }
}

struct Turn {
    nanos: f64,
    requests: u64,
    admitted: u64,
}

#[allow(clippy::cast_precision_loss)] // counts
async fn take_turn(contender: &mut Contender, case: Case, turn: Duration, until: u32) -> Turn {
    let (mut requests, mut admitted) = (0, 0);
    let (cpu, start) = (ThreadTime::now(), Instant::now());
    while start.elapsed() < turn && requests < u64::from(until) {
        for _ in 0..16 {
            let answer = call(&mut contender.app, request(case, requests)).await;
            admitted += u64::from(answer.status() == StatusCode::OK);
            requests += 1;
            let body = to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
            std::hint::black_box(body);
        }
    }
    let nanos = cpu.elapsed().as_nanos() as f64 / requests as f64;
    Turn { nanos, requests, admitted }
}

async fn call(app: &mut Router, request: Request<Body>) -> Response<Body> {
    match app.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// As a server hands it over.
fn request(case: Case, number: u64) -> Request<Body> {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711));
    let mut request = Request::get("/").header("host", "localhost");
    if case.has_many_keys {
        let key = number % u64::from(KEYS);
        request = request.header("x-forwarded-for", format!("10.0.{}.{}", key / 100, key % 100));
    }
    request.extension(ConnectInfo(peer)).body(Body::empty()).expect("a request")
}

#[allow(clippy::cast_precision_loss)] // counts
fn print(case: Case, contenders: &[Contender], scores: &[Score]) {
    println!("| **{}** | | | | |", case.name);
    for (contender, score) in contenders.iter().zip(scores) {
        let against = |other: &Score, compare: &dyn Fn(f64, f64) -> f64| {
            median(score.nanos.iter().zip(&other.nanos).map(|(own, other)| compare(*own, *other)))
        };
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.4} |",
            contender.name,
            median(score.nanos.iter().copied()) / 1e3,
            against(&scores[0], &|own, bare| own - bare) / 1e3,
            against(&scores[PEER], &|own, peer| own / peer),
            score.admitted as f64 / score.requests as f64,
        );
    }
}
