//! What counts as one client: a network, not an address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How much of an address stands for a client.
///
/// A household or a server is given a whole IPv6 /64 and may speak from any of its 2^64 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefixes {
    /// Bits of an IPv4 address, at most 32.
    pub v4: u8,
    /// Bits of an IPv6 address, at most 128.
    pub v6: u8,
}

impl Default for ClientPrefixes {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// The network of one client, as its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl ClientPrefixes {
    /// The network of an address. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn network(self, address: IpAddr) -> Network {
        Network(match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32u8.saturating_sub(self.v4))).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128u8.saturating_sub(self.v6))).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let usual = ClientPrefixes::default();
        let wide = ClientPrefixes { v4: 24, v6: 48 };
        let all = ClientPrefixes { v4: 0, v6: 0 };
        for (prefixes, a, b, same) in [
            (usual, "192.0.2.1", "192.0.2.1", true),
            (usual, "192.0.2.1", "192.0.2.2", false),
            (usual, "192.0.2.1", "::ffff:192.0.2.1", true),
            (usual, "::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            (usual, "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            (usual, "2001:db8:1:2::1", "2001:db8:1:3::1", false),
            (wide, "192.0.2.1", "192.0.2.255", true),
            (wide, "192.0.2.1", "192.0.3.1", false),
            (wide, "2001:db8:1:2::1", "2001:db8:1:ffff::1", true),
            (wide, "2001:db8:1::1", "2001:db8:2::1", false),
            (all, "192.0.2.1", "203.0.113.9", true),
            (all, "2001:db8::1", "fe80::1", true),
            (all, "::", "0.0.0.0", false),
        ] {
            let of = |text: &str| prefixes.network(text.parse().unwrap());
            assert_eq!(of(a) == of(b), same, "{prefixes:?}: {a} and {b}");
        }
        let network = usual.network("2001:db8:1:2:3:4:5:6".parse().unwrap());
        assert_eq!(network.to_string(), "2001:db8:1:2::");
    }
}
