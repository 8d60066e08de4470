//! The layer: which resources its requests take from, and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::response::Parts;
use smallvec::smallvec;
use tower_layer::Layer;

use super::service::ClientService;
use super::settings::{Cost, Mode, Settings};
use super::upstream::{Budget, Hold, Upstream};
use crate::integrations::http::{Feedback, Profile, Unit};
use crate::limiter::Resource;

/// How much of a refusal's body is read, in bytes.
const BODY_LIMIT: usize = 16 * 1024;

/// A layer that keeps a client's requests within the limits of its upstream. See [the module](super).
///
/// All clones share the resources, and count unanswered requests together. Two layers on one resource share
/// its limit, but neither knows what is unanswered of the other.
pub struct ClientLayer<Req>(Arc<Settings<Req>>);

impl<Req> ClientLayer<Req> {
    /// Each request takes one token of `resource`, which counts [requests](Unit::Requests).
    ///
    /// It waits until there is one, reads all answers ([`Profile::Auto`]), and holds its permit to the end of
    /// the answer's body.
    #[must_use]
    pub fn new(resource: Resource) -> Self {
        let upstream = Upstream {
            budgets: smallvec![Budget::new(resource, Unit::Requests)],
            profile: Some(Profile::Auto),
            classifier: None,
            body_limit: BODY_LIMIT,
            hold: Hold::default(),
        };
        let upstream = Arc::new(upstream);
        let one: Arc<Cost<Req>> = Arc::new(|_| 1);
        Self(Arc::new(Settings { upstream, costs: smallvec![one], mode: Mode::Wait(None) }))
    }

    fn upstream(&mut self) -> &mut Upstream {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0).upstream)
    }

    /// Each request takes as many tokens of the first resource as `cost` says, instead of one.
    #[must_use]
    pub fn cost(mut self, cost: impl Fn(&Req) -> u64 + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).costs[0] = Arc::new(cost);
        self
    }

    /// What the first resource counts, if it is not requests: of an answer only the figures of this unit
    /// apply to it.
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.upstream().budgets[0].unit = unit;
        self
    }

    /// Each request also takes tokens of this resource, as many as `cost` says: all or none. The resource
    /// counts `unit`, and must be one of the same limiter; otherwise each request fails with
    /// [`AcquireError::UnknownResource`](crate::AcquireError::UnknownResource).
    ///
    /// The cost is an estimate. Where the answer tells the real one, settle it by
    /// [`HeldPermits`](super::HeldPermits).
    #[must_use]
    pub fn and(
        mut self,
        resource: Resource,
        unit: Unit,
        cost: impl Fn(&Req) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.upstream().budgets.push(Budget::new(resource, unit));
        Arc::make_mut(&mut self.0).costs.push(Arc::new(cost));
        self
    }

    /// Waits in `call` for at most this long, on the limiter's clock, and fails at once if the rate rules out
    /// success before then. This, [`shed`](Self::shed) and [`backpressure`](Self::backpressure) replace each
    /// other.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).mode = Mode::Wait(Some(timeout));
        self
    }

    /// Does not wait: a request that cannot be admitted now fails at once with
    /// [`ClientError::Limited`](super::ClientError::Limited).
    #[must_use]
    pub fn shed(mut self) -> Self {
        Arc::make_mut(&mut self.0).mode = Mode::Shed;
        self
    }

    /// Waits in `poll_ready`, not in `call`: a service is ready when it has a token of each resource, which
    /// it holds for the call, which is sent also if a pause has begun meanwhile. It gives them back if it is
    /// dropped. A clone has none, and waits for its own.
    ///
    /// Only `call` knows what the request costs. If that is not one token of each, the permits are given
    /// back, and `call` takes those of the request, and waits for them. Where this is the rule and many tasks
    /// wait, leave backpressure: each request would queue twice.
    #[must_use]
    pub fn backpressure(mut self) -> Self {
        Arc::make_mut(&mut self.0).mode = Mode::Backpressure;
        self
    }

    /// How long permits are held; [`Hold::Body`] by default.
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Self {
        self.upstream().hold = hold;
        self
    }

    /// Whose headers to expect; [`Profile::Auto`] by default. Name the provider if you know it.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.upstream().profile = Some(profile);
        self
    }

    /// Does not read answers: neither pauses nor cuts, and nothing is read ahead.
    #[must_use]
    pub fn without_feedback(mut self) -> Self {
        self.upstream().profile = None;
        self
    }

    /// Corrects what was read of an answer, before it is applied. `classify` gets the head, and of an answer
    /// with a status of 400 or above the start of the body, which may be cut off or compressed. Of others the
    /// body is empty.
    ///
    /// ```
    /// use tollgate::http::Outcome;
    /// use tollgate::tower::client::ClientLayer;
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # let limiter = MemoryLimiter::new();
    /// # let api = limiter.configure("api", Limit::per_second(10))?;
    ///
    /// // This upstream tells its refusals in the body.
    /// let layer = ClientLayer::<http::Request<String>>::new(api).classify(|_head, body, mut feedback| {
    ///     if body.starts_with(br#"{"error":"quota_exceeded""#) {
    ///         feedback.outcome = Outcome::Throttled;
    ///     }
    ///     feedback
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn classify(
        mut self,
        classify: impl Fn(&Parts, &[u8], Feedback) -> Feedback + Send + Sync + 'static,
    ) -> Self {
        self.upstream().classifier = Some(Arc::new(classify));
        self
    }

    /// How much of the body of a refusal is read before the answer is handed on, in bytes: 16 KiB by default,
    /// 0 for nothing. The caller's body has these bytes too.
    ///
    /// Refusals are answers with a status of 400, 403, 429, 503 or 529 whose head does not tell how long to wait
    /// and whose body is not compressed; with a [classifier](Self::classify) all of 400 and above. Other bodies
    /// are never read ahead.
    #[must_use]
    pub fn read_refusals(mut self, bytes: usize) -> Self {
        self.upstream().body_limit = bytes;
        self
    }
}

impl<S, Req> Layer<S> for ClientLayer<Req> {
    type Service = ClientService<S, Req>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientService::new(inner, Arc::clone(&self.0))
    }
}

impl<Req> Clone for ClientLayer<Req> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Req> fmt::Debug for ClientLayer<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientLayer").field(&self.0).finish()
    }
}
