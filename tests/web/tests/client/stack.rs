//! The layer in a stack of tower's layers.

use std::future::{Ready, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tollgate::tower::client::ClientLayer;
use tower::retry::Policy;
use tower::timeout::error::Elapsed;
use tower::{ServiceBuilder, ServiceExt};

use crate::hyper_util::{client, get};
use crate::{Upstream, in_flight, resources};

#[derive(Clone)]
struct WhileRefused;

impl<B, E> Policy<Request<Empty<bytes::Bytes>>, Response<B>, E> for WhileRefused {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Empty<bytes::Bytes>>,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Ready<()>> {
        let is_refused = matches!(result, Ok(response) if response.status() == 429);
        is_refused.then(|| ready(()))
    }

    fn clone_request(
        &mut self,
        request: &Request<Empty<bytes::Bytes>>,
    ) -> Option<Request<Empty<bytes::Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn timeouts_retries_and_load_shedding_around_it() {
    let upstream = Upstream::start().await;
    let limiter = tollgate::MemoryLimiter::new();
    let api = limiter.configure("api", tollgate::Limit::per_second(100)).unwrap();
    let client = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(10)
        .timeout(Duration::from_secs(100))
        .retry(WhileRefused)
        .layer(ClientLayer::new(api.clone()).backpressure())
        .timeout(Duration::from_secs(50))
        .service(client());
    let response = client.oneshot(get(upstream.url("busy-once"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.received(), 2, "each attempt is sent once");
    assert_eq!(in_flight(&api), 1);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(in_flight(&api), 0);
    assert!(api.capacity().burst < 100, "the refusal was read");
}

#[tokio::test]
async fn a_timeout_on_either_side_ends_the_permit() {
    let upstream = Upstream::start().await;
    let short = Duration::from_millis(50);
    for is_outside in [true, false] {
        let (_limiter, requests, _tokens) = resources();
        let layer = ClientLayer::new(requests.clone());
        let is_elapsed = if is_outside {
            let client = ServiceBuilder::new().timeout(short).layer(layer).service(client());
            let error = client.oneshot(get(upstream.url("silent"))).await.unwrap_err();
            error.is::<Elapsed>()
        } else {
            let client = ServiceBuilder::new().layer(layer).timeout(short).service(client());
            let error = client.oneshot(get(upstream.url("silent"))).await.unwrap_err();
            matches!(error, tollgate::tower::client::ClientError::Service(error) if error.is::<Elapsed>())
        };
        assert!(is_elapsed);
        assert_eq!((in_flight(&requests), requests.capacity().available), (0, 99));
    }
}
