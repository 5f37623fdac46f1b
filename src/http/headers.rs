//! Header mechanics of one hop: what is dropped, what identifies a request, how its body is framed.
//!
//! Start at [`strip_request`] and [`strip_response`] (RFC 9110 section 7.6.1). Who the client is
//! and what backends are told of it is in `forwarded`.

use ::http::header::{AsHeaderName, CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use ::http::request::Parts;
use ::http::uri::{self, Authority, PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::trailers;

pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest `X-Request-Id` that is believed.
const MAX_REQUEST_ID: usize = 128;

/// Drops what was meant for this hop and whatever `Connection` names. Of `TE` the word `trailers`
/// stays, and of `Trailer` the names that may follow a body.
///
/// `Expect` goes too, and comes back where a body is waited for ([`super::upload::Gate`]). `Proxy` is
/// no header that anybody sends in earnest, but CGI makes `HTTP_PROXY` of it.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers = options(headers, TE).any(|option| option.eq_ignore_ascii_case(b"trailers"));
    strip(headers, |name| {
        is_hop_by_hop(name) || matches!(name, "expect" | "proxy") || is_framing_in_disguise(name)
    });
    trailers::announce(headers);
    if trailers {
        // RFC 9110 section 10.1.4: `TE` is itself named in `Connection`.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Drops what a backend meant for this hop and whatever its `Connection` names.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, is_hop_by_hop);
    trailers::announce(headers);
}

fn strip(headers: &mut HeaderMap, doomed: impl Fn(&str) -> bool) {
    let mut line = 0;
    while let Some(value) = headers.get_all(CONNECTION).iter().nth(line).cloned() {
        // The known ones go below, once all lines are read.
        let named =
            value.as_bytes().split(|byte| *byte == b',').filter_map(|name| std::str::from_utf8(name).ok());
        for name in named.map(str::trim).filter(|name| !is_common_option(name)) {
            headers.remove(name);
        }
        line += 1;
    }
    while let Some(name) = headers.keys().find(|name| doomed(name.as_str())).cloned() {
        headers.remove(name);
    }
}

fn is_common_option(option: &str) -> bool {
    ["close", "keep-alive", "upgrade", "te", "connection"]
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known))
}

pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// CGI and WSGI backends read both spellings as one variable; ours is the one that is true.
fn is_framing_in_disguise(name: &str) -> bool {
    name.contains('_') && matches!(&*name.replace('_', "-"), "content-length" | "transfer-encoding")
}

/// The elements of a comma-separated list over all its lines, trimmed, empty ones left out.
pub(super) fn options(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// What `Transfer-Encoding` says, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    None,
    /// One line that is `chunked`.
    Chunked,
    /// One line of coding names with one that is not `chunked`, and `chunked` at most once, last.
    Unknown,
    Malformed,
}

pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Coding::None,
        (Some(line), None) => line.as_bytes(),
        (Some(_), Some(_)) => return Coding::Malformed,
    };
    let is_chunked = |name: &[u8]| name.eq_ignore_ascii_case(b"chunked");
    if is_chunked(line) {
        return Coding::Chunked;
    }
    let mut names = line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let last = names.next().is_some_and(is_token);
    if last && names.all(|name| is_token(name) && !is_chunked(name)) {
        Coding::Unknown
    } else {
        Coding::Malformed
    }
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(letter)
}

/// Makes the body's length explicit on the request that goes out, as the last step before it does.
///
/// hyper's client drops the body of a GET or HEAD that has neither `Content-Length` nor
/// `Transfer-Encoding`, and takes the version for what the backend understands.
pub fn frame(parts: &mut Parts, body_ended: bool, exact: Option<u64>) {
    parts.version = Version::HTTP_11;
    parts.headers.remove(TRANSFER_ENCODING);
    if body_ended || parts.headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    match exact {
        Some(length) => parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

/// Turns a request that goes out as HTTP/1.1 into one of HTTP/2: `Host` becomes the authority, and
/// what speaks of the connection goes (RFC 9113 section 8.2.2). Of `TE` at most `trailers` is left.
pub fn to_http2(parts: &mut Parts, scheme: Scheme) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        parts.headers.remove(name);
    }
    let Some(authority) = parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok())
    else {
        // Then `Host` says it (section 8.3.1), and the scheme is added by the codec.
        return;
    };
    let mut uri = uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority);
    uri.path_and_query =
        Some(parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.headers.remove(HOST);
        parts.uri = uri;
        parts.version = Version::HTTP_2;
    }
}

/// The id that a trusted peer gave the request, where it is short visible ASCII; else the caller
/// makes one.
pub fn request_id(headers: &HeaderMap, trusted: bool) -> Option<HeaderValue> {
    let id = if trusted { only(headers, &X_REQUEST_ID)? } else { return None };
    let sane = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    sane.then(|| id.clone())
}

