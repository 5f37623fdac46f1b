//! A request of HTTP/2 as HTTP/1.1 would have put it, so that everything after reads one kind.
//!
//! Start at [`translate`], which [`super::check::check`] calls first. What the codec has refused by
//! then: pseudo-headers that are unknown, doubled, late or missing, names in upper case, `Connection`
//! and its kin, `TE` but for `trailers`, and bytes that no header value has (RFC 9113 section 8).

use ::http::header::{CONTENT_LENGTH, COOKIE, HOST};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderValue, Method, Uri};

use super::check::BadRequest;

/// Leaves `parts` with a target in origin-form (or `*`) and one `Host`.
pub fn translate(parts: &mut Parts) -> Result<(), BadRequest> {
    if parts.headers.values().any(has_blank_ends) {
        return Err(BadRequest::Blanks);
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(BadRequest::SeveralLengths);
    }
    authority(parts)?;
    parts.uri = target(&parts.uri, &parts.method)?;
    join_cookies(&mut parts.headers);
    Ok(())
}

/// RFC 9113 section 8.2.1.
fn has_blank_ends(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// Section 8.3.1: `:authority` replaces `Host`; one that differs from it would leave us and a
/// backend a choice.
fn authority(parts: &mut Parts) -> Result<(), BadRequest> {
    let Some(authority) = parts.uri.authority() else {
        return if parts.headers.contains_key(HOST) { Ok(()) } else { Err(BadRequest::MissingHost) };
    };
    let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    if !parts.headers.get_all(HOST).iter().all(same) {
        return Err(BadRequest::SeveralHosts);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BadRequest::BadHost)?;
    parts.headers.insert(HOST, host);
    Ok(())
}

fn target(uri: &Uri, method: &Method) -> Result<Uri, BadRequest> {
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(BadRequest::BadTarget);
    }
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let asterisk = path.as_str() == "*" && method == Method::OPTIONS;
    let begins = path.as_str().starts_with('/');
    let target = Uri::from(path);
    // `#fragment` is an empty path that calls itself `/`.
    if !asterisk && (!begins || target.path().is_empty()) {
        return Err(BadRequest::BadTarget);
    }
    Ok(target)
}

/// Section 8.2.3: what was split for the sake of compression is one line again, before anybody
/// looks for a cookie in it.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut line = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        line.extend_from_slice(b"; ");
        line.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        headers.insert(COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{Request, Version};

    fn parts(method: &str, uri: &str, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in lines {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verdict(
        method: &str,
        uri: &str,
        lines: &[(&'static str, &str)],
    ) -> Result<(String, String), BadRequest> {
        let mut parts = parts(method, uri, lines);
        translate(&mut parts)?;
        Ok((parts.headers[HOST].to_str().unwrap().to_owned(), parts.uri.to_string()))
    }

    fn fine(host: &str, target: &str) -> Result<(String, String), BadRequest> {
        Ok((host.to_owned(), target.to_owned()))
    }

    #[test]
    fn the_authority_becomes_the_host() {
        assert_eq!(verdict("GET", "https://a.example:8443/p?q", &[]), fine("a.example:8443", "/p?q"));
        assert_eq!(verdict("GET", "http://a.example/", &[("host", "A.example")]), fine("a.example", "/"));
        assert_eq!(verdict("GET", "/p", &[("host", "b.example")]), fine("b.example", "/p"));
    }

    #[test]
    fn two_names_for_one_request_are_refused_and_so_is_none() {
        let lines = [("host", "b.example")];
        assert_eq!(verdict("GET", "http://a.example/", &lines), Err(BadRequest::SeveralHosts));
        let lines = [("host", "a.example"), ("host", "b.example")];
        assert_eq!(verdict("GET", "http://a.example/", &lines), Err(BadRequest::SeveralHosts));
        assert_eq!(verdict("GET", "/", &[]), Err(BadRequest::MissingHost));
    }

    #[test]
    fn a_target_is_a_path_or_the_asterisk_of_options() {
        assert_eq!(verdict("OPTIONS", "*", &[("host", "a")]), fine("a", "*"));
        assert_eq!(verdict("GET", "*", &[("host", "a")]), Err(BadRequest::BadTarget));
        assert_eq!(verdict("GET", "ftp://a/x", &[]), Err(BadRequest::BadTarget));
    }

    #[test]
    fn a_path_that_is_a_fragment_alone_is_refused() {
        for path in ["#x", "?q"] {
            let mut parts = parts("GET", "http://a/", &[]);
            let uri = Uri::builder().scheme("http").authority("a").path_and_query(path);
            parts.uri = uri.build().unwrap();
            assert_eq!(translate(&mut parts), Err(BadRequest::BadTarget), "{path}");
        }
    }

    #[test]
    fn blanks_around_a_value_and_two_lengths_are_refused() {
        for value in [" x", "x ", "\tx", "x\t", " "] {
            assert_eq!(verdict("GET", "http://a/", &[("x-a", value)]), Err(BadRequest::Blanks), "{value:?}");
        }
        assert!(verdict("GET", "http://a/", &[("x-a", ""), ("x-b", "a b")]).is_ok());
        let lengths = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(verdict("POST", "http://a/", &lengths), Err(BadRequest::SeveralLengths));
    }

    #[test]
    fn cookie_crumbs_are_one_line_again() {
        let mut parts = parts("GET", "http://a/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        translate(&mut parts).unwrap();
        assert_eq!(parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
