//! How an answer is put on the wire: JSON, text, problems, and the headers that all share.
//!
//! Start at [`Reply`]. What is answered is `api`'s.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use super::view::Fault;

/// The admin side is no hot path: one boxed body serves whole answers and streams.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROBLEM: &str = "application/problem+json";
pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

/// A whole body. Nothing that the admin side says may be cached or guessed at.
pub(crate) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    dress(status, content_type, Full::new(body.into()).boxed_unsync())
}

pub(crate) fn dress(
    status: StatusCode,
    content_type: &'static str,
    body: UnsyncBoxBody<Bytes, Infallible>,
) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    whole(status, PLAIN, body.into())
}

/// JSON for programs, indented because people read it too.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    whole(status, JSON, lines(value))
}

/// `application/problem+json` (RFC 9457).
pub(crate) fn problem(fault: &Fault) -> Reply {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = whole(status, PROBLEM, lines(fault));
    if status == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pintle\""));
    }
    reply
}

/// The 405, which must say what would be allowed (RFC 9110 15.5.6).
pub(crate) fn not_allowed(allow: &str) -> Reply {
    let detail = format!("this path takes {allow}");
    let mut reply = problem(&Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail));
    let allow = HeaderValue::from_str(allow).expect("a list of method names is a header value");
    reply.headers_mut().insert(ALLOW, allow);
    reply
}

fn lines(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("the views have string keys only");
    bytes.push(b'\n');
    bytes
}
