//! The client of hyper-util, which is a service as it is.

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tollgate::tower::client::{ClientLayer, ClientService};
use tower::{Layer, ServiceExt};

use crate::{RETRY_INFO, Upstream, in_flight, is_paused, resources};

type Body = Empty<bytes::Bytes>;

pub(crate) fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn get(url: String) -> Request<Body> {
    Request::get(url).body(Body::new()).unwrap()
}

fn limited(
    layer: &ClientLayer<Request<Body>>,
) -> ClientService<Client<HttpConnector, Body>, Request<Body>> {
    layer.layer(client())
}

#[tokio::test]
async fn the_wait_in_a_body_pauses_and_the_body_is_whole() {
    let upstream = Upstream::start().await;
    let (_limiter, requests, _tokens) = resources();
    let client = limited(&ClientLayer::new(requests.clone()));
    let response = client.oneshot(get(upstream.url("gemini"))).await.unwrap();
    assert!(is_paused(&requests));
    assert_eq!(in_flight(&requests), 1);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, RETRY_INFO);
    assert_eq!(in_flight(&requests), 0);
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_no_longer_in_flight() {
    let upstream = Upstream::start().await;
    let (_limiter, requests, _tokens) = resources();
    let client = limited(&ClientLayer::new(requests.clone()));
    let mut body = client.oneshot(get(upstream.url("endless"))).await.unwrap().into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().unwrap().is_data());
    }
    assert_eq!(in_flight(&requests), 1);
    drop(body);
    assert_eq!((in_flight(&requests), requests.capacity().available), (0, 99));
}
