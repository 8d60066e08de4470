//! What clients write into `X-Forwarded-For` and `Forwarded` evades nothing.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http::StatusCode;
use tollgate::tower::server::{Key, RateLimitLayer, Rule, TrustedProxies};
use tollgate::{Limit, ManualClock, MemoryLimiter};

use super::{Client, serve};

const BURST: usize = 5;

/// A server behind a proxy at 127.0.0.1. Its clock stands still, so that a client has its burst and no more.
async fn server(key: fn(TrustedProxies) -> Key, hops: bool) -> (SocketAddr, MemoryLimiter) {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    let proxies = if hops {
        TrustedProxies::hops(1)
    } else {
        TrustedProxies::networks(["127.0.0.1/32".parse().unwrap()])
    };
    let layer = RateLimitLayer::builder(&limiter)
        .peer_addr(|ConnectInfo(addr): &ConnectInfo<SocketAddr>| *addr)
        .rule(Rule::new("per-ip", Limit::per_minute(BURST as u64)).per(key(proxies)))
        .build()
        .unwrap();
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layer);
    (serve(app).await, limiter)
}

/// The header lines of the `n`th try.
type Forgery = fn(usize) -> Vec<String>;

const X_FORWARDED_FOR: [(&str, Forgery); 8] = [
    ("nothing", |_| vec![]),
    ("another address each time", |n| vec![format!("10.0.0.{n}")]),
    ("a long list", |n| vec![format!("10.0.0.{n}, ").repeat(100) + "::1"]),
    ("several lines", |n| (0..3).map(|i| format!("10.0.{i}.{n}")).collect()),
    ("the proxy's own address", |n| vec![format!("10.0.0.{n}, 127.0.0.1")]),
    ("IPv6, ports and brackets", |n| vec![format!("[2001:db8:{n}::1]:80, 10.0.0.{n}:443")]),
    ("malformed", |n| vec![format!("unknown, 10.0.0.{n}, , \"1.2.3.4, 999.1.1.1, {n}")]),
    ("empty and spaces", |n| vec![String::new(), " ".repeat(n), ",,,".into()]),
];

const FORWARDED: [(&str, Forgery); 6] = [
    ("another address each time", |n| vec![format!("for=10.0.0.{n}")]),
    ("several lines", |n| (0..3).map(|i| format!("for=10.0.{i}.{n}")).collect()),
    ("an open quote", |n| vec![format!("for=\"10.0.0.{n}")]),
    ("an escape", |n| vec![format!("for=\"10.0.0.{n}\\")]),
    ("a quoted list", |n| vec![format!("for=10.0.0.{n};host=\"a, for=10.1.0.{n}\"")]),
    ("two of them", |n| vec![format!("for=10.0.0.{n};for=10.1.0.{n}")]),
];

/// How many of twenty requests with such headers are admitted, of a client that a proxy names or that comes itself.
async fn admitted(
    server: SocketAddr,
    from: u8,
    name: &'static str,
    forge: Forgery,
    appended: Option<&str>,
) -> usize {
    let mut client = Client::connect(from, server).await;
    let mut admitted = 0;
    for n in 0..20 {
        let mut lines = forge(n);
        if let Some(own) = appended {
            // Some proxies append to the last line, others add one.
            match lines.last_mut().filter(|_| n % 2 == 0) {
                Some(last) => last.extend([", ", own]),
                None => lines.push(own.to_string()),
            }
        }
        let headers: Vec<_> = lines.into_iter().map(|line| (name, line)).collect();
        let answer = client.call(super::get("/", &headers)).await;
        match answer.status() {
            StatusCode::OK => admitted += 1,
            status => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                assert!(answer.headers().contains_key("retry-after"));
            }
        }
    }
    admitted
}

async fn evades_nothing(
    key: fn(TrustedProxies) -> Key,
    name: &'static str,
    forgeries: &[(&str, Forgery)],
    appended: &str,
) {
    for (how, forge) in forgeries {
        for hops in [false, true] {
            let (server, limiter) = server(key, hops).await;
            let admitted = admitted(server, 1, name, *forge, Some(appended)).await;
            assert_eq!(admitted, BURST, "{how}, through the proxy, hops: {hops}");
            let keys = limiter.keys("per-ip:");
            assert_eq!(keys.len(), 1, "{how}: {keys:?}");
            assert_eq!(keys[0].resource, "per-ip:203.0.113.9", "{how}");
        }
        let (server, _limiter) = server(key, false).await;
        let direct = admitted(server, 2, name, *forge, None).await;
        assert_eq!(direct, BURST, "{how}, past the proxy");
    }
}

#[tokio::test]
async fn x_forwarded_for() {
    let own = "203.0.113.9";
    evades_nothing(Key::x_forwarded_for, "x-forwarded-for", &X_FORWARDED_FOR, own).await;
}

#[tokio::test]
async fn forwarded() {
    let own = "for=\"203.0.113.9:4711\";host=\"a\\\", for=10.9.9.9\"";
    evades_nothing(Key::forwarded, "forwarded", &FORWARDED, own).await;
}

#[tokio::test]
async fn each_address_has_its_own_limit() {
    let (server, limiter) = server(|_| Key::peer_ip(), false).await;
    for host in 1..=3 {
        let admitted = admitted(server, host, "x-forwarded-for", |_| vec![], None).await;
        assert_eq!(admitted, BURST);
    }
    assert_eq!(limiter.key_count("per-ip:"), 3);
}
