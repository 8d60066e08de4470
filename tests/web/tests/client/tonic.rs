//! A channel of tonic.

use http::Request;
use tollgate::tower::client::{ClientError, ClientLayer};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Channel;
use tower::{Layer, ServiceExt};

use crate::{in_flight, resources};

fn is_grpc(client: impl GrpcService<Body>) -> impl GrpcService<Body> {
    client
}

#[tokio::test]
async fn a_channel_within_limits_is_a_service_for_generated_clients() {
    let (_limiter, requests, _tokens) = resources();
    let channel = Channel::from_static("http://127.0.0.1:1").connect_lazy();
    let channel = ClientLayer::new(requests.clone()).layer(channel);
    drop(is_grpc(channel.clone()));
    let error = channel.oneshot(Request::new(Body::empty())).await.unwrap_err();
    let ClientError::Service(error) = error else { panic!("{error}") };
    assert!(error.is::<tonic::transport::Error>());
    assert_eq!((in_flight(&requests), requests.capacity().available), (0, 99));
}
