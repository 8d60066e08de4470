//! What a rule counts by.

use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use http::Extensions;
use http::header::HeaderName;
use http::request::Parts;

use super::forwarded::TrustedProxies;

/// The longest text that is a key as it is, in bytes.
const LONGEST: usize = 64;
/// Between the parts of a key: no part has it.
const SEPARATOR: char = '|';
/// Before a hash: no text begins with it.
const HASHED: char = '#';
/// The key of requests without one: no text is it.
pub(super) const ANONYMOUS: &str = "anonymous";

/// What a rule counts by. Each key has its own bucket.
///
/// # What is stored
///
/// A key is a part of a resource's name, which is kept in memory, and appears in lists of resources and in logs. So
/// its length is bounded: a text of more than 64 bytes, or with control characters or `|`, is replaced by a hash of
/// 128 bits (`SipHash`, with a random secret of the process). So is a text that begins with `#`, as hashes do, or is
/// `anonymous`: otherwise a client could use the bucket of others. Values of headers, which may be secrets, and
/// [`KeyValue::secret`] are always hashed.
#[derive(Clone)]
pub struct Key {
    source: Source,
    ipv6_prefix: u8,
    and: Option<Box<Key>>,
}

type Function = Arc<dyn Fn(&Parts) -> KeyValue + Send + Sync>;

/// Why a request has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    Absent,
    /// It has several. The client chose so, and the application may take it for one that has a key.
    Several,
}

#[derive(Clone)]
enum Source {
    Peer,
    XForwardedFor(TrustedProxies),
    Forwarded(TrustedProxies),
    /// `None` if it is not a header's name.
    Header(Option<HeaderName>),
    Path,
    Method,
    Function(Function),
}

impl Key {
    fn new(source: Source) -> Self {
        Self { source, ipv6_prefix: 64, and: None }
    }

    /// The address of the peer: of the client, or of the proxy before this server. IPv6 addresses count by
    /// [networks](Self::ipv6_prefix).
    ///
    /// It is what [`peer_addr`](super::RateLimitLayerBuilder::peer_addr) finds, or else a [`PeerAddr`] or a
    /// [`SocketAddr`] in the request's extensions.
    #[must_use]
    pub fn peer_ip() -> Self {
        Self::new(Source::Peer)
    }

    /// The client's address in `X-Forwarded-For`, as far as trusted proxies wrote it. If the peer is not a trusted
    /// proxy, the key is the peer's address.
    ///
    /// Each trusted proxy must append the address of its peer, as nginx does with `$proxy_add_x_forwarded_for`, or
    /// set the header to it. Several lines count as one list, in their order. The list is read from the right, up to
    /// the first address that is not a trusted proxy's, which is the key. If a malformed address comes first, the
    /// key is the address of the last trusted proxy.
    #[must_use]
    pub fn x_forwarded_for(proxies: TrustedProxies) -> Self {
        Self::new(Source::XForwardedFor(proxies))
    }

    /// As [`x_forwarded_for`](Self::x_forwarded_for), from the header `Forwarded` (RFC 7239). Most proxies write it
    /// only if they are configured to, and otherwise pass on what the client wrote. A hidden address, such as
    /// `for=unknown`, counts as malformed.
    #[must_use]
    pub fn forwarded(proxies: TrustedProxies) -> Self {
        Self::new(Source::Forwarded(proxies))
    }

    /// The hashed value of a header, for example of an API key. A request with several lines of the header has no
    /// key, because the layer cannot know which one the application uses.
    ///
    /// The client chooses the value. Until it is authenticated, it can send a new value with each request: add a
    /// rule by address, or put the layer behind the authentication. A client can also write one value in several
    /// ways, such as `Bearer` and `bearer` in `Authorization`. If the application treats these as equal, count by
    /// the value that it has parsed, with [`extension`](Self::extension).
    #[must_use]
    pub fn header<N>(name: N) -> Self
    where
        HeaderName: TryFrom<N>,
    {
        Self::new(Source::Header(HeaderName::try_from(name).ok()))
    }

    /// The path of the request's URI, as it was sent. A client can send any, also many that lead to one route:
    /// each has a bucket of its own. For a route's pattern use [`extension`](Self::extension), with axum's
    /// `MatchedPath`.
    #[must_use]
    pub fn path() -> Self {
        Self::new(Source::Path)
    }

    /// The request's method.
    #[must_use]
    pub fn method() -> Self {
        Self::new(Source::Method)
    }

