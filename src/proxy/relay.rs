//! The answer, on its way to the client: a backend's, a route's own, or an error's.

use std::rc::Rc;
use std::time::Instant;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SET_COOKIE};
use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::{Answer, Body, tunnel};
use crate::http::headers::{self, X_REQUEST_ID};
use crate::http::tunnel::Content;
use crate::http::upload::{Progress, UploadState};
use crate::http::{answer, check, grpc};
use crate::pool::affinity::mark_private;
use crate::route::rewrite;
use crate::telemetry::End;
use crate::upstream::Link;

/// Passes an answer on, unless it must not be. From here its body carries the exchange, and
/// with it the lease and the connection.
pub fn relay(mut exchange: Box<Exchange>, answer: Answer) -> Response<Body> {
    let view = exchange.view.clone();
    let route = exchange.route.map(|route| &view.snapshot.routes[route].plan);
    let (response, cookie, upgrade) = match answer {
        Answer::Own(response) => {
            exchange.answered(response.status(), End::Ok);
            exchange.sent = response.body().len() as u64;
            let mut response = response.map(Body::text);
            if let Some(route) = route {
                rewrite::edit_response(&route.response_headers, response.headers_mut());
            }
            return response;
        }
        Answer::Relayed { response, cookie, upgrade } => (response, cookie, upgrade),
    };
    let (mut parts, incoming) = response.into_parts();
    if let Err(why) = answer::check(&mut parts, upgrade.as_ref().map(|(upgrade, _)| upgrade)) {
        let pool = exchange.pool_name().to_owned();
        return refuse(exchange, &ProxyError::BadResponse { pool, why });
    }
    exchange.answered(parts.status, End::ClientAbort);
    headers::strip_response(&mut parts.headers);
    if let Some(route) = route {
        rewrite::edit_response(&route.response_headers, &mut parts.headers);
    }
    if let Some(cookie) = cookie {
        parts.headers.append(SET_COOKIE, cookie);
        mark_private(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some((upgrade, client))) = (parts.status, upgrade) {
        upgrade.grant(&mut parts);
        exchange.answered(parts.status, End::ClientAbort);
        let content = if upgrade.is_websocket() { Content::WebSocket } else { Content::Other };
        if let Some(backend) = parts.extensions.remove::<OnUpgrade>() {
            tunnel::open(exchange, client, backend, content);
        }
        return Response::from_parts(parts, Body::Empty);
    }
    let (patience, call) = (exchange.patience(), exchange.call.clone());
    // A backend that still reads the request may need us to read its answer first.
    let uploaded = |upload: &Rc<Progress>| upload.state() == UploadState::Done;
    if let Some(Link::Alone(alone)) = &exchange.link
        && exchange.upload.as_ref().is_none_or(uploaded)
    {
        call.brake_by(&alone.brake);
    }
    Response::from_parts(parts, Body::relay(incoming, exchange, call, patience))
}

/// Answers for an error: a status, a word and a sentence, and the id to ask about it by.
pub fn refuse(mut exchange: Box<Exchange>, error: &ProxyError) -> Response<Body> {
    let (word, sentence) = error.public();
    let (status, id) = (error.status(), exchange.id_value());
    let id = id.to_str().unwrap_or_default();
    let text = format!("{} {word}: {sentence}. request {id}\n", status.as_u16());
    // Who has left got no status, whatever there was to say.
    if error.end() != End::ClientAbort {
        exchange.answered(status, error.end());
    }
    debug!(request = id, pool = exchange.pool_name(), ?error, "refused");
    let malformed = exchange.version == Version::HTTP_2 && error.is_malformed();
    let mut response = match exchange.rpc.filter(|_| !malformed) {
        // A status of HTTP's would tell its client little: the log and the metrics have ours.
        Some(rpc) => grpc::refusal(error.grpc_status(rpc.is_late(Instant::now())), text.trim_end())
            .map(|()| Body::Empty),
        None => {
            exchange.sent = text.len() as u64;
            let body = if malformed { Body::refusal(text) } else { Body::text(text) };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
            response
        }
    };
    let fields = response.headers_mut();
    fields.insert(&X_REQUEST_ID, exchange.id_value());
    if let Some(seconds) = error.retry_after() {
        fields.insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(ALLOW, HeaderValue::from_static(check::ALLOW));
    }
    if error.closes() {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
