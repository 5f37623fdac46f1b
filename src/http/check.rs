//! What a request must be before anybody routes it.
//!
//! Start at [`check`]. Decides on a parsed head alone: sizes of bodies, time and rates are watched
//! elsewhere.

use ::http::header::{CONNECTION, EXPECT, HOST};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use super::headers::{Coding, coding, options};
use super::pseudo;
use super::target::Target;
use super::upgrade;

/// A method longer than this is none that anybody serves.
pub const MAX_METHOD: usize = 64;
/// A target longer than this is a 414.
pub const MAX_TARGET: usize = 16 * 1024;
/// The options that all `Connection` lines may name together.
pub const MAX_CONNECTION_OPTIONS: usize = 32;
/// The `Allow` that goes with [`BadRequest::Method`].
pub const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadRequest {
    Method,
    MethodCase,
    MethodTooLong,
    TargetTooLong,
    TooManyHeaders,
    MissingHost,
    SeveralHosts,
    BadHost,
    BadTarget,
    UnknownCoding,
    BadTransferEncoding,
    Expectation,
    BadConnection,
    UpgradeWithBody,
    /// CONNECT to what opens no tunnel here.
    Tunnel,
    Blanks,
    SeveralLengths,
}

impl BadRequest {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownCoding | Self::MethodTooLong | Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::MethodCase
            | Self::MissingHost
            | Self::SeveralHosts
            | Self::BadHost
            | Self::BadTarget
            | Self::BadTransferEncoding
            | Self::BadConnection
            | Self::UpgradeWithBody
            | Self::Blanks
            | Self::SeveralLengths => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told.
    pub fn public(self) -> &'static str {
        match self {
            Self::Method => "CONNECT and TRACE are not served here",
            Self::MethodCase => "the method is written in upper case",
            Self::MethodTooLong => "the method is none that is served here",
            Self::TargetTooLong => "the request target is too long",
            Self::TooManyHeaders => "there are too many headers",
            Self::MissingHost => "the Host header is missing",
            Self::SeveralHosts => "there is more than one Host header",
            Self::BadHost => "the host is not valid",
            Self::BadTarget => "the request target is not valid",
            Self::UnknownCoding => "the only transfer coding served here is chunked",
            Self::BadTransferEncoding => "the Transfer-Encoding header is not valid",
            Self::Expectation => "the only expectation served here is 100-continue",
            Self::BadConnection => "the Connection header names too much",
            Self::UpgradeWithBody => "a request to upgrade cannot have a body",
            Self::Tunnel => "no such tunnel is opened here",
            Self::Blanks => "a header's value begins or ends with a blank",
            Self::SeveralLengths => "there is more than one Content-Length header",
        }
    }
}

/// Refuses what no backend should see, and leaves `parts` with a target in origin-form (or `*`) and
/// the one `Host` that counts. What is routed by `parts.uri` is therefore what is sent on.
pub fn check(parts: &mut Parts, max_headers: usize) -> Result<Target, BadRequest> {
    if parts.version == Version::HTTP_2 && parts.method == Method::CONNECT && parts.uri.host().is_none() {
        return Err(BadRequest::MissingHost);
    }
    upgrade::from_connect(parts)?;
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(BadRequest::Method);
    }
    method(parts.method.as_str())?;
    if target_length(&parts.uri) > MAX_TARGET {
        return Err(BadRequest::TargetTooLong);
    }
    if parts.headers.len() > max_headers {
        return Err(BadRequest::TooManyHeaders);
    }
    if parts.version == Version::HTTP_2 {
        pseudo::translate(parts)?;
    }
    let host = host(parts)?;
    let target = match absolute(parts)? {
        Some(authority) => {
            parts.headers.insert(HOST, authority.authority().clone());
            authority
        }
        None => host,
    };
    transfer_encoding(parts)?;
    expectation(parts)?;
    connection(&parts.headers)?;
    Ok(target)
}

/// `head` is not HEAD (RFC 9110 section 9.1), but to some backends it is: then routes decide on one
/// method and the backend on another, and of the answer one side expects a body that never comes.
fn method(name: &str) -> Result<(), BadRequest> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    if name.len() > MAX_METHOD {
        return Err(BadRequest::MethodTooLong);
    }
    let lower = name.bytes().any(|byte| byte.is_ascii_lowercase());
    if lower && KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(BadRequest::MethodCase);
    }
    Ok(())
}

fn target_length(uri: &Uri) -> usize {
    uri.path().len()
        + uri.query().map_or(0, str::len)
        + uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// RFC 9112 section 3.2: exactly one valid `Host`, which an HTTP/1.0 client may leave out.
fn host(parts: &Parts) -> Result<Target, BadRequest> {
    let mut lines = parts.headers.get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) if parts.version >= Version::HTTP_11 => Err(BadRequest::MissingHost),
        (None, _) => Ok(Target::unnamed()),
        (Some(line), None) => Target::parse(line).ok_or(BadRequest::BadHost),
        (Some(_), Some(_)) => Err(BadRequest::SeveralHosts),
    }
}

