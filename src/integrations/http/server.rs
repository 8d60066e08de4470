//! The headers that a server tells its limits in.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::limiter::{Decision, Limit, LimitWindow};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The largest integer of a structured field (RFC 9651).
const MOST: u64 = 999_999_999_999_999;
const SECOND: Duration = Duration::from_secs(1);
const NANOS: u128 = SECOND.as_nanos();

/// `Retry-After`: whole seconds, rounded up, at least 1. A client that obeys is not refused again for having
/// come too early.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(tollgate::http::retry_after(Duration::from_millis(1)), "1");
/// assert_eq!(tollgate::http::retry_after(Duration::from_millis(2_001)), "3");
/// ```
#[must_use]
pub fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole_seconds(wait))
}

fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(up).clamp(1, MOST)
}

/// Writes a limit and its standing into an answer's headers, from the [`Decision`] that admitted or refused the
/// request.
///
/// | header | says |
/// | --- | --- |
/// | `RateLimit-Policy: "api";q=600;w=60` | `q` tokens in each window of `w` seconds |
/// | `RateLimit: "api";r=42;t=4` | `r` tokens now, to be spread over `t` seconds; after a refusal, try again in `t` seconds |
/// | `Retry-After: 5` | after a refusal: seconds until the same request may be admitted |
/// | `X-RateLimit-Limit`, `-Remaining`, `-Reset` | with [`legacy`](Self::legacy): burst, `r` and `t` |
///
/// A token bucket has no windows. So `w` is the time in which the burst refills, and `q` what may be sent in it
/// at the limit's rate, or the burst if that is more: a client that spreads `q` over `w`, or `r` over `t`, is
/// served at about the limit's rate, and not refused. These are whole seconds: `t` is left out of an admission
/// where the burst is less than what accrues in a second, as it would slow such a client down.
///
/// ```
/// use http::HeaderMap;
/// use tollgate::http::RateLimitHeaders;
/// use tollgate::{Limit, ManualClock, MemoryLimiter};
///
/// let limiter = MemoryLimiter::with_clock(ManualClock::new());
/// let limit = Limit::per_second(10).burst(30);
/// limiter.configure("api", limit)?;
/// let tell = RateLimitHeaders::new("api", &limit).legacy();
///
/// let mut headers = HeaderMap::new();
/// tell.write(&limiter.decide("api", 10), &mut headers);
/// assert_eq!(headers["ratelimit-policy"], r#""api";q=30;w=3"#);
/// assert_eq!(headers["ratelimit"], r#""api";r=20;t=2"#);
/// assert_eq!(headers["x-ratelimit-remaining"], "20");
/// assert!(!headers.contains_key("retry-after"));
///
/// tell.write(&limiter.decide("api", 30), &mut headers);
/// assert_eq!(headers["retry-after"], "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitHeaders {
    policies: Vec<Policy>,
    /// `RateLimit-Policy` while nothing is cut.
    uncut: HeaderValue,
    is_legacy: bool,
}

/// One window of the limit.
#[derive(Clone, Debug)]
struct Policy {
    /// With its quotes.
    name: String,
    tokens: u64,
    /// The time in which they accrue, in nanoseconds.
    per: u128,
    burst: u64,
}

impl RateLimitHeaders {
    /// For a limit, one policy for each of its windows. Of the name, what no structured field can hold is left
    /// out. Clients see it: it must not be a secret, such as an API key.
    #[must_use]
    pub fn new(name: &str, limit: &Limit) -> Self {
        let is_allowed = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        let name: String = name.chars().filter(is_allowed).collect();
        let policy = |(index, window): (usize, LimitWindow)| Policy {
            name: if index == 0 {
                format!("\"{name}\"")
            } else {
                format!("\"{name}-{}\"", index + 1)
            },
            // What accrues in a strict window is what its burst leaves.
            tokens: if window.is_strict {
                window.capacity.saturating_add(1).saturating_sub(window.burst).max(1)
            } else {
                window.capacity.max(1)
            },
            per: window.window.as_nanos(),
            burst: window.burst,
        };
        let policies: Vec<_> = limit.get_windows().enumerate().map(policy).collect();
        let uncut = list(policies.iter());
        Self { policies, uncut, is_legacy: false }
    }

    /// Adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, the last in seconds from now.
    #[must_use]
    pub fn legacy(mut self) -> Self {
        self.is_legacy = true;
        self
    }

