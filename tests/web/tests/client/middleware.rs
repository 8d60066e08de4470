//! reqwest-middleware, with a resource and without the layer.

use reqwest_middleware::ClientBuilder;

use crate::{Upstream, in_flight, is_paused, resources};
use snippet::RateLimit;

pub(crate) mod snippet {
    use async_trait::async_trait;
    use http::Extensions;
    use reqwest::{Request, Response};
    use reqwest_middleware::{Error, Middleware, Next, Result};
    use tollgate::Resource;
    use tollgate::http::{Feedback, Profile};

    pub(crate) struct RateLimit(pub(crate) Resource);

    #[async_trait]
    impl Middleware for RateLimit {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> Result<Response> {
            let permit = self.0.acquire().await.map_err(Error::middleware)?;
            let response = next.run(request, extensions).await?;
            let feedback = Feedback::new(Profile::Auto, response.status(), response.headers());
            feedback.apply_to(&self.0, &permit);
            Ok(response) // the permit ends with the head
        }
    }
}

#[tokio::test]
async fn a_middleware_takes_permits_and_reads_answers() {
    let upstream = Upstream::start().await;
    let (_limiter, requests, _tokens) = resources();
    let client =
        ClientBuilder::new(reqwest::Client::new()).with(RateLimit(requests.clone())).build();
    let response = client.get(upstream.url("ok")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!((in_flight(&requests), requests.capacity().available), (0, 40));
    assert_eq!(client.get(upstream.url("refused")).send().await.unwrap().status(), 429);
    assert!(is_paused(&requests));
}
