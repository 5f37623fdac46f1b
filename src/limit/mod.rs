//! Whether now: how many requests a client may make, how many connections it may have, and how much
//! memory those may take who have not said yet what they want.
//!
//! Start at [`Rates`]; [`Quota`] is the rule that it keeps. [`Clients`] counts connections, [`Heads`]
//! bytes. Each is one for all threads, is bounded, and is touched only by whoever it limits.

mod clients;
mod heads;
mod quota;
mod rates;

use std::net::{IpAddr, Ipv6Addr};

pub use self::clients::{Clients, Seat};
pub use self::heads::{Heads, Held};
pub use self::quota::Quota;
pub use self::rates::{Key, Rates, Verdict};

/// What of an IPv6 address is one client: a household, or a machine, has a network of its own.
const V6_CLIENT: u32 = 64;

/// Whom an address belongs to. An IPv4 address is the same client when it comes mapped into IPv6.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::MAX << (128 - V6_CLIENT);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network_and_an_ipv4_one_its_address() {
        let client = |address: &str| client_of(address.parse().unwrap());
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("203.0.113.9"), client("203.0.113.8"));
        assert_eq!(client("::ffff:203.0.113.9"), client("203.0.113.9"));
    }
}
