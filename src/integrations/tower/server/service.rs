//! The layer, its service, and the service's future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, request, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ResponseBody;
use super::decisions::Decisions;
use super::held::{Held, Hold};
use super::rejection::{OnRejection, Rejection};
use super::rules::{Refusal, Rules, Verdict};
use crate::integrations::http::{RateLimitHeaders, retry_after};

/// Limits the requests that a service accepts. Made by [`builder`](Self::builder). Clones, and the services
/// of all of them, share the limiter.
#[derive(Clone)]
pub struct RateLimitLayer(Arc<Shared>);

/// The service of a [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimitService<S> {
    inner: S,
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) hold: Hold,
    pub(super) writes_headers: bool,
    /// Into the extensions of responses.
    pub(super) writes_decisions: bool,
    pub(super) on_rejection: Option<OnRejection>,
}

impl RateLimitLayer {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        RateLimitService { inner, shared: Arc::clone(&self.0) }
    }
}

impl<S, In, Out> Service<Request<In>> for RateLimitService<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    Out: Body<Data: From<Bytes>>,
{
    type Response = Response<ResponseBody<Out>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    /// Decides at once, and calls the service that was polled, not a clone of it, before it returns.
    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let (held, decisions) = match self.shared.rules.apply(&parts) {
            Verdict::Refused(refusal) => {
                let response = Some(self.shared.refuse(&parts, refusal));
                return ResponseFuture { state: State::Refused { response } };
            }
            Verdict::Admitted(held, decisions) => {
                decisions.add_to_request(&mut parts.extensions);
                (held, Some(decisions))
            }
        };
        let future = self.inner.call(Request::from_parts(parts, body));
        let shared = Arc::clone(&self.shared);
        ResponseFuture { state: State::Admitted { future, held, decisions, shared } }
    }
}

impl Shared {
    fn refuse(&self, parts: &request::Parts, refusal: Refusal) -> Response<Bytes> {
        let Refusal { rule, cause, decisions } = refusal;
        let rule = &self.rules.list[rule];
        let rejection = Rejection::new(&rule.name, cause, rule.key.is_some(), &decisions, parts);
        let mut response = rejection.answer(self.on_rejection.as_ref());
        let wait = rejection.retry_after;
        let headers = response.headers_mut();
        let own = headers.remove(RETRY_AFTER);
        self.tell(&decisions, headers);
        if let Some(value) = own.or_else(|| wait.map(retry_after)) {
            headers.insert(RETRY_AFTER, value);
        }
        if self.writes_decisions {
            decisions.add_to_response(response.extensions_mut());
        }
        response
    }

    /// Writes what the rules said that are enforced.
    fn tell(&self, decisions: &Decisions, headers: &mut HeaderMap) {
        if !self.writes_headers {
            return;
        }
        let told = decisions.iter().filter(|told| !told.is_observed).filter_map(|told| {
            Some((&self.rules.list[told.index].headers, told.decision.as_ref()?))
        });
        RateLimitHeaders::append(told, headers);
    }

    /// Completes a response, and returns what is still held.
    fn complete(&self, parts: &mut response::Parts, mut held: Held, decisions: Decisions) -> Held {
        held.see(parts, self.hold);
        self.tell(&decisions, &mut parts.headers);
        if self.writes_decisions {
            decisions.add_to_response(&mut parts.extensions);
        }
        held
    }
}

pin_project! {
    /// The future of a [`RateLimitService`]. Dropping it ends the request's permits.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjected]
    enum State<F> {
        Admitted {
            #[pin]
            future: F,
            held: Held,
            decisions: Option<Decisions>,
            shared: Arc<Shared>,
        },
        Refused { response: Option<Response<Bytes>> },
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data: From<Bytes>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjected::Admitted { future, held, decisions, shared } => {
                let (mut parts, body) = ready!(future.poll(cx))?.into_parts();
                let mut held = std::mem::take(held);
                if let Some(decisions) = decisions.take() {
                    held = shared.complete(&mut parts, held, decisions);
                }
                Poll::Ready(Ok(Response::from_parts(parts, ResponseBody::inner(body, held))))
            }
            StateProjected::Refused { response } => {
                let response = response.take().expect("polled after it was ready");
                Poll::Ready(Ok(response.map(ResponseBody::refusal)))
            }
        }
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("rules", &self.0.rules.list).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for RateLimitService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.shared.rules.list;
        f.debug_struct("RateLimitService").field("rules", rules).finish_non_exhaustive()
    }
}
