//! Who the client is, and how it reached us, as far as trusted peers tell (RFC 7239, and the X-Forwarded-* before it).
//!
//! Each proxy adds, at the right end, whom it was called by. So a list is read from there: an entry is as good as the
//! peer that wrote it, and what stands left of the first one that is not trusted is the client's own tale. Lists are
//! taken apart from the right too: nothing that stands on the left can change how the right is read.

use std::{net::SocketAddr, str::FromStr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

use super::{
    address::PeerAddress,
    forwarded::Trust,
    network::{Network, NetworkError},
    request_target::Authority,
    token_list,
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Most entries that are looked at. Chains of honest proxies are far shorter, and each entry is matched against every
/// trusted network.
const MAX_HOPS: usize = 32;

/// Peers that may say who called them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedPeer {
    /// Those of a network.
    Network(Network),
    /// Those that come over a Unix-domain socket, written `unix`.
    Local,
}

impl FromStr for TrustedPeer {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "unix" { Ok(Self::Local) } else { text.parse().map(Self::Network) }
    }
}

impl TrustedPeer {
    /// Whether any of them is `peer`.
    pub fn any(trusted: &[Self], peer: PeerAddress) -> bool {
        trusted.iter().any(|one| match (one, peer.ip()) {
            (Self::Network(network), Some(address)) => network.contains(address),
            (Self::Local, None) => true,
            _ => false,
        })
    }
}

/// Which fields the trusted peers set. A proxy passes on what it does not set, so that the others may be the client's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustedFields {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// What trusted peers tell of a request.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whether the peer may tell anything.
    pub trust: Trust,
    /// From the client to the one before the peer; empty where the peer is the client, as far as is known.
    pub hops: Vec<PeerAddress>,
    /// `http` or `https`, as the client spoke.
    pub scheme: Option<&'static str>,
    /// Host and port that the client asked for.
    pub host: Option<Authority>,
}

impl Told {
    /// By a peer that is not asked.
    pub const NOTHING: Self = Self { trust: Trust::Untrusted, hops: Vec::new(), scheme: None, host: None };

    /// What `headers` tell, which came from a peer that is trusted.
    pub fn read(headers: &HeaderMap, fields: TrustedFields, trusted: &[TrustedPeer]) -> Self {
        match fields {
            TrustedFields::XForwarded => {
                let hops = walk(from_right(headers, &FOR), trusted, address);
                // Who adds to the one list adds to the other; who replaces it leaves a single entry.
                let beside = from_right(headers, &PROTO).take(hops.len().max(1)).last();
                Self {
                    trust: Trust::Trusted,
                    hops,
                    scheme: beside.and_then(|entry| std::str::from_utf8(entry.trim_ascii()).ok()).and_then(scheme),
                    host: sole(headers, &HOST).and_then(|host| Authority::parse(host).ok()),
                }
            }
            TrustedFields::Forwarded => {
                // The last one looked at was written by a peer that is trusted, whether it names an address or not.
                let mut last = Element::default();
                let entries = headers.get_all(FORWARDED).iter().rev().flat_map(|line| FromRight(Some(line.as_bytes())));
                let hops = walk(entries, trusted, |entry| {
                    last = Element::read(entry)?;
                    last.node.and_then(node)
                });
                Self {
                    trust: Trust::Trusted,
                    hops,
                    scheme: last.proto.and_then(scheme),
                    host: last.host.and_then(|host| Authority::parse(host).ok()),
                }
            }
        }
    }

    /// The client, where it is not `peer` itself.
    pub fn client(&self, peer: PeerAddress) -> PeerAddress {
        self.hops.first().copied().unwrap_or(peer)
    }
}

/// From the right: trusted ones are passed by, the first other one is the client. What is no address ends the walk at
/// the last one that is: whoever wrote that entry did not know, or is not what it seems.
fn walk<'a>(
    entries: impl Iterator<Item = &'a [u8]>,
    trusted: &[TrustedPeer],
    mut address: impl FnMut(&'a [u8]) -> Option<PeerAddress>,
) -> Vec<PeerAddress> {
    let mut hops = Vec::new();
    for entry in entries.take(MAX_HOPS) {
        let Some(address) = address(entry) else { break };
        hops.push(address);
        if !TrustedPeer::any(trusted, address) {
            break;
        }
    }
    hops.reverse();
    hops
}