    /// From an extension of the request; without it the request has no key.
    ///
    /// ```
    /// use tollgate::tower::server::Key;
    ///
    /// #[derive(Clone)]
    /// struct User { id: u64 }
    ///
    /// let key = Key::extension(|user: &User| user.id);
    /// ```
    #[must_use]
    pub fn extension<T, K>(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        K: Into<KeyValue>,
    {
        Self::from_fn(move |request| request.extensions.get::<T>().map(&key))
    }

    /// By a function of the request's head.
    ///
    /// ```
    /// use tollgate::tower::server::{Key, KeyValue};
    ///
    /// let by_host = Key::from_fn(|request| request.uri.host().map(str::to_owned));
    /// let by_token = Key::from_fn(|request| {
    ///     let value = request.headers.get("authorization")?.to_str().ok()?;
    ///     let (scheme, token) = value.split_once(' ')?;
    ///     scheme.eq_ignore_ascii_case("bearer").then(|| KeyValue::secret(token.trim()))
    /// });
    /// ```
    #[must_use]
    pub fn from_fn<F, K>(key: F) -> Self
    where
        F: Fn(&Parts) -> K + Send + Sync + 'static,
        K: Into<KeyValue>,
    {
        Self::new(Source::Function(Arc::new(move |request| key(request).into())))
    }

    /// The pair of this key and another: `Key::peer_ip().and(Key::path())`. A request without one of them has
    /// no key.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.and = Some(Box::new(match self.and.take() {
            Some(next) => next.and(other),
            None => other,
        }));
        self
    }

    /// IPv6 addresses with the same first `bits` share a bucket: 64 by default, because a customer usually has a /64
    /// or more. More than 128 counts as 128. IPv4-mapped IPv6 addresses count as IPv4. On a [pair](Self::and) it
    /// applies to both.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits.min(128);
        self.and = self.and.map(|and| Box::new(and.ipv6_prefix(bits)));
        self
    }

    /// Whether each header's name is one.
    pub(super) fn is_valid(&self) -> bool {
        !matches!(self.source, Source::Header(None))
            && self.and.as_ref().is_none_or(|and| and.is_valid())
    }

    /// Appends the key of a request to a name.
    pub(super) fn write(
        &self,
        request: &Parts,
        peer: Option<IpAddr>,
        name: &mut String,
    ) -> Result<(), NoKey> {
        match &self.source {
            Source::Peer => self.write_ip(peer, name)?,
            Source::XForwardedFor(proxies) => {
                self.write_ip(proxies.by_x_forwarded_for(peer, &request.headers), name)?;
            }
            Source::Forwarded(proxies) => {
                self.write_ip(proxies.by_forwarded(peer, &request.headers), name)?;
            }
            Source::Header(header) => {
                let header = header.as_ref().ok_or(NoKey::Absent)?;
                let mut lines = request.headers.get_all(header).into_iter();
                let line = lines.next().ok_or(NoKey::Absent)?;
                if lines.next().is_some() {
                    return Err(NoKey::Several);
                }
                write_hash(line.as_bytes(), name);
            }
            Source::Path => write_text(request.uri.path(), name),
            Source::Method => write_text(request.method.as_str(), name),
            Source::Function(function) => match function(request).0 {
                Value::None => return Err(NoKey::Absent),
                Value::Ip(address) => self.write_ip(Some(address), name)?,
                Value::Text(text) => write_text(&text, name),
                Value::Secret(secret) => write_hash(secret.as_bytes(), name),
            },
        }
        match &self.and {
            Some(and) => {
                name.push(SEPARATOR);
                and.write(request, peer, name)
            }
            None => Ok(()),
        }
    }

    fn write_ip(&self, address: Option<IpAddr>, name: &mut String) -> Result<(), NoKey> {
        match address.ok_or(NoKey::Absent)?.to_canonical() {
            IpAddr::V4(address) => {
                // Not by `write!`, which takes as long as to decide.
                let mut digits = itoa::Buffer::new();
                for (index, octet) in address.octets().into_iter().enumerate() {
                    if index > 0 {
                        name.push('.');
                    }
                    name.push_str(digits.format(octet));
                }
            }
            IpAddr::V6(address) => {
                let bits = self.ipv6_prefix;
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                let network = std::net::Ipv6Addr::from_bits(address.to_bits() & mask);
                let _ = write!(name, "{network}/{bits}");
            }
        }
        Ok(())
    }
}

fn write_text(text: &str, name: &mut String) {
    let is_plain = |c: char| c != SEPARATOR && !c.is_control();
    // A client could otherwise choose the key of others.
    let is_taken = text.starts_with(HASHED) || text == ANONYMOUS;
    if text.len() <= LONGEST && text.chars().all(is_plain) && !is_taken {
        name.push_str(text);
    } else {
        write_hash(text.as_bytes(), name);
    }
}

/// The seeds are one pair for the process, so that layers that share a limiter share its keys.
fn write_hash(bytes: &[u8], name: &mut String) {
    static SEEDS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    name.push(HASHED);
    for seed in &*SEEDS {
        let _ = write!(name, "{:016x}", seed.hash_one(bytes));
    }
}

/// A part of a key, as functions return it: an address, a text or a number; an `Option` of these; or a
/// [secret](Self::secret).
#[derive(Clone)]
pub struct KeyValue(Value);

#[derive(Clone)]
enum Value {
    None,
    Ip(IpAddr),
    Text(String),
    Secret(String),
}

impl KeyValue {
    /// A text that must not be stored: its hash is the key.
    #[must_use]
    pub fn secret(text: impl Into<String>) -> Self {
        Self(Value::Secret(text.into()))
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::None => f.write_str("None"),
            Value::Ip(address) => fmt::Debug::fmt(address, f),
            Value::Text(text) => fmt::Debug::fmt(text, f),
            Value::Secret(_) => f.write_str("<secret>"),
        }
    }
}

impl From<IpAddr> for KeyValue {
    fn from(address: IpAddr) -> Self {
        Self(Value::Ip(address))
    }
}

impl From<SocketAddr> for KeyValue {
    fn from(address: SocketAddr) -> Self {
        address.ip().into()
    }
}

impl From<String> for KeyValue {
    fn from(text: String) -> Self {
        Self(Value::Text(text))
    }
}

impl From<&str> for KeyValue {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<u64> for KeyValue {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

/// `None`: the request has no key.
impl<K: Into<KeyValue>> From<Option<K>> for KeyValue {
    fn from(key: Option<K>) -> Self {
        key.map_or(Self(Value::None), Into::into)
    }
}

/// The address that a request came from, as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

impl PeerAddr {
    pub(super) fn find(extensions: &Extensions) -> Option<SocketAddr> {
        let own = extensions.get::<Self>().map(|peer| peer.0);
        own.or_else(|| extensions.get::<SocketAddr>().copied())
    }
}
