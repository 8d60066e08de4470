//! One limit of a layer, and what it counts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{request, response};

use super::key::{ANONYMOUS, Key, NoKey};
use crate::integrations::http::RateLimitHeaders;
use crate::limiter::{ConfigError, Limit, MemoryLimiter, OnRelease};

/// Keys of a rule at a time: 14 MB if they are compact, and 180 MB if they are not.
const MAX_KEYS: u64 = 100_000;

pub(super) type ForRequest<T> = Arc<dyn Fn(&request::Parts) -> T + Send + Sync>;
pub(super) type ForResponse = Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>;

/// A limit for requests: for all of them together, or for each [key](Self::per).
///
/// ```
/// use tollgate::Limit;
/// use tollgate::tower::server::{Key, Rule};
///
/// let per_ip = Rule::new("per-ip", Limit::per_second(10).burst(20)).per(Key::peer_ip());
/// let all = Rule::new("all", Limit::per_second(1_000).max_in_flight(200));
/// // Five failed logins a minute; those that succeed do not count.
/// let logins = Rule::new("logins", Limit::per_minute(5))
///     .per(Key::peer_ip())
///     .charge_if(|response| response.status == 401);
/// ```
///
/// # Permits
///
/// A rule whose limit has a [`max_in_flight`](Limit::max_in_flight) or [gives tokens back](OnRelease::Refund)
/// holds a permit until the answer has ended: see [`Hold`](super::Hold). Others take tokens alone.
#[derive(Clone)]
pub struct Rule {
    pub(super) name: Arc<str>,
    pub(super) key: Option<Key>,
    pub(super) missing: MissingKey,
    pub(super) cost: Option<ForRequest<u64>>,
    pub(super) skip_if: Option<ForRequest<bool>>,
    pub(super) charge_if: Option<ForResponse>,
    pub(super) is_observed: bool,
    pub(super) headers: RateLimitHeaders,
    limit: Limit,
    max_keys: u64,
}

/// What happens to a request that lacks the [key](Rule::per) of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingKey {
    /// All requests without a key share one bucket, whose key is `anonymous`.
    #[default]
    Share,
    /// The rule does not apply. A request with several lines of the [header](Key::header) is an exception: it shares
    /// the bucket of requests without a key. Otherwise a client could choose not to be counted.
    Skip,
    /// The request is refused with the status 400.
    Reject,
}

impl Rule {
    /// A rule for all requests together. Clients see the name in `RateLimit` and in refusals. It is also the name of
    /// the limiter's resource or, with a [key](Self::per), `name:` is the prefix of its template.
    #[must_use]
    pub fn new(name: &str, limit: Limit) -> Self {
        Self {
            name: name.into(),
            key: None,
            missing: MissingKey::default(),
            cost: None,
            skip_if: None,
            charge_if: None,
            is_observed: false,
            headers: RateLimitHeaders::new(name, &limit),
            limit,
            max_keys: MAX_KEYS,
        }
    }

    /// Applies the limit to each key: each address, user or route.
    #[must_use]
    pub fn per(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// What happens to a request without a key. Default: [`MissingKey::Share`].
    #[must_use]
    pub fn on_missing_key(mut self, missing: MissingKey) -> Self {
        self.missing = missing;
        self
    }

    /// At most this many keys at a time; default: 100,000. A request with one more is refused with the status
    /// 503. Keys that are idle make room: see [`per_key`](MemoryLimiter::per_key).
    ///
    /// A key takes about 140 bytes if the rule is the only one of its layer, or only observes, and needs no
    /// permit; otherwise about 1.8 KB.
    #[must_use]
    pub fn max_keys(mut self, n: u64) -> Self {
        self.max_keys = n;
        self
    }

    /// How many tokens a request takes; default: 1. With 0 it is admitted, and takes none. With more than the
    /// burst it is refused with the status 413.
    ///
    /// ```
    /// # use tollgate::Limit;
    /// # use tollgate::tower::server::{Key, Rule};
    /// let rule = Rule::new("exports", Limit::per_minute(100))
    ///     .cost(|request| if request.uri.path().starts_with("/export") { 20 } else { 1 });
    /// ```
    #[must_use]
    pub fn cost(mut self, cost: impl Fn(&request::Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Excludes requests from this rule.
    #[must_use]
    pub fn skip_if(
        mut self,
        skip: impl Fn(&request::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.skip_if = Some(Arc::new(skip));
        self
    }

    /// Charges a request only if `charge` returns true for its response, for example for a failed login.
    ///
    /// The tokens are taken before the request is handled, and given back when the head of a response arrives that
    /// is not charged. So at most `burst + rate x time` tokens are charged, however many requests are sent at once.
    /// In return, only as many requests are handled at the same time as there are tokens, and others are refused
    /// meanwhile. A request without a response is charged: the client went away, the handler panicked, or the
    /// service failed.
    ///
    /// If the rule [holds a permit](Self#permits) to the end of the body, the tokens are given back then.
    #[must_use]
    pub fn charge_if(
        mut self,
        charge: impl Fn(&response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.charge_if = Some(Arc::new(charge));
        self
    }

    /// Counts, and refuses nothing: a dry run of a new limit. The rule is not in the headers. Its refusals are in
    /// the [`Decisions`](super::Decisions), which [`inspect`](super::RateLimitLayerBuilder::inspect) gets.
    ///
    /// The rule takes its tokens separately, after the other rules have admitted the request.
    #[must_use]
    pub fn observe_only(mut self) -> Self {
        self.is_observed = true;
        self
    }

    pub(super) fn write_legacy_headers(&mut self) {
        self.headers = self.headers.clone().legacy();
    }

    pub(super) fn register(&self, limiter: &MemoryLimiter) -> Result<(), ConfigError> {
        match &self.key {
            None => limiter.configure(&self.name, self.limit).map(drop),
            Some(_) if self.name.is_empty() => Err(ConfigError::EmptyName),
            Some(_) => limiter.per_key_at_most(&self.prefix(), self.limit, self.max_keys),
        }
    }

    fn prefix(&self) -> String {
        format!("{}:", self.name)
    }

    /// Whether a resource of this rule could be one of the other.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        let covers = |one: &Self, other: &Self| {
            one.name == other.name || one.key.is_some() && other.name.starts_with(&one.prefix())
        };
        covers(self, other) || covers(other, self)
    }

    /// Whether the rule limits or gives back by permits, so that they are to be held.
    pub(super) fn holds(&self) -> bool {
        self.limit.get_max_in_flight().is_some() || self.limit.get_on_release() == OnRelease::Refund
    }

    /// Whether a permit is needed, which a compact key has not.
    pub(super) fn needs_permit(&self) -> bool {
        self.holds() || self.charge_if.is_some()
    }

    /// Appends the name of the request's resource; that of requests without a key if it has none.
    pub(super) fn write_resource(
        &self,
        request: &request::Parts,
        peer: Option<IpAddr>,
        name: &mut String,
    ) -> Result<(), NoKey> {
        name.push_str(&self.name);
        let Some(key) = &self.key else { return Ok(()) };
        name.push(':');
        let start = name.len();
        let written = key.write(request, peer, name);
        if written.is_err() {
            name.truncate(start);
            name.push_str(ANONYMOUS);
        }
        written
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("name", &self.name)
            .field("limit", &self.limit.to_string())
            .field("is_observed", &self.is_observed)
            .finish_non_exhaustive()
    }
}
