//! Networks: which peers are trusted, and what counts as one client.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Addresses that begin with the same bits; written `10.0.0.0/8`, or as the one address that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither an address nor a network; write `10.0.0.0/8` or `::1`")]
pub struct NetworkError;

impl Network {
    fn around(address: IpAddr, prefix: u8) -> Self {
        let first = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32u8.saturating_sub(prefix))).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128u8.saturating_sub(prefix))).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        };
        Self { first, prefix }
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Whether `address` is in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address.to_canonical(), self.prefix) == *self
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| match prefix.as_bytes() {
            // Neither `+8` nor `08`: a typing error is not to widen what is trusted.
            [b'0'] | [b'1'..=b'9', ..] => prefix.parse().map_err(|_| NetworkError),
            _ => Err(NetworkError),
        })?;
        if prefix > longest {
            return Err(NetworkError);
        }
        match address.to_canonical() {
            // Addresses are compared as IPv4 where they are that, so this has to be written so too.
            mapped @ IpAddr::V4(_) if address.is_ipv6() => {
                Ok(Self::around(mapped, prefix.checked_sub(96).ok_or(NetworkError)?))
            }
            _ => Ok(Self::around(address, prefix)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

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

impl ClientPrefixes {
    /// The network of an address. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn network(self, address: IpAddr) -> Network {
        let address = address.to_canonical();
        Network::around(address, if address.is_ipv4() { self.v4 } else { self.v6 })
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
        assert_eq!(
            (network.first().to_string(), network.to_string()),
            ("2001:db8:1:2::".into(), "2001:db8:1:2::/64".into())
        );
    }

    #[test]
    fn a_network_contains_what_begins_like_it() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.0/104", "::ffff:10.2.3.4", true),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("::/0", "203.0.113.9", false),
            ("::/0", "2001:db8::1", true),
            ("10.1.2.3/8", "10.200.0.1", true),
            ("0.0.0.0/32", "0.0.0.0", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        // The last two are neither networks of IPv4 nor such as anybody means.
        for text in [
            "10.0.0.0/33",
            "host",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/00",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "2001:db8::/129",
            "fe80::1%eth0",
            "::ffff:10.0.0.1/95",
            "::ffff:10.0.0.1/0",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }
}
