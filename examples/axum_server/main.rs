//! An axum server that limits its clients, by address and by API key, and all of them together.
//!
//! ```text
//! cargo run --release --features web --example axum_server
//! curl -i http://127.0.0.1:8080/                        # RateLimit headers; 429 if repeated too fast
//! curl -i -H 'x-api-key: secret' http://127.0.0.1:8080/ # counts for the key too
//! curl -i http://127.0.0.1:8080/slow/5                  # in flight for five seconds
//! curl http://127.0.0.1:8080/metrics                    # for Prometheus
//! ```
//!
//! A request takes a token of each limit that applies to it, or of none: one that the limit of its API key
//! refuses does not use up the limit of its address. `/health` and `/metrics` are not limited; a server on the
//! internet would have them on another port.
//!
//! Behind a proxy, name it: otherwise all clients share the proxy's address, and its limit.
//!
//! ```text
//! cargo run --release --features web --example axum_server -- --trusted-proxies 127.0.0.1,10.0.0.0/8
//! ```
//!
//! On Ctrl-C or SIGTERM the server accepts no more connections, and finishes the requests that it has begun.
//! A second signal ends it at once, and so do requests that are not finished within `--grace` seconds.

mod args;
#[path = "../shared/options.rs"]
mod options;
mod shutdown;

use std::error::Error;
use std::future::ready;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use args::{Args, USAGE};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path};
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::channel::Channel;
use metrics_exporter_prometheus::PrometheusBuilder;
use shutdown::Signals;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tollgate::metrics::Exporter;
use tollgate::tower::server::{Decisions, Key, MissingKey, RateLimitLayer, Rule, TrustedProxies};
use tollgate::{Limit, MemoryLimiter};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return Ok(stop.exit(USAGE)),
    };
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    let limiter = MemoryLimiter::new();
    let exporter = Arc::new(Exporter::new(&limiter));
    let metrics = move || {
        exporter.update();
        ready(prometheus.render())
    };
    let app = Router::new()
        .route("/", get(hello))
        .route("/slow/{seconds}", get(slow))
        .route("/health", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .layer(rate_limit(&args, &limiter)?);

    let (mut first, mut second) = (Signals::listen()?, Signals::listen()?);
    let listener = TcpListener::bind(args.listen).await;
    let listener =
        listener.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    println!("listening on http://{}/", listener.local_addr()?);
    // Without the connection's address in each request, all requests would count as one client's.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(async move {
        first.next().await;
        println!("finishing the requests in flight; a second signal ends them");
    });
    let interrupted = async {
        second.next().await;
        _ = timeout(args.grace, second.next()).await;
    };
    tokio::select! {
        served = serve => served?,
        () = interrupted => return Ok(ExitCode::FAILURE),
    }
    // Whoever still waits for the limiter, such as a background task, is told to stop.
    limiter.close();
    let in_flight = limiter.capacity("all").map_or(0, |capacity| capacity.in_flight);
    println!("stopped with {in_flight} requests in flight");
    Ok(ExitCode::SUCCESS)
}

/// The limits of all routes. All or nothing, and with the headers `RateLimit`, `RateLimit-Policy` and
/// `Retry-After`.
fn rate_limit(args: &Args, limiter: &MemoryLimiter) -> Result<RateLimitLayer, Box<dyn Error>> {
    let per_second = |rate: u32| Limit::per_second(rate.into()).burst(args.burst.into());
    let client = Key::x_forwarded_for(TrustedProxies::networks(args.trusted_proxies.clone()));
    let layer = RateLimitLayer::builder(limiter)
        .peer_addr(|ConnectInfo(address): &ConnectInfo<SocketAddr>| *address)
        .rule(Rule::new("per-ip", per_second(args.rate)).per(client))
        .rule(
            Rule::new("per-api-key", per_second(args.api_key_rate))
                .per(Key::header("x-api-key"))
                .on_missing_key(MissingKey::Skip),
        )
        // What the server itself can take, whoever sends it.
        .rule(Rule::new("all", Limit::per_second(1_000).max_in_flight(200)))
        .skip_if(|request| matches!(request.uri.path(), "/health" | "/metrics"))
        .build()?;
    Ok(layer)
}

async fn hello(Extension(decisions): Extension<Decisions>) -> String {
    let left = decisions.iter().filter_map(|rule| {
        Some(format!("{}: {} left\n", rule.rule, rule.decision.as_ref()?.remaining))
    });
    left.collect()
}

/// In flight until the last part of its body: a permit of the limit `all` is held for as long.
async fn slow(Path(seconds): Path<u8>) -> Body {
    let (mut parts, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        parts.send_data("begun\n".into()).await?;
        sleep(Duration::from_secs(seconds.into())).await;
        parts.send_data("done\n".into()).await
    });
    Body::new(body)
}