/// The members of a list without quoted strings, from the right.
fn from_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().rev().flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
}

/// An address with or without a port; IPv6 with or without brackets.
fn address(entry: &[u8]) -> Option<PeerAddress> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(PeerAddress::Socket(SocketAddr::new(address.ip().to_canonical(), address.port())));
    }
    let bare = text.strip_prefix('[').map_or(Some(text), |rest| rest.strip_suffix(']'))?;
    let address: std::net::IpAddr = bare.parse().ok()?;
    (bare.len() == text.len() || address.is_ipv6()).then(|| PeerAddress::Ip(address.to_canonical()))
}

/// A node of RFC 7239 §6: as above, or with a port that is kept secret. `unknown` and `_hidden` are no address.
fn node(text: &str) -> Option<PeerAddress> {
    address(text.rsplit_once(":_").map_or(text, |(node, _)| node).as_bytes())
}

fn scheme(told: &str) -> Option<&'static str> {
    let is = |name: &str| told.eq_ignore_ascii_case(name);
    match () {
        () if is("https") || is("wss") => Some("https"),
        () if is("http") || is("ws") => Some("http"),
        () => None,
    }
}

/// The value of a field that is there once and is no list.
fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    line.to_str().ok().map(|text| text.trim_matches([' ', '\t']))
}

