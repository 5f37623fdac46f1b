//! Who the client is, and what backends are told of it.
//!
//! Start at [`Trust`]. One header is believed, and only from peers that the operator named; it is
//! read from the right, the side that those peers wrote. `node` reads its elements.

mod node;

use std::net::IpAddr;

use ::http::header::FORWARDED;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::plan::{ClientIpFrom, Scheme};
use node::{element, forwarded_for, forwarded_proto, from_the_right, scheme};

pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The proxies that are walked through; the address of the next one is then the client's.
pub const MAX_HOPS: usize = 32;

/// Whose word about a client counts, and in which header.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    pub proxies: Vec<IpNet>,
    pub from: ClientIpFrom,
}

/// The other end of a connection. Made once per connection and generation, so that a request
/// formats no address.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    trusted: bool,
    /// As an element of the header that is believed.
    spelled: HeaderValue,
}

impl Peer {
    /// IPv4 where it came mapped into IPv6.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn trusted(&self) -> bool {
        self.trusted
    }
}

impl Trust {
    pub fn peer(&self, address: IpAddr) -> Peer {
        let address = address.to_canonical();
        let spelled = match (self.from, address) {
            (ClientIpFrom::XForwardedFor, _) => address.to_string(),
            (ClientIpFrom::Forwarded, IpAddr::V4(_)) => format!("for={address}"),
            (ClientIpFrom::Forwarded, IpAddr::V6(_)) => format!("for=\"[{address}]\""),
        };
        let spelled = HeaderValue::try_from(spelled).expect("an address is visible ASCII");
        Peer { address, trusted: self.trusts(address), spelled }
    }

    /// IPv4 counts where it comes mapped into IPv6.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|net| net.contains(&address))
    }

    /// The address of the client, from the headers as they came: the first from the right that is
    /// not a trusted proxy's. Where an element names no address, the proxy that wrote it is the
    /// last that is known.
    pub fn client_address(&self, peer: &Peer, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.address;
        if !peer.trusted {
            return client;
        }
        let name = match self.from {
            ClientIpFrom::XForwardedFor => &X_FORWARDED_FOR,
            ClientIpFrom::Forwarded => &FORWARDED,
        };
        for element in elements(headers, name) {
            let Some(address) = self.read(element) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        client
    }

    /// How the client came: by what a trusted peer says, else by `own`, which is how the peer did.
    /// Of several words in `X-Forwarded-Proto` the first counts, which backends believe too: it was
    /// written nearest to the client, and whoever lies there misleads nobody but himself.
    pub fn scheme(&self, peer: &Peer, headers: &HeaderMap, own: Scheme) -> Scheme {
        if !peer.trusted {
            return own;
        }
        let told = match self.from {
            ClientIpFrom::XForwardedFor => {
                let line = headers.get(&X_FORWARDED_PROTO);
                line.and_then(|line| line.as_bytes().split(|byte| *byte == b',').next()).and_then(scheme)
            }
            ClientIpFrom::Forwarded => self.forwarded_scheme(headers),
        };
        told.unwrap_or(own)
    }

    /// From the elements that lead to the client's address, the one nearest to it that says.
    fn forwarded_scheme(&self, headers: &HeaderMap) -> Option<Scheme> {
        let mut told = None;
        for element in elements(headers, &FORWARDED) {
            told = forwarded_proto(element).or(told);
            if !forwarded_for(element).is_some_and(|address| self.trusts(address)) {
                break;
            }
        }
        told
    }

    fn read(&self, text: &[u8]) -> Option<IpAddr> {
        match self.from {
            ClientIpFrom::XForwardedFor => element(text),
            ClientIpFrom::Forwarded => forwarded_for(text),
        }
    }

    /// Tells the backend, after `strip_request`, who came and how. What an untrusted peer says of
    /// it is replaced; a trusted one's is extended (`-Proto` and `-Host` stay as they are). The
    /// header that is not believed goes, and so does every underscore spelling, which CGI and WSGI
    /// backends read as the same header. `host` is empty where the client named none.
    pub fn forward(&self, peer: &Peer, scheme: &'static str, host: &HeaderValue, headers: &mut HeaderMap) {
        while let Some(name) = headers.keys().find(|name| self.is_unbelieved(peer, name.as_str())).cloned() {
            headers.remove(name);
        }
        match self.from {
            ClientIpFrom::XForwardedFor => extend(headers, &X_FORWARDED_FOR, peer.spelled.clone()),
            ClientIpFrom::Forwarded => extend(headers, &FORWARDED, forwarded(&peer.spelled, scheme, host)),
        }
        headers.entry(&X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(scheme));
        if !host.is_empty() {
            headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
        }
    }

    fn is_unbelieved(&self, peer: &Peer, name: &str) -> bool {
        let other = match self.from {
            ClientIpFrom::XForwardedFor => "forwarded",
            ClientIpFrom::Forwarded => "x-forwarded-for",
        };
        name == other || is_about_the_client(name) && (!peer.trusted || name.contains('_'))
    }
}

