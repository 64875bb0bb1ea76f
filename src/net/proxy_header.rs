//! The PROXY protocol towards upstreams: the header that tells, before anything else, whose connection this is.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ppp::{v1, v2};

use crate::{config::model::ProxyVersion, protocol::address::PeerAddress};

/// What is spoken over the connection after its header and its TLS, whatever the client speaks with us.
const SPOKEN: &[u8] = b"http/1.1";

/// Whom a connection is made for.
#[derive(Clone, Debug)]
pub struct OnBehalfOf {
    /// The client.
    pub client: PeerAddress,
    /// The address that it came to.
    pub local: Option<SocketAddr>,
    /// The host that its TLS handshake named.
    pub server_name: Option<Box<str>>,
    /// Its request, as the log names it.
    pub request: Box<str>,
}

/// The header of a connection for this client, or for ourselves.
///
/// # Errors
/// `WriteZero` when it does not fit into 64 KiB, which no name of a host is long enough for.
pub(super) fn encode(version: ProxyVersion, whom: Option<&OnBehalfOf>) -> io::Result<Vec<u8>> {
    let ends = whom.and_then(|whom| Some((whom, ends(whom)?)));
    match (version, ends) {
        (ProxyVersion::V1, Some((_, ends))) => Ok(v1::Addresses::from(ends).to_string().into_bytes()),
        (ProxyVersion::V1, None) => Ok(v1::Addresses::Unknown.to_string().into_bytes()),
        (ProxyVersion::V2, Some((whom, ends))) => {
            let command = v2::Version::Two | v2::Command::Proxy;
            let mut header =
                v2::Builder::with_addresses(command, v2::Protocol::Stream, ends).write_tlv(v2::Type::ALPN, SPOKEN)?;
            if let Some(name) = &whom.server_name {
                header = header.write_tlv(v2::Type::Authority, name.as_bytes())?;
            }
            header.write_tlv(v2::Type::UniqueId, whom.request.as_bytes())?.build()
        }
        (ProxyVersion::V2, None) => {
            let family = v2::AddressFamily::Unspecified | v2::Protocol::Unspecified;
            v2::Builder::new(v2::Version::Two | v2::Command::Local, family).build()
        }
    }
}

/// Both ends of the client's connection, of one family; nothing for a client without an address.
fn ends(whom: &OnBehalfOf) -> Option<(SocketAddr, SocketAddr)> {
    let address = whom.client.ip()?;
    let port = match whom.client {
        PeerAddress::Socket(address) => address.port(),
        // A forwarding field told the address and no more.
        PeerAddress::Ip(_) | PeerAddress::Local => 0,
    };
    let (to, to_port) = match whom.local {
        Some(local) => (local.ip().to_canonical(), local.port()),
        // It came over a Unix-domain socket to a peer of ours: better the client alone than nobody.
        None if address.is_ipv4() => (Ipv4Addr::UNSPECIFIED.into(), 0),
        None => (Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let one_family = address.is_ipv4() == to.is_ipv4();
    let of = |ip: IpAddr| if one_family { ip } else { mapped(ip) };
    Some((SocketAddr::new(of(address), port), SocketAddr::new(of(to), to_port)))
}

/// An IPv4 client before an IPv6 listener, or the other way round: both are told as IPv6 (RFC 4291 §2.5.5.2).
fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whom(client: PeerAddress, local: Option<&str>) -> OnBehalfOf {
        let local = local.map(|text| text.parse().unwrap());
        OnBehalfOf { client, local, server_name: None, request: "00000000000000aa".into() }
    }

    fn socket(text: &str) -> PeerAddress {
        PeerAddress::Socket(text.parse().unwrap())
    }

    #[test]
    fn version_1_is_one_line() {
        let ip = PeerAddress::Ip("192.0.2.7".parse().unwrap());
        for (client, local, line) in [
            (socket("192.0.2.7:4711"), Some("198.51.100.1:443"), "TCP4 192.0.2.7 198.51.100.1 4711 443"),
            (socket("[2001:db8::7]:4711"), Some("[2001:db8::1]:443"), "TCP6 2001:db8::7 2001:db8::1 4711 443"),
            (socket("[::ffff:192.0.2.7]:1"), Some("[::ffff:192.0.2.1]:2"), "TCP4 192.0.2.7 192.0.2.1 1 2"),
            (ip, Some("198.51.100.1:443"), "TCP4 192.0.2.7 198.51.100.1 0 443"),
            (ip, Some("[2001:db8::1]:443"), "TCP6 ::ffff:192.0.2.7 2001:db8::1 0 443"),
            (socket("[2001:db8::7]:1"), Some("192.0.2.1:2"), "TCP6 2001:db8::7 ::ffff:192.0.2.1 1 2"),
            (ip, None, "TCP4 192.0.2.7 0.0.0.0 0 0"),
            (socket("[2001:db8::7]:1"), None, "TCP6 2001:db8::7 :: 1 0"),
            (PeerAddress::Local, None, "UNKNOWN"),
            (PeerAddress::Local, Some("192.0.2.1:2"), "UNKNOWN"),
        ] {
            let header = encode(ProxyVersion::V1, Some(&whom(client, local))).unwrap();
            assert_eq!(String::from_utf8(header).unwrap(), format!("PROXY {line}\r\n"));
        }
        assert_eq!(encode(ProxyVersion::V1, None).unwrap(), b"PROXY UNKNOWN\r\n");
    }

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    #[test]
    fn version_2_has_both_ends_and_what_else_is_known() {
        let mut client = whom(socket("192.0.2.7:4711"), Some("198.51.100.1:443"));
        client.server_name = Some("chat.example".into());
        let expected = [
            SIGNATURE,
            &[0x21, 0x11, 0, 12 + 11 + 15 + 19, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb],
            &[1, 0, 8],
            b"http/1.1",
            &[2, 0, 12],
            b"chat.example",
            &[5, 0, 16],
            b"00000000000000aa",
        ];
        assert_eq!(encode(ProxyVersion::V2, Some(&client)).unwrap(), expected.concat());

        let v6 = whom(socket("[2001:db8::7]:4711"), Some("192.0.2.1:443"));
        let expected = [
            SIGNATURE,
            &[0x21, 0x21, 0, 36 + 11 + 19],
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb],
            &[1, 0, 8],
            b"http/1.1",
            &[5, 0, 16],
            b"00000000000000aa",
        ];
        assert_eq!(encode(ProxyVersion::V2, Some(&v6)).unwrap(), expected.concat());
    }

    #[test]
    fn version_2_without_a_client_is_a_connection_of_our_own() {
        let expected = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        assert_eq!(encode(ProxyVersion::V2, Some(&whom(PeerAddress::Local, None))).unwrap(), expected);
        assert_eq!(encode(ProxyVersion::V2, None).unwrap(), expected);
    }
}
