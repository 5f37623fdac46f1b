//! When a request asks for a tunnel, and when a backend grants it.
//!
//! Start at [`requested`]. Over HTTP/2 a tunnel is asked for by CONNECT (RFC 8441), which
//! [`from_connect`] turns into what HTTP/1.1 would have said. Moving the bytes is not here; nor is
//! the decision to open a tunnel only after the backend's own 101, which [`Upgrade::accepted`] serves.

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE,
};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request, response};
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::ext::Protocol;

use super::check::BadRequest;
use super::headers::{is_token, options};

/// The one protocol that a client asks to switch to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    protocol: HeaderValue,
    /// Where the key is ours, since HTTP/2 has none: what the backend must make of it.
    accept: Option<Accept>,
}

/// The `Sec-WebSocket-Accept` that goes with the key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Accept(HeaderValue);

impl Accept {
    /// RFC 6455 section 4.2.2.
    fn of(key: &str) -> Self {
        let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        digest.update(key.as_bytes());
        digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = STANDARD.encode(digest.finish());
        Self(HeaderValue::try_from(accept).expect("base64 is printable"))
    }
}

/// Makes the handshake of a WebSocket over HTTP/2 one of HTTP/1.1, with a key of our own. Any other
/// request, CONNECT without a protocol included, stays what it is.
pub fn from_connect(parts: &mut request::Parts) -> Result<(), BadRequest> {
    let Some(protocol) = parts.extensions.remove::<Protocol>() else { return Ok(()) };
    if parts.method != Method::CONNECT || !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(BadRequest::Tunnel);
    }
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).expect("the system has random bytes");
    let key = STANDARD.encode(nonce);
    parts.extensions.insert(Accept::of(&key));
    parts.method = Method::GET;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    parts.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).expect("base64 is printable"));
    Ok(())
}

/// Looks at the head as it came, before hop-by-hop headers are dropped.
///
/// `None` means that it is an ordinary request: to ignore `Upgrade` is always allowed (RFC 9110
/// section 7.8). Ignored are `h2c` and `TLS/…`, which would take the connection out of our hands,
/// a choice of several protocols, a WebSocket that is not a GET, and an `Upgrade` that
/// `Connection` does not name.
pub fn requested(parts: &request::Parts) -> Result<Option<Upgrade>, BadRequest> {
    let mut lines = parts.headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (lines.next(), lines.next()) else { return Ok(None) };
    let named = options(&parts.headers, CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let accept = parts.extensions.get::<Accept>();
    let may = parts.version == Version::HTTP_11 || accept.is_some();
    if !may || !named || !is_tunnelled(protocol.as_bytes()) {
        return Ok(None);
    }
    let upgrade = Upgrade { protocol: protocol.clone(), accept: accept.cloned() };
    if upgrade.is_websocket() && parts.method != Method::GET {
        return Ok(None);
    }
    let empty = parts.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !empty || parts.headers.contains_key(TRANSFER_ENCODING) {
        // Between a body and a tunnel's first bytes the two sides could draw the line differently.
        return Err(BadRequest::UpgradeWithBody);
    }
    Ok(Some(upgrade))
}

fn is_tunnelled(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    let (name, version) = (parts.next().unwrap_or_default(), parts.next());
    let foreign = [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other));
    is_token(name) && version.is_none_or(is_token) && !foreign
}

impl Upgrade {
    pub fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// As the client wrote it.
    pub fn protocol(&self) -> &HeaderValue {
        &self.protocol
    }

