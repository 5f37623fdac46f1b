//! Whom a request is for: the authority, checked.
//!
//! Start at [`Target`]. Which of the target and `Host` counts is decided in `check`; here is what
//! an authority may look like.

use std::net::Ipv6Addr;

use ::http::HeaderValue;

/// The longest name that DNS allows.
const MAX_HOST: usize = 255;

/// The authority of a request: `uri-host [":" port]`, or empty where an HTTP/1.0 client named none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    authority: HeaderValue,
    /// How much of it is the host.
    host: usize,
}

impl Target {
    /// Nobody was named: routed to any host, and the backend's own address is its `Host`.
    pub fn unnamed() -> Self {
        Self { authority: HeaderValue::from_static(""), host: 0 }
    }

    /// `None` where it is not a host with an optional port.
    pub fn parse(authority: &HeaderValue) -> Option<Self> {
        Some(Self { host: host_length(authority.as_bytes())?, authority: authority.clone() })
    }

    /// As the client wrote it, port included; the `Host` to send on. Empty for nobody.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Without the port and in the client's case; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.authority.to_str().map_or("", |authority| &authority[..self.host])
    }
}

/// Narrower than RFC 3986: percent-encoding and sub-delims name no host that anybody serves and
/// would leave a backend a choice; userinfo is refused by the same rule.
fn host_length(authority: &[u8]) -> Option<usize> {
    let length = if authority.starts_with(b"[") {
        let end = authority.iter().position(|byte| *byte == b']')?;
        std::str::from_utf8(&authority[1..end]).ok()?.parse::<Ipv6Addr>().ok()?;
        end + 1
    } else {
        let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
        is_name(&authority[..end]).then_some(end)?
    };
    is_port(&authority[length..]).then_some(length)
}

fn is_name(name: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let empty_label = name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..");
    (1..=MAX_HOST).contains(&name.len()) && name.iter().all(letter) && !empty_label
}

/// Nothing, or a colon and a port; RFC 3986 allows the port to be empty.
fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            let number =
                std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            number.is_some_and(|number| number.len() <= 5 && number.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("Example.COM.", "Example.COM."),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("my_host-1~x", "my_host-1~x"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::1]:65535", "[2001:db8::1]"),
            ("[::ffff:1.2.3.4]:0", "[::ffff:1.2.3.4]"),
        ] {
            let target = Target::parse(&HeaderValue::from_static(authority)).unwrap();
            assert_eq!((target.host(), target.authority().to_str().unwrap()), (host, authority));
        }
    }

    #[test]
    fn anything_else_is_no_host() {
        let long = "a".repeat(256);
        let table: &[&[u8]] = &[
            b"",
            b":80",
            b" ",
            b"a b",
            b"a,b",
            b"a/b",
            b"a?b",
            b"a#b",
            b"a@b",
            b"user:pw@a",
            b"a\\b",
            b"a%2eb",
            b"a\tb",
            b"a;b",
            b"a\"b",
            b"<a>",
            b"h\xc3\xb6st",
            b"a:b",
            b"a:-1",
            b"a:+1",
            b"a:65536",
            b"a:000080",
            b"a:80:80",
            b"a: 80",
            b"::1",
            b"[::1",
            b"[::1]x",
            b"[::1]:x",
            b"[]",
            b"[1.2.3.4]",
            b"[fe80::1%25eth0]",
            b"[v1.x]",
            b".a",
            b"a..b",
            b".",
            long.as_bytes(),
        ];
        for authority in table {
            let value = HeaderValue::from_bytes(authority).unwrap();
            assert_eq!(Target::parse(&value), None, "{value:?}");
        }
    }

    #[test]
    fn nobody_has_no_host() {
        assert_eq!((Target::unnamed().host(), Target::unnamed().authority().len()), ("", 0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![Just(b'['), Just(b']'), Just(b':'), any::<u8>()], 0..40)) {
            if let Some(target) = HeaderValue::from_bytes(&bytes).ok().and_then(|value| Target::parse(&value)) {
                prop_assert!(target.host().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
