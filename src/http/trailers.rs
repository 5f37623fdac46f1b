//! The fields that come after a body: which may, and the line that announces them.
//!
//! Start at [`keep_allowed`]. Whoever reads a message may put its trailers among its headers, so
//! nothing passes here that means something there: framing, routing, credentials, who the client is
//! (RFC 9110 section 6.5.1). hyper bounds their number and size (100, and the size of a head), and
//! in HTTP/1 writes those alone that `Trailer` names, to a client that said `TE: trailers`.

use ::http::header::{Entry, TRAILER};
use ::http::{HeaderMap, HeaderName, HeaderValue};

use super::forwarded::is_about_the_client;
use super::headers::{is_hop_by_hop, options};

/// Drops from trailers what may not come after a body.
pub fn keep_allowed(trailers: &mut HeaderMap) {
    while let Some(name) = trailers.keys().find(|name| !is_allowed(name.as_str())).cloned() {
        trailers.remove(name);
    }
}

/// Leaves in `Trailer`, on one line, the names that may come, and no line where there is none.
pub fn announce(headers: &mut HeaderMap) {
    if !headers.contains_key(TRAILER) {
        return;
    }
    let names = options(headers, TRAILER).filter_map(|name| HeaderName::from_bytes(name).ok());
    let allowed: Vec<_> = names.filter(|name| is_allowed(name.as_str())).collect();
    let line = allowed.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    if let Entry::Occupied(mut entry) = headers.entry(TRAILER) {
        match HeaderValue::try_from(line) {
            Ok(line) if !line.is_empty() => drop(entry.insert(line)),
            _ => drop(entry.remove_entry_mult()),
        }
    }
}

fn is_allowed(name: &str) -> bool {
    // As CGI and WSGI read names: `content_length` is `content-length`.
    let name = &*name.replace('_', "-");
    let header_only = matches!(
        name,
        "age"
            | "authentication-info"
            | "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "expires"
            | "host"
            | "location"
            | "max-forwards"
            | "origin"
            | "pragma"
            | "proxy"
            | "range"
            | "referer"
            | "retry-after"
            | "set-cookie"
            | "trailer"
            | "traceparent"
            | "tracestate"
            | "vary"
            | "via"
            | "www-authenticate"
            | "x-request-id"
    );
    !header_only && !name.starts_with("if-") && !is_hop_by_hop(name) && !is_about_the_client(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: [&str; 20] = [
        "Content-Length",
        "Transfer-Encoding",
        "Trailer",
        "TE",
        "Connection",
        "Host",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Cache-Control",
        "Expect",
        "If-None-Match",
        "Range",
        "Forwarded",
        "X-Forwarded-Anything",
        "X_Forwarded_For",
        "X-Request-Id",
        "Content_Length",
    ];

    fn announced(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRAILER, HeaderValue::from_str(line).unwrap());
        }
        announce(&mut headers);
        headers.get_all(TRAILER).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_means_something_in_a_head_does_not_come_after_a_body() {
        let mut trailers = HeaderMap::new();
        for name in FORBIDDEN {
            trailers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
        }
        for name in ["x-sum", "grpc-status", "digest", "server-timing"] {
            trailers.append(name, HeaderValue::from_static("1"));
            trailers.append(name, HeaderValue::from_static("2"));
        }
        keep_allowed(&mut trailers);
        let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["digest", "grpc-status", "server-timing", "x-sum"]);
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
    }

    #[test]
    fn only_what_may_come_is_announced() {
        assert_eq!(announced(&["X-Sum, Content-Length,, bad name,@", "X-Other"]), ["x-sum, x-other"]);
        assert_eq!(announced(&[&FORBIDDEN.join(",")]), [""; 0]);
        assert_eq!(announced(&[]), [""; 0]);
    }
}