    /// Whether the backend switches, and to what was asked. Any other answer is an ordinary one,
    /// unless it is a 101, which `answer::check` then refuses.
    pub fn accepted(&self, answer: &response::Parts) -> bool {
        let mut lines = answer.headers.get_all(UPGRADE).iter();
        let (Some(protocol), None) = (lines.next(), lines.next()) else { return false };
        answer.status == StatusCode::SWITCHING_PROTOCOLS
            && protocol.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes())
    }

    /// Whether it was asked for by CONNECT, which any 2xx grants.
    pub fn is_connect(&self) -> bool {
        self.accept.is_some()
    }

    /// Whether the backend has read the key, where that is not for the client to see.
    pub fn proved(&self, answer: &response::Parts) -> bool {
        let mut lines = answer.headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let Some(Accept(accept)) = &self.accept else { return true };
        (lines.next(), lines.next()) == (Some(accept), None)
    }

    /// Makes of a backend's 101 what the client is told.
    pub fn grant(&self, answer: &mut response::Parts) {
        if self.is_connect() {
            answer.status = StatusCode::OK;
            answer.headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            self.restore(&mut answer.headers);
        }
    }

    /// Puts back, on the request that goes out or on the 101 that comes back, what was dropped as
    /// hop-by-hop. Some servers read one `Connection` line only, so it says nothing else.
    pub fn restore(&self, headers: &mut HeaderMap) {
        headers.remove(TE);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::strip_request;
    use ::http::{Request, Response};

    const ASK: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "websocket")];

    fn parts(method: Method, lines: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).header("host", "h");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn asked(lines: &[(&str, &str)]) -> Option<String> {
        let upgrade = requested(&parts(Method::GET, lines)).unwrap()?;
        Some(upgrade.protocol().to_str().unwrap().to_owned())
    }

    fn answer(status: u16, lines: &[(&str, &str)]) -> response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_upgrade_is_named_twice_and_once_each() {
        assert_eq!(asked(&ASK).as_deref(), Some("websocket"));
        assert_eq!(
            asked(&[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")]).as_deref(),
            Some("WebSocket")
        );
        assert_eq!(
            asked(&[("connection", "x"), ("connection", "UPGRADE"), ("upgrade", "chat/2")]).as_deref(),
            Some("chat/2")
        );
        for plain in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "keep-alive"), ("upgrade", "websocket")],
            &[("connection", "upgrades"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "websocket, chat")],
            &[("connection", "upgrade"), ("upgrade", "")],
            &[("connection", "upgrade"), ("upgrade", "web socket")],
        ] {
            assert_eq!(asked(plain), None, "{plain:?}");
        }
    }

    #[test]
    fn protocols_that_would_take_the_connection_away_are_ignored_and_dropped() {
        for protocol in ["h2c", "H2C", "h2", "TLS/1.0", "tls", "HTTP/2.0"] {
            let mut parts = parts(
                Method::GET,
                &[
                    ("connection", "Upgrade, HTTP2-Settings"),
                    ("upgrade", protocol),
                    ("http2-settings", "x"),
                    ("content-length", "3"),
                ],
            );
            assert_eq!(requested(&parts), Ok(None), "{protocol}");
            strip_request(&mut parts.headers);
            let left: Vec<_> = parts.headers.keys().map(|name| name.as_str()).collect();
            assert_eq!(left, ["host", "content-length"]);
        }
    }

    #[test]
    fn http_1_0_does_not_upgrade() {
        let mut old = parts(Method::GET, &ASK);
        old.version = Version::HTTP_10;
        assert_eq!(requested(&old), Ok(None));
    }

    #[test]
    fn a_websocket_is_a_get() {
        assert_eq!(requested(&parts(Method::POST, &ASK)), Ok(None));
        let chat = [("connection", "upgrade"), ("upgrade", "chat")];
        assert!(
            requested(&parts(Method::POST, &chat)).unwrap().is_some_and(|upgrade| !upgrade.is_websocket())
        );
    }

    #[test]
    fn an_upgrade_with_a_body_is_refused() {
        for body in [("content-length", "5"), ("content-length", "00"), ("transfer-encoding", "chunked")] {
            let parts = parts(Method::GET, &[ASK[0], ASK[1], body]);
            assert_eq!(requested(&parts), Err(BadRequest::UpgradeWithBody), "{body:?}");
        }
        assert!(asked(&[ASK[0], ASK[1], ("content-length", "0")]).is_some());
    }

    #[test]
    fn only_a_101_to_the_protocol_asked_for_opens_a_tunnel() {
        let upgrade = requested(&parts(Method::GET, &ASK)).unwrap().unwrap();
        assert!(upgrade.accepted(&answer(101, &[("connection", "Upgrade"), ("upgrade", "WebSocket")])));
        for (status, lines) in [
            (200, &[("upgrade", "websocket")][..]),
            (101, &[]),
            (101, &[("upgrade", "h2c")]),
            (101, &[("upgrade", "websocket, h2c")]),
            (101, &[("upgrade", "websocket"), ("upgrade", "websocket")]),
        ] {
            assert!(!upgrade.accepted(&answer(status, lines)), "{status} {lines:?}");
        }
    }

    fn connect(protocol: &'static str) -> request::Parts {
        let mut parts =
            parts(Method::CONNECT, &[("sec-websocket-key", "theirs"), ("sec-websocket-version", "13")]);
        parts.version = Version::HTTP_2;
        parts.extensions.insert(Protocol::from_static(protocol));
        parts
    }

    #[test]
    fn a_websocket_over_http_2_is_a_handshake_with_a_key_of_ours() {
        let (mut one, mut two) = (connect("websocket"), connect("WebSocket"));
        from_connect(&mut one).unwrap();
        from_connect(&mut two).unwrap();
        assert_ne!(one.headers["sec-websocket-key"], two.headers["sec-websocket-key"]);
        assert_eq!(
            (&one.method, &one.headers["sec-websocket-version"]),
            (&Method::GET, &"13".parse().unwrap())
        );
        let nonce = STANDARD.decode(&one.headers["sec-websocket-key"]).unwrap();
        assert_eq!(nonce.len(), 16);
        let upgrade = requested(&one).unwrap().unwrap();
        assert!(upgrade.is_websocket() && upgrade.is_connect());

        let accept = Accept::of(one.headers["sec-websocket-key"].to_str().unwrap()).0;
        let granted = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("sec-websocket-accept", *line)).collect();
            upgrade.proved(&answer(101, &lines))
        };
        let accept = accept.to_str().unwrap();
        assert!(granted(&[accept]));
        assert!(!granted(&[]) && !granted(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]) && !granted(&[accept, accept]));
        let mut told = answer(101, &[("sec-websocket-accept", accept), ("sec-websocket-protocol", "chat")]);
        upgrade.grant(&mut told);
        assert_eq!((told.status.as_u16(), told.headers.len()), (200, 1));
    }

    #[test]
    fn the_accept_is_that_of_the_standards_own_example() {
        assert_eq!(Accept::of("dGhlIHNhbXBsZSBub25jZQ==").0, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn connect_opens_no_other_protocol_and_without_one_stays_connect() {
        for protocol in ["connect-udp", "", "websocket2", "h2c"] {
            assert_eq!(from_connect(&mut connect(protocol)), Err(BadRequest::Tunnel), "{protocol}");
        }
        let mut plain = parts(Method::CONNECT, &[]);
        assert_eq!((from_connect(&mut plain), &plain.method), (Ok(()), &Method::CONNECT));
        // Without CONNECT the same words are no handshake over HTTP/2.
        let mut words = parts(Method::GET, &ASK);
        words.version = Version::HTTP_2;
        assert_eq!(requested(&words), Ok(None));
    }

    #[test]
    fn what_a_handshake_needs_goes_out_whole() {
        let mut parts = parts(
            Method::GET,
            &[
                ASK[0],
                ("connection", "te"),
                ASK[1],
                ("te", "trailers"),
                ("sec-websocket-key", "k"),
                ("sec-websocket-version", "13"),
            ],
        );
        let upgrade = requested(&parts).unwrap().unwrap();
        strip_request(&mut parts.headers);
        upgrade.restore(&mut parts.headers);
        let mut lines: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                ("connection", "upgrade"),
                ("host", "h"),
                ("sec-websocket-key", "k"),
                ("sec-websocket-version", "13"),
                ("upgrade", "websocket")
            ]
        );
    }
}
