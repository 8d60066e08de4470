//! What is compared: one route of axum's, bare and behind each layer.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tollgate::tower::server::{Key, RateLimitLayer, Rule, TrustedProxies};
use tollgate::{Limit, MemoryLimiter};
use tower_governor::GovernorLayer;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};
use tower_governor::key_extractor::{KeyExtractor, PeerIpKeyExtractor, SmartIpKeyExtractor};

/// Clients, when there are many.
pub(crate) const KEYS: u32 = 10_000;

/// What a server is asked, and how it answers.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Requests come from `KEYS` clients, as a proxy names them in `X-Forwarded-For`; or else from one peer.
    pub(crate) has_many_keys: bool,
    /// The limit is far above what is asked; or else one request an hour.
    pub(crate) admits: bool,
}

pub(crate) const CASES: [Case; 4] = [
    Case { name: "one key, admitted", has_many_keys: false, admits: true },
    Case { name: "one key, refused", has_many_keys: false, admits: false },
    Case { name: "10,000 keys, admitted", has_many_keys: true, admits: true },
    Case { name: "10,000 keys, refused", has_many_keys: true, admits: false },
];

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) app: Router,
}

/// The peer that ratios are to, by its place in what [`contenders`] returns.
pub(crate) const PEER: usize = 1;

/// The bare route; then `tower_governor` as it comes, which writes headers into refusals alone; then with headers in
/// all answers, as tollgate does by default.
pub(crate) fn contenders(case: Case) -> Vec<Contender> {
    let route = || Router::new().route("/", get(async || "hello"));
    let governed = if case.has_many_keys {
        governed(case, SmartIpKeyExtractor, &route)
    } else {
        governed(case, PeerIpKeyExtractor, &route)
    };
    let [plain, with_headers] = governed;
    let ours = |writes_headers| route().layer(layer(case, writes_headers));
    vec![
        Contender { name: "bare route", app: route() },
        Contender { name: "tower_governor", app: plain },
        Contender { name: "tower_governor, headers", app: with_headers },
        Contender { name: "tollgate", app: ours(true) },
        Contender { name: "tollgate, no headers", app: ours(false) },
    ]
}

fn governed<K>(case: Case, key: K, route: &impl Fn() -> Router) -> [Router; 2]
where
    K: KeyExtractor<Key: Send + Sync> + Send + Sync + 'static,
{
    let mut builder = GovernorConfigBuilder::default().key_extractor(key);
    if case.admits {
        builder.period(Duration::from_micros(1)).burst_size(1_000_000);
    } else {
        builder.period(Duration::from_hours(1)).burst_size(1);
    }
    let plain: GovernorConfig<_, _> = builder.finish().expect("a limit above 0");
    let with_headers = builder.use_headers().finish().expect("a limit above 0");
    [route().layer(GovernorLayer::new(plain)), route().layer(GovernorLayer::new(with_headers))]
}

fn layer(case: Case, writes_headers: bool) -> RateLimitLayer {
    let limit = if case.admits {
        Limit::per_second(1_000_000).burst(1_000_000)
    } else {
        Limit::per_hour(1).burst(1)
    };
    let key = if case.has_many_keys {
        Key::x_forwarded_for(TrustedProxies::hops(1))
    } else {
        Key::peer_ip()
    };
    let mut builder = RateLimitLayer::builder(&MemoryLimiter::new())
        .peer_addr(|ConnectInfo(address): &ConnectInfo<SocketAddr>| *address)
        .rule(Rule::new("per-ip", limit).per(key));
    if !writes_headers {
        builder = builder.no_headers();
    }
    builder.build().expect("a valid layer")
}
