//! What requests are counted by.

use std::net::{IpAddr, SocketAddr};

use http::{Request, StatusCode};
use proptest::prelude::*;
use tollgate::tower::server::{Key, KeyValue, PeerAddr, RateLimitLayer, Rule, TrustedProxies};
use tollgate::{Limit, MemoryLimiter};

use super::{Server, from, limiter, with};
use crate::common::cases;

fn per(limiter: &MemoryLimiter, key: Key) -> Server {
    let rule = Rule::new("rule", Limit::per_minute(1)).per(key);
    Server::new(RateLimitLayer::builder(limiter).rule(rule))
}

/// The key that the request is counted by.
fn key_of(key: Key, request: Request<()>) -> String {
    let (_time, limiter) = limiter();
    assert_eq!(per(&limiter, key).status(request), StatusCode::OK);
    let keys = limiter.keys("rule:");
    let [key] = &keys[..] else { panic!("{keys:?}") };
    key.resource.strip_prefix("rule:").unwrap().to_string()
}

fn peer(address: &str) -> Request<()> {
    let mut request = Request::new(());
    let address: IpAddr = address.parse().unwrap();
    request.extensions_mut().insert(SocketAddr::from((address, 4711)));
    request
}

#[test]
fn addresses_count_by_network() {
    for (address, key) in [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ] {
        assert_eq!(key_of(Key::peer_ip(), peer(address)), key);
    }
    let bits = |n| key_of(Key::peer_ip().ipv6_prefix(n), peer("2001:db8:1:2:3:4:5:6"));
    assert_eq!(bits(48), "2001:db8:1::/48");
    assert_eq!(bits(0), "::/0");
    assert_eq!(bits(128), "2001:db8:1:2:3:4:5:6/128");
    assert_eq!(bits(200), bits(128));

    let pair = Key::method().and(Key::peer_ip()).ipv6_prefix(48);
    assert_eq!(key_of(pair, peer("2001:db8:1:2::3")), "GET|2001:db8:1::/48");
}

#[test]
fn the_peer_is_where_the_server_says_or_in_a_known_extension() {
    #[derive(Clone)]
    struct Connection(Option<SocketAddr>);

    let (_time, limiter) = limiter();
    let rule = Rule::new("rule", Limit::per_minute(9)).per(Key::peer_ip());
    let layer = RateLimitLayer::builder(&limiter)
        .peer_addr(|connection: &Connection| connection.0)
        .rule(rule);
    let server = Server::new(layer);
    let request = |connection: Option<&str>| {
        let mut request = peer("192.0.2.1");
        let own = PeerAddr("192.0.2.2:1".parse().unwrap());
        request.extensions_mut().insert(own);
        if let Some(address) = connection {
            request.extensions_mut().insert(Connection(address.parse().ok()));
        }
        request
    };
    server.status(request(Some("192.0.2.3:1")));
    server.status(request(Some("none")));
    server.status(request(None));
    server.status(peer("192.0.2.1"));
    server.status(Request::new(()));
    let keys: Vec<_> = limiter.keys("rule:").into_iter().map(|key| key.resource).collect();
    assert_eq!(keys, ["rule:192.0.2.1", "rule:192.0.2.2", "rule:192.0.2.3", "rule:anonymous"]);
}

#[test]
fn paths_methods_extensions_and_functions_are_keys() {
    #[derive(Clone)]
    struct User(u64, &'static str);

    let mut request = from("192.0.2.1");
    *request.uri_mut() = "https://example.com/search?q=1".parse().unwrap();
    request.extensions_mut().insert(User(7, "ann"));
    let of = |key| key_of(key, request.clone());
    assert_eq!(of(Key::path()), "/search");
    assert_eq!(of(Key::method()), "GET");
    assert_eq!(of(Key::extension(|user: &User| user.0)), "7");
    assert_eq!(of(Key::extension(|user: &User| user.1)), "ann");
    assert_eq!(of(Key::extension(|user: &User| Some(user.1).filter(|_| false))), "anonymous");
    assert_eq!(of(Key::extension(|missing: &String| missing.clone())), "anonymous");
    assert_eq!(of(Key::extension(|peer: &PeerAddr| peer.0)), "192.0.2.1");
    assert_eq!(of(Key::from_fn(|request| request.uri.host().map(str::to_owned))), "example.com");
    assert_eq!(of(Key::peer_ip().and(Key::method()).and(Key::path())), "192.0.2.1|GET|/search");
    assert_eq!(of(Key::path().and(Key::header("x-api-key"))), "anonymous");
}

#[test]
fn secrets_and_long_texts_are_hashed() {
    let secret = "sk-0123456789";
    let by_header = |value: &str| {
        key_of(Key::header("x-api-key"), with(from("192.0.2.1"), &[("x-api-key", value)]))
    };
    let by_text = |text: String| key_of(Key::from_fn(move |_| text.clone()), from("192.0.2.1"));
    let by_secret = key_of(Key::from_fn(move |_| KeyValue::secret(secret)), from("192.0.2.1"));
    assert_eq!(by_header(secret), by_secret);
    assert_ne!(by_header("a"), by_header("b"));
    assert!(!format!("{:?}", KeyValue::secret(secret)).contains(secret));
    assert_eq!(by_text("a".repeat(64)), "a".repeat(64));
    for key in [by_secret, by_text("a".repeat(65)), by_text("a|b".into()), by_text("a\nb".into())] {
        assert!(key.len() == 33 && key.starts_with('#'), "{key}");
        assert_ne!(by_text(key.clone()), key, "nobody can name the key of another");
    }
    assert_ne!(by_text("anonymous".into()), "anonymous", "nor that of those without a key");
    assert_eq!(by_text(String::new()), "");
}

#[test]
fn a_header_that_is_sent_twice_is_no_key() {
    let (_time, limiter) = limiter();
    let server = per(&limiter, Key::header("x-api-key"));
    for n in 0..3 {
        let other = n.to_string();
        server.status(with(from("192.0.2.1"), &[("x-api-key", "abc"), ("x-api-key", &other)]));
    }
    let keys = limiter.keys("rule:");
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keys[0].resource, "rule:anonymous");
}

