//! The hosts that a certificate is valid for.

use std::net::IpAddr;

use x509_parser::prelude::GeneralName;

/// The DNS names and addresses in the subject alternative names of a certificate. Its common name does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// In lower case.
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// How a certificate's name matches a host. An exact name is above a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Its leftmost label is an asterisk.
    Wildcard,
    /// It is the host.
    Exact,
}

impl CertificateNames {
    pub(super) fn new(names: &[GeneralName<'_>]) -> Self {
        let dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let addresses = names.iter().filter_map(|name| match name {
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        Self { dns: dns.collect(), addresses: addresses.collect() }
    }

    /// The DNS names, in lower case.
    pub(super) fn dns(&self) -> &[String] {
        &self.dns
    }

    /// How the best of them matches a DNS name or an address (RFC 9525 §6). An IPv6 address may stand in brackets.
    ///
    /// The asterisk is the whole leftmost label, and stands for exactly one label. It never matches an address.
    pub fn rank(&self, host: &str) -> Option<Rank> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.addresses.contains(&address).then_some(Rank::Exact);
        }
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        let ranks = self.dns.iter().filter_map(|name| match name.strip_prefix("*.") {
            Some(of) => parent.is_some_and(|parent| of.eq_ignore_ascii_case(parent)).then_some(Rank::Wildcard),
            None => name.eq_ignore_ascii_case(host).then_some(Rank::Exact),
        });
        ranks.max()
    }
}

/// RFC 5280 §4.2.1.6: four or sixteen bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_rfc_9525_says() {
        let names = CertificateNames::new(&[
            GeneralName::DNSName("*.Example.com"),
            GeneralName::DNSName("chat.example.com"),
            GeneralName::DNSName("f*.partial.test"),
            GeneralName::DNSName("a.*.inner.test"),
            GeneralName::DNSName("*"),
            GeneralName::IPAddress(&[192, 0, 2, 1]),
            GeneralName::IPAddress(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            GeneralName::IPAddress(&[192, 0, 2]),
        ]);
        for (host, expected) in [
            ("chat.example.com", Some(Rank::Exact)),
            ("CHAT.example.com.", Some(Rank::Exact)),
            ("ws.example.com", Some(Rank::Wildcard)),
            ("ws.EXAMPLE.com", Some(Rank::Wildcard)),
            ("example.com", None),
            ("a.ws.example.com", None),
            (".example.com", None),
            ("foo.partial.test", None),
            ("a.b.inner.test", None),
            ("localhost", None),
            ("192.0.2.1", Some(Rank::Exact)),
            ("192.0.2.2", None),
            ("[2001:db8::1]", Some(Rank::Exact)),
            ("2001:db8::2", None),
        ] {
            assert_eq!(names.rank(host), expected, "{host}");
        }
    }
}
