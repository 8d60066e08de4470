//! At several times the limit, what a server admits is within it by the server's own log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use bytes::Bytes;
use http::{Response, StatusCode};
use tollgate::tower::server::{Key, RateLimitLayer, Rule};
use tollgate::{Limit, MemoryLimiter};

use super::admissions::{Bound, Log, assert_within};
use super::{Client, serve};

const HOSTS: u8 = 8;
const PER_IP: Bound = (40, 20);
const ALL: Bound = (200, 50);

pub(super) fn limit((rate, burst): Bound) -> Limit {
    Limit::per_second(rate).burst(burst)
}

/// A limit for each address, and one for all.
pub(super) fn layer(limiter: &MemoryLimiter, per_ip: Limit, all: Limit) -> RateLimitLayer {
    RateLimitLayer::builder(limiter)
        .peer_addr(|ConnectInfo(addr): &ConnectInfo<SocketAddr>| *addr)
        .rule(Rule::new("per-ip", per_ip).per(Key::peer_ip()))
        .rule(Rule::new("all", all))
        .build()
        .expect("a valid layer")
}

/// After how many seconds to come again, of an answer that must be a refusal.
pub(super) fn retry_after(answer: &Response<Bytes>) -> u64 {
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    let standing = answer.headers()["ratelimit"].to_str().unwrap();
    assert!(standing.contains("r=0"), "{standing}");
    seconds
}

/// Sends requests at once after each other; returns how many were admitted and refused.
pub(super) async fn press(server: SocketAddr, host: u8, until: Instant) -> (usize, usize) {
    let mut client = Client::connect(host, server).await;
    let (mut admitted, mut refused) = (0, 0);
    while Instant::now() < until {
        let answer = client.call(super::get("/", &[])).await;
        assert!(answer.headers().contains_key("ratelimit-policy"));
        if answer.status() == StatusCode::OK {
            admitted += 1;
        } else {
            retry_after(&answer);
            refused += 1;
        }
    }
    (admitted, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_admitted_is_within_the_limits() {
    let (log, limiter) = Log::new();
    let routes = Router::new().route("/", get(|| async { "hello" }));
    let server = serve(log.behind(layer(&limiter, limit(PER_IP), limit(ALL)), routes)).await;

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
    let log = log.take();
    assert_eq!(admitted, log.len());
    println!("{admitted} admitted, {refused} refused");
    assert_within(&log, ALL, "all");
    for host in 1..=HOSTS {
        let own: Vec<_> = log.iter().filter(|admission| admission.host == host).copied().collect();
        assert_within(&own, PER_IP, &format!("127.0.0.{host}"));
    }
}
