//! The tower layer for clients: where requests wait, what their answers do, and when their permits end.

mod backpressure;
mod bodies;
mod feedback;
mod modes;
mod permits;
mod server;
mod stacks;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use tollgate::http::Unit;
use tollgate::tower::client::{ClientError, ClientLayer, ClientService, ResponseBody};
use tollgate::{Limit, ManualClock, MemoryLimiter, Resource};
use tower::{Layer, Service};

use server::{Frames, Server};

type Client = ClientService<Server, Request<u64>>;
type Answer = Result<Response<ResponseBody<Frames>>, ClientError>;

/// For stacks that are boxed or shared between threads.
const _: () = {
    const fn is_sync<T: Send + Sync>() {}
    is_sync::<ClientLayer<Request<u64>>>();
    is_sync::<Client>();
    is_sync::<ResponseBody<Frames>>();
    is_sync::<ClientError>();
};

const SECOND: Duration = Duration::from_secs(1);

fn limiter() -> (MemoryLimiter, ManualClock) {
    let time = ManualClock::new();
    (MemoryLimiter::with_clock(time.clone()), time)
}

fn resource(limit: Limit) -> (Resource, ManualClock) {
    let (limiter, time) = limiter();
    (limiter.configure("api", limit).unwrap(), time)
}

/// A client and its server.
fn client(layer: &ClientLayer<Request<u64>>) -> (Client, Server) {
    let server = Server::default();
    (layer.layer(server.clone()), server)
}

/// A request whose body is its number of tokens.
fn request(tokens: u64) -> Request<u64> {
    Request::new(tokens)
}

/// A layer whose requests take one of `requests`, and of `tokens` as many as they say.
fn with_tokens(
    limiter: &MemoryLimiter,
    requests: Limit,
    tokens: Limit,
) -> ClientLayer<Request<u64>> {
    let requests = limiter.configure("requests", requests).unwrap();
    let tokens = limiter.configure("tokens", tokens).unwrap();
    ClientLayer::new(requests).and(tokens, Unit::Tokens, |request: &Request<u64>| *request.body())
}

fn available(limiter: &MemoryLimiter, resource: &str) -> u64 {
    limiter.capacity(resource).unwrap().available
}

/// One poll, whose wakes nobody hears: what is to happen has happened.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_ready(client: &mut Client) -> bool {
    match client.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => ready.map(|()| true).unwrap(),
        Poll::Pending => false,
    }
}

/// Sends a request, whose future was polled once.
fn send(client: &mut Client, tokens: u64) -> Pin<Box<impl Future<Output = Answer> + use<>>> {
    assert!(is_ready(client));
    let mut answer = Box::pin(client.call(request(tokens)));
    assert!(poll(&mut answer).is_pending());
    answer
}

/// The answer of a request that needs not wait.
fn answer(client: &mut Client, tokens: u64) -> Answer {
    assert!(is_ready(client));
    ready(&mut Box::pin(client.call(request(tokens))))
}

fn ready<F: Future + Unpin>(future: &mut F) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}
