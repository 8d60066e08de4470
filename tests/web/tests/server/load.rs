//! At several times the limit, what a server admits is within it by the server's own log.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use tollgate::tower::server::{Key, RateLimitLayer, Rule};
use tollgate::{Limit, MemoryLimiter};

use super::{Client, serve};

const HOSTS: u8 = 8;
/// Rates a second, and bursts.
const PER_IP: (u64, u64) = (40, 20);
const ALL: (u64, u64) = (200, 50);

/// When a request came to the layer.
#[derive(Clone, Copy)]
struct Arrived(Instant);

/// An admission lies between the two readings.
#[derive(Clone, Copy)]
struct Admission {
    host: u8,
    arrived: Instant,
    handled: Instant,
}

type Log = Arc<Mutex<Vec<Admission>>>;

async fn note_arrival(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Arrived(Instant::now()));
    next.run(request).await
}

async fn handle(
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(log): Extension<Log>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> &'static str {
    let handled = Instant::now();
    let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
    let host = peer.ip().octets()[3];
    log.lock().unwrap().push(Admission { host, arrived, handled });
    "hello"
}

/// In each window, those that lie in it are at most `burst + rate x time`, and one for the clocks' difference. A log
/// that is late only makes windows longer: what the test says holds on a busy machine too.
fn assert_within(log: &[Admission], (rate, burst): (u64, u64), what: &str) {
    for first in log {
        let mut inside: Vec<_> = log
            .iter()
            .filter(|admission| admission.arrived >= first.arrived)
            .map(|admission| admission.handled)
            .collect();
        inside.sort();
        for (index, end) in inside.iter().enumerate() {
            let (admitted, window) = (index as u64 + 1, end.duration_since(first.arrived));
            let accrued = u128::from(rate) * window.as_nanos() / 1_000_000_000;
            let is_within = u128::from(admitted) <= u128::from(burst) + accrued + 1;
            assert!(is_within, "{what}: {admitted} in {window:?}");
        }
    }
}

/// How many were admitted and refused.
async fn press(server: SocketAddr, host: u8, until: Instant) -> (u64, u64) {
    let mut client = Client::connect(host, server).await;
    let (mut admitted, mut refused) = (0, 0);
    while Instant::now() < until {
        let answer = client.call(super::get("/", &[])).await;
        assert!(answer.headers().contains_key("ratelimit-policy"));
        match answer.status() {
            StatusCode::OK => admitted += 1,
            status => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                let retry_after = answer.headers()["retry-after"].to_str().unwrap();
                assert!(retry_after.parse::<u64>().unwrap() >= 1);
                let standing = answer.headers()["ratelimit"].to_str().unwrap();
                assert!(standing.contains("r=0"), "{standing}");
                refused += 1;
            }
        }
    }
    (admitted, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_admitted_is_within_the_limits() {
    let limiter = MemoryLimiter::new();
    let limit = |(rate, burst): (u64, u64)| Limit::per_second(rate).burst(burst);
    let layer = RateLimitLayer::builder(&limiter)
        .peer_addr(|ConnectInfo(addr): &ConnectInfo<SocketAddr>| *addr)
        .rule(Rule::new("per-ip", limit(PER_IP)).per(Key::peer_ip()))
        .rule(Rule::new("all", limit(ALL)))
        .build()
        .unwrap();
    let log = Log::default();
    let app = Router::new()
        .route("/", get(handle))
        .layer(layer)
        .layer(middleware::from_fn(note_arrival))
        .layer(Extension(Arc::clone(&log)));
    let server = serve(app).await;

    let until = Instant::now() + Duration::from_secs(2);
    let tasks: Vec<_> = (1..=HOSTS)
        .flat_map(|host| [host, host])
        .map(|host| tokio::spawn(press(server, host, until)))
        .collect();
    let (mut admitted, mut refused) = (0, 0);
    for task in tasks {
        let (more_admitted, more_refused) = task.await.unwrap();
        admitted += more_admitted;
        refused += more_refused;
    }
    let log = log.lock().unwrap();
    assert_eq!(admitted, log.len() as u64);
    println!("{admitted} admitted, {refused} refused");
    assert_within(&log, ALL, "all");
    for host in 1..=HOSTS {
        let own: Vec<_> = log.iter().filter(|admission| admission.host == host).copied().collect();
        assert_within(&own, PER_IP, &format!("127.0.0.{host}"));
    }
}
