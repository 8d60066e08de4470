//! A server whose limits can be watched: one resource, a limit for each user, and an endpoint for Prometheus.
//!
//! `cargo run --release --features web --example prometheus` makes some requests, scrapes itself and prints what
//! Prometheus would see. With an address, as in `... --example prometheus -- 127.0.0.1:3000`, it serves until it is
//! stopped; `docs/grafana/tollgate.json` is a dashboard for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::metrics::Exporter;
use tollgate::{Limit, MemoryLimiter};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Seconds: from a wait that nobody notices to one that is too long.
const WAIT_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

struct App {
    limiter: MemoryLimiter,
    exporter: Exporter,
    prometheus: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1);

    // The recorder first, then the exporter.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("tollgate_wait_seconds".into()), &WAIT_SECONDS)?
        .install_recorder()?;
    let limiter = MemoryLimiter::new();
    limiter.configure("database", Limit::per_second(50).burst(10).max_in_flight(20))?;
    limiter.per_key("user:", Limit::per_second(5))?;
    let exporter = Exporter::new(&limiter);
    let app = Arc::new(App { limiter, exporter, prometheus });

    let router = Router::new()
        .route("/hello/{user}", get(hello))
        .route("/metrics", get(metrics))
        .with_state(app);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let bound = listener.local_addr()?;
    println!("http://{bound}/hello/ann, http://{bound}/metrics");
    let server = async { axum::serve(listener, router).await };
    if address.is_some() {
        return Ok(server.await?);
    }
    tokio::spawn(server);
    demonstrate(&bound.to_string()).await
}

/// One request: a token of its user, or 429; and then a permit of the database, for which it waits.
async fn hello(State(app): State<Arc<App>>, Path(user): Path<String>) -> (StatusCode, String) {
    if let Err(error) = app.limiter.check(&format!("user:{user}")) {
        return (StatusCode::TOO_MANY_REQUESTS, error.to_string());
    }
    match app.limiter.acquire("database").timeout(Duration::from_secs(1)).await {
        Ok(_permit) => (StatusCode::OK, format!("hello, {user}")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// What has been counted is told at each scrape.
async fn metrics(State(app): State<Arc<App>>) -> String {
    app.exporter.update();
    app.prometheus.run_upkeep();
    app.prometheus.render()
}

/// Eight users make nine requests each, at once.
async fn demonstrate(server: &str) -> Result<(), Error> {
    let mut requests = tokio::task::JoinSet::new();
    for request in 0..72 {
        let (server, path) = (server.to_string(), format!("/hello/{}", request % 8));
        requests.spawn(async move { fetch(&server, &path).await });
    }
    while let Some(request) = requests.join_next().await {
        request??;
    }
    let scraped = fetch(server, "/metrics").await?;
    for line in scraped.lines().filter(|line| line.starts_with("tollgate_")) {
        println!("{line}");
    }
    Ok(())
}

async fn fetch(server: &str, path: &str) -> Result<String, Error> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
