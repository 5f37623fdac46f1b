//! One route, several targets: who gets which share.
//!
//! Start at [`Split::share`]. Weighted rendezvous over names: the same key goes to the same target
//! whatever the order of the shares, in every replica and after every restart, and when the weights
//! change only the share that changed moves.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Never empty, and no weight is 0.
#[derive(Debug)]
pub struct Split<T> {
    shares: Vec<Share<T>>,
}

#[derive(Debug)]
struct Share<T> {
    seed: u64,
    weight: f64,
    to: T,
}

impl<T> Split<T> {
    /// Shares as name, weight and target; at least one.
    pub fn build<'a>(shares: impl IntoIterator<Item = (&'a str, u32, T)>) -> Self {
        let shares: Vec<_> = shares
            .into_iter()
            .map(|(name, weight, to)| Share { seed: seed(name), weight: f64::from(weight.max(1)), to })
            .collect();
        assert!(!shares.is_empty(), "a split has at least one share");
        Self { shares }
    }

    /// Where `key`, a hash of the client, belongs.
    pub fn share(&self, key: u64) -> &T {
        let best =
            self.shares.iter().map(|share| (share.cost(key), share)).min_by(|(a, _), (b, _)| a.total_cmp(b));
        let (_, share) = best.expect("a split has at least one share");
        &share.to
    }
}

impl<T> Share<T> {
    /// Exponentially distributed with the weight as its rate, so the smallest of several falls to
    /// each in proportion to its weight.
    fn cost(&self, key: u64) -> f64 {
        // 53 bits and a half, to lie strictly between 0 and 1.
        let unit = ((mix(self.seed ^ key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -unit.ln() / self.weight
    }
}

fn seed(name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(shares: &[(&'static str, u32)]) -> Split<&'static str> {
        Split::build(shares.iter().map(|(name, weight)| (*name, *weight, *name)))
    }

    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| seed(&n.to_string()))
    }

    #[test]
    fn shares_follow_the_weights() {
        let split = split(&[("app", 95), ("app-next", 5)]);
        let next = keys(20_000).filter(|key| *split.share(*key) == "app-next").count();
        assert!((850..1150).contains(&next), "{next} of 20000");
    }

    #[test]
    fn a_known_key_stays_where_earlier_releases_sent_it() {
        let split = split(&[("a", 1), ("b", 1), ("c", 1)]);
        let dealt: Vec<_> = (0..8).map(|key| *split.share(key)).collect();
        assert_eq!(dealt, ["b", "b", "a", "c", "c", "a", "b", "a"]);
    }

    proptest! {
        #[test]
        fn a_changed_weight_moves_only_what_it_must(a in 1u32..100, b in 1u32..100, c in 1u32..100, more in 1u32..100) {
            let before = split(&[("a", a), ("b", b), ("c", c)]);
            let after = split(&[("c", c), ("b", b + more), ("a", a)]);
            for key in keys(500) {
                let (was, is) = (*before.share(key), *after.share(key));
                prop_assert!(was == is || is == "b", "{} went from {} to {}", key, was, is);
            }
        }

        #[test]
        fn a_share_that_leaves_moves_nobody_else(a in 1u32..100, b in 1u32..100, c in 1u32..100) {
            let before = split(&[("a", a), ("b", b), ("c", c)]);
            let after = split(&[("a", a), ("c", c)]);
            for key in keys(500) {
                let (was, is) = (*before.share(key), *after.share(key));
                prop_assert!(was == is || was == "b");
            }
        }
    }
}
