//! The layer for servers, in axum, hyper and tonic over loopback connections.

mod admissions;
mod forged;
mod grpc;
mod in_flight;
mod load;
mod wrk;

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};

/// Serves on a port of 127.0.0.1, with the peers' addresses as axum tells them.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// A connection from 127.0.0.`host`.
struct Client(SendRequest<Body>);

impl Client {
    async fn connect(host: u8, server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).expect("a loopback address");
        let stream = socket.connect(server).await.expect("a connection");
        let io = TokioIo::new(stream);
        let (send, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
        tokio::spawn(connection);
        Self(send)
    }

    async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.0.ready().await.expect("an open connection");
        self.0.send_request(request).await.expect("an answer")
    }

    /// The answer with its whole body.
    async fn call(&mut self, request: Request<Body>) -> Response<Bytes> {
        let (parts, body) = self.send(request).await.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Response::from_parts(parts, body)
    }
}

fn get(path: &str, headers: &[(&'static str, String)]) -> Request<Body> {
    let mut request = Request::get(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(Body::empty()).expect("a request")
}