/// The authority of a target in absolute-form, which outranks `Host` (RFC 9112 section 3.2.2); the
/// target is then put into origin-form.
fn absolute(parts: &mut Parts) -> Result<Option<Target>, BadRequest> {
    let uri = &parts.uri;
    match (uri.scheme(), uri.authority()) {
        (None, None) if uri.path() == "*" && parts.method != Method::OPTIONS => Err(BadRequest::BadTarget),
        (None, None) => Ok(None),
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {
            let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| BadRequest::BadHost)?;
            let target = Target::parse(&authority).ok_or(BadRequest::BadHost)?;
            parts.uri = origin_form(uri)?;
            Ok(Some(target))
        }
        _ => Err(BadRequest::BadTarget),
    }
}

fn origin_form(uri: &Uri) -> Result<Uri, BadRequest> {
    let path = uri.path_and_query().ok_or(BadRequest::BadTarget)?;
    let alone = Uri::from(path.clone());
    if path.as_str().starts_with('/') && !alone.path().is_empty() {
        return Ok(alone);
    }
    // `http://host?query`: the path is empty, which means `/`. That of `http://host#fragment` calls
    // itself `/` and would go out as nothing.
    let spelled = PathAndQuery::try_from(format!("/{}", path.as_str().trim_start_matches('/')));
    spelled.map(Uri::from).map_err(|_| BadRequest::BadTarget)
}

/// One line that says `chunked`, or none. hyper decodes whatever ends in `chunked`; passing such a
/// body on would lose the other codings.
fn transfer_encoding(parts: &Parts) -> Result<(), BadRequest> {
    match coding(&parts.headers) {
        Coding::None => Ok(()),
        Coding::Chunked if parts.version >= Version::HTTP_11 => Ok(()),
        Coding::Unknown => Err(BadRequest::UnknownCoding),
        Coding::Chunked | Coding::Malformed => Err(BadRequest::BadTransferEncoding),
    }
}

/// RFC 9110 section 10.1.1: an HTTP/1.0 client's expectation is ignored.
fn expectation(parts: &Parts) -> Result<(), BadRequest> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if parts.version < Version::HTTP_11 || parts.headers.get_all(EXPECT).iter().all(known) {
        return Ok(());
    }
    Err(BadRequest::Expectation)
}

/// `Connection` may name what belongs to this hop, never what is meant for the backend or what we
/// say of the client: that way clients have removed the forwarding headers of other proxies.
/// RFC 9110 section 7.6.1 forbids sending such a thing, so it is refused rather than obeyed.
fn connection(headers: &HeaderMap) -> Result<(), BadRequest> {
    for (before, option) in options(headers, CONNECTION).enumerate() {
        if before == MAX_CONNECTION_OPTIONS || is_end_to_end(option) {
            return Err(BadRequest::BadConnection);
        }
    }
    Ok(())
}

