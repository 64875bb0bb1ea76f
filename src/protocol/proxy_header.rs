//! The header that a balancer puts in front of a connection: whose it is (PROXY protocol, versions 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::v2;
use thiserror::Error;

/// Longest header of version 1, its line end included.
const MAX_TEXT: usize = 107;

/// Shortest one: `PROXY UNKNOWN` and a line end. Version 2 has one byte more at least.
const MIN: usize = 15;

/// Version 2 up to the length of the rest.
const FIXED: usize = 16;

/// Longest rest of version 2: addresses, and facts of which we use one. The field allows 64 KiB; balancers send some
/// hundred bytes, or a certificate.
const MAX_REST: usize = 4096;

/// Version 2, and the command of a balancer that speaks for itself.
const LOCAL: u8 = 0x20;

/// `PP2_CLIENT_SSL`: the client has connected over TLS.
const CLIENT_SSL: u8 = 1;

const TEXT_START: &[u8] = b"PROXY ";

/// What a header told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Who opened the connection.
    pub source: Source,
    /// The balancer's own name for it (`PP2_TYPE_UNIQUE_ID`).
    pub unique_id: Option<Box<[u8]>>,
    /// Whether it was TLS when it came to the balancer (`PP2_TYPE_SSL`).
    pub tls: bool,
}

/// Who opened a connection that a balancer passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Somebody with an address.
    Address {
        /// That address.
        from: SocketAddr,
        /// The one that it came to.
        to: SocketAddr,
    },
    /// Somebody whose address is not told or is none of the Internet's: the balancer's own stands for it.
    Untold,
    /// The balancer itself, to see whether we live.
    Balancer,
}

/// Why bytes are no header.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// They begin like none.
    #[error("the first bytes are no PROXY header; let the balancer send one (send-proxy, proxy_protocol on)")]
    Absent,
    /// It goes on for too long.
    #[error("the PROXY header is longer than {0} bytes")]
    TooLong(usize),
    /// For datagrams.
    #[error("the PROXY header is one of a datagram")]
    Datagram,
    /// It breaks the rules of version 1.
    #[error("the PROXY header is malformed: {0}")]
    Text(&'static str),
    /// It breaks the rules of version 2.
    #[error("the PROXY header is malformed: {0}")]
    Binary(String),
}

/// How far the bytes of a header have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At least so many more belong to it; never 0. Whoever reads no more than that reads nothing of what follows.
    Missing(usize),
    /// It is complete.
    Complete(ProxyHeader),
}

/// Looks at what has come so far.
///
/// # Errors
/// See [`HeaderError`]; further bytes cannot mend it.
pub fn read(bytes: &[u8]) -> Result<Progress, HeaderError> {
    if begins_alike(bytes, v2::PROTOCOL_PREFIX) {
        read_binary(bytes)
    } else if begins_alike(bytes, TEXT_START) {
        read_text(bytes)
    } else {
        Err(HeaderError::Absent)
    }
}

fn begins_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

fn read_text(bytes: &[u8]) -> Result<Progress, HeaderError> {
    if !bytes.ends_with(b"\r\n") {
        let end = if bytes.ends_with(b"\r") { 1 } else { 2 };
        let missing = MIN.saturating_sub(bytes.len()).max(end);
        return if bytes.len() + missing > MAX_TEXT {
            Err(HeaderError::TooLong(MAX_TEXT))
        } else {
            Ok(Progress::Missing(missing))
        };
    }
    let line = bytes.strip_prefix(TEXT_START).and_then(|rest| rest.strip_suffix(b"\r\n"));
    let source = read_line(line.unwrap_or_default()).map_err(HeaderError::Text)?;
    Ok(Progress::Complete(ProxyHeader { source, unique_id: None, tls: false }))
}

