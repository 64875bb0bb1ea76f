//! What we say of the peer before us, and what a trusted peer may say of the one before it (RFC 7239, RFC 9110 §7.6.3).

use std::{fmt, net::IpAddr, str::FromStr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{FORWARDED, VIA},
};

use super::{address::PeerAddress, token_list};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Other fields that say where a request came from; from a peer nobody vouches for they are dropped.
fn is_hearsay(name: &str) -> bool {
    matches!(
        name,
        "x-real-ip"
            | "x-forwarded-port"
            | "x-forwarded-server"
            | "x-forwarded-scheme"
            | "x-forwarded-ssl"
            | "x-forwarded-prefix"
    )
}

/// Whether the peer may speak for the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is replaced, whatever it says.
    Untrusted,
    /// It is added to.
    Trusted,
}

/// The address of a peer, and how it is written: once for all that it asks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `None` is this machine.
    address: Option<IpAddr>,
    text: String,
}

impl From<PeerAddress> for Peer {
    fn from(address: PeerAddress) -> Self {
        let address = address.ip();
        // RFC 7239 section 6.2: a name for who has no address to tell.
        let text = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        Self { address, text }
    }
}

/// The hop from the peer to us.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The peer.
    pub peer: &'a Peer,
    /// `http` or `https`, as the peer spoke to us.
    pub scheme: &'a str,
    /// The authority it asked for.
    pub host: &'a str,
    /// What it may say.
    pub trust: Trust,
}

/// Writes `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`.
pub fn apply(headers: &mut HeaderMap, hop: &Hop<'_>) {
    remove_untold(headers, hop.trust);
    match hop.trust {
        Trust::Untrusted => {
            set(headers, FOR, &hop.peer.text);
            set(headers, PROTO, hop.scheme);
            set(headers, HOST, hop.host);
            put(headers, FORWARDED, HeaderValue::try_from(element(hop)));
        }
        Trust::Trusted => {
            extend(headers, FOR, &hop.peer.text);
            extend(headers, FORWARDED, &element(hop));
            let scheme = client_scheme(headers, hop.trust, hop.scheme);
            set(headers, PROTO, scheme);
            if headers.get_all(HOST).iter().count() != 1 {
                set(headers, HOST, hop.host);
            }
        }
    }
}

