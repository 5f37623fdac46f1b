//! The key that a hash policy places a request by.

use std::net::IpAddr;

use http::request::Parts;

use super::policy::KeyHasher;
use crate::http::part::Part;
use crate::plan::{IpPrefix, PolicyPlan, PoolPlan};

/// What a pool's policy hashes of a request, prepared for looking.
pub struct Keys(Option<Hashed>);

struct Hashed {
    hasher: KeyHasher,
    prefix: IpPrefix,
    part: Part,
}

impl Keys {
    pub fn new(plan: &PoolPlan) -> Self {
        let (PolicyPlan::IpHash(hash) | PolicyPlan::ConsistentHash(hash)) = &plan.policy else {
            return Self(None);
        };
        let hasher = KeyHasher::new(&plan.name, hash.key.as_ref());
        Self(Some(Hashed { hasher, prefix: hash.prefix, part: Part::new(&hash.on) }))
    }

    /// The hash of what the policy hashes, or of the client's address where the request lacks
    /// it. 0 for a policy that hashes nothing.
    pub fn of(&self, parts: &Parts, client: IpAddr) -> u64 {
        let Some(Hashed { hasher, prefix, part }) = &self.0 else { return 0 };
        let found = part.of(parts);
        found.map_or_else(|| hasher.client_key(client, *prefix), |bytes| hasher.hash(bytes))
    }
}