/// Reads version 1 after `PROXY `, without its line end. Strictly: two readers that differ here see different clients.
fn read_line(line: &[u8]) -> Result<Source, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (source, destination): (IpAddr, IpAddr) = match words.next() {
        // The specification has the rest ignored, whatever it is.
        Some(b"UNKNOWN") => return Ok(Source::Untold),
        Some(b"TCP4") => (parse::<Ipv4Addr>(words.next())?.into(), parse::<Ipv4Addr>(words.next())?.into()),
        Some(b"TCP6") => (parse::<Ipv6Addr>(words.next())?.into(), parse::<Ipv6Addr>(words.next())?.into()),
        _ => return Err("the protocol is not TCP4, TCP6 or UNKNOWN"),
    };
    let (from, to) = ((source, port(words.next())?), (destination, port(words.next())?));
    if words.next().is_some() {
        return Err("unexpected data after the last port");
    }
    Ok(address(from, to))
}

fn parse<A: std::str::FromStr>(word: Option<&[u8]>) -> Result<A, &'static str> {
    let text = word.and_then(|word| std::str::from_utf8(word).ok());
    text.and_then(|text| text.parse().ok()).ok_or("an address is missing or not of the named protocol")
}

fn port(word: Option<&[u8]>) -> Result<u16, &'static str> {
    const ERROR: &str = "a port is missing or not a decimal number up to 65535 without sign and leading zeros";
    let digits = word.filter(|word| word.iter().all(u8::is_ascii_digit)).ok_or(ERROR)?;
    if digits.len() > 1 && digits.starts_with(b"0") {
        return Err(ERROR);
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(ERROR)
}

fn read_binary(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let Some(&[high, low]) = bytes.get(FIXED - 2..FIXED) else {
        // Before its first byte it may still be one of version 1, which is shorter.
        return Ok(Progress::Missing(if bytes.is_empty() { MIN } else { FIXED - bytes.len() }));
    };
    let rest = u16::from_be_bytes([high, low]);
    if usize::from(rest) > MAX_REST {
        return Err(HeaderError::TooLong(FIXED + MAX_REST));
    }
    // Of such a one the specification has the rest ignored, its family included: nothing in it can be wrong.
    if bytes.get(FIXED - 4) == Some(&LOCAL) {
        let all = FIXED + usize::from(rest);
        return Ok(match all.checked_sub(bytes.len()) {
            None | Some(0) => Progress::Complete(ProxyHeader { source: Source::Balancer, unique_id: None, tls: false }),
            Some(missing) => Progress::Missing(missing),
        });
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Partial(there, all)) => return Ok(Progress::Missing(all.saturating_sub(there).max(1))),
        Err(error) => return Err(HeaderError::Binary(error.to_string())),
    };
    let source = match (header.command, header.addresses) {
        (v2::Command::Local, _) => Source::Balancer,
        (v2::Command::Proxy, _) if header.protocol == v2::Protocol::Datagram => return Err(HeaderError::Datagram),
        (v2::Command::Proxy, v2::Addresses::IPv4(told)) => {
            address((told.source_address, told.source_port), (told.destination_address, told.destination_port))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(told)) => {
            address((told.source_address, told.source_port), (told.destination_address, told.destination_port))
        }
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Source::Untold,
    };
    // A fact that is cut off is as good as none: the balancer has vouched for the rest.
    let fact = |kind: v2::Type| header.tlvs().flatten().find(|fact| fact.kind == kind as u8).map(|fact| fact.value);
    let unique_id = fact(v2::Type::UniqueId).map(|id| id.as_ref().into());
    let tls = fact(v2::Type::SSL).is_some_and(|ssl| ssl.first().is_some_and(|client| client & CLIENT_SSL != 0));
    Ok(Progress::Complete(ProxyHeader { source, unique_id, tls }))
}

