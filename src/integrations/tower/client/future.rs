//! The future of a call: the wait for permits, the request, and what its answer says.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::{Content, ResponseBody};
use super::error::ClientError;
use super::refusal::Refusal;
use super::sent::Sent;
use super::upstream::{Costs, Upstream};
use crate::limiter::AcquireAll;

pin_project! {
    /// The future of [`ClientService`](super::ClientService).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for permits, it takes nothing. Dropped later, the tokens of its request stay
    /// spent, as the upstream may have counted it; the request is no longer in flight, nor unanswered.
    pub struct ResponseFuture<S: Service<Req>, Req, B: Body> {
        #[pin]
        state: State<S, Req, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S: Service<Req>, Req, B: Body> {
        /// `None` once the request was sent.
        Waiting { waiting: Option<Waiting<S, Req>> },
        Sent { #[pin] future: S::Future, sent: Option<Sent> },
        Refused { refusal: Refusal<B> },
        Failed { error: Option<ClientError> },
    }
}

/// A request that waits for permits.
pub(super) struct Waiting<S, Req> {
    pub(super) acquire: AcquireAll,
    pub(super) upstream: Arc<Upstream>,
    pub(super) costs: Costs,
    /// Is ready.
    pub(super) service: S,
    pub(super) request: Req,
}

impl<S: Service<Req>, Req, B: Body> ResponseFuture<S, Req, B> {
    pub(super) fn waiting(waiting: Waiting<S, Req>) -> Self {
        Self { state: State::Waiting { waiting: Some(waiting) } }
    }

    pub(super) fn sent(future: S::Future, sent: Sent) -> Self {
        Self { state: State::Sent { future, sent: Some(sent) } }
    }

    pub(super) fn failed(error: ClientError) -> Self {
        Self { state: State::Failed { error: Some(error) } }
    }
}

impl<S, Req, B> Future for ResponseFuture<S, Req, B>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, ClientError>;

    /// Stays pending if it is polled again after it has yielded.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Waiting { waiting } => {
                    let Some(Waiting { acquire, .. }) = waiting else { return Poll::Pending };
                    let granted = ready!(Pin::new(acquire).poll(cx));
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    match granted {
                        Err(limited) => return Poll::Ready(Err(ClientError::Limited(limited))),
                        Ok(permits) => {
                            let Waiting { upstream, costs, mut service, request, .. } = waiting;
                            let sent = Sent::new(upstream, costs, permits);
                            State::Sent { future: service.call(request), sent: Some(sent) }
                        }
                    }
                }
                StateProjection::Sent { future, sent } => {
                    if sent.is_none() {
                        return Poll::Pending;
                    }
                    let answered = ready!(future.poll(cx));
                    let Some(mut sent) = sent.take() else { return Poll::Pending };
                    let response = answered.map_err(|error| ClientError::Service(error.into()))?;
                    sent.note_answered();
                    let (parts, body) = response.into_parts();
                    let Some(feedback) = sent.upstream().read(&parts) else {
                        return Poll::Ready(Ok(sent.into_response(parts, Content::Whole { body })));
                    };
                    if !sent.upstream().wants_body(&parts, &feedback) || body.is_end_stream() {
                        sent.apply(feedback, &parts, &[], sent.now());
                        return Poll::Ready(Ok(sent.into_response(parts, Content::Whole { body })));
                    }
                    State::Refused { refusal: Refusal::new(sent, parts, feedback, body) }
                }
                StateProjection::Refused { refusal } => {
                    let response = ready!(refusal.poll(cx));
                    return response.map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                StateProjection::Failed { error } => {
                    return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, B: Body> fmt::Debug for ResponseFuture<S, Req, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "waiting",
            State::Sent { .. } => "sent",
            State::Refused { .. } => "refused",
            State::Failed { .. } => "failed",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