fn networks() -> TrustedProxies {
    TrustedProxies::networks(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_trusted() {
    for (proxies, peer_address, lines, client) in [
        (networks(), "10.0.0.1", &["203.0.113.9"][..], "203.0.113.9"),
        (networks(), "10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (networks(), "10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (networks(), "10.0.0.1", &["1.1.1.1", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (networks(), "::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        (networks(), "10.0.0.1", &["203.0.113.9:4711, [fd00::1]:80"], "203.0.113.9"),
        (networks(), "fd00::2", &["2001:db8:1:2:3::4 ,\t[fd00::1]"], "2001:db8:1:2::/64"),
        (networks(), "10.0.0.1", &["203.0.113.9, , "], "203.0.113.9"),
        (networks(), "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (networks(), "10.0.0.1", &[], "10.0.0.1"),
        // Who is no trusted proxy says nothing.
        (networks(), "203.0.113.1", &["1.1.1.1"], "203.0.113.1"),
        // What is malformed ends the walk at the last proxy that is trusted.
        (networks(), "10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (networks(), "10.0.0.1", &["1.1.1.1, 203.0.113.999"], "10.0.0.1"),
        (networks(), "10.0.0.1", &["1.1.1.1, \u{e9}"], "10.0.0.1"),
        (networks(), "10.0.0.1", &["1.1.1.1, [::1"], "10.0.0.1"),
        (networks(), "10.0.0.1", &["1.1.1.1, [::1]80"], "10.0.0.1"),
        (networks(), "10.0.0.1", &["1.1.1.1, 203.0.113.9:"], "10.0.0.1"),
        (TrustedProxies::hops(0), "10.0.0.1", &["203.0.113.9"], "10.0.0.1"),
        (TrustedProxies::hops(1), "10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (TrustedProxies::hops(2), "10.0.0.1", &["1.1.1.1, 203.0.113.9, 9.9.9.9"], "203.0.113.9"),
        (TrustedProxies::hops(2), "10.0.0.1", &["1.1.1.1, 203.0.113.9", "9.9.9.9"], "203.0.113.9"),
        (TrustedProxies::hops(2), "10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
        (TrustedProxies::hops(2), "10.0.0.1", &["1.1.1.1, _, 9.9.9.9"], "9.9.9.9"),
        (TrustedProxies::hops(2), "10.0.0.1", &[], "10.0.0.1"),
    ] {
        let mut request = peer(peer_address);
        for line in lines {
            let value = http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
            request.headers_mut().append("x-forwarded-for", value);
        }
        let of = |key| key_of(key, request.clone());
        assert_eq!(of(Key::x_forwarded_for(proxies)), client, "{peer_address} {lines:?}");
        assert_eq!(of(Key::peer_ip()), of(Key::forwarded(networks())), "another header");
    }
}

#[test]
fn a_network_that_is_mapped_to_ipv6_is_one_of_ipv4() {
    for (network, is_trusted) in [
        ("::ffff:10.0.0.0/104", true),
        ("::ffff:10.0.0.1/128", true),
        ("::ffff:11.0.0.0/104", false),
    ] {
        let proxies = TrustedProxies::networks([network.parse().unwrap()]);
        let request = with(peer("10.0.0.1"), &[("x-forwarded-for", "203.0.113.9")]);
        let key = key_of(Key::x_forwarded_for(proxies), request);
        assert_eq!(key, if is_trusted { "203.0.113.9" } else { "10.0.0.1" }, "{network}");
    }
}

#[test]
fn forwarded_is_read_by_its_grammar() {
    for (lines, client) in [
        (&["for=203.0.113.9"][..], "203.0.113.9"),
        (&["For=\"203.0.113.9:4711\";proto=https;by=10.0.0.1"], "203.0.113.9"),
        (&["for=\"[2001:db8:1:2::3]:4711\""], "2001:db8:1:2::/64"),
        (&["for=\"[2001:db8:1:2::3]:_port\""], "2001:db8:1:2::/64"),
        (&["for=[2001:db8:1:2::3]"], "2001:db8:1:2::/64"),
        (&["for=\"203.0.113\\.9\""], "203.0.113.9"),
        (&["for=1.1.1.1, for=203.0.113.9;host=example.com , for=10.0.0.2"], "203.0.113.9"),
        (&["for=1.1.1.1", "for=203.0.113.9", "for=10.0.0.2;"], "203.0.113.9"),
        (&["proto=https; ; for=203.0.113.9"], "203.0.113.9"),
        // A proxy quotes what the client wrote.
        (&["for=203.0.113.9;host=\"a, for=1.1.1.1\""], "203.0.113.9"),
        (&["for=203.0.113.9;host=\"a;for=1.1.1.1\""], "203.0.113.9"),
        (&["for=203.0.113.9;host=\"a\\\", for=1.1.1.1;x=\\\"\""], "203.0.113.9"),
        (&["for=203.0.113.9;host=\"a\\\\\""], "203.0.113.9"),
        // A client opens a quote.
        (&["for=\"1.1.1.1, for=203.0.113.9"], "203.0.113.9"),
        (&["for=1.1.1.1;host=\"x", "for=203.0.113.9"], "203.0.113.9"),
        (&["for=1.1.1.1;host=\\, for=203.0.113.9"], "203.0.113.9"),
        // Hidden or malformed: the last trusted proxy.
        (&["for=1.1.1.1, for=unknown, for=10.0.0.2"], "10.0.0.2"),
        (&["for=1.1.1.1, for=_hidden"], "10.0.0.1"),
        (&["for=1.1.1.1, proto=https"], "10.0.0.1"),
        (&["for=1.1.1.1, for=203.0.113.9;for=1.1.1.1"], "10.0.0.1"),
        (&["for=1.1.1.1, for=\"203.0.113.9\"x"], "10.0.0.1"),
        (&["for=1.1.1.1, host=a\"b;for=203.0.113.9;c=\""], "10.0.0.1"),
        (&["for=1.1.1.1, 203.0.113.9"], "10.0.0.1"),
        (&["for=\"203.0.113.9"], "10.0.0.1"),
        (&[], "10.0.0.1"),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        let request = with(peer("10.0.0.1"), &lines);
        assert_eq!(key_of(Key::forwarded(networks()), request), client, "{lines:?}");
    }
}

#[test]
fn without_a_peer_only_a_count_of_hops_can_be_trusted() {
    let request = with(Request::new(()), &[("x-forwarded-for", "1.1.1.1, 203.0.113.9")]);
    let by = |proxies| key_of(Key::x_forwarded_for(proxies), request.clone());
    assert_eq!(by(networks()), "anonymous");
    assert_eq!(by(TrustedProxies::hops(1)), "203.0.113.9", "of a server on a Unix socket");
}

fn bytes(name: &'static str, lines: &[Vec<u8>]) -> Request<()> {
    let mut request = peer("10.0.0.1");
    for line in lines {
        if let Ok(value) = http::HeaderValue::from_bytes(line) {
            request.headers_mut().append(name, value);
        }
    }
    request
}

/// Any bytes, and more often those that matter.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8),
        proptest::sample::select(vec![
            "for=", "\"", "\\", ",", ";", "[", "]", ":", "1.1.1.1", "10.0.0.9", "fd00::1", " ",
            "=",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(512) as u32))]

    /// A client writes what it wants, in any number of lines; the proxies append to the last, or add lines.
    #[test]
    fn what_a_client_writes_never_changes_its_key(
        forged in proptest::collection::vec(line(), 0..4),
        appends in any::<bool>(),
    ) {
        for (name, honest) in [
            ("x-forwarded-for", ["203.0.113.9", "10.0.0.2"]),
            ("forwarded", ["for=203.0.113.9;host=\"a\\\",b\"", "for=10.0.0.2"]),
        ] {
            let mut lines: Vec<_> = forged
                .iter()
                .filter(|line| http::HeaderValue::from_bytes(line).is_ok())
                .cloned()
                .collect();
            for address in honest {
                match lines.last_mut().filter(|_| appends) {
                    Some(last) => last.extend_from_slice(format!(", {address}").as_bytes()),
                    None => lines.push(address.into()),
                }
            }
            for proxies in [networks(), TrustedProxies::hops(2)] {
                let key = match name {
                    "forwarded" => Key::forwarded(proxies),
                    _ => Key::x_forwarded_for(proxies),
                };
                prop_assert_eq!(key_of(key, bytes(name, &lines)), "203.0.113.9");
            }
        }
    }

    #[test]
    fn any_bytes_are_read(lines in proptest::collection::vec(line(), 0..4)) {
        for proxies in [networks(), TrustedProxies::hops(3)] {
            key_of(Key::x_forwarded_for(proxies.clone()), bytes("x-forwarded-for", &lines));
            key_of(Key::forwarded(proxies), bytes("forwarded", &lines));
        }
    }
}
