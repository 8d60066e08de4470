//! The layer for servers.

mod answers;
mod any_rules;
mod keys;
mod permits;
mod rules;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tollgate::tower::server::{PeerAddr, RateLimitLayer, RateLimitLayerBuilder, ResponseBody};
use tollgate::{ManualClock, MemoryLimiter};
use tower::{Layer, ServiceExt, service_fn};

type Answer = Response<Full<Bytes>>;
type Handled = Pin<Box<dyn Future<Output = Result<Answer, Infallible>>>>;

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

/// A request from an address.
fn from(peer: &str) -> Request<()> {
    let mut request = Request::new(());
    let peer: SocketAddr = format!("{peer}:4711").parse().expect("an address");
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

fn with(mut request: Request<()>, headers: &[(&'static str, &str)]) -> Request<()> {
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a header's value"));
    }
    request
}

/// A service behind the layer, which answers `200` at once.
struct Server(RateLimitLayer);

impl Server {
    fn new(builder: RateLimitLayerBuilder) -> Self {
        Self(builder.build().expect("a layer"))
    }

    fn handle(
        &self,
        request: Request<()>,
        handler: impl Fn(Request<()>) -> Answer + 'static,
    ) -> Response<ResponseBody<Full<Bytes>>> {
        let service =
            move |request| -> Handled { Box::pin(std::future::ready(Ok(handler(request)))) };
        let Ok(response) = pollster::block_on(self.0.layer(service_fn(service)).oneshot(request));
        response
    }

    fn answer(&self, request: Request<()>) -> Response<ResponseBody<Full<Bytes>>> {
        self.handle(request, |_| Response::new(Full::from("hello")))
    }

    fn status(&self, request: Request<()>) -> StatusCode {
        self.answer(request).status()
    }

    fn headers(&self, request: Request<()>) -> HeaderMap {
        self.answer(request).headers().clone()
    }

    /// How many such requests are admitted before one is refused.
    fn admitted(&self, request: &Request<()>) -> usize {
        (0..1_000).take_while(|_| self.status(request.clone()) == StatusCode::OK).count()
    }
}

fn body(response: Response<ResponseBody<Full<Bytes>>>) -> Bytes {
    let Ok(collected) = pollster::block_on(response.into_body().collect());
    collected.to_bytes()
}