    /// Writes the headers, in place of those of the same names. Nothing of a decision that knows no limit, such
    /// as one of a closed limiter.
    pub fn write(&self, decision: &Decision, headers: &mut HeaderMap) {
        if decision.burst == 0 {
            return;
        }
        let legacy = [LEGACY_LIMIT, LEGACY_REMAINING, LEGACY_RESET];
        for name in
            [RATE_LIMIT, POLICY].into_iter().chain(legacy.into_iter().filter(|_| self.is_legacy))
        {
            headers.remove(name);
        }
        Self::append([(self, decision)], headers);
    }

    /// Writes several limits of one request, beside what the headers tell already, for example of a service
    /// behind this one.
    ///
    /// * `RateLimit` and `RateLimit-Policy` list each limit.
    /// * `Retry-After` is the longest wait of those that refuse: a client that obeys finds tokens in all of them.
    ///   It is left out if one of them cannot say when.
    /// * `X-RateLimit-*` are of the tightest of those that have [`legacy`](Self::legacy): of the one that refuses
    ///   for longest, or else has the fewest tokens left.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use tollgate::http::RateLimitHeaders;
    /// use tollgate::{Limit, ManualClock, MemoryLimiter};
    ///
    /// let limiter = MemoryLimiter::with_clock(ManualClock::new());
    /// let (user, all) = (Limit::per_minute(60), Limit::per_second(100));
    /// limiter.configure("user", user)?;
    /// limiter.configure("all", all)?;
    /// let tell = [RateLimitHeaders::new("user", &user), RateLimitHeaders::new("all", &all)];
    ///
    /// let (_permits, decisions) = limiter.admit_all(&[("user", 1), ("all", 1)]).unwrap();
    /// let mut headers = HeaderMap::new();
    /// RateLimitHeaders::append(tell.iter().zip(&decisions), &mut headers);
    /// assert_eq!(headers["ratelimit"], r#""user";r=59;t=59, "all";r=99;t=1"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append<'a>(
        limits: impl IntoIterator<Item = (&'a Self, &'a Decision)>,
        headers: &mut HeaderMap,
    ) {
        let (mut policies, mut standings) = (List::default(), String::new());
        let mut tightest: Option<Told> = None;
        let mut longest = None;
        let mut all_say_when = true;
        for (limit, decision) in limits {
            if let Err(error) = decision.outcome {
                let wait = error.retry_after();
                all_say_when &= wait.is_some();
                longest = longest.max(wait);
            }
            let Some((policy, told)) = limit.tell(decision, &mut standings) else { continue };
            policies.push(policy);
            if limit.is_legacy && tightest.as_ref().is_none_or(|known| known.slack() > told.slack())
            {
                tightest = Some(told);
            }
        }
        if let Some(policies) = policies.joined() {
            headers.append(POLICY, policies);
            headers.append(RATE_LIMIT, value(&standings));
        }
        if let Some(wait) = longest.filter(|_| all_say_when) {
            headers.insert(RETRY_AFTER, retry_after(wait));
        }
        if let Some(told) = tightest {
            told.write_legacy(headers);
        }
    }

    /// The policies of the limit; appends its standing to those of others. `None` if the decision knows no limit.
    fn tell(&self, decision: &Decision, standings: &mut String) -> Option<(HeaderValue, Told)> {
        let Decision { outcome, remaining, burst, until_next, .. } = *decision;
        // The decision is of the tightest window. After a cut none has this burst, and all are cut alike.
        let same = self.policies.iter().find(|policy| policy.burst == burst);
        let policy = same.or(self.policies.first()).filter(|_| burst > 0)?;
        let policies = match same {
            Some(_) => self.uncut.clone(),
            None => list(self.policies.iter().map(|each| each.cut_to(burst, policy.burst))),
        };
        let wait = outcome.err().and_then(|error| error.retry_after());
        let reset = match wait {
            Some(wait) => Some(whole_seconds(wait)),
            None if remaining == 0 && until_next > SECOND => Some(whole_seconds(until_next)),
            None if same.is_some() => policy.spread(remaining),
            None => policy.cut_to(burst, policy.burst).spread(remaining),
        };
        if standings.is_empty() {
            standings.reserve(64);
        } else {
            standings.push_str(", ");
        }
        // Not by `write!`, which takes as long as to decide.
        let mut digits = itoa::Buffer::new();
        for part in [&policy.name, ";r=", digits.format(remaining.min(MOST))] {
            standings.push_str(part);
        }
        if let Some(reset) = reset {
            standings.push_str(";t=");
            standings.push_str(digits.format(reset));
        }
        let told = Told { is_refusal: outcome.is_err(), wait, burst, remaining, reset };
        Some((policies, told))
    }
}

