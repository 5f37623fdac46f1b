//! `ip_hash` and `consistent_hash`: weighted rendezvous hashing over backend names.
//!
//! Start at [`Rendezvous::choose`]. Each backend draws a number from its name and the request's
//! key, and the best draw wins. When one leaves, only its keys move; when one joins, it wins its
//! share and nobody else wins anything. Names, not places, are hashed: the order in the file
//! does not matter, and two replicas with the same file agree.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use siphasher::sip::SipHasher13;

use crate::plan::{IpPrefix, Secret};

use super::{Member, least, mix};

/// Turns what a request is hashed on into its key: SipHash-1-3 under a key that is derived from
/// the pool's name, or from `hash_key` where clients could aim.
#[derive(Clone)]
pub struct KeyHasher(SipHasher13);

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(***)") // its key may be a secret
    }
}

impl KeyHasher {
    pub fn new(pool: &str, hash_key: Option<&Secret>) -> Self {
        let digest = digest(&SHA256, hash_key.map_or(pool.as_bytes(), |secret| &secret.0));
        let key = digest.as_ref().first_chunk().expect("SHA-256 gives 32 bytes");
        Self(SipHasher13::new_with_key(key))
    }

    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.0.hash(bytes)
    }

    /// The key of a client: the leading bits of its address. An IPv4 address is the same client
    /// when it comes mapped into IPv6.
    pub fn client_key(&self, ip: IpAddr, prefix: IpPrefix) -> u64 {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.v4.min(32))).unwrap_or(0);
                self.hash(&(ip.to_bits() & mask).to_be_bytes())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.v6.min(128))).unwrap_or(0);
                self.hash(&(ip.to_bits() & mask).to_be_bytes())
            }
        }
    }
}

/// What each member draws with.
#[derive(Debug)]
pub(super) struct Rendezvous {
    seeds: Box<[u64]>,
    /// Only where they differ: a logarithm per backend and request is the price.
    weights: Option<Box<[f64]>>,
}

impl Rendezvous {
    pub(super) fn new(hasher: &KeyHasher, members: &[Member]) -> Self {
        let differ = members.iter().any(|member| member.weight != members[0].weight);
        Self {
            seeds: members.iter().map(|member| hasher.hash(member.name.as_bytes())).collect(),
            weights: differ.then(|| members.iter().map(|member| f64::from(member.weight)).collect()),
        }
    }

    /// At least one member.
    pub(super) fn choose(&self, key: u64, mut admits: impl FnMut(usize) -> bool) -> Option<usize> {
        let (mut first, mut least) = (0, f64::INFINITY);
        for at in 0..self.seeds.len() {
            let cost = self.cost(at, key);
            if cost < least {
                (first, least) = (at, cost);
            }
        }
        if admits(first) {
            return Some(first);
        }
        least::rest_by_cost(self.seeds.len(), &[first], |at| self.cost(at, key), admits)
    }

    /// What a member bids for a key; the least wins. `-ln(u) / weight` wins with a chance of
    /// exactly the weight's share. Without the division, `-u` gives the same order for less, so
    /// that a weight that begins to differ moves only what it must.
    fn cost(&self, at: usize, key: u64) -> f64 {
        let random = ((mix(self.seeds[at] ^ key) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        match &self.weights {
            None => -random,
            Some(weights) => -random.ln() / weights[at],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: IpPrefix = IpPrefix { v4: 32, v6: 64 };

    fn key(ip: &str, prefix: IpPrefix) -> u64 {
        KeyHasher::new("app", None).client_key(ip.parse().unwrap(), prefix)
    }

    #[test]
    fn an_address_is_masked_by_its_prefix() {
        let nginx = IpPrefix { v4: 24, v6: 128 };
        assert_eq!(key("203.0.113.9", nginx), key("203.0.113.200", nginx));
        assert_ne!(key("203.0.113.9", nginx), key("203.0.114.9", nginx));
        assert_ne!(key("203.0.113.9", FULL), key("203.0.113.10", FULL));
        assert_eq!(key("2001:db8::1", FULL), key("2001:db8::ffff:2", FULL));
        assert_ne!(key("2001:db8::1", nginx), key("2001:db8::2", nginx));
        let none = IpPrefix { v4: 0, v6: 0 };
        assert_eq!(key("10.0.0.1", none), key("192.0.2.1", none));
        assert_eq!(key("2001:db8::1", none), key("fe80::1", none));
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_same_client() {
        assert_eq!(key("::ffff:203.0.113.9", FULL), key("203.0.113.9", FULL));
    }

    #[test]
    fn the_key_comes_from_the_pools_name_or_the_hash_key() {
        let secret = Secret(b"not for clients".to_vec());
        let hash = |pool, secret| KeyHasher::new(pool, secret).hash(b"a client");
        assert_ne!(hash("app", None), hash("web", None));
        assert_ne!(hash("app", None), hash("app", Some(&secret)));
        assert_eq!(hash("app", Some(&secret)), hash("web", Some(&secret)));
    }

    /// A change here moves every client of every pool at an upgrade.
    #[test]
    fn hashes_stay_the_same_over_versions() {
        assert_eq!(key("203.0.113.9", FULL), 16_144_846_220_473_893_383);
    }
}
