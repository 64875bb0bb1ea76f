//! What we say of the peer before us, and what a trusted peer may say of the one before it (RFC 7239, RFC 9110 §7.6.3).

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{FORWARDED, VIA},
};

use super::{address::PeerAddress, client_address::Told, request_target::Authority, token_list};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that say where a request came from, and with whose certificate (`X-Forwarded-Client-Cert`); from a peer nobody
/// vouches for they are dropped, those that we write ourselves among them.
fn is_hearsay(name: &str) -> bool {
    name == "x-real-ip" || name.starts_with("x-forwarded-")
}

/// Whether the peer may speak for the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whatever it says is replaced.
    Untrusted,
    /// What it says is believed.
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
    /// What it tells of the hops before it.
    pub told: &'a Told,
}

/// Writes `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`.
///
/// All of them say the same, the hops from the client to the peer, whichever of them were read and whatever else was in
/// them: whoever reads them comes to the client that we have come to.
pub fn apply(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let Hop { peer, told, .. } = hop;
    remove_untold(headers, told.trust);
    let scheme = told.scheme.unwrap_or(hop.scheme);
    let host = told.host.as_ref().map_or(hop.host, Authority::as_str);
    set(headers, PROTO, scheme);
    set(headers, HOST, host);
    let Some((first, between)) = told.hops.split_first() else {
        set(headers, FOR, &peer.text);
        set(headers, FORWARDED, &element(peer, Some((host, scheme))));
        return replace(headers, REAL_IP, &peer.text);
    };
    let client = Peer::from(*first);
    let (mut addresses, mut elements) = (client.text.clone(), element(&client, Some((host, scheme))));
    let mut add = |peer: &Peer, facts| {
        addresses.extend([", ", &peer.text]);
        elements.extend([", ", &element(peer, facts)]);
    };
    between.iter().for_each(|address| add(&Peer::from(*address), None));
    // A peer on this machine is no hop that anyone could name.
    if peer.address.is_some() {
        add(peer, Some((hop.host, hop.scheme)));
    }
    set(headers, FOR, &addresses);
    set(headers, FORWARDED, &elements);
    replace(headers, REAL_IP, &client.text);
}

/// Removes what an untrusted peer may not say. Look-alikes, whoever sends them: see [`super::field_names`].
fn remove_untold(headers: &mut HeaderMap, trust: Trust) {
    if trust == Trust::Trusted {
        return;
    }
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_hearsay(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Who called, and the host and scheme of that call.
fn element(peer: &Peer, call: Option<(&str, &str)>) -> String {
    let Peer { address, text } = peer;
    // RFC 7239 section 6.1: brackets around IPv6, and quotes because of the colons.
    let (before, after) = if address.is_some_and(|address| address.is_ipv6()) { ("\"[", "]\"") } else { ("", "") };
    let Some((host, scheme)) = call else { return ["for=", before, text, after].concat() };
    let quote = if token_list::is_token(host) { "" } else { "\"" };
    ["for=", before, text, after, ";host=", quote, host, quote, ";proto=", scheme].concat()
}

/// Corrects a field where there is one.
fn replace(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if headers.contains_key(&name) {
        set(headers, name, value);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_address::TrustedFields;

    fn peer(address: &str) -> Peer {
        PeerAddress::Ip(address.parse().unwrap()).into()
    }

    fn hop<'a>(peer: &'a Peer, told: &'a Told) -> Hop<'a> {
        Hop { peer, scheme: "https", host: "gate.example:8443", told }
    }

    fn told(headers: &HeaderMap) -> Told {
        Told::read(headers, TrustedFields::XForwarded, &["10.0.0.0/8".parse().unwrap()])
    }

    fn spoofed() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(FOR, HeaderValue::from_static("1.1.1.1"));
        headers.append(FOR, HeaderValue::from_static("2.2.2.2"));
        headers.append(PROTO, HeaderValue::from_static("http"));
        headers.append(HOST, HeaderValue::from_static("other.example"));
        headers.append(FORWARDED, HeaderValue::from_static("for=1.1.1.1"));
        for name in ["x-real-ip", "x-forwarded-port", "x-forwarded-client-cert", "x-forwarded-user"] {
            headers.append(name, HeaderValue::from_static("1.1.1.1"));
        }
        headers
    }

    #[test]
    fn what_an_untrusted_peer_says_is_replaced() {
        let mut headers = spoofed();
        apply(&mut headers, &hop(&peer("2001:db8::1"), &Told::NOTHING));
        assert_eq!(headers[FOR], "2001:db8::1");
        assert_eq!(headers[PROTO], "https");
        assert_eq!(headers[HOST], "gate.example:8443");
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";host=\"gate.example:8443\";proto=https");
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(headers.get_all(FOR).iter().count(), 1);
    }

    #[test]
    fn what_a_trusted_peer_says_is_passed_on_as_far_as_it_is_believed() {
        let mut headers = spoofed();
        headers.append(FOR, HeaderValue::from_static("[2001:db8::2]:80, 10.0.0.2"));
        let read = told(&headers);
        apply(&mut headers, &hop(&peer("::ffff:10.0.0.1"), &read));
        assert_eq!(headers[FOR], "2001:db8::2, 10.0.0.2, 10.0.0.1");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[HOST], "other.example");
        assert_eq!(headers["x-real-ip"], "2001:db8::2");
        assert_eq!(
            headers[FORWARDED],
            "for=\"[2001:db8::2]\";host=other.example;proto=http, for=10.0.0.2, \
             for=10.0.0.1;host=\"gate.example:8443\";proto=https"
        );
        for name in [FOR, FORWARDED] {
            assert_eq!(headers.get_all(name).iter().count(), 1);
        }
    }

    #[test]
    fn a_trusted_peer_on_this_machine_stands_between_but_has_no_address() {
        let (mut headers, local) = (spoofed(), Peer::from(PeerAddress::Local));
        let read = told(&headers);
        apply(&mut headers, &hop(&local, &read));
        assert_eq!(headers[FOR], "2.2.2.2");
        assert_eq!(headers[FORWARDED], "for=2.2.2.2;host=other.example;proto=http");
        apply(&mut headers, &hop(&local, &Told::NOTHING));
        assert_eq!(headers[FORWARDED], "for=unknown;host=\"gate.example:8443\";proto=https");
    }

    #[test]
    fn what_we_pass_on_leads_the_next_of_us_to_the_same_client() {
        for fields in [TrustedFields::XForwarded, TrustedFields::Forwarded] {
            let mut headers = spoofed();
            headers.append(FOR, HeaderValue::from_static("[2001:db8::2]:80, 10.0.0.2"));
            let first = told(&headers);
            apply(&mut headers, &hop(&peer("10.0.0.1"), &first));
            let next = Told::read(&headers, fields, &["10.0.0.0/8".parse().unwrap()]);
            let us = PeerAddress::Ip([10, 0, 0, 9].into());
            assert_eq!(next.client(us).ip(), first.client(us).ip());
            assert_eq!((next.scheme, &next.host), (first.scheme, &first.host));
        }
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