/// What is told of one limit.
struct Told {
    is_refusal: bool,
    wait: Option<Duration>,
    burst: u64,
    remaining: u64,
    reset: Option<u64>,
}

impl Told {
    /// The least is the tightest.
    fn slack(&self) -> impl Ord {
        (Reverse((self.is_refusal, self.wait)), self.remaining, Reverse(self.reset))
    }

    /// Unless what is there already is tighter.
    fn write_legacy(&self, headers: &mut HeaderMap) {
        let known =
            headers.get(LEGACY_REMAINING).and_then(|value| value.to_str().ok()?.parse().ok());
        if !self.is_refusal && known.is_some_and(|known: u64| known < self.remaining) {
            return;
        }
        headers.insert(LEGACY_LIMIT, HeaderValue::from(self.burst));
        headers.insert(LEGACY_REMAINING, HeaderValue::from(self.remaining));
        headers.insert(LEGACY_RESET, HeaderValue::from(self.reset.unwrap_or(1)));
    }
}

/// The value of `RateLimit-Policy`: that of one limit as it is, those of several joined.
#[derive(Default)]
struct List {
    first: Option<HeaderValue>,
    all: Vec<u8>,
}

impl List {
    fn push(&mut self, value: HeaderValue) {
        if let Some(first) = &self.first {
            if self.all.is_empty() {
                self.all.extend_from_slice(first.as_bytes());
            }
            self.all.extend_from_slice(b", ");
            self.all.extend_from_slice(value.as_bytes());
        } else {
            self.first = Some(value);
        }
    }

    fn joined(self) -> Option<HeaderValue> {
        if self.all.is_empty() { self.first } else { HeaderValue::from_bytes(&self.all).ok() }
    }
}

impl Policy {
    /// With its burst and its rate in proportion to a cut of `of` to `to` tokens.
    fn cut_to(&self, to: u64, of: u64) -> Self {
        let scale = |n: u128, by: u64, of: u64| n.saturating_mul(by.into()) / u128::from(of.max(1));
        let burst = u64::try_from(scale(self.burst.into(), to, of)).unwrap_or(u64::MAX).max(1);
        Self { name: self.name.clone(), per: scale(self.per, of, to), burst, ..*self }
    }

    /// The nanoseconds in which this many tokens accrue.
    fn nanos_for(&self, tokens: u64) -> u128 {
        u128::from(tokens).saturating_mul(self.per).div_ceil(u128::from(self.tokens))
    }

    /// `w`: the seconds in which the bucket refills.
    fn window(&self) -> u64 {
        u64::try_from(self.nanos_for(self.burst).div_ceil(NANOS)).unwrap_or(MOST).clamp(1, MOST)
    }

    /// `t`: the seconds over which to spread what is left, at the limit's rate or a little faster. `None` where
    /// the bucket never holds what accrues in a second: spread over a whole second it would be sent slower than
    /// the limit allows.
    fn spread(&self, left: u64) -> Option<u64> {
        let seconds = u64::try_from(self.nanos_for(left) / NANOS).unwrap_or(MOST);
        (self.nanos_for(self.burst) >= NANOS).then_some(seconds.clamp(1, MOST))
    }

    /// `q`: what accrues in `w`, at least the burst.
    fn quota(&self, window: u64) -> u64 {
        let nanos = u128::from(window) * NANOS;
        let accrued = u128::from(self.tokens).saturating_mul(nanos) / self.per.max(1);
        u64::try_from(accrued).unwrap_or(MOST).clamp(self.burst.min(MOST), MOST)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window();
        write!(f, "{};q={};w={window}", self.name, self.quota(window))
    }
}

fn list(policies: impl Iterator<Item = impl fmt::Display>) -> HeaderValue {
    let policies: Vec<_> = policies.map(|policy| policy.to_string()).collect();
    value(&policies.join(", "))
}

/// The name is visible ASCII, and so is the rest.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
