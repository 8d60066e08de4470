//! A minute of wrk at many times the limit, beside clients from other addresses: `scripts/deep.sh door`.
//!
//! wrk cannot choose the address that it calls from, so it is 127.0.0.1; the others are clients of these tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use futures_util::StreamExt;
use http::StatusCode;
use tollgate::MemoryLimiter;
use tollgate::tower::server::{Key, RateLimitLayer, Rule};

use super::admissions::{Bound, Log, assert_within};
use super::load::{layer, limit, press, retry_after};
use super::{Client, serve};

const SECONDS: u64 = 60;
const PER_IP: Bound = (50, 20);
const ALL: Bound = (150, 60);
/// That of the route `/own`, where nothing but a client's own limit refuses.
const OWN: Bound = (2, 3);
/// More than there are connections: it counts, and refuses nothing.
const CONNECTIONS: u64 = 1_000;

/// Who calls from which address.
const WRK: u8 = 1;
const PRESSING: std::ops::RangeInclusive<u8> = 2..=5;
const ABORTING: u8 = 6;
const OBEDIENT: u8 = 7;

/// A part, and the rest after a while.
fn slow() -> Body {
    let first = futures_util::stream::once(async { Ok::<_, Infallible>("part") });
    let rest = futures_util::stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok("rest")
    });
    Body::from_stream(first.chain(rest))
}

fn app(log: &Log, limiter: &MemoryLimiter) -> Router {
    let counted = |bound| limit(bound).max_in_flight(CONNECTIONS);
    let own = RateLimitLayer::builder(limiter)
        .peer_addr(|ConnectInfo(addr): &ConnectInfo<SocketAddr>| *addr)
        .rule(Rule::new("own", counted(OWN)).per(Key::peer_ip()))
        .build()
        .unwrap();
    let routes =
        Router::new().route("/", get(async || "hello")).route("/slow", get(async || slow()));
    let own = Router::new().route("/own", get(async || "hello")).layer(own);
    log.behind(layer(limiter, counted(PER_IP), counted(ALL)), routes).merge(own)
}

/// Goes away within the body of each answer. Returns how many were admitted.
async fn abort(server: SocketAddr, until: Instant) -> usize {
    let mut admitted = 0;
    while Instant::now() < until {
        let mut client = Client::connect(ABORTING, server).await;
        let answer = client.send(super::get("/slow", &[])).await;
        admitted += usize::from(answer.status() == StatusCode::OK);
    }
    admitted
}

/// Obeys `Retry-After`, and is admitted then. Returns how often it was refused.
async fn obey(server: SocketAddr, until: Instant) -> u64 {
    let mut client = Client::connect(OBEDIENT, server).await;
    let mut refused = 0;
    while Instant::now() < until {
        let answer = client.call(super::get("/own", &[])).await;
        if answer.status() == StatusCode::OK {
            continue;
        }
        refused += 1;
        tokio::time::sleep(Duration::from_secs(retry_after(&answer))).await;
        let answer = client.call(super::get("/own", &[])).await;
        assert_eq!(answer.status(), StatusCode::OK, "after Retry-After");
    }
    refused
}

/// wrk's answers: admitted, refused and wrong.
fn wrk(server: SocketAddr) -> [usize; 3] {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/answers.lua");
    let seconds = format!("-d{SECONDS}s");
    let mut wrk = Command::new("wrk");
    let wrk = wrk.args(["-t1", "-c64", &seconds, "-s", script]).arg(format!("http://{server}/"));
    let done = wrk.output().expect("wrk: apt-get install wrk");
    let report = String::from_utf8_lossy(&done.stdout);
    println!("{report}{}", String::from_utf8_lossy(&done.stderr));
    ["admitted", "refused", "wrong"].map(|name| {
        let (_, rest) = report.split_once(&format!("answers {name}: ")).expect("a count");
        rest.lines().next().unwrap_or_default().parse().expect("a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes a minute, and needs wrk: scripts/deep.sh door"]
async fn a_minute_of_wrk() {
    let (log, limiter) = Log::new();
    let server = serve(app(&log, &limiter)).await;
    let start = Instant::now();
    let until = start + Duration::from_secs(SECONDS);
    let from_wrk = tokio::task::spawn_blocking(move || wrk(server));
    let pressing: Vec<_> = PRESSING
        .flat_map(|host| [host, host])
        .map(|host| tokio::spawn(press(server, host, until)))
        .collect();
    let aborting = tokio::spawn(abort(server, until));
    let obedient = tokio::spawn(obey(server, until));

    let [mut admitted, mut refused, wrong] = from_wrk.await.unwrap();
    assert_eq!(wrong, 0, "answers of wrk with a wrong status, or without headers");
    for task in pressing {
        let (more_admitted, more_refused) = task.await.unwrap();
        admitted += more_admitted;
        refused += more_refused;
    }
    admitted += aborting.await.unwrap();
    let obedient = obedient.await.unwrap();
    let took = start.elapsed().as_secs();
    let log = log.take();
    println!("{} admitted by the log, {refused} refused, in {took} s", log.len());
    println!("{obedient} times refused and then admitted, after Retry-After");
    // Of those that wrk sent last, it has not seen the answers.
    assert!((admitted..=admitted + 64).contains(&log.len()), "{admitted} were told so");
    assert!(refused > 2 * log.len(), "several times the limit");
    assert!(obedient > 1);

    assert_within(&log, ALL, "all");
    for host in [WRK, ABORTING].into_iter().chain(PRESSING) {
        let own: Vec<_> = log.iter().filter(|admission| admission.host == host).copied().collect();
        assert!(!own.is_empty(), "127.0.0.{host} got nothing");
        assert_within(&own, PER_IP, &format!("127.0.0.{host}"));
    }
    // And by another clock than the limiter's; it may be off by a thousandth.
    let most = ALL.0 * (took + 1) * 1_001 / 1_000 + ALL.1;
    assert!(log.len() as u64 <= most, "{} in {took} s", log.len());
    assert!(log.len() as u64 > most / 2, "{} in {took} s: it refuses too much", log.len());
    nothing_is_in_flight(&limiter).await;
}

async fn nothing_is_in_flight(limiter: &MemoryLimiter) {
    let hosts = [WRK, ABORTING].into_iter().chain(PRESSING);
    let mut names: Vec<_> = hosts.map(|host| format!("per-ip:127.0.0.{host}")).collect();
    names.extend(["all".to_owned(), format!("own:127.0.0.{OBEDIENT}")]);
    let waiting = Instant::now();
    for name in names {
        // A key that went because it is idle has nothing in flight.
        let in_flight = || limiter.capacity(&name).map_or(0, |capacity| capacity.in_flight);
        while in_flight() > 0 {
            assert!(
                waiting.elapsed() < Duration::from_secs(30),
                "{name}: {} in flight",
                in_flight()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
