//! Heads of every kind through the steps that each request takes, in their order: whatever came in,
//! what goes on is one clear request, or nothing does.

use ::http::header::{HOST, HeaderName};
use ::http::request::Parts;
use ::http::{HeaderValue, Method, Request, Uri, Version};
use proptest::prelude::*;

use super::check::{MAX_TARGET, check};
use super::headers::{is_hop_by_hop, strip_request};
use super::target::Target;
use super::upgrade;
use crate::fuzz::{damaged, tries};

const WORDS: &[&[u8]] = &[
    b" ",
    b"\t",
    b":",
    b": ",
    b"\n",
    b"/",
    b"//",
    b"?",
    b"#",
    b"@",
    b"*",
    b"..",
    b"%2f",
    b"[",
    b"]",
    b"[::1]",
    b":80",
    b":65536",
    b"http://",
    b"https://",
    b"HTTP/1.0",
    b"CONNECT",
    b"TRACE",
    b"host: b",
    b"\nhost: ",
    b"\nconnection: ",
    b"upgrade",
    b"close",
    b"keep-alive",
    b",",
    b"\ntransfer-encoding: ",
    b"chunked",
    b"gzip",
    b"\ncontent-length: ",
    b"0",
    b"5",
    b"\nte: trailers",
    b"\nexpect: 100-continue",
    b"_",
    b"\"",
    b"\0",
    b"\xff",
];

/// A line with method, target and version, then the fields; lines end with a newline alone.
const SEEDS: [&str; 10] = [
    "GET http://o#ther.example/a?b HTTP/1.1\nhost: shop.example",
    "GET / HTTP/1.1\nhost: shop.example",
    "POST /api/orders?id=7 HTTP/1.1\nhost: shop.example:8443\ncontent-length: 5\nconnection: x-secret\nx-secret: 1",
    "GET http://other.example/a?b HTTP/1.1\nhost: shop.example",
    "OPTIONS * HTTP/1.1\nhost: [2001:db8::1]:80",
    "GET /chat HTTP/1.1\nhost: a\nconnection: keep-alive, Upgrade\nupgrade: websocket\nsec-websocket-version: 13",
    "PUT /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntrailer: digest\nte: trailers\nexpect: 100-continue",
    "GET / HTTP/1.0",
    "CONNECT a:443 HTTP/1.1\nhost: a:443",
    "GET https://a?x HTTP/1.1\nhost: a\nproxy-connection: close\nkeep-alive: timeout=5\nproxy: x\ncontent_length: 3",
];

fn seeds() -> Vec<Vec<u8>> {
    SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// The head as a codec would hand it over; `None` where it has no shape at all, and then no codec
/// does.
fn parse(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(3, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    *request.version_mut() = match words.next()? {
        b"HTTP/1.0" => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(request.into_parts().0)
}

#[test]
fn every_seed_has_the_shape_of_a_head() {
    assert!(seeds().iter().all(|seed| parse(seed).is_some()));
}

proptest! {
    #![proptest_config(tries(1_500))]

    #[test]
    fn a_head_that_passes_names_one_host_and_a_target_of_its_own(bytes in damaged(seeds(), WORDS)) {
        let Some(mut parts) = parse(&bytes) else { return Ok(()) };
        let (method, version) = (parts.method.clone(), parts.version);
        let Ok(target) = check(&mut parts, 100) else { return Ok(()) };

        prop_assert!(method != Method::CONNECT && method != Method::TRACE);
        let asterisk = method == Method::OPTIONS && parts.uri.path() == "*";
        prop_assert!(asterisk || parts.uri.path().starts_with('/'), "{}", parts.uri);
        prop_assert!(parts.uri.scheme().is_none() && parts.uri.authority().is_none());
        prop_assert!(parts.uri.to_string().len() <= MAX_TARGET + 1);

        let hosts: Vec<_> = parts.headers.get_all(HOST).iter().collect();
        if hosts.is_empty() {
            prop_assert_eq!((version, target.host()), (Version::HTTP_10, ""));
        } else {
            prop_assert_eq!(hosts, [target.authority()]);
            prop_assert!(!target.host().is_empty());
            prop_assert_eq!(Target::parse(target.authority()), Some(target.clone()));
        }

        // Checked once, it passes again as the same request.
        let (uri, fields) = (parts.uri.clone(), parts.headers.clone());
        prop_assert_eq!(check(&mut parts, 100), Ok(target));
        prop_assert!(parts.uri == uri && parts.headers == fields);
    }

    #[test]
    fn what_is_sent_on_says_nothing_of_this_hop(bytes in damaged(seeds(), WORDS)) {
        let Some(mut parts) = parse(&bytes) else { return Ok(()) };
        if check(&mut parts, 100).is_err() {
            return Ok(());
        }
        let Ok(asked) = upgrade::requested(&parts) else { return Ok(()) };
        strip_request(&mut parts.headers);
        // `TE: trailers`, which names itself in `Connection`, is ours.
        let left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).filter(|name| is_hop_by_hop(name)).collect();
        prop_assert!(left.is_empty() || left.len() == 2 && left.contains(&"te") && left.contains(&"connection"));
        prop_assert!(left.is_empty() || (&parts.headers["te"], &parts.headers["connection"]) == (&"trailers".parse().unwrap(), &"te".parse().unwrap()));
        if let Some(upgrade) = asked {
            upgrade.restore(&mut parts.headers);
            prop_assert_eq!(parts.headers.get_all("connection").iter().collect::<Vec<_>>(), ["upgrade"]);
            prop_assert_eq!(parts.headers.get_all("upgrade").iter().collect::<Vec<_>>(), [upgrade.protocol()]);
        }
    }

    #[test]
    fn an_authority_is_a_host_and_a_port_or_none(bytes in damaged(
        ["shop.example:8443", "[2001:db8::1]:80", "127.0.0.1", "user@a", "a..b"].map(|seed| seed.as_bytes().to_vec()).to_vec(),
        WORDS,
    )) {
        let Some(target) = HeaderValue::from_bytes(&bytes).ok().and_then(|value| Target::parse(&value)) else { return Ok(()) };
        let authority = target.authority().to_str().unwrap();
        let port = authority.strip_prefix(target.host()).unwrap();
        prop_assert!(port.is_empty() || port == ":" || port[1..].parse::<u16>().is_ok());
        prop_assert!(target.host().bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@%,;\\".contains(&byte)));
        // What reads URIs agrees on where the host ends.
        let other: ::http::uri::Authority = authority.parse().unwrap();
        prop_assert_eq!(other.host(), target.host());
    }
}
