//! The tower layer for clients, around the clients that people use, and against a server over HTTP.

mod hyper_util;
mod middleware;
mod page;
mod reqwest;
mod stack;
mod tonic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use tokio::net::TcpListener;
use tollgate::{Limit, MemoryLimiter, Resource};

/// Gemini's wait, which is in the body alone.
const RETRY_INFO: &str = r#"[{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"30s"}]}}]"#;

/// A server, and how many requests it got.
struct Upstream {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        let received = Arc::new(AtomicUsize::new(0));
        let routes = Router::new()
            .route("/ok", get(async || ([("x-ratelimit-remaining-requests", "40")], "hello")))
            .route(
                "/refused",
                get(async || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")])),
            )
            .route("/gemini", get(gemini))
            .route("/busy-once", get(busy_once))
            .route("/endless", get(endless))
            .route("/silent", get(std::future::pending::<()>))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&received), count))
            .with_state(Arc::clone(&received));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, received }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

type Received = State<Arc<AtomicUsize>>;

async fn count(
    State(received): Received,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    received.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

/// A refusal whose body comes in two parts, the second a while later.
async fn gemini() -> Response {
    let (start, rest) = RETRY_INFO.split_at(40);
    let rest = async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rest
    };
    let parts = stream::once(async move { start }).chain(stream::once(rest));
    let body = Body::from_stream(parts.map(Ok::<_, std::io::Error>));
    (StatusCode::TOO_MANY_REQUESTS, body).into_response()
}

/// Refuses the first request.
async fn busy_once(State(received): Received) -> Response {
    match received.load(Ordering::Relaxed) {
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "50")]).into_response(),
        _ => "hello".into_response(),
    }
}

async fn endless() -> Response {
    let word = Ok::<_, std::io::Error>(Bytes::from_static(b"word "));
    Body::from_stream(stream::repeat_with(move || {
        Ok::<_, std::io::Error>(word.as_ref().unwrap().clone())
    }))
    .into_response()
}

/// `requests` and `tokens`, of which nothing comes back while a test runs.
fn resources() -> (MemoryLimiter, Resource, Resource) {
    let limiter = MemoryLimiter::new();
    let requests = limiter.configure("requests", Limit::per_day(100)).unwrap();
    let tokens = limiter.configure("tokens", Limit::per_day(10_000)).unwrap();
    (limiter, requests, tokens)
}

fn in_flight(resource: &Resource) -> u64 {
    resource.capacity().in_flight
}

fn is_paused(resource: &Resource) -> bool {
    resource.capacity().paused_until.is_some_and(|rest| rest > Duration::from_secs(10))
}
