//! A server's own log of what its layer admitted, and whether that is within a limit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tollgate::tower::server::RateLimitLayer;
use tollgate::{Clock, MemoryLimiter};

/// A rate a second, and a burst.
pub(super) type Bound = (u64, u64);

/// When a request came to the layer, in nanoseconds.
#[derive(Clone, Copy)]
struct Arrived(u64);

/// The layer admitted a request between the two readings of the limiter's clock.
#[derive(Clone, Copy)]
pub(super) struct Admission {
    pub(super) host: u8,
    arrived: u64,
    handled: u64,
}

#[derive(Clone)]
pub(super) struct Log {
    clock: Clock,
    admissions: Arc<Mutex<Vec<Admission>>>,
}

impl Log {
    /// With the limiter whose admissions are to be logged.
    pub(super) fn new() -> (Self, MemoryLimiter) {
        let clock = Clock::system();
        let limiter = MemoryLimiter::with_clock(clock.clone());
        (Self { clock, admissions: Arc::default() }, limiter)
    }

    /// Routes behind a layer, and what the layer admits goes into the log.
    pub(super) fn behind(&self, layer: RateLimitLayer, routes: Router) -> Router {
        let arrive = middleware::from_fn_with_state(self.clone(), arrive);
        let admit = middleware::from_fn_with_state(self.clone(), admit);
        routes.layer(admit).layer(layer).layer(arrive)
    }

    fn admitted(&self, request: &Request) {
        let handled = self.clock.now();
        let extensions = request.extensions();
        let Arrived(arrived) = *extensions.get().expect("the arrival");
        let ConnectInfo(peer) = *extensions.get::<ConnectInfo<SocketAddr>>().expect("the peer");
        let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
        let admission = Admission { host: peer.ip().octets()[3], arrived, handled };
        self.admissions.lock().unwrap_or_else(PoisonError::into_inner).push(admission);
    }

    pub(super) fn take(&self) -> Vec<Admission> {
        std::mem::take(&mut *self.admissions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn arrive(State(log): State<Log>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Arrived(log.clock.now()));
    next.run(request).await
}

async fn admit(State(log): State<Log>, request: Request, next: Next) -> Response {
    log.admitted(&request);
    next.run(request).await
}

/// In each window that begins with an arrival, what was handled is at most `burst + rate x time`. A log that is
/// late only makes windows longer: what this says holds on a busy machine too.
pub(super) fn assert_within(log: &[Admission], (rate, burst): Bound, what: &str) {
    let mut by_end = log.to_vec();
    by_end.sort_by_key(|admission| admission.handled);
    for first in log {
        let start = first.arrived;
        let from = by_end.partition_point(|admission| admission.handled < start);
        let inside = by_end[from..].iter().filter(|admission| admission.arrived >= start);
        for (admitted, last) in (1_u64..).zip(inside) {
            let window = last.handled - start;
            let most = u128::from(burst) + u128::from(rate) * u128::from(window) / 1_000_000_000;
            assert!(u128::from(admitted) <= most, "{what}: {admitted} in {window} ns");
        }
    }
}

#[test]
fn one_more_than_the_limit_is_noticed() {
    let at = |time| Admission { host: 1, arrived: time, handled: time + 10 };
    let mut log: Vec<_> = (0..5).map(|_| at(0)).collect(); // the burst
    log.extend((1..=20).map(|n| at(n * 100_000_000))); // and 10 a second
    assert_within(&log, (10, 5), "as many as may be");
    log.push(at(1_000_000_000));
    let checked = std::panic::catch_unwind(|| assert_within(&log, (10, 5), "one more"));
    assert!(checked.is_err());
}
