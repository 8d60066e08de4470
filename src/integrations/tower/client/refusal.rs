//! A refusal whose body is read before it is handed on: some providers say there how long to wait.
//!
//! It is read ahead, and not as the caller reads it: a retry layer drops refusals unread, and the pause must
//! stand before it sends the next attempt.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame};

use super::body::{Content, FrameResult, ResponseBody};
use super::sent::Sent;
use crate::integrations::http::Feedback;

/// Frames that are kept: empty ones do not count towards the limit in bytes, and an upstream can send any
/// number of them.
const MOST_FRAMES: usize = 1_024;

/// Dropped before it is done, it applies what it has read until then.
pub(super) struct Refusal<B: Body> {
    /// `None` once it was applied.
    answer: Option<(Sent, Parts, Feedback)>,
    /// When the head came, by the limiter's clock.
    at: u64,
    start: Vec<u8>,
    read: VecDeque<FrameResult<B>>,
    /// In a box, as it is moved on after it was polled. `None` once it has ended.
    body: Option<Pin<Box<B>>>,
    /// How much of it is read, in bytes.
    limit: usize,
}

impl<B: Body> Refusal<B> {
    pub(super) fn new(sent: Sent, parts: Parts, feedback: Feedback, body: B) -> Self {
        Self {
            at: sent.now(),
            limit: sent.upstream().body_limit,
            answer: Some((sent, parts, feedback)),
            start: Vec::new(),
            read: VecDeque::new(),
            body: Some(Box::pin(body)),
        }
    }

    /// Reads on, then applies the answer and yields it with all that was read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Response<ResponseBody<B>>>> {
        while let Some(body) = &mut self.body
            && self.start.len() < self.limit
            && self.read.len() < MOST_FRAMES
            && !body.is_end_stream()
        {
            let Some(frame) = ready!(body.as_mut().poll_frame(cx)) else {
                self.body = None;
                break;
            };
            let data = frame.as_ref().ok().and_then(Frame::data_ref);
            // Of data in several pieces only the first can be seen without taking it.
            let piece = data.map_or(&[][..], Buf::chunk);
            let is_last = data.is_none_or(|data| piece.len() < data.remaining());
            self.start.extend_from_slice(&piece[..piece.len().min(self.limit - self.start.len())]);
            self.read.push_back(frame);
            if is_last {
                break;
            }
        }
        let (read, body) = (mem::take(&mut self.read), self.body.take());
        let answer = self.apply();
        let response =
            answer.map(|(sent, parts)| sent.into_response(parts, Content::Begun { read, body }));
        Poll::Ready(response)
    }

    fn apply(&mut self) -> Option<(Sent, Parts)> {
        let (sent, parts, feedback) = self.answer.take()?;
        sent.apply(feedback, &parts, &self.start, self.at);
        Some((sent, parts))
    }
}

impl<B: Body> Drop for Refusal<B> {
    fn drop(&mut self) {
        self.apply();
    }
}
