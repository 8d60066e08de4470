//! However a request ends, it is no longer in flight.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tollgate::tower::server::{RateLimitLayer, Rule};
use tollgate::{Limit, MemoryLimiter};
use tower::Layer;

use super::{Client, serve};

const LONG: Duration = Duration::from_secs(60);

/// A body that sends a part, and then nothing for long.
fn endless() -> Body {
    let first = futures_util::stream::once(async { Ok::<_, Infallible>(Bytes::from("part")) });
    let rest = futures_util::stream::once(async {
        tokio::time::sleep(LONG).await;
        Ok(Bytes::from("rest"))
    });
    Body::from_stream(first.chain(rest))
}

async fn panics() -> StatusCode {
    panic!("a handler's panic, which the test wants")
}

async fn with_timeout(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(Duration::from_millis(20), next.run(request)).await;
    answer.unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response())
}

fn layer(limiter: &MemoryLimiter) -> RateLimitLayer {
    let limit = Limit::per_day(1_000).max_in_flight(100);
    RateLimitLayer::builder(limiter).rule(Rule::new("api", limit)).build().unwrap()
}

async fn server(limiter: &MemoryLimiter) -> SocketAddr {
    let slow = || async { tokio::time::sleep(LONG).await };
    let timed = Router::new()
        .route("/timeout", get(slow))
        .route_layer(layer(limiter))
        .layer(middleware::from_fn(with_timeout));
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/endless", get(|| async { endless() }))
        .route("/panic", get(panics))
        .route("/hello", get(|| async { "hello" }))
        .layer(layer(limiter))
        .merge(timed);
    serve(app).await
}

/// Waits until this many are in flight.
async fn reaches(limiter: &MemoryLimiter, n: u64) {
    let in_flight = || limiter.capacity("api").unwrap().in_flight;
    let reached = async {
        while in_flight() != n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(LONG / 2, reached).await;
    assert!(waited.is_ok(), "{} in flight, not {n}", in_flight());
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer() {
    let limiter = MemoryLimiter::new();
    let server = server(&limiter).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(1, server).await;
        clients.push(tokio::spawn(async move { client.call(super::get("/slow", &[])).await }));
    }
    reaches(&limiter, 5).await;
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    reaches(&limiter, 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_within_the_body() {
    let limiter = MemoryLimiter::new();
    let server = server(&limiter).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(1, server).await;
        let mut answer = client.send(super::get("/endless", &[])).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let part = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "part");
        answers.push((client, answer));
    }
    assert_eq!(limiter.capacity("api").unwrap().in_flight, 5, "the bodies have not ended");
    drop(answers);
    reaches(&limiter, 0).await;
}

#[tokio::test]
async fn a_handler_that_panics() {
    let limiter = MemoryLimiter::new();
    let server = server(&limiter).await;
    for _ in 0..5 {
        let mut client = Client::connect(1, server).await;
        assert!(client.0.send_request(super::get("/panic", &[])).await.is_err());
    }
    reaches(&limiter, 0).await;
    assert!(limiter.capacity("api").unwrap().available < 1_000);
}

#[tokio::test]
async fn a_timeout_outside_of_the_layer() {
    let limiter = MemoryLimiter::new();
    let server = server(&limiter).await;
    let mut client = Client::connect(1, server).await;
    for _ in 0..3 {
        let answer = client.call(super::get("/timeout", &[])).await;
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(limiter.capacity("api").unwrap().in_flight, 0);
    }
}

#[tokio::test]
async fn an_answer_that_was_read_to_its_end() {
    let limiter = MemoryLimiter::new();
    let server = server(&limiter).await;
    let mut client = Client::connect(1, server).await;
    let answer = client.call(super::get("/hello", &[])).await;
    assert_eq!(answer.body(), "hello");
    assert_eq!(answer.headers()["ratelimit-policy"], r#""api";q=1000;w=86400"#);
    reaches(&limiter, 0).await;
}

/// The same in hyper, without axum.
#[tokio::test]
async fn a_server_of_hyper() {
    let limiter = MemoryLimiter::new();
    let service = layer(&limiter).layer(tower::service_fn(
        |request: http::Request<hyper::body::Incoming>| async move {
            let path = request.uri().path();
            let mut response = http::Response::new("hello".into());
            if path != "/hello" {
                *response.body_mut() = endless();
            }
            if path == "/unmodified" {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            Ok::<_, Infallible>(response)
        },
    ));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let mut client = Client::connect(1, server).await;
    assert_eq!(client.call(super::get("/hello", &[])).await.body(), "hello");
    let answer = client.send(super::get("/endless", &[])).await;
    reaches(&limiter, 1).await;
    drop((client, answer));
    reaches(&limiter, 0).await;

    // A body that is never sent.
    let mut head = super::get("/endless", &[]);
    *head.method_mut() = http::Method::HEAD;
    for request in [head, super::get("/unmodified", &[])] {
        let mut client = Client::connect(1, server).await;
        assert_eq!(client.call(request).await.body(), "");
        reaches(&limiter, 0).await;
    }
    assert_eq!(limiter.capacity("api").unwrap().available, 1_000 - 4);
}