fn is_end_to_end(option: &[u8]) -> bool {
    const NAMES: [&[u8]; 13] = [
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"forwarded",
        b"host",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-real-ip",
        b"x-request-id",
    ];
    const FAMILY: &[u8] = b"x-forwarded-";
    let family = option.get(..FAMILY.len()).is_some_and(|start| start.eq_ignore_ascii_case(FAMILY));
    family || NAMES.iter().any(|name| option.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    fn parts(method: &str, target: &str, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verdict(method: &str, target: &str, lines: &[(&'static str, &str)]) -> Result<String, BadRequest> {
        check(&mut parts(method, target, lines), 100).map(|target| target.host().to_owned())
    }

    fn with(lines: &[(&'static str, &str)]) -> Result<String, BadRequest> {
        verdict("POST", "/", &[&[("host", "h")], lines].concat())
    }

    #[test]
    fn every_refusal_has_its_own_status() {
        for (refusal, status) in [
            (BadRequest::Method, 405),
            (BadRequest::TargetTooLong, 414),
            (BadRequest::TooManyHeaders, 431),
            (BadRequest::UnknownCoding, 501),
            (BadRequest::Expectation, 417),
            (BadRequest::BadHost, 400),
            (BadRequest::UpgradeWithBody, 400),
        ] {
            assert_eq!(refusal.status(), status);
            assert!(!refusal.public().is_empty());
        }
    }

    #[test]
    fn http_1_1_needs_exactly_one_valid_host() {
        assert_eq!(verdict("GET", "/", &[("host", "Shop.example:8080")]), Ok("Shop.example".to_owned()));
        assert_eq!(verdict("GET", "/", &[]), Err(BadRequest::MissingHost));
        assert_eq!(verdict("GET", "/", &[("host", "a"), ("host", "b")]), Err(BadRequest::SeveralHosts));
        assert_eq!(verdict("GET", "/", &[("host", "a"), ("host", "a")]), Err(BadRequest::SeveralHosts));
        for bad in ["", "a b", "a,b", "user@a", "a/b", "a:x", "[::1"] {
            assert_eq!(verdict("GET", "/", &[("host", bad)]), Err(BadRequest::BadHost), "{bad}");
        }
    }

    #[test]
    fn http_1_0_may_name_nobody_but_not_somebody_invalid() {
        let old = |lines: &[(&'static str, &str)]| {
            let mut parts = parts("GET", "/", lines);
            parts.version = Version::HTTP_10;
            check(&mut parts, 100)
        };
        assert_eq!(old(&[]), Ok(Target::unnamed()));
        assert_eq!(old(&[("host", "a")]).unwrap().host(), "a");
        assert_eq!(old(&[("host", "a b")]), Err(BadRequest::BadHost));
        assert_eq!(old(&[("host", "a"), ("host", "a")]), Err(BadRequest::SeveralHosts));
    }

    #[test]
    fn the_authority_of_an_absolute_target_wins_and_becomes_the_host() {
        for (target, host, origin) in [
            ("http://real.example/p?q=1", "real.example", "/p?q=1"),
            ("https://real.example:8443/p", "real.example:8443", "/p"),
            ("HTTP://real.example", "real.example", "/"),
            ("http://real.example?q=1", "real.example", "/?q=1"),
            ("http://real.example#x", "real.example", "/"),
            ("http://real.example", "real.example", "/"),
            ("http://[::1]:80/", "[::1]:80", "/"),
        ] {
            let mut parts = parts("GET", target, &[("host", "other.example")]);
            let found = check(&mut parts, 100).unwrap();
            assert_eq!(
                (found.authority(), &parts.headers["host"]),
                (&parts.headers["host"], &HeaderValue::from_static(host))
            );
            assert_eq!(parts.uri.to_string(), origin);
            assert_eq!(parts.uri.path_and_query().unwrap().as_str(), origin);
        }
    }

    #[test]
    fn an_absolute_target_does_not_excuse_the_host() {
        assert_eq!(verdict("GET", "http://a/", &[]), Err(BadRequest::MissingHost));
        assert_eq!(verdict("GET", "http://a/", &[("host", "a b")]), Err(BadRequest::BadHost));
        assert_eq!(
            verdict("GET", "http://a/", &[("host", "a"), ("host", "b")]),
            Err(BadRequest::SeveralHosts)
        );
    }

    #[test]
    fn userinfo_and_foreign_schemes_are_refused() {
        let host = [("host", "a")];
        assert_eq!(verdict("GET", "http://user@a/", &host), Err(BadRequest::BadHost));
        assert_eq!(verdict("GET", "http://user:pw@a/", &host), Err(BadRequest::BadHost));
        assert_eq!(verdict("GET", "http://a:99999/", &host), Err(BadRequest::BadHost));
        assert_eq!(verdict("GET", "ftp://a/", &host), Err(BadRequest::BadTarget));
        assert_eq!(verdict("GET", "file://a/etc", &host), Err(BadRequest::BadTarget));
    }

    #[test]
    fn only_origin_form_absolute_form_and_the_asterisk_of_options_are_targets() {
        let host = [("host", "a")];
        assert_eq!(verdict("OPTIONS", "*", &host), Ok("a".to_owned()));
        for target in ["*", "x", "a:80", "a.example", "*x"] {
            assert_eq!(verdict("GET", target, &host), Err(BadRequest::BadTarget), "{target}");
        }
        assert_eq!(verdict("OPTIONS", "a.example:80", &host), Err(BadRequest::BadTarget));
    }

    #[test]
    fn an_origin_form_target_is_left_as_it_came() {
        for target in ["/", "//a//b", "/a/../b", "/a%2Fb?x=%00", "/?", "/a?b=http://c/", "/\u{fc}"] {
            let mut parts = parts("GET", target, &[("host", "a")]);
            check(&mut parts, 100).unwrap();
            assert_eq!(parts.uri.path_and_query().unwrap().as_str(), target);
        }
    }

    #[test]
    fn connect_and_trace_are_refused_before_anything_else() {
        for (method, target) in [("CONNECT", "a:443"), ("CONNECT", "/"), ("TRACE", "/")] {
            assert_eq!(verdict(method, target, &[]), Err(BadRequest::Method));
        }
        assert_eq!(verdict("PROPFIND", "/", &[("host", "a")]), Ok("a".to_owned()));
    }

    #[test]
    fn a_known_method_in_another_case_and_an_endless_one_are_refused() {
        let host = [("host", "a")];
        for method in ["get", "Get", "hEAD", "patch", "connect", "Trace"] {
            assert_eq!(verdict(method, "/", &host), Err(BadRequest::MethodCase), "{method}");
        }
        for method in ["M-SEARCH", "propfind", "gets", &"A".repeat(MAX_METHOD)] {
            assert!(verdict(method, "/", &host).is_ok(), "{method}");
        }
        assert_eq!(verdict(&"A".repeat(MAX_METHOD + 1), "/", &host), Err(BadRequest::MethodTooLong));
    }

    #[test]
    fn targets_and_headers_have_limits() {
        let fits = format!("/{}", "a".repeat(MAX_TARGET - 1));
        assert!(verdict("GET", &fits, &[("host", "a")]).is_ok());
        assert_eq!(verdict("GET", &format!("{fits}a"), &[("host", "a")]), Err(BadRequest::TargetTooLong));
        let query = format!("/?{}", "a".repeat(MAX_TARGET));
        assert_eq!(verdict("GET", &query, &[("host", "a")]), Err(BadRequest::TargetTooLong));
        let mut many = parts("GET", "/", &[("host", "a"), ("x", "1"), ("x", "2")]);
        assert!(check(&mut many.clone(), 3).is_ok());
        assert_eq!(check(&mut many, 2), Err(BadRequest::TooManyHeaders));
    }

    #[test]
    fn a_transfer_encoding_is_one_line_that_says_chunked() {
        let te = |value| with(&[("transfer-encoding", value)]);
        for fine in ["chunked", "Chunked", "CHUNKED"] {
            assert!(te(fine).is_ok(), "{fine}");
        }
        for unknown in ["gzip, chunked", "cow, chunked", "identity, chunked", "cow", "identity", "gzip"] {
            assert_eq!(te(unknown), Err(BadRequest::UnknownCoding), "{unknown}");
        }
        for bad in [
            "",
            ",",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "chunked, gzip",
            "chunked;q=1",
            "\"chunked\"",
            "chun ked",
            "x;y, chunked",
        ] {
            assert_eq!(te(bad), Err(BadRequest::BadTransferEncoding), "{bad}");
        }
        for lines in [["chunked", "chunked"], ["gzip", "chunked"], ["chunked", ""]] {
            let lines = lines.map(|value| ("transfer-encoding", value));
            assert_eq!(with(&lines), Err(BadRequest::BadTransferEncoding));
        }
    }

    #[test]
    fn http_1_0_has_no_transfer_encoding() {
        let mut parts = parts("POST", "/", &[("host", "a"), ("transfer-encoding", "chunked")]);
        parts.version = Version::HTTP_10;
        assert_eq!(check(&mut parts, 100), Err(BadRequest::BadTransferEncoding));
    }

    #[test]
    fn the_only_expectation_is_100_continue() {
        assert!(with(&[("expect", "100-Continue")]).is_ok());
        assert_eq!(with(&[("expect", "200-ok")]), Err(BadRequest::Expectation));
        assert_eq!(with(&[("expect", "100-continue"), ("expect", "x")]), Err(BadRequest::Expectation));
        let mut old = parts("POST", "/", &[("expect", "x")]);
        old.version = Version::HTTP_10;
        assert!(check(&mut old, 100).is_ok());
    }

    #[test]
    fn connection_cannot_name_what_is_meant_for_the_backend() {
        for bad in [
            "X-Forwarded-For",
            "close, x-forwarded-host",
            "x-forwarded-anything",
            "x-real-ip",
            "forwarded",
            "Cookie",
            "authorization",
            "content-length",
            "keep-alive,host",
            "x-request-id",
            "Cache-Control",
        ] {
            assert_eq!(with(&[("connection", bad)]), Err(BadRequest::BadConnection), "{bad}");
        }
        assert_eq!(
            with(&[("connection", "close"), ("connection", "cookie")]),
            Err(BadRequest::BadConnection)
        );
        for fine in
            ["close", "keep-alive", "Upgrade, HTTP2-Settings", "x-mine", "te", "", ",,", "x-forwarded", "@"]
        {
            assert!(with(&[("connection", fine)]).is_ok(), "{fine}");
        }
    }

    #[test]
    fn connection_names_a_bounded_number_of_things() {
        assert!(with(&[("connection", &["a"; MAX_CONNECTION_OPTIONS].join(","))]).is_ok());
        let many = ["a"; MAX_CONNECTION_OPTIONS + 1].join(",");
        assert_eq!(with(&[("connection", &many)]), Err(BadRequest::BadConnection));
    }

    #[test]
    fn a_connection_value_that_is_not_text_is_no_panic() {
        let mut parts = parts("GET", "/", &[("host", "a")]);
        parts.headers.insert(CONNECTION, HeaderValue::from_bytes(b"\xff\xfe, close").unwrap());
        assert!(check(&mut parts, 100).is_ok());
    }
}