fn address(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Source {
    let canonical = |told: SocketAddr| SocketAddr::new(told.ip().to_canonical(), told.port());
    Source::Address { from: canonical(from.into()), to: canonical(to.into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2: command, family, and what follows the length.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
    }

    /// Reads a stream as a socket does, never more than is missing; answers what was told and what is left.
    fn take(stream: &[u8], at_most: usize) -> Result<(Option<ProxyHeader>, usize), HeaderError> {
        let mut had = 0;
        loop {
            match read(&stream[..had])? {
                Progress::Complete(header) => return Ok((Some(header), stream.len() - had)),
                Progress::Missing(_) if had == stream.len() => return Ok((None, 0)),
                Progress::Missing(missing) => had = stream.len().min(had + missing.min(at_most)),
            }
        }
    }

    fn source(stream: &[u8]) -> Result<Option<Source>, HeaderError> {
        take(stream, usize::MAX).map(|(header, _)| header.map(|header| header.source))
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];

    fn v6() -> Vec<u8> {
        let address: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&address.octets()[..], &[0; 16], &[0x1f, 0x90, 1, 187]].concat()
    }

    #[test]
    fn headers_of_both_versions() {
        let between =
            |from: &str, to: &str| Ok(Some(Source::Address { from: from.parse().unwrap(), to: to.parse().unwrap() }));
        let at = |from: &str| between(from, "10.0.0.1:443");
        let long = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        for (stream, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), at("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::7 ::1 8080 443\r\n".to_vec(), between("[2001:db8::7]:8080", "[::1]:443")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 8080 443\r\n".to_vec(), between("192.0.2.7:8080", "[::1]:443")),
            (
                long.as_bytes().to_vec(),
                between(
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                ),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(Some(Source::Untold))),
            (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n".to_vec(), Ok(Some(Source::Untold))),
            // What follows UNKNOWN is ignored.
            (b"PROXY UNKNOWN \r\n".to_vec(), Ok(Some(Source::Untold))),
            (b"PROXY UNKNOWN a b c d e f g h\r\n".to_vec(), Ok(Some(Source::Untold))),
            (b"PROXY UNKNOWN   +1 01 -- \r\n".to_vec(), Ok(Some(Source::Untold))),
            (b"PROXY UNKNOWN \xff\0\x1b\r \n\r\n".to_vec(), Ok(Some(Source::Untold))),
            ([&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(), Ok(Some(Source::Untold))),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n".to_vec(), between("192.0.2.7:0", "10.0.0.1:65535")),
            (b"PROXY TCP6 2001:DB8::7 ::1 8080 443\r\n".to_vec(), between("[2001:db8::7]:8080", "[::1]:443")),
            (binary(0x21, 0x11, &V4), at("192.0.2.7:8080")),
            (binary(0x21, 0x21, &v6()), between("[2001:db8::7]:8080", "[::]:443")),
            (binary(0x20, 0x00, &[]), Ok(Some(Source::Balancer))),
            (binary(0x20, 0x11, &V4), Ok(Some(Source::Balancer))),
            (binary(0x20, 0x11, &[]), Ok(Some(Source::Balancer))),
            (binary(0x20, 0x21, &V4[..3]), Ok(Some(Source::Balancer))),
            (binary(0x20, 0xff, b"what?"), Ok(Some(Source::Balancer))),
            (binary(0x21, 0x00, &[]), Ok(Some(Source::Untold))),
            (binary(0x21, 0x31, &[b'/'; 216]), Ok(Some(Source::Untold))),
            (binary(0x21, 0x11, &[&V4[..], &[0; MAX_REST - 12]].concat()), at("192.0.2.7:8080")),
            // Facts that are none.
            (binary(0x21, 0x11, &[&V4[..], &[5, 0, 9, 1]].concat()), at("192.0.2.7:8080")),
            (b"".to_vec(), Ok(None)),
            (b"PROXY TCP4 192.0.2.7".to_vec(), Ok(None)),
            (binary(0x21, 0x11, &V4)[..20].to_vec(), Ok(None)),
        ] {
            assert_eq!(source(&stream), expected, "{}", stream.escape_ascii());
            for rest in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n\r\n", b"\n", &[0; 200]] {
                if expected != Ok(None) {
                    let whole = [&stream, rest].concat();
                    assert_eq!(take(&whole, usize::MAX).unwrap().1, rest.len(), "{}", whole.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn what_is_no_header_ends_at_its_first_wrong_byte() {
        let too_long = Err(HeaderError::TooLong(MAX_TEXT));
        for (stream, expected) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Err(HeaderError::Absent)),
            (b"\x16\x03\x01".to_vec(), Err(HeaderError::Absent)),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), Err(HeaderError::Absent)),
            (b"POST".to_vec(), Err(HeaderError::Absent)),
            (b"PROXY\r".to_vec(), Err(HeaderError::Absent)),
            ([b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(), too_long.clone()),
            ([b"PROXY ", &[b' '; 95][..], b"\r\r\r\r\r\r\r\n"].concat(), too_long),
            (binary(0x21, 0x12, &V4), Err(HeaderError::Datagram)),
            (binary(0x21, 0x11, &[0; MAX_REST + 1]), Err(HeaderError::TooLong(FIXED + MAX_REST))),
        ] {
            assert_eq!(source(&stream), expected, "{}", stream.escape_ascii());
        }
        for stream in [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 08080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 80800 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 8080 443\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\rx\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY tcp4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 +443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 00 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 0443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 0x1f 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1  443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443 \r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080  443\r\n".to_vec(),
            b"PROXY TCP4\t192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r443\r\n".to_vec(),
            b"PROXY TCP4 192.000.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 0xc0.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            b"PROXY TCP6 [2001:db8::7] ::1 8080 443\r\n".to_vec(),
            b"PROXY TCP6 fe80::1%eth0 ::1 8080 443\r\n".to_vec(),
            b"PROXY TCP6 2001:0db8:::7 ::1 8080 443\r\n".to_vec(),
            b"PROXY TCP6 2001:00db8::7 ::1 8080 443\r\n".to_vec(),
            b"PROXY UNKNOWNS\r\n".to_vec(),
            b"PROXY unknown\r\n".to_vec(),
            b"PROXY UNKNOWN\t1\r\n".to_vec(),
            b"PROXY  UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4\r\nGET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 \xff92.0.2.7 10.0.0.1 8080 443\r\n".to_vec(),
            binary(0x11, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x41, &V4),
            binary(0x21, 0x13, &V4),
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, &V4),
        ] {
            let malformed = matches!(source(&stream), Err(HeaderError::Text(_) | HeaderError::Binary(_)));
            assert!(malformed, "{} {:?}", stream.escape_ascii(), source(&stream));
        }
    }

    #[test]
    fn the_balancers_name_for_the_connection_is_kept() {
        let facts = [&V4[..], &[1, 0, 2, b'h', b'2', 4, 0, 0, 5, 0, 3, b'a', b'-', b'1']].concat();
        let (header, _) = take(&binary(0x21, 0x11, &facts), usize::MAX).unwrap();
        assert_eq!(header.unwrap().unique_id.as_deref(), Some(&b"a-1"[..]));
    }

    #[test]
    fn tls_before_the_balancer_is_told() {
        let over = |fact: &[u8]| {
            let (header, _) = take(&binary(0x21, 0x11, &[&V4[..], fact].concat()), usize::MAX).unwrap();
            header.unwrap().tls
        };
        assert!(over(&[0x20, 0, 5, 1, 0, 0, 0, 0]) && over(&[0x20, 0, 5, 7, 0, 0, 0, 1]));
        assert!(!over(&[]) && !over(&[0x20, 0, 5, 0, 0, 0, 0, 0]) && !over(&[0x20, 0, 0]) && !over(&[0x20, 0, 5, 1]));
    }

    proptest! {
        #[test]
        fn any_pieces_give_the_verdict_of_the_whole_and_no_byte_more_is_taken(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.1.1.1 ", v2::PROTOCOL_PREFIX, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0d"]),
            rest in prop::collection::vec(any::<u8>(), 0..150),
            at_most in 1..20usize,
        ) {
            let stream = [start, &rest].concat();
            prop_assert_eq!(take(&stream, at_most), take(&stream, usize::MAX));
        }
    }
}
