//! The body of an answer, which holds the permits on.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::held::HeldPermits;
use super::upstream::{Costs, Upstream};
use crate::limiter::Permits;

pub(super) type FrameResult<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

pin_project! {
    /// The body of an answer: the frames of the inner service's, unchanged. With
    /// [`Hold::Body`](super::Hold::Body) it holds the permits until it has been read, has failed, or is
    /// dropped, unless [`HeldPermits::take`] has handed them out.
    ///
    /// The start of a refusal's body was read before, for what it says, and is yielded first.
    pub struct ResponseBody<B: Body> {
        #[pin]
        content: Content<B>,
        end: Option<End>,
    }
}

pin_project! {
    #[project = ContentProjection]
    pub(super) enum Content<B: Body> {
        /// Nothing was read before.
        Whole { #[pin] body: B },
        /// This was read before. `None` for a body that has ended.
        Begun { read: VecDeque<FrameResult<B>>, body: Option<Pin<Box<B>>> },
    }
}

/// What remains to be done when the body ends, or earlier at its trailers.
pub(super) struct End {
    pub(super) upstream: Arc<Upstream>,
    pub(super) costs: Costs,
    pub(super) held: Option<HeldPermits>,
    /// Of a call of gRPC, whose trailers may tell of a refusal. The permits may have ended by then, and a refusal
    /// without one would cut again for each request of an incident.
    pub(super) witnesses: Option<Box<Permits>>,
}

impl End {
    fn note_trailers(&mut self, trailers: &http::HeaderMap) {
        if let Some(feedback) = self.upstream.read_trailers(trailers) {
            let held = self.held.as_ref().and_then(HeldPermits::take);
            let permits = held.as_ref().or(self.witnesses.as_deref());
            self.upstream.apply(&feedback, permits, &self.costs);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        drop(self.held.as_ref().and_then(HeldPermits::take));
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn new(content: Content<B>, end: End) -> Self {
        Self { content, end: Some(end) }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameResult<B>>> {
        let mut this = self.project();
        let polled = ready!(this.content.as_mut().poll_frame(cx));
        if let (Some(Ok(frame)), Some(end)) = (&polled, this.end.as_mut())
            && let Some(trailers) = frame.trailers_ref()
        {
            end.note_trailers(trailers);
        }
        // Whoever knows the length does not ask for another frame.
        if !matches!(polled, Some(Ok(_))) || this.content.is_end_stream() {
            *this.end = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl<B: Body> Content<B> {
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameResult<B>>> {
        match self.project() {
            ContentProjection::Whole { body } => body.poll_frame(cx),
            ContentProjection::Begun { read, body } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => match body {
                    Some(body) => body.as_mut().poll_frame(cx),
                    None => Poll::Ready(None),
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { body } => body.is_end_stream(),
            Self::Begun { read, body } => {
                read.is_empty() && body.as_ref().is_none_or(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let (read, body) = match self {
            Self::Whole { body } => return body.size_hint(),
            Self::Begun { read, body } => (read, body),
        };
        let frames = read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let ahead: u64 = frames.map(|data| data.remaining() as u64).sum();
        let rest = body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.end.as_ref().and_then(|end| end.held.as_ref());
        f.debug_struct("ResponseBody").field("held", &held).finish_non_exhaustive()
    }
}
