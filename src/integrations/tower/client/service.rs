//! The service: takes permits in `call` or in `poll_ready`, and sends the request.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::error::ClientError;
use super::future::{ResponseFuture, Waiting};
use super::sent::{Sent, Unsent};
use super::settings::{Mode, Settings};
use super::upstream::Costs;
use crate::limiter::{AcquireAll, AcquireAllError, Permits};

/// A client that stays within the limits of its upstream: what [`ClientLayer`](super::ClientLayer) makes.
///
/// All clones share the layer's resources. A clone of a service that is ready is not ready itself.
pub struct ClientService<S, Req> {
    inner: S,
    settings: Arc<Settings<Req>>,
    reserved: Reserved,
}

/// What `poll_ready` has for the next call.
enum Reserved {
    Nothing,
    Waiting(AcquireAll),
    /// A token of each resource.
    Permits(Unsent),
    /// Told by the call, as an error of `poll_ready` would be the end of the service.
    Failed(AcquireAllError),
}

impl<S, Req> ClientService<S, Req> {
    pub(super) fn new(inner: S, settings: Arc<Settings<Req>>) -> Self {
        Self { inner, settings, reserved: Reserved::Nothing }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Reserved::Nothing = self.reserved {
            let upstream = &self.settings.upstream;
            let ones: Costs = upstream.budgets.iter().map(|_| 1).collect();
            self.reserved = Reserved::Waiting(upstream.acquire(&ones));
        }
        if let Reserved::Waiting(acquire) = &mut self.reserved {
            self.reserved = match ready!(Pin::new(acquire).poll(cx)) {
                Ok(permits) => Reserved::Permits(Unsent::new(permits)),
                Err(error) => Reserved::Failed(error),
            };
        }
        Poll::Ready(())
    }
}

impl<S, Req, B> Service<Req> for ClientService<S, Req>
where
    S: Service<Req, Response = Response<B>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
{
    type Response = Response<ResponseBody<B>>;
    type Error = ClientError;
    type Future = ResponseFuture<S, Req, B>;

    /// Fails only if the inner service does.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let is_ready = ready!(self.inner.poll_ready(cx));
        is_ready.map_err(|error| ClientError::Service(error.into()))?;
        if let Mode::Backpressure = self.settings.mode {
            ready!(self.poll_reserve(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let costs = self.settings.costs(&request);
        let upstream = &self.settings.upstream;
        let acquire = match self.settings.mode {
            Mode::Wait(None) => upstream.acquire(&costs),
            Mode::Wait(Some(timeout)) => upstream.acquire(&costs).timeout(timeout),
            Mode::Shed => match upstream.try_acquire(&costs) {
                Ok(permits) => return self.send(request, costs, permits),
                Err(denied) => return ResponseFuture::failed(ClientError::denied(denied)),
            },
            Mode::Backpressure => match mem::replace(&mut self.reserved, Reserved::Nothing) {
                Reserved::Permits(permits) if costs.iter().all(|cost| *cost == 1) => {
                    return self.send(request, costs, permits.into_permits());
                }
                Reserved::Failed(error) => {
                    return ResponseFuture::failed(ClientError::Limited(error));
                }
                // The reservation is given back before the wait. Two requests that each hold a part and wait for
                // the rest could wait for each other for ever.
                reserved => {
                    drop(reserved);
                    upstream.acquire(&costs)
                }
            },
        };
        // The future gets the service that is ready.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        let upstream = Arc::clone(&self.settings.upstream);
        ResponseFuture::waiting(Waiting { acquire, upstream, costs, service, request })
    }
}

impl<S, Req> ClientService<S, Req> {
    fn send<B: Body>(
        &mut self,
        request: Req,
        costs: Costs,
        permits: Permits,
    ) -> ResponseFuture<S, Req, B>
    where
        S: Service<Req>,
    {
        let sent = Sent::new(Arc::clone(&self.settings.upstream), costs, permits);
        ResponseFuture::sent(self.inner.call(request), sent)
    }
}

impl<S: Clone, Req> Clone for ClientService<S, Req> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.settings))
    }
}

impl<S: fmt::Debug, Req> fmt::Debug for ClientService<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientService")
            .field("inner", &self.inner)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
