//! reqwest's client, whose responses are turned into those of `http` and back.

use http::StatusCode;
use tollgate::http::Unit;
use tollgate::tower::client::{ClientError, HeldPermits};
use tower::ServiceExt;

use crate::{Upstream, in_flight, is_paused, resources};

pub(crate) mod snippet {
    use reqwest::{Body, Client, Request, Response, ResponseBuilderExt};
    use tollgate::tower::client::{ClientError, ClientLayer, ResponseBody};
    use tower::{Service, ServiceBuilder};

    /// A client of reqwest within limits.
    pub(crate) fn limited(
        client: Client,
        layer: ClientLayer<Request>,
    ) -> impl Service<Request, Response = Response, Error = ClientError, Future: Send> + Clone {
        ServiceBuilder::new()
            .map_response(|response: http::Response<ResponseBody<Body>>| {
                Response::from(response.map(Body::wrap))
            })
            .layer(layer)
            .map_response(into_http)
            .service(client)
    }

    /// The response with its URL, which the conversion alone would lose.
    fn into_http(response: Response) -> http::Response<Body> {
        let url = http::Response::builder().url(response.url().clone());
        let mut response = http::Response::from(response);
        if let Ok(url) = url.body(()) {
            response.extensions_mut().extend(url.into_parts().0.extensions);
        }
        response
    }
}

#[tokio::test]
async fn a_response_is_what_it_was_and_its_permits_can_be_settled() {
    let upstream = Upstream::start().await;
    let (_limiter, requests, tokens) = resources();
    let http = reqwest::Client::new();
    let layer = tollgate::tower::client::ClientLayer::new(requests.clone()).and(
        tokens.clone(),
        Unit::Tokens,
        |request: &reqwest::Request| request.url().path().len() as u64 * 100,
    );
    let client = snippet::limited(http.clone(), layer);

    let request = http.get(upstream.url("ok")).build().unwrap();
    let response = client.clone().oneshot(request).await.unwrap();
    assert_eq!((response.status(), response.content_length()), (StatusCode::OK, Some(5)));
    assert_eq!(response.url().as_str(), upstream.url("ok"));
    assert_eq!((in_flight(&requests), tokens.capacity().available), (1, 9_700));
    assert_eq!(requests.capacity().available, 40, "what the server says is left");

    let permits = response.extensions().get().and_then(HeldPermits::take).unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    permits.settle(&[("tokens", 120)]).unwrap();
    assert_eq!((in_flight(&requests), tokens.capacity().available), (0, 9_880));

    let request = http.get(upstream.url("ok")).build().unwrap();
    let response = tokio::spawn(client.oneshot(request)).await.unwrap().unwrap();
    drop(response.bytes().await.unwrap());
    assert_eq!(in_flight(&requests), 0, "nobody has taken them");
}

#[tokio::test]
async fn a_refusal_pauses_and_an_error_is_reqwests() {
    let upstream = Upstream::start().await;
    let (_limiter, requests, _tokens) = resources();
    let http = reqwest::Client::new();
    let layer = tollgate::tower::client::ClientLayer::new(requests.clone()).shed();
    let client = snippet::limited(http.clone(), layer);
    let get = |url: String| client.clone().oneshot(http.get(url).build().unwrap());

    let ClientError::Service(error) = get("http://127.0.0.1:1/".into()).await.unwrap_err() else {
        panic!("it was sent");
    };
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_connect());
    assert_eq!(in_flight(&requests), 0);

    assert_eq!(get(upstream.url("refused")).await.unwrap().status(), 429);
    assert!(is_paused(&requests));
    let error = get(upstream.url("ok")).await.unwrap_err();
    assert!(error.is_limited() && error.retry_after().is_some());
    assert_eq!(upstream.received(), 1);
}