/// Removes what an untrusted peer may not say, and forwarding fields spelt with underscores, whoever sends them.
///
/// CGI, WSGI and their like fold `-` and `_` into one, so that a backend would read `X_Forwarded_For` as the field we
/// set (CVE-2015-0219 is this).
fn remove_untold(headers: &mut HeaderMap, trust: Trust) {
    let look_alike = |name: &str| {
        let folded = name.replace('_', "-");
        folded.starts_with("x-forwarded-") || is_hearsay(&folded)
    };
    let untold = |name: &str| trust == Trust::Untrusted && is_hearsay(name) || name.contains('_') && look_alike(name);
    let found: Vec<HeaderName> = headers.keys().filter(|name| untold(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The scheme the client used, as far as a trusted peer tells; else `own`.
pub fn client_scheme<'a>(headers: &HeaderMap, trust: Trust, own: &'a str) -> &'a str {
    if trust == Trust::Untrusted {
        return own;
    }
    match token_list::members(headers.get_all(PROTO)).next() {
        Some(told) if told.eq_ignore_ascii_case("https") || told.eq_ignore_ascii_case("wss") => "https",
        Some(told) if told.eq_ignore_ascii_case("http") || told.eq_ignore_ascii_case("ws") => "http",
        _ => own,
    }
}

fn element(hop: &Hop<'_>) -> String {
    let Peer { address, text } = hop.peer;
    // RFC 7239 section 6.1: brackets around IPv6, and quotes because of the colons.
    let (before, after) = if address.is_some_and(|address| address.is_ipv6()) { ("\"[", "]\"") } else { ("", "") };
    let quote = if token_list::is_token(hop.host) { "" } else { "\"" };
    ["for=", before, text, after, ";host=", quote, hop.host, quote, ";proto=", hop.scheme].concat()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    put(headers, name, HeaderValue::from_str(value));
}

fn put<E>(headers: &mut HeaderMap, name: HeaderName, value: Result<HeaderValue, E>) {
    // What cannot be a field value cannot have come in an authority that was checked; nothing is better than half.
    match value {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

fn extend(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !headers.contains_key(&name) {
        return set(headers, name, value);
    }
    let mut all: Vec<&str> = headers.get_all(&name).iter().filter_map(|line| line.to_str().ok()).collect();
    all.push(value);
    let joined = all.join(", ");
    set(headers, name, &joined);
}

/// Our name in `Via` (RFC 9110 §7.6.3).
#[derive(Clone, Debug)]
pub struct Via {
    pseudonym: String,
    /// What is added for a request that came in HTTP/1.0, in HTTP/1.1 and in HTTP/2.
    members: [String; 3],
}

impl Via {
    /// `pseudonym` is a token.
    pub fn new(pseudonym: &str) -> Self {
        Self {
            pseudonym: pseudonym.to_owned(),
            members: ["1.0", "1.1", "2.0"].map(|version| format!("{version} {pseudonym}")),
        }
    }

    /// Adds our hop.
    pub fn push(&self, headers: &mut HeaderMap, version: Version) {
        let [http_10, http_11, http_2] = &self.members;
        let member = match version {
            Version::HTTP_10 => http_10,
            Version::HTTP_2 => http_2,
            _ => http_11,
        };
        extend(headers, VIA, member);
    }

    /// How often our pseudonym is there already.
    pub fn count(&self, headers: &HeaderMap) -> usize {
        let named = |member: &&str| {
            member.split_ascii_whitespace().nth(1).is_some_and(|by| by.eq_ignore_ascii_case(&self.pseudonym))
        };
        token_list::members(headers.get_all(VIA)).filter(named).count()
    }
}

/// A network, as `10.0.0.0/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither an address nor a network; write `10.0.0.0/8` or `::1`")]
pub struct CidrError;

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError)?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| CidrError))?;
        if prefix > longest { Err(CidrError) } else { Ok(Self { network, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Cidr {
    /// Whether `address` is in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.network, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        PeerAddress::Ip(address.parse().unwrap()).into()
    }

    fn hop(peer: &Peer, trust: Trust) -> Hop<'_> {
        Hop { peer, scheme: "https", host: "gate.example:8443", trust }
    }

    fn spoofed() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(FOR, HeaderValue::from_static("1.1.1.1"));
        headers.append(FOR, HeaderValue::from_static("2.2.2.2"));
        headers.append(PROTO, HeaderValue::from_static("http"));
        headers.append(HOST, HeaderValue::from_static("other.example"));
        headers.append(FORWARDED, HeaderValue::from_static("for=1.1.1.1"));
        headers.append("x-real-ip", HeaderValue::from_static("1.1.1.1"));
        headers
    }

    #[test]
    fn what_an_untrusted_peer_says_is_replaced() {
        let mut headers = spoofed();
        apply(&mut headers, &hop(&peer("2001:db8::1"), Trust::Untrusted));
        assert_eq!(headers[FOR], "2001:db8::1");
        assert_eq!(headers[PROTO], "https");
        assert_eq!(headers[HOST], "gate.example:8443");
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";host=\"gate.example:8443\";proto=https");
        assert!(!headers.contains_key("x-real-ip"));
        assert_eq!(headers.get_all(FOR).iter().count(), 1);
    }

    #[test]
    fn a_field_that_a_cgi_backend_takes_for_ours_is_dropped() {
        for trust in [Trust::Untrusted, Trust::Trusted] {
            let mut headers = HeaderMap::new();
            for name in ["x_forwarded_for", "x-forwarded_proto", "x_forwarded-anything", "x_real_ip"] {
                headers.append(name, HeaderValue::from_static("1.1.1.1"));
            }
            headers.append("my_field", HeaderValue::from_static("stays"));
            apply(&mut headers, &hop(&peer("10.0.0.1"), trust));
            let left: Vec<_> = headers.keys().filter(|name| name.as_str().contains('_')).collect();
            assert_eq!(left, ["my_field"], "{trust:?}");
        }
    }

    #[test]
    fn what_a_trusted_peer_says_is_added_to() {
        let mut headers = spoofed();
        apply(&mut headers, &hop(&peer("::ffff:10.0.0.1"), Trust::Trusted));
        assert_eq!(headers[FOR], "1.1.1.1, 2.2.2.2, 10.0.0.1");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[HOST], "other.example");
        assert_eq!(headers[FORWARDED], "for=1.1.1.1, for=10.0.0.1;host=\"gate.example:8443\";proto=https");
    }

    #[test]
    fn networks() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "host".parse::<Cidr>().is_err());
    }

    #[test]
    fn via_counts_our_own_passes() {
        let (via, mut headers) = (Via::new("switchgate"), HeaderMap::new());
        headers.append(VIA, HeaderValue::from_static("1.0 fred, 1.1 switchgate"));
        via.push(&mut headers, Version::HTTP_11);
        assert_eq!(headers[VIA], "1.0 fred, 1.1 switchgate, 1.1 switchgate");
        assert_eq!(via.count(&headers), 2);
    }
}
