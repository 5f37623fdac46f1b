//! The key that a hash policy places a request by.

use std::net::IpAddr;

use http::HeaderName;
use http::header::COOKIE;
use http::request::Parts;

use super::affinity::scan::CookieName;
use super::policy::KeyHasher;
use crate::plan::{HashOn, IpPrefix, PolicyPlan, PoolPlan};

/// What a pool's policy hashes of a request, prepared for looking.
pub struct Keys(Option<Hashed>);

struct Hashed {
    hasher: KeyHasher,
    prefix: IpPrefix,
    on: On,
}

enum On {
    ClientIp,
    Cookie(Box<CookieName>),
    Header(HeaderName),
    Query(String),
    Path,
}

impl Keys {
    pub fn new(plan: &PoolPlan) -> Self {
        let (PolicyPlan::IpHash(hash) | PolicyPlan::ConsistentHash(hash)) = &plan.policy else {
            return Self(None);
        };
        let on = match &hash.on {
            HashOn::ClientIp => On::ClientIp,
            HashOn::Cookie(name) => On::Cookie(Box::new(CookieName::new(name))),
            HashOn::Header(name) => On::Header(name.clone()),
            HashOn::Query(name) => On::Query(name.clone()),
            HashOn::Path => On::Path,
        };
        let hasher = KeyHasher::new(&plan.name, hash.key.as_ref());
        Self(Some(Hashed { hasher, prefix: hash.prefix, on }))
    }

    /// The hash of what the policy hashes, or of the client's address where the request lacks
    /// it. 0 for a policy that hashes nothing.
    pub fn of(&self, parts: &Parts, client: IpAddr) -> u64 {
        let Some(Hashed { hasher, prefix, on }) = &self.0 else { return 0 };
        let found = match on {
            On::ClientIp => None,
            On::Cookie(name) => {
                let lines = parts.headers.get_all(COOKIE).iter();
                lines.flat_map(|line| name.values(line.as_bytes())).next()
            }
            On::Header(name) => parts.headers.get(name).map(|value| value.as_bytes()),
            On::Query(name) => query(parts.uri.query().unwrap_or_default(), name),
            On::Path => Some(parts.uri.path().as_bytes()),
        };
        found.map_or_else(|| hasher.client_key(client, *prefix), |bytes| hasher.hash(bytes))
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