/// One hop of `Forwarded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    node: Option<&'a str>,
    host: Option<&'a str>,
    proto: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// `None` where it is malformed. Laxer than RFC 7239 §4 where no harm can come of it: white space around pairs, and
    /// colons and brackets without quotes.
    fn read(entry: &'a [u8]) -> Option<Self> {
        let mut element = Self::default();
        let mut rest = std::str::from_utf8(entry.trim_ascii()).ok()?;
        while !rest.is_empty() {
            let (name, value) = rest.split_once('=')?;
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_at_checked(value.find([';', ' ', '\t']).unwrap_or(value.len()))?,
            };
            // No address, host or scheme needs an escape.
            if !token_list::is_token(name) || value.contains(['"', '\\']) {
                return None;
            }
            let after = after.trim_start_matches([' ', '\t']);
            rest = match after.strip_prefix(';') {
                Some(next) => next.trim_start_matches([' ', '\t']),
                None if after.is_empty() => after,
                None => return None,
            };
            let slot = match name {
                _ if name.eq_ignore_ascii_case("for") => &mut element.node,
                _ if name.eq_ignore_ascii_case("host") => &mut element.host,
                _ if name.eq_ignore_ascii_case("proto") => &mut element.proto,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

/// The members of a list whose quoted strings may hold commas, from the right.
struct FromRight<'a>(Option<&'a [u8]>);

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0.take()?;
        let mut quoted = false;
        let comma = line.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        });
        let Some(comma) = comma else { return Some(line) };
        self.0 = line.get(..comma);
        line.get(comma + 1..)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Told by 10.0.0.1; trusted are 10.0.0.0/8 and fd00::/8.
    fn told(fields: TrustedFields, lines: &[(&HeaderName, &[u8])]) -> Told {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(*name, HeaderValue::from_bytes(line).unwrap());
        }
        Told::read(&headers, fields, &["10.0.0.0/8", "fd00::/8", "unix"].map(|text| text.parse().unwrap()))
    }

    fn client(fields: TrustedFields, lines: &[(&HeaderName, &[u8])]) -> String {
        told(fields, lines).client(PeerAddress::Ip([10, 0, 0, 1].into())).to_string()
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        let field = FOR;
        for (lines, expected) in [
            (&["1.1.1.1"][..], "1.1.1.1"),
            (&[], "10.0.0.1"),
            // The client's own tale.
            (&["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            (&["10.9.9.9, 1.1.1.1"], "1.1.1.1"),
            (&["\"6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (&["\u{fffd}, 1.1.1.1"], "1.1.1.1"),
            // Through further proxies of ours.
            (&["6.6.6.6, 1.1.1.1, 10.0.0.3", "10.0.0.2"], "1.1.1.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Spellings.
            (&["1.1.1.1:567"], "1.1.1.1:567"),
            (&["\t 1.1.1.1 \t"], "1.1.1.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "[2001:db8::1]:443"),
            (&["::ffff:1.1.1.1"], "1.1.1.1"),
            (&["[::ffff:1.1.1.1]:5"], "1.1.1.1:5"),
            (&["1.1.1.1, ::ffff:10.0.0.2, [fd00::2]:80"], "1.1.1.1"),
            // What is no address ends the walk, and what stands left of it is not believed.
            (&["1.1.1.1, unknown"], "10.0.0.1"),
            (&["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["1.1.1.1, _hidden"], "10.0.0.1"),
            (&["1.1.1.1,"], "10.0.0.1"),
            (&["1.1.1.1,,10.0.0.2"], "10.0.0.2"),
            (&["1.1.1.1", ""], "10.0.0.1"),
            (&["1.1.1.1, 10.0.0.2 10.0.0.3"], "10.0.0.1"),
            (&["1.1.1.1, 10.0.0.02"], "10.0.0.1"),
            (&["1.1.1.1, 10.0.0.2:99999"], "10.0.0.1"),
            (&["1.1.1.1, [10.0.0.2]"], "10.0.0.1"),
            (&["1.1.1.1, [fd00::2"], "10.0.0.1"),
            (&["1.1.1.1, fd00::2%eth0"], "10.0.0.1"),
            (&["1.1.1.1, \"10.0.0.2\""], "10.0.0.1"),
            (&["1.1.1.1, unix:"], "10.0.0.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (&field, line.as_bytes())).collect();
            assert_eq!(client(TrustedFields::XForwarded, &lines), expected, "{lines:?}");
        }
        let long = ["10.0.0.2"; MAX_HOPS].join(", ");
        let longer = format!("1.1.1.1, {long}");
        assert_eq!(client(TrustedFields::XForwarded, &[(&FOR, longer.as_bytes())]), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_walked_from_the_right() {
        for (lines, expected) in [
            (&["for=1.1.1.1"][..], "1.1.1.1"),
            (&["For=\"1.1.1.1:567\";proto=https"], "1.1.1.1:567"),
            (&["for=\"[2001:db8::1]:4711\""], "[2001:db8::1]:4711"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=[2001:db8::1]"], "2001:db8::1"),
            (&["proto=http ; for=1.1.1.1; by=_us"], "1.1.1.1"),
            (&["for=\"1.1.1.1:_port\""], "1.1.1.1"),
            (&["for=6.6.6.6, for=1.1.1.1"], "1.1.1.1"),
            (&["for=1.1.1.1;ext=\"a,b;c\", for=10.0.0.2;ext=\"x,y\""], "1.1.1.1"),
            // The client's own tale, meant to swallow what follows it.
            (&["for=\", for=1.1.1.1"], "1.1.1.1"),
            (&["for=\"6.6.6.6\\\", for=1.1.1.1"], "1.1.1.1"),
            (&["for=6.6.6.6;x=\"", "for=1.1.1.1, for=10.0.0.2"], "1.1.1.1"),
            (&["for=1.1.1.1, for=unknown"], "10.0.0.1"),
            (&["for=1.1.1.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=1.1.1.1, proto=https"], "10.0.0.1"),
            (&["for=1.1.1.1, for=10.0.0.2;for=10.0.0.3"], "10.0.0.1"),
            (&["for=1.1.1.1, for=\"10.0.0.2\" x"], "10.0.0.1"),
            (&["for=1.1.1.1, for=\"10.0.0.\\2\""], "10.0.0.1"),
            (&["for=1.1.1.1, 10.0.0.2"], "10.0.0.1"),
            (&["for=1.1.1.1,"], "10.0.0.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (&FORWARDED, line.as_bytes())).collect();
            assert_eq!(client(TrustedFields::Forwarded, &lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_the_fields_that_the_proxies_set_are_read() {
        let both: [(&HeaderName, &[u8]); 4] = [
            (&FOR, b"1.1.1.1"),
            (&PROTO, b"https"),
            (&HOST, b"x.example"),
            (&FORWARDED, b"for=2.2.2.2;host=f.example;proto=http"),
        ];
        let host = |told: Told| told.host.map(|host| host.to_string());
        assert_eq!(client(TrustedFields::XForwarded, &both), "1.1.1.1");
        assert_eq!(client(TrustedFields::Forwarded, &both), "2.2.2.2");
        assert_eq!(told(TrustedFields::XForwarded, &both).scheme, Some("https"));
        assert_eq!(host(told(TrustedFields::XForwarded, &both)).as_deref(), Some("x.example"));
        assert_eq!(host(told(TrustedFields::Forwarded, &both)).as_deref(), Some("f.example"));
    }

    #[test]
    fn the_scheme_in_a_list_is_the_one_beside_the_client() {
        let (fields, field) = (PROTO, FOR);
        for (proto, hops, expected) in [
            (&["https"][..], "1.1.1.1", Some("https")),
            (&["https"], "1.1.1.1, 10.0.0.2", Some("https")),
            (&["https, http"], "1.1.1.1, 10.0.0.2", Some("https")),
            (&["https", "http"], "1.1.1.1, 10.0.0.2", Some("https")),
            // The client's own tale, to which proxies have added.
            (&["https, http"], "1.1.1.1", Some("http")),
            (&["https", "http"], "6.6.6.6, 1.1.1.1", Some("http")),
            (&["https, http, http"], "6.6.6.6, 1.1.1.1, 10.0.0.2", Some("http")),
            (&["\"https, http"], "1.1.1.1", Some("http")),
            (&["https, http"], "unknown", Some("http")),
            (&["gopher"], "1.1.1.1", None),
            (&[""], "1.1.1.1", None),
        ] {
            let mut lines: Vec<_> = proto.iter().map(|line| (&fields, line.as_bytes())).collect();
            lines.push((&field, hops.as_bytes()));
            assert_eq!(told(TrustedFields::XForwarded, &lines).scheme, expected, "{proto:?} {hops}");
        }
    }

    #[test]
    fn host_and_scheme_are_those_of_the_hop_that_the_client_took() {
        let field = HOST;
        let told = |line: &str| {
            let told = told(TrustedFields::Forwarded, &[(&FORWARDED, line.as_bytes())]);
            (told.scheme, told.host.map(|host| host.to_string()))
        };
        let line =
            "for=6.6.6.6;host=evil.example;proto=http, for=1.1.1.1;host=\"A.example:8443\";proto=wss, for=10.0.0.2";
        assert_eq!(told(line), (Some("https"), Some("a.example:8443".to_owned())));
        assert_eq!(told("for=unknown;proto=https"), (Some("https"), None));
        assert_eq!(told("for=1.1.1.1;host=a_b/c;proto=gopher"), (None, None));
        for (lines, expected) in [
            (&["a.example:8443"][..], Some("a.example:8443")),
            (&["a.example", "a.example"], None),
            (&["a.example, b.example"], None),
            (&["a.example/x"], None),
            (&["user@a.example"], None),
            (&[""], None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (&field, line.as_bytes())).collect();
            let host = super::tests::told(TrustedFields::XForwarded, &lines).host;
            assert_eq!(host.as_ref().map(Authority::as_str), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_unix_peer_is_trusted_where_it_is_listed() {
        let listed = ["unix".parse().unwrap()];
        assert!(TrustedPeer::any(&listed, PeerAddress::Local));
        assert!(!TrustedPeer::any(&listed, PeerAddress::Ip([127, 0, 0, 1].into())));
        assert!(!TrustedPeer::any(&["0.0.0.0/0".parse().unwrap()], PeerAddress::Local));
    }

    proptest! {
        #[test]
        fn what_the_client_says_never_changes_the_result(
            tale in prop::collection::vec("[ -~\u{e9}]{0,40}", 0..3),
            same_line: bool,
            proxies in 0..4u8,
        ) {
            for (fields, name, own) in [(TrustedFields::XForwarded, &FOR, ""), (TrustedFields::Forwarded, &FORWARDED, "for=")] {
                let mut lines: Vec<String> = tale.clone();
                let hop = |lines: &mut Vec<String>, address: String| match lines.last_mut() {
                    Some(last) if same_line => last.push_str(&format!(", {own}{address}")),
                    _ => lines.push(format!("{own}{address}")),
                };
                hop(&mut lines, "192.0.2.7".to_owned());
                (0..proxies).for_each(|n| hop(&mut lines, format!("10.0.0.{}", n + 2)));
                let lines: Vec<_> = lines.iter().map(|line| (name, line.as_bytes())).collect();
                prop_assert_eq!(client(fields, &lines), "192.0.2.7");
                prop_assert_eq!(told(fields, &lines).hops.len(), usize::from(proxies) + 1);
            }
        }
    }
}
