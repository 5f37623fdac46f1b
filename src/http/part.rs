//! The part of a request that a file may name to tell clients apart, prepared for looking.

use http::HeaderName;
use http::header::COOKIE;
use http::request::Parts;

use super::cookies::CookieName;
use crate::plan::HashOn;

#[derive(Debug)]
pub struct Part(On);

#[derive(Debug)]
enum On {
    ClientIp,
    Cookie(Box<CookieName>),
    Header(HeaderName),
    Query(String),
    Path,
}

impl Part {
    pub fn new(on: &HashOn) -> Self {
        Self(match on {
            HashOn::ClientIp => On::ClientIp,
            HashOn::Cookie(name) => On::Cookie(Box::new(CookieName::new(name))),
            HashOn::Header(name) => On::Header(name.clone()),
            HashOn::Query(name) => On::Query(name.clone()),
            HashOn::Path => On::Path,
        })
    }

    /// What the request has of it; nothing where that is the client's address, or where it lacks it.
    pub fn of<'p>(&self, parts: &'p Parts) -> Option<&'p [u8]> {
        match &self.0 {
            On::ClientIp => None,
            On::Cookie(name) => {
                let lines = parts.headers.get_all(COOKIE).iter();
                lines.flat_map(|line| name.values(line.as_bytes())).next()
            }
            On::Header(name) => parts.headers.get(name).map(|value| value.as_bytes()),
            On::Query(name) => query(parts.uri.query().unwrap_or_default(), name),
            On::Path => Some(parts.uri.path().as_bytes()),
        }
    }
}

/// The first value of `name`, as it is written.
fn query<'a>(query: &'a str, name: &str) -> Option<&'a [u8]> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) if key == name => Some(value.as_bytes()),
        None if pair == name => Some(b"".as_slice()),
        _ => None,
    })
}