/// What proxies wrote one after the other, the last first.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter().rev();
    let elements = lines.flat_map(|line| from_the_right(line.as_bytes(), b','));
    elements.filter(|element| !element.is_empty()).take(MAX_HOPS)
}

/// Every `X-Forwarded-*` counts: backends believe `-Port` and `-Prefix` as they do `-For`.
pub(super) fn is_about_the_client(name: &str) -> bool {
    let same = |known: &str, name: &str| {
        let hyphened = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        hyphened.eq(known.bytes())
    };
    const FAMILY: &str = "x-forwarded-";
    name == "forwarded"
        || name.get(..FAMILY.len()).is_some_and(|start| same(FAMILY, start))
        || same("x-real-ip", name)
        || name.contains('_') && same("x-request-id", name)
}

/// One element of RFC 7239. A checked host holds nothing that would need an escape.
fn forwarded(spelled: &HeaderValue, scheme: &str, host: &HeaderValue) -> HeaderValue {
    let mut element = String::with_capacity(64);
    element.push_str(spelled.to_str().unwrap_or_default());
    if !host.is_empty() {
        element.extend([";host=\"", host.to_str().unwrap_or_default(), "\""]);
    }
    element.extend([";proto=", scheme]);
    HeaderValue::try_from(element).expect("made of header values")
}

