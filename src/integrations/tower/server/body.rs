//! The body of an answer, with the permits that are held until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::held::Held;

pin_project! {
    /// The body of the inner service's response, or of a refusal.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjected]
    enum Kind<B> {
        Inner { #[pin] body: B, held: Held },
        Refusal { data: Option<Bytes> },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn inner(body: B, mut held: Held) -> Self {
        if body.is_end_stream() {
            held.end();
        }
        Self { kind: Kind::Inner { body, held } }
    }

    pub(super) fn refusal(data: Bytes) -> Self {
        Self { kind: Kind::Refusal { data: Some(data).filter(|data| !data.is_empty()) } }
    }
}

impl<B: Body<Data: From<Bytes>>> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().kind.project() {
            KindProjected::Inner { mut body, held } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                // A server need not poll a body that says that it has ended.
                if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
                    held.end();
                }
                Poll::Ready(frame)
            }
            KindProjected::Refusal { data } => {
                Poll::Ready(data.take().map(|data| Ok(Frame::data(data.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body, .. } => body.is_end_stream(),
            Kind::Refusal { data } => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body, .. } => body.size_hint(),
            Kind::Refusal { data } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}
