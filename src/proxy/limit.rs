//! Whether a route takes one more request from this client now.

use http::request::Parts;

use super::error::ProxyError;
use super::exchange::Exchange;
use crate::limit::Verdict;
use crate::live::Route;

/// Takes the request into account, where its route has a limit, or refuses it. Its body is not read.
pub fn admit(exchange: &Exchange, route: &Route, parts: &Parts) -> Result<(), ProxyError> {
    let Some(limit) = &route.limit else { return Ok(()) };
    let thread = exchange.proxy.thread;
    match limit.ask(parts, exchange.client, exchange.start) {
        Verdict::Passes => Ok(()),
        Verdict::Displaces => {
            route.series.rate_displaced(thread);
            Ok(())
        }
        Verdict::Refused(wait) => {
            route.series.rate_limited(thread);
            Err(ProxyError::RateLimited { wait })
        }
    }
}