/// Adds an element to a list, all of it on one line.
fn extend(headers: &mut HeaderMap, name: &'static HeaderName, element: HeaderValue) {
    if !headers.contains_key(name) {
        headers.insert(name, element);
        return;
    }
    let mut line = Vec::with_capacity(128);
    for before in headers.get_all(name).iter().filter(|before| !before.is_empty()) {
        line.extend_from_slice(before.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(element.as_bytes());
    headers.insert(name, HeaderValue::try_from(line).expect("made of header values"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRANGER: &str = "203.0.113.9";
    const PROXY: &str = "10.0.0.1";

    fn trust(from: ClientIpFrom) -> Trust {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
        Trust { proxies, from }
    }

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn client(from: ClientIpFrom, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let trust = trust(from);
        trust.client_address(&trust.peer(peer.parse().unwrap()), &map(lines)).to_string()
    }

    fn by_x(peer: &str, value: &str) -> String {
        client(ClientIpFrom::XForwardedFor, peer, &[("x-forwarded-for", value)])
    }

    fn by_forwarded(peer: &str, value: &str) -> String {
        client(ClientIpFrom::Forwarded, peer, &[("forwarded", value)])
    }

    fn told(from: ClientIpFrom, peer: &str, lines: &[(&'static str, &str)]) -> Vec<String> {
        let (trust, mut headers) = (trust(from), map(lines));
        let host = HeaderValue::from_static("shop.example:8080");
        trust.forward(&trust.peer(peer.parse().unwrap()), "http", &host, &mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(by_x(STRANGER, "1.2.3.4"), STRANGER);
        assert_eq!(by_x(STRANGER, "10.0.0.2"), STRANGER);
        assert_eq!(by_forwarded(STRANGER, "for=1.2.3.4"), STRANGER);
    }

    #[test]
    fn the_list_is_read_from_the_right_through_trusted_proxies() {
        for (value, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.3,10.0.0.2", "1.2.3.4"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443, fd00::7", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, ::ffff:10.0.0.9", "6.6.6.6"),
            ("1.2.3.4, ,\t, ", "1.2.3.4"),
            ("", PROXY),
        ] {
            assert_eq!(by_x(PROXY, value), expected, "{value}");
        }
        assert_eq!(by_x("::ffff:10.0.0.1", "1.2.3.4"), "1.2.3.4");
        assert_eq!(by_x("::ffff:203.0.113.9", "1.2.3.4"), STRANGER);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4, 10.0.0.3"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(client(ClientIpFrom::XForwardedFor, PROXY, &lines), "1.2.3.4");
    }

    #[test]
    fn the_walk_ends_at_what_is_no_address() {
        for (value, expected) in [
            ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, _hidden", PROXY),
            ("6.6.6.6, 1.2.3", PROXY),
            ("6.6.6.6, 1.2.3.4.5", PROXY),
            ("6.6.6.6, 1.2.3.4:x:y", PROXY),
            ("6.6.6.6, [::1", PROXY),
            ("6.6.6.6, 1.2.3.4 5.6.7.8", PROXY),
            ("6.6.6.6, \"1.2.3.4", PROXY),
        ] {
            assert_eq!(by_x(PROXY, value), expected, "{value}");
        }
    }

    #[test]
    fn the_walk_is_bounded() {
        let many = format!("6.6.6.6{}", ", 10.0.0.9".repeat(MAX_HOPS + 1));
        assert_eq!(by_x(PROXY, &many), "10.0.0.9");
    }

    #[test]
    fn one_header_is_believed_and_never_the_other() {
        let both = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2"), ("x-real-ip", "3.3.3.3")];
        assert_eq!(client(ClientIpFrom::XForwardedFor, PROXY, &both), "1.1.1.1");
        assert_eq!(client(ClientIpFrom::Forwarded, PROXY, &both), "2.2.2.2");
        assert_eq!(client(ClientIpFrom::Forwarded, PROXY, &both[..1]), PROXY);
    }

    #[test]
    fn forwarded_elements_are_read_as_rfc_7239_writes_them() {
        for (value, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("For=\"1.2.3.4:80\" ; proto=http", "1.2.3.4"),
            ("by=10.0.0.1;for=\"[2001:db8::1]:4711\";host=\"a,b;c\"", "2001:db8::1"),
            ("for=6.6.6.6, for=1.2.3.4;proto=https, for=10.0.0.2", "1.2.3.4"),
            ("for=\"_gazonk\"", PROXY),
            ("for=unknown, for=10.0.0.2", "10.0.0.2"),
            ("proto=https", PROXY),
            ("for=1.2.3.4;for=6.6.6.6", PROXY),
            ("1.2.3.4", PROXY),
            ("for=", PROXY),
        ] {
            assert_eq!(by_forwarded(PROXY, value), expected, "{value}");
        }
    }

    #[test]
    fn quotes_of_a_client_cannot_swallow_what_a_proxy_wrote_after_them() {
        for (value, expected) in [
            ("for=\"6.6.6.6, for=1.2.3.4", "1.2.3.4"),
            ("for=\"6.6.6.6\\\", for=1.2.3.4", "1.2.3.4"),
            ("for=1.2.3.4;host=\"x;for=6.6.6.6;y\"", "1.2.3.4"),
            ("for=1.2.3.4;host=\"x, for=6.6.6.6\"", "1.2.3.4"),
            ("for=1.2.3.4;host=\"x\\\", for=6.6.6.6;y=\\\"\"", PROXY),
        ] {
            assert_eq!(by_forwarded(PROXY, value), expected, "{value}");
        }
    }

    #[test]
    fn what_an_untrusted_peer_says_of_the_client_is_replaced() {
        let lies = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded-server", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_for", "6.6.6.6"),
            ("x_real_ip", "6.6.6.6"),
            ("x_request_id", "evil"),
            ("x_other", "kept"),
            ("x-forwarded", "kept"),
        ];
        let rest = [
            "x-forwarded-host: shop.example:8080",
            "x-forwarded-proto: http",
            "x-forwarded: kept",
            "x_other: kept",
        ];
        let by_x = [&["x-forwarded-for: 203.0.113.9"][..], &rest].concat();
        assert_eq!(told(ClientIpFrom::XForwardedFor, STRANGER, &lies), sorted(by_x));
        let element = "forwarded: for=203.0.113.9;host=\"shop.example:8080\";proto=http";
        assert_eq!(told(ClientIpFrom::Forwarded, STRANGER, &lies), sorted([&[element][..], &rest].concat()));
    }

    fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
        lines.sort_unstable();
        lines
    }

    #[test]
    fn what_a_trusted_peer_says_is_extended() {
        let said = [
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "cdn.example"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real-ip", "1.2.3.4"),
        ];
        assert_eq!(
            told(ClientIpFrom::XForwardedFor, PROXY, &said),
            [
                "x-forwarded-for: 6.6.6.6, 1.2.3.4, 10.0.0.2, 10.0.0.1",
                "x-forwarded-host: cdn.example",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 1.2.3.4",
            ]
        );
        assert_eq!(
            told(ClientIpFrom::Forwarded, "fd00::1", &said)[0],
            "forwarded: for=6.6.6.6, for=\"[fd00::1]\";host=\"shop.example:8080\";proto=http"
        );
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_described_itself() {
        assert_eq!(
            told(ClientIpFrom::XForwardedFor, PROXY, &[("x-forwarded-for", "")]),
            ["x-forwarded-for: 10.0.0.1", "x-forwarded-host: shop.example:8080", "x-forwarded-proto: http"]
        );
    }

    #[test]
    fn a_client_that_named_no_host_is_not_given_one() {
        let (trust, mut headers) = (trust(ClientIpFrom::Forwarded), HeaderMap::new());
        trust.forward(
            &trust.peer(STRANGER.parse().unwrap()),
            "https",
            &HeaderValue::from_static(""),
            &mut headers,
        );
        assert_eq!(
            headers,
            map(&[("forwarded", "for=203.0.113.9;proto=https"), ("x-forwarded-proto", "https")])
        );
    }

    proptest! {
        #[test]
        fn the_left_of_an_untrusted_address_changes_nothing(
            lies in prop::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\\'), Just(b';'), Just(b'='), 0x20u8..0x7f, 0x80u8..], 0..60),
        ) {
            for (from, name, truth) in [
                (ClientIpFrom::XForwardedFor, "x-forwarded-for", &b", 1.2.3.4, 10.0.0.2"[..]),
                (ClientIpFrom::Forwarded, "forwarded", b", for=1.2.3.4, for=\"10.0.0.2\";proto=http"),
            ] {
                let trust = trust(from);
                let mut headers = HeaderMap::new();
                headers.insert(name, HeaderValue::from_bytes(&[&lies, truth].concat()).unwrap());
                let client = trust.client_address(&trust.peer(PROXY.parse().unwrap()), &headers);
                prop_assert_eq!(client.to_string(), "1.2.3.4");
            }
        }
    }
}