/// The trace id of a valid `traceparent`, for the log (W3C Trace Context, section 3.2).
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let value = only(headers, &TRACEPARENT)?.to_str().ok()?;
    let mut fields = value.split('-');
    let (version, trace) = (hex(fields.next()?, 2)?, hex(fields.next()?, 32)?);
    let (parent, _flags) = (hex(fields.next()?, 16)?, hex(fields.next()?, 2)?);
    let zero = |field: &str| field.bytes().all(|byte| byte == b'0');
    // Later versions may append fields, the first has none.
    let ends = version != "00" || fields.next().is_none();
    (version != "ff" && ends && !zero(trace) && !zero(parent)).then_some(trace)
}

fn hex(field: &str, length: usize) -> Option<&str> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (field.len() == length && field.bytes().all(lower)).then_some(field)
}

/// Removes a header, and its spellings with underscores: CGI and WSGI backends read them as one.
pub fn remove_spellings(headers: &mut HeaderMap, name: &HeaderName) {
    let hyphened = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let same =
        |other: &&HeaderName| other.as_str().bytes().map(hyphened).eq(name.as_str().bytes().map(hyphened));
    while let Some(found) = headers.keys().find(same).cloned() {
        headers.remove(found);
    }
}

/// A text as a header's value: what is not printable ASCII, and `%` itself, as percent and two
/// digits for each byte.
pub fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

