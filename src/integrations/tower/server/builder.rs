//! The builder of the layer.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};

use super::decisions::Decisions;
use super::held::Hold;
use super::rejection::Rejection;
use super::rule::Rule;
use super::rules::Rules;
use super::service::{RateLimitLayer, Shared};
use crate::limiter::{ConfigError, MemoryLimiter};

/// Builds a [`RateLimitLayer`].
#[must_use = "it does nothing until `build` makes a layer of it"]
pub struct RateLimitLayerBuilder {
    shared: Shared,
    writes_legacy: bool,
}

impl RateLimitLayer {
    /// A layer whose rules are resources of this limiter. Keep a clone of the limiter to look at them, to change
    /// their limits, or to close it.
    ///
    /// Layers on one limiter share the buckets of rules with the same name, under the limit that was set last.
    pub fn builder(limiter: &MemoryLimiter) -> RateLimitLayerBuilder {
        let rules = Rules {
            limiter: limiter.clone(),
            list: Vec::new(),
            peer_addr: None,
            skip_if: None,
            inspect: None,
        };
        let shared = Shared {
            rules,
            hold: Hold::default(),
            writes_headers: true,
            writes_decisions: false,
            on_rejection: None,
        };
        RateLimitLayerBuilder { shared, writes_legacy: false }
    }
}

impl RateLimitLayerBuilder {
    /// Adds a rule. A request takes the tokens of all rules, or of none.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.shared.rules.list.push(rule);
        self
    }

    /// Reads the peer's address from the extension that the server sets, such as axum's
    /// `ConnectInfo<SocketAddr>` or tonic's `TcpConnectInfo`. Without this, or if a request lacks the
    /// extension, the layer looks for a [`PeerAddr`](super::PeerAddr) or a `SocketAddr` in the extensions.
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use tollgate::{Limit, MemoryLimiter};
    /// # use tollgate::tower::server::{Key, RateLimitLayer, Rule};
    /// # #[derive(Clone)]
    /// # struct ConnectInfo<T>(T);
    /// # let limiter = MemoryLimiter::new();
    /// let layer = RateLimitLayer::builder(&limiter)
    ///     .peer_addr(|ConnectInfo(addr): &ConnectInfo<SocketAddr>| *addr)
    ///     .rule(Rule::new("per-ip", Limit::per_second(10)).per(Key::peer_ip()))
    ///     .build()?;
    /// # Ok::<(), tollgate::tower::server::BuildError>(())
    /// ```
    pub fn peer_addr<T, A>(mut self, address: impl Fn(&T) -> A + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        A: Into<Option<SocketAddr>>,
    {
        self.shared.rules.peer_addr = Some(Arc::new(move |request: &request::Parts| {
            request.extensions.get::<T>().and_then(|extension| address(extension).into())
        }));
        self
    }

    /// Excludes requests from all rules, for example health checks.
    pub fn skip_if(
        mut self,
        skip: impl Fn(&request::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.shared.rules.skip_if = Some(Arc::new(skip));
        self
    }

    /// How long [permits](Rule#permits) are held. Default: [`Hold::Body`].
    pub fn hold(mut self, hold: Hold) -> Self {
        self.shared.hold = hold;
        self
    }

    /// Adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, of the tightest rule.
    pub fn legacy_headers(mut self) -> Self {
        self.writes_legacy = true;
        self
    }

    /// Writes no headers except `Retry-After`.
    pub fn no_headers(mut self) -> Self {
        self.shared.writes_headers = false;
        self
    }

    /// Adds the [`Decisions`] to the extensions of each response, for layers outside of this one, such as one that
    /// logs. Without this only the request has them.
    pub fn decisions_in_responses(mut self) -> Self {
        self.shared.writes_decisions = true;
        self
    }

    /// Answers refused requests with what this function returns, including the status. The layer adds `RateLimit` and
    /// `RateLimit-Policy`, and `Retry-After` if the answer has none. gRPC requests are always refused with a gRPC
    /// status: see [the module](super#grpc).
    ///
    /// ```
    /// # use http::Response;
    /// # use tollgate::MemoryLimiter;
    /// # use tollgate::tower::server::RateLimitLayer;
    /// # let limiter = MemoryLimiter::new();
    /// let layer = RateLimitLayer::builder(&limiter).on_rejection(|rejection| {
    ///     let mut response = Response::new(format!("slow down: {}", rejection.detail()));
    ///     *response.status_mut() = rejection.status;
    ///     response
    /// });
    /// ```
    pub fn on_rejection<T: Into<Bytes>>(
        mut self,
        answer: impl Fn(&Rejection<'_>) -> Response<T> + Send + Sync + 'static,
    ) -> Self {
        let answer = move |rejection: &Rejection<'_>| answer(rejection).map(Into::into);
        self.shared.on_rejection = Some(Arc::new(answer));
        self
    }

    /// Calls a function with the decisions about each request, before the request is handled or refused. The
    /// function should return quickly.
    pub fn inspect(
        mut self,
        inspect: impl Fn(&request::Parts, &Decisions) + Send + Sync + 'static,
    ) -> Self {
        self.shared.rules.inspect = Some(Arc::new(inspect));
        self
    }

    /// Builds the layer. Adds the rules to the limiter, or changes the limits of those that it has.
    ///
    /// Fails with a [`BuildError`]. The rules before the one that the error names may have been added.
    pub fn build(mut self) -> Result<RateLimitLayer, BuildError> {
        let rules = &mut self.shared.rules.list;
        for (index, rule) in rules.iter().enumerate() {
            let rule_name = || rule.name.to_string();
            if let Some(other) = rules[..index].iter().find(|other| other.clashes_with(rule)) {
                let other = other.name.to_string();
                return Err(BuildError::NameClash { rule: rule_name(), other });
            }
            if rule.key.as_ref().is_some_and(|key| !key.is_valid()) {
                return Err(BuildError::InvalidHeaderName { rule: rule_name() });
            }
        }
        for rule in rules {
            rule.register(&self.shared.rules.limiter)
                .map_err(|cause| BuildError::Limit { rule: rule.name.to_string(), cause })?;
            if self.writes_legacy {
                rule.write_legacy_headers();
            }
        }
        Ok(RateLimitLayer::new(self.shared))
    }
}

impl fmt::Debug for RateLimitLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.shared.rules.list;
        f.debug_struct("RateLimitLayerBuilder").field("rules", rules).finish_non_exhaustive()
    }
}

/// Why a layer was not built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The limiter did not accept the rule's limit.
    #[non_exhaustive]
    Limit {
        /// The rule's name.
        rule: String,
        /// What is wrong with its limit.
        cause: ConfigError,
    },
    /// Two rules have the same name, or the name of one is a key of the other.
    #[non_exhaustive]
    NameClash {
        /// The rule's name.
        rule: String,
        /// The name of the rule before it.
        other: String,
    },
    /// The name that was given to [`Key::header`](super::Key::header) is not a valid header name.
    #[non_exhaustive]
    InvalidHeaderName {
        /// The rule's name.
        rule: String,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { rule, cause } => write!(f, "rule {rule:?}: {cause}"),
            Self::NameClash { rule, other } => write!(
                f,
                "rule {rule:?}: its buckets would be those of rule {other:?}: give it another name"
            ),
            Self::InvalidHeaderName { rule } => {
                write!(
                    f,
                    "rule {rule:?}: `Key::header` needs a header's name, such as \"x-api-key\""
                )
            }
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Limit { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
