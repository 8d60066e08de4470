//! A server without a network: a service whose answers the test gives.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tower::Service;

pub(crate) type Reply = io::Result<Response<Frames>>;

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The tokens of the requests.
    received: Vec<u64>,
    /// For requests to come.
    replies: VecDeque<Reply>,
    /// Those without an answer.
    unanswered: VecDeque<oneshot::Sender<Reply>>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn received(&self) -> usize {
        self.state().received.len()
    }

    pub(crate) fn tokens(&self) -> Vec<u64> {
        self.state().received.clone()
    }

    /// Answers the oldest request, or the next one that comes.
    pub(crate) fn reply(&self, reply: Reply) {
        let mut state = self.state();
        match state.unanswered.pop_front() {
            Some(request) => drop(request.send(reply)),
            None => state.replies.push_back(reply),
        }
    }

    /// Replies with a head and without a body.
    pub(crate) fn reply_head(&self, status: u16, lines: &[&str]) {
        self.reply(Ok(response(status, lines, Frames::empty())));
    }

    pub(crate) fn reply_error(&self) {
        self.reply(Err(io::Error::other("connection reset")));
    }
}

fn headers(lines: &[&str]) -> HeaderMap {
    let field = |line: &&str| {
        let (name, value) = line.split_once(": ").expect("a name and a value");
        (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
    };
    lines.iter().map(field).collect()
}

pub(crate) fn response(status: u16, lines: &[&str], body: Frames) -> Response<Frames> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    *response.headers_mut() = headers(lines);
    response
}

impl Service<Request<u64>> for Server {
    type Response = Response<Frames>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Reply>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<u64>) -> Self::Future {
        let mut state = self.state();
        state.received.push(request.into_body());
        if let Some(reply) = state.replies.pop_front() {
            return async { reply }.boxed();
        }
        let (reply, replied) = oneshot::channel();
        state.unanswered.push_back(reply);
        async { replied.await.expect("the server answers") }.boxed()
    }
}

/// A body whose frames the test sends. It ends when their sender is dropped.
pub(crate) struct Frames {
    frames: mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>,
    length: Option<u64>,
}

/// Sends frames.
pub(crate) struct Sender(mpsc::UnboundedSender<io::Result<Frame<Bytes>>>);

impl Sender {
    pub(crate) fn data(&self, data: &'static str) {
        self.0.send(Ok(Frame::data(Bytes::from_static(data.as_bytes())))).unwrap();
    }

    pub(crate) fn trailers(&self, lines: &[&str]) {
        self.0.send(Ok(Frame::trailers(headers(lines)))).unwrap();
    }

    pub(crate) fn error(&self) {
        self.0.send(Err(io::Error::other("connection reset"))).unwrap();
    }

    /// Whether the body was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Frames {
    pub(crate) fn new() -> (Sender, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (Sender(sender), Self { frames, length: None })
    }

    pub(crate) fn empty() -> Self {
        Self::new().1
    }

    /// One frame, with its length in the head.
    pub(crate) fn full(data: &'static str) -> Self {
        let (sender, mut frames) = Self::new();
        sender.data(data);
        frames.length = Some(data.len() as u64);
        frames
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.frames.poll_recv(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(length), Some(data)) = (&mut self.length, frame.data_ref())
        {
            *length -= data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_closed() && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