/// The value of a header that is there exactly once.
fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Adds this hop to `Via`; `version` is what the message came by.
pub fn via(headers: &mut HeaderMap, version: Version) {
    let hop = match version {
        Version::HTTP_10 => "1.0 pintle",
        Version::HTTP_2 => "2 pintle",
        _ => "1.1 pintle",
    };
    headers.append(VIA, HeaderValue::from_static(hop));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;
    use proptest::prelude::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn stripped(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = map(lines);
        strip_request(&mut headers);
        headers
    }

    #[test]
    fn a_header_goes_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in ["x-client-subject", "x_client_subject", "x-client_subject", "x-client-subjects"] {
            headers.append(name, HeaderValue::from_static("forged"));
            headers.append(name, HeaderValue::from_static("twice"));
        }
        remove_spellings(&mut headers, &HeaderName::from_static("x-client-subject"));
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-client-subjects"]);
    }

    #[test]
    fn any_text_fits_into_a_header() {
        assert_eq!(percent_encoded("CN=M\u{fc}ller, 5%\r\n"), "CN=M%C3%BCller, 5%25%0D%0A");
    }

    #[test]
    fn what_was_meant_for_this_hop_stays_here() {
        let lines = [
            ("host", "h"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("proxy", "evil.example"),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("trailer", "x-sum"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ];
        assert_eq!(stripped(&lines), map(&[lines[0], lines[14], lines[15], lines[16]]));
    }

    #[test]
    fn whatever_connection_names_is_removed() {
        let named = [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("x-mine", "2"),
            ("connection", ",, x-Other ,\t,bad name,@"),
            ("x-other", "1"),
            ("x-kept", "1"),
        ];
        assert_eq!(stripped(&named), map(&[("x-kept", "1")]));
    }

    #[test]
    fn connection_may_name_itself() {
        let lines = [("connection", "connection, x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "1")];
        assert_eq!(stripped(&lines), HeaderMap::new());
    }

    #[test]
    fn of_te_only_trailers_is_passed_on() {
        let kept = map(&[("te", "trailers"), ("connection", "te")]);
        assert_eq!(stripped(&[("te", "gzip;q=0.5, Trailers"), ("connection", "TE")]), kept);
        assert_eq!(stripped(&[("te", "gzip"), ("te", "trailers")]), kept);
        assert_eq!(stripped(&[("te", "trailersx"), ("connection", "te")]), HeaderMap::new());
    }

    #[test]
    fn a_backends_hop_is_dropped_from_its_answer() {
        let mut headers = map(&[
            ("connection", "upgrade, x-hop"),
            ("x-hop", "1"),
            ("upgrade", "h2,h2c"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        strip_response(&mut headers);
        assert_eq!(headers, map(&[("trailer", "x-sum"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]));
    }

    #[test]
    fn a_body_without_a_length_is_chunked_whatever_the_method() {
        for method in ["GET", "HEAD", "DELETE", "POST", "OPTIONS"] {
            let mut parts =
                Request::builder().method(method).version(Version::HTTP_10).body(()).unwrap().into_parts().0;
            frame(&mut parts, false, None);
            assert_eq!(
                (parts.version, parts.headers),
                (Version::HTTP_11, map(&[("transfer-encoding", "chunked")]))
            );
        }
    }

    #[test]
    fn a_known_length_is_said_and_a_body_that_ended_needs_none() {
        let framed = |lines: &[(&'static str, &str)], ended, exact| {
            let mut parts = Request::new(()).into_parts().0;
            parts.headers = map(lines);
            frame(&mut parts, ended, exact);
            parts.headers
        };
        assert_eq!(framed(&[("content-length", "5")], false, Some(5)), map(&[("content-length", "5")]));
        assert_eq!(framed(&[("content-length", "5")], false, None), map(&[("content-length", "5")]));
        assert_eq!(framed(&[("content-length", "0")], true, Some(0)), map(&[("content-length", "0")]));
        assert_eq!(framed(&[], false, Some(7)), map(&[("content-length", "7")]));
        assert_eq!(framed(&[("transfer-encoding", "chunked")], true, None), HeaderMap::new());
    }

    #[test]
    fn for_http_2_the_host_becomes_the_authority_and_the_hop_goes() {
        let translated = |target: &str, lines: &[(&'static str, &str)]| {
            let mut parts = Request::builder().uri(target).body(()).unwrap().into_parts().0;
            parts.headers = map(lines);
            to_http2(&mut parts, Scheme::HTTP);
            (parts.uri.to_string(), parts.version, parts.headers)
        };
        let lines = [("host", "a.example:81"), ("connection", "te"), ("te", "trailers"), ("x-a", "1")];
        let left = map(&[("te", "trailers"), ("x-a", "1")]);
        assert_eq!(
            translated("/x?y", &lines),
            ("http://a.example:81/x?y".into(), Version::HTTP_2, left.clone())
        );
        let chunked = [lines[0], lines[2], lines[3], ("transfer-encoding", "chunked"), ("upgrade", "x")];
        assert_eq!(translated("/", &chunked).2, left);
        let odd = [("host", "no host")];
        assert_eq!(translated("/", &odd), ("/".into(), Version::HTTP_11, map(&odd)));
    }

    #[test]
    fn a_request_id_is_believed_of_trusted_peers_when_it_is_sane() {
        let id = |value: &str, trusted| request_id(&map(&[("x-request-id", value)]), trusted);
        assert_eq!(id("01JD8Z6Q-x.y", true).unwrap(), "01JD8Z6Q-x.y");
        assert!(id(&"a".repeat(128), true).is_some());
        for (value, trusted) in [("01JD", false), ("", true), ("a b", true), ("a\tb", true)] {
            assert_eq!(id(value, trusted), None, "{value}");
        }
        assert_eq!(id(&"a".repeat(129), true), None);
        assert_eq!(request_id(&map(&[("x-request-id", "a"), ("x-request-id", "b")]), true), None);
        assert_eq!(request_id(&HeaderMap::new(), true), None);
    }

    #[test]
    fn only_a_valid_traceparent_gives_a_trace_id() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id = |value: &str| trace_id(&map(&[("traceparent", value)])).map(str::to_owned);
        for valid in
            ["00-{}-00f067aa0ba902b7-01", "01-{}-00f067aa0ba902b7-00", "cc-{}-00f067aa0ba902b7-01-later"]
        {
            assert_eq!(id(&valid.replace("{}", TRACE)).as_deref(), Some(TRACE), "{valid}");
        }
        for bad in [
            "",
            "00",
            "00-{}",
            "00-{}-00f067aa0ba902b7",
            "00-{}-00f067aa0ba902b7-01-",
            "00-{}-00f067aa0ba902b7-01-x",
            "ff-{}-00f067aa0ba902b7-01",
            "00-{}-0000000000000000-01",
            "00-{}a-00f067aa0ba902b7-01",
            "0-{}-00f067aa0ba902b7-01",
            "00-{}-00F067AA0BA902B7-01",
            "00_{}_00f067aa0ba902b7_01",
        ] {
            assert_eq!(id(&bad.replace("{}", TRACE)), None, "{bad}");
        }
        assert_eq!(id(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), None);
        assert_eq!(id(&format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase())), None);
    }

    #[test]
    fn via_is_added_after_those_before() {
        let mut headers = map(&[("via", "1.1 cdn")]);
        via(&mut headers, Version::HTTP_10);
        assert_eq!(headers, map(&[("via", "1.1 cdn"), ("via", "1.0 pintle")]));
    }

    proptest! {
        #[test]
        fn no_connection_value_panics_or_survives(
            lines in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b','), 0x20u8..0x7f, 0x80u8..], 0..60), 0..4),
        ) {
            let mut headers = map(&[("host", "h"), ("x-kept", "1")]);
            for line in &lines {
                headers.append(CONNECTION, HeaderValue::from_bytes(line).unwrap());
            }
            strip_request(&mut headers);
            prop_assert!(!headers.contains_key(CONNECTION));
        }
    }
}
