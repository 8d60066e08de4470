//! Which address a request comes from, by what the proxies on its way say.
//!
//! Each proxy appends the address that it was called from. So only what trusted proxies appended can be
//! believed, and that is on the right: the walk begins there, and what a client wrote itself is never
//! reached.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::{IpNet, Ipv4Net};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies in front of this server that are trusted to say where a request comes from.
#[derive(Clone, Debug)]
pub struct TrustedProxies(Trust);

#[derive(Clone, Debug)]
enum Trust {
    Hops(usize),
    Networks(Arc<[IpNet]>),
}

impl TrustedProxies {
    /// Every request passes this many proxies, which all append to the header: the client is the one that the
    /// farthest of them names. With 0 the header is not used.
    ///
    /// Use it only if clients cannot reach the server past one of the proxies: such a client could name any
    /// address.
    #[must_use]
    pub fn hops(n: usize) -> Self {
        Self(Trust::Hops(n))
    }

    /// Proxies with addresses in these networks: the client is the last address, from the right and beginning
    /// with that of the peer, that is in none of them. A request that does not come from such a proxy is the
    /// peer's.
    ///
    /// ```
    /// use tollgate::tower::server::{Key, TrustedProxies};
    ///
    /// let proxies = TrustedProxies::networks(["10.0.0.0/8".parse()?, "fd00::/8".parse()?]);
    /// let key = Key::x_forwarded_for(proxies);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn networks(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(Trust::Networks(networks.into_iter().map(canonical).collect()))
    }

    /// The client by `X-Forwarded-For`.
    pub(super) fn by_x_forwarded_for(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let lines = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
        let elements = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let elements = elements.filter(|element| !element.trim_ascii().is_empty());
        self.walk(peer, elements.map(|element| node(std::str::from_utf8(element).ok()?.trim())))
    }

    /// The client by `Forwarded` (RFC 7239).
    pub(super) fn by_forwarded(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let lines = headers.get_all(FORWARDED).into_iter().rev();
        let elements = lines.flat_map(|line| Elements { rest: Some(line.as_bytes()) });
        let elements =
            elements.filter(|element| element.is_none_or(|text| !text.trim_ascii().is_empty()));
        self.walk(peer, elements.map(|element| node_of(std::str::from_utf8(element?).ok()?)))
    }

    /// Walks from the peer to the left. What is malformed, `None`, ends the walk at the last trusted proxy.
    fn walk(
        &self,
        peer: Option<IpAddr>,
        mut hops: impl Iterator<Item = Option<IpAddr>>,
    ) -> Option<IpAddr> {
        let mut client = peer;
        match &self.0 {
            Trust::Hops(n) => {
                for hop in hops.take(*n).map_while(|hop| hop) {
                    client = Some(hop);
                }
            }
            Trust::Networks(networks) => {
                let is_trusted =
                    |address: IpAddr| networks.iter().any(|network| network.contains(&address));
                while client.is_some_and(is_trusted)
                    && let Some(Some(hop)) = hops.next()
                {
                    client = Some(hop);
                }
            }
        }
        client
    }
}

/// Addresses are compared in their canonical form: a network of addresses that are mapped to IPv6 is one of
/// IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped = || {
        let bits = network.prefix_len().checked_sub(96)?;
        let IpAddr::V4(address) = network.addr().to_canonical() else { return None };
        Ipv4Net::new(address, bits).ok().map(IpNet::V4)
    };
    if network.addr().is_ipv6() { mapped().unwrap_or(network) } else { network }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !port.is_empty() && port.bytes().all(is_allowed)
    };
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::V4(address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

/// The elements of a line of `Forwarded`, from the right; `None` for a rest whose quotes do not match.
///
/// From the right, as the left part may be a client's: a quote that it opens must not swallow what proxies
/// append. And by quotes, as a proxy may quote what the client wrote, such as a host: a comma in it begins no
/// element.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.rest.take()?;
        let mut in_quotes = false;
        for at in (0..line.len()).rev() {
            match line[at] {
                b'"' if !in_quotes => in_quotes = true,
                b'"' => {
                    let escapes = line[..at].iter().rev().take_while(|byte| **byte == b'\\');
                    in_quotes = escapes.count() % 2 == 1;
                }
                b',' if !in_quotes => {
                    self.rest = Some(&line[..at]);
                    return Some(Some(&line[at + 1..]));
                }
                _ => {}
            }
        }
        Some((!in_quotes).then_some(line))
    }
}

/// The address of an element's only `for`: `for="[2001:db8::1]:80";proto=https`.
fn node_of(element: &str) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element.trim();
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(';') {
            rest = next.trim_start();
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => unquoted(after)?,
        };
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
        if name.trim().eq_ignore_ascii_case("for") && found.replace(node(&value)?).is_some() {
            return None;
        }
    }
    found
}

/// A value up to the end of the pair. Colons and brackets should be quoted, and are not by all proxies.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let (value, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let value = value.trim_end();
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,=".contains(&byte);
    value.bytes().all(is_allowed).then_some((value.into(), rest))
}

/// The text before the closing quote, without its escapes, and what is after it.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (end, '"') => {
                return Some((value.into(), &text[end + 1..]));
            }
            (_, '\\') => value.push(chars.next()?.1),
            (_, other) => value.push(other),
        }
    }
}
