//! When a request asks for a tunnel, and when a backend grants it.
//!
//! Start at [`requested`]. Moving the bytes is not here; nor is the decision to open a tunnel only
//! after the backend's own 101, which [`Upgrade::accepted`] serves.

use ::http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request, response};

use super::check::BadRequest;
use super::headers::{is_token, options};

/// The one protocol that a client asks to switch to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    protocol: HeaderValue,
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
    if parts.version != Version::HTTP_11 || !named || !is_tunnelled(protocol.as_bytes()) {
        return Ok(None);
    }
    let upgrade = Upgrade { protocol: protocol.clone() };
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
