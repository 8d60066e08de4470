//! What a client of tonic gets from a server of tonic behind the layer.

use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use tokio::net::TcpListener;
use tollgate::tower::server::{Decisions, Key, RateLimitLayer, Rule};
use tollgate::{Limit, ManualClock, MemoryLimiter};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use tower::Service;

/// Messages are bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Answers with what was asked.
#[derive(Clone)]
struct Echo {
    saw_decisions: Arc<AtomicBool>,
}

impl Service<Request<Vec<u8>>> for Echo {
    type Response = Response<Vec<u8>>;
    type Error = Status;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let has_decisions = request.extensions().get::<Decisions>().is_some();
        self.saw_decisions.store(has_decisions, Ordering::Relaxed);
        ready(Ok(Response::new(request.into_inner())))
    }
}

async fn serve(limiter: &MemoryLimiter, saw_decisions: Arc<AtomicBool>) -> SocketAddr {
    let layer = RateLimitLayer::builder(limiter)
        .peer_addr(|connection: &TcpConnectInfo| connection.remote_addr())
        .rule(Rule::new("per-ip", Limit::per_minute(40).burst(2)).per(Key::peer_ip()))
        .rule(Rule::new("all", Limit::per_second(100).max_in_flight(1)))
        .build()
        .unwrap();
    let echo = Echo { saw_decisions };
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let echo = echo.clone();
        async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok::<_, std::convert::Infallible>(grpc.unary(echo, request).await)
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener);
    let server = Server::builder().layer(layer).serve_with_incoming(service, incoming);
    tokio::spawn(server);
    address
}

#[tokio::test]
async fn a_refused_call_is_resource_exhausted_with_retry_info() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let saw_decisions = Arc::new(AtomicBool::new(false));
    let address = serve(&limiter, Arc::clone(&saw_decisions)).await;
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    let mut call = async || {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Call");
        client.unary(Request::new(b"hello".to_vec()), path, Raw).await
    };
    for _ in 0..2 {
        let answer = call().await.unwrap();
        assert!(answer.metadata().contains_key("ratelimit"));
        assert_eq!(answer.into_inner(), b"hello");
    }
    assert!(saw_decisions.load(Ordering::Relaxed));
    assert_eq!(limiter.capacity("per-ip:127.0.0.1").unwrap().available, 0);

    let status = call().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "The limit \"per-ip\" is exhausted. Try again in 2 seconds.");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_millis(1_500), "not rounded");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "2");

    time.advance(wait);
    call().await.unwrap();

    time.advance(LONG);
    let permit = limiter.try_acquire("all").unwrap();
    let status = call().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    drop(permit);
    call().await.unwrap();
    limiter.close();
    assert_eq!(call().await.unwrap_err().code(), Code::Unavailable);
}

const LONG: Duration = Duration::from_secs(3_600);
