//! The client's side of the opening handshake (RFC 6455 §4.1, §4.2.1).

use http::{
    HeaderMap, Method, Version,
    header::{CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING},
};
use thiserror::Error;

use super::{
    Waiver, Waivers,
    extensions::{self, ListError},
    key::is_canonical_key,
};
use crate::protocol::token_list::{has_duplicate, is_blank, is_token_bytes, plain_members};

/// Longest key under the waiver `key-format`.
const MAX_WAIVED_KEY: usize = 128;

/// Maximum subprotocols in one offer. Clients offer a handful, or some dozens where a token is sent in pieces. Each
/// costs memory and a hash before the origin is checked.
const MAX_SUBPROTOCOLS: usize = 128;

/// Which rule an opening handshake breaks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// Not GET.
    #[error("an opening handshake is a GET request (RFC 6455 section 4.2.1, item 1)")]
    Method,
    /// Not HTTP/1.1.
    #[error("an opening handshake is made over HTTP/1.1 (RFC 6455 section 4.2.1, item 1)")]
    HttpVersion,
    /// Something that announces a body.
    #[error("an opening handshake has no body (RFC 6455 section 4.1, RFC 9110 section 9.3.1)")]
    Body,
    /// No key.
    #[error("Sec-WebSocket-Key is missing (RFC 6455 section 4.2.1, item 5)")]
    KeyMissing,
    /// Two keys.
    #[error("there is more than one Sec-WebSocket-Key (RFC 6455 section 11.3.1)")]
    KeyRepeated,
    /// Not 16 bytes in base64.
    #[error("Sec-WebSocket-Key is not the base64 form of 16 bytes (RFC 6455 section 4.2.1, item 5)")]
    KeyMalformed,
    /// Missing, repeated, or another.
    #[error("Sec-WebSocket-Version is not exactly 13 (RFC 6455 section 4.2.1, item 6)")]
    Version,
    /// Not a list of tokens.
    #[error("Sec-WebSocket-Protocol is not a list of tokens (RFC 6455 section 4.1, item 10)")]
    SubprotocolMalformed,
    /// One twice.
    #[error("Sec-WebSocket-Protocol names a subprotocol twice (RFC 6455 section 4.1, item 10)")]
    SubprotocolDuplicate,
    /// More than `MAX_SUBPROTOCOLS`.
    #[error("Sec-WebSocket-Protocol offers more than {MAX_SUBPROTOCOLS} subprotocols")]
    SubprotocolCount,
    /// Not a list of extensions.
    #[error("Sec-WebSocket-Extensions is malformed (RFC 6455 section 9.1)")]
    Extensions,
    /// More than `extensions::MAX`.
    #[error("Sec-WebSocket-Extensions offers more than {max} extensions", max = extensions::MAX)]
    ExtensionCount,
}

impl HandshakeError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Method => "handshake-method",
            Self::HttpVersion => "handshake-http-version",
            Self::Body => "handshake-body",
            Self::KeyMissing => "handshake-key-missing",
            Self::KeyRepeated => "handshake-key-repeated",
            Self::KeyMalformed => "handshake-key-malformed",
            Self::Version => "handshake-version",
            Self::SubprotocolMalformed => "handshake-subprotocol-malformed",
            Self::SubprotocolDuplicate => "handshake-subprotocol-duplicate",
            Self::SubprotocolCount => "handshake-subprotocol-count",
            Self::Extensions => "handshake-extensions",
            Self::ExtensionCount => "handshake-extension-count",
        }
    }
}

/// An opening handshake that was found to be right. Only [`OpeningHandshake::check`] makes one.
#[derive(Clone, Debug)]
pub struct OpeningHandshake {
    pub(super) key: String,
    pub(super) subprotocols: Vec<Box<[u8]>>,
    pub(super) extensions: Vec<String>,
    pub(super) waivers: Waivers,
    used: Vec<Waiver>,
}

impl OpeningHandshake {
    /// Checks a request that asks for a WebSocket. `has_body` is whether any byte of one can follow.
    ///
    /// # Errors
    /// The first rule it breaks that is not waived.
    pub fn check(
        method: &Method,
        version: Version,
        headers: &HeaderMap,
        has_body: bool,
        waivers: Waivers,
    ) -> Result<Self, HandshakeError> {
        if method != Method::GET {
            return Err(HandshakeError::Method);
        }
        // Over HTTP/2 it is an extended CONNECT (RFC 8441), which comes here as the GET that it stands for.
        if !matches!(version, Version::HTTP_11 | Version::HTTP_2) {
            return Err(HandshakeError::HttpVersion);
        }
        let announces_body = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
        if has_body || announces_body || headers.contains_key(TRANSFER_ENCODING) {
            return Err(HandshakeError::Body);
        }
        let mut used = Vec::new();
        let mut waive = |waiver: Waiver, error| {
            if waivers.contains(waiver) {
                // Once, however many members of a list need it: each becomes a line in the log.
                if !used.contains(&waiver) {
                    used.push(waiver);
                }
                Ok(())
            } else {
                Err(error)
            }
        };
        let key = check_key(headers, &mut waive)?;
        check_version(headers, version, &mut waive)?;
        let subprotocols = check_subprotocols(headers, &mut waive)?;
        let extensions = match extensions::names(headers) {
            Ok(names) => names,
            Err(ListError::TooMany) => return Err(HandshakeError::ExtensionCount),
            Err(ListError::Malformed) => {
                waive(Waiver::ExtensionsSyntax, HandshakeError::Extensions)?;
                extensions::readable_names(headers)
            }
        };
        Ok(Self { key, subprotocols, extensions, waivers, used })
    }

    /// The waivers without which it would have been refused.
    pub fn used(&self) -> &[Waiver] {
        &self.used
    }

    /// The offered subprotocols, most wanted first; under the waiver `subprotocol-syntax` not all of them are tokens.
    pub fn subprotocols(&self) -> &[Box<[u8]>] {
        &self.subprotocols
    }
}

type Waive<'a> = dyn FnMut(Waiver, HandshakeError) -> Result<(), HandshakeError> + 'a;

fn check_key(headers: &HeaderMap, waive: &mut Waive<'_>) -> Result<String, HandshakeError> {
    let mut lines = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let line = lines.next().ok_or(HandshakeError::KeyMissing)?;
    if lines.next().is_some() {
        return Err(HandshakeError::KeyRepeated);
    }
    let key = line.to_str().map_err(|_| HandshakeError::KeyMalformed)?;
    if !is_canonical_key(key) {
        let visible = !key.is_empty() && key.len() <= MAX_WAIVED_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible {
            return Err(HandshakeError::KeyMalformed);
        }
        waive(Waiver::KeyFormat, HandshakeError::KeyMalformed)?;
    }
    Ok(key.to_owned())
}

fn check_version(headers: &HeaderMap, http: Version, waive: &mut Waive<'_>) -> Result<(), HandshakeError> {
    let mut lines = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    match (lines.next().map(http::HeaderValue::as_bytes), lines.next()) {
        (Some(b"13"), None) => Ok(()),
        (Some(b"7" | b"8"), None) => waive(Waiver::Version, HandshakeError::Version),
        // RFC 8441 section 5 wants it, and knows no other version; some clients of HTTP/2 leave it out.
        (None, _) if http == Version::HTTP_2 => waive(Waiver::Version, HandshakeError::Version),
        _ => Err(HandshakeError::Version),
    }
}

fn check_subprotocols(headers: &HeaderMap, waive: &mut Waive<'_>) -> Result<Vec<Box<[u8]>>, HandshakeError> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&[u8]> = plain_members(lines.iter()).take(MAX_SUBPROTOCOLS + 1).collect();
    if offered.len() > MAX_SUBPROTOCOLS {
        return Err(HandshakeError::SubprotocolCount);
    }
    // A field without a value offers nothing. A list of empty members is malformed (RFC 9110 section 5.6.1).
    let lists_nothing = offered.is_empty() && !lines.iter().all(is_blank);
    if lists_nothing || !offered.iter().all(|member| is_token_bytes(member)) {
        waive(Waiver::SubprotocolSyntax, HandshakeError::SubprotocolMalformed)?;
    }
    if has_duplicate(offered.iter().copied()) {
        waive(Waiver::SubprotocolSyntax, HandshakeError::SubprotocolDuplicate)?;
    }
    Ok(offered.into_iter().map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::protocol::token_list::COMPARISONS;

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    fn check(fields: &[(&'static str, &'static str)], waivers: Waivers) -> Result<OpeningHandshake, HandshakeError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, waivers)
    }

    #[test]
    fn each_rule_refuses_and_its_waiver_lets_pass() {
        use HandshakeError as E;
        let protocol = "sec-websocket-protocol";
        let extensions = "sec-websocket-extensions";
        type Fields<'a> = &'a [(&'static str, &'static str)];
        let cases: [(Fields, E, bool); 16] = [
            (&[VERSION], E::KeyMissing, false),
            (&[VERSION, KEY, KEY], E::KeyRepeated, false),
            (&[VERSION, (KEY.0, "")], E::KeyMalformed, false),
            (&[VERSION, (KEY.0, "not base64!")], E::KeyMalformed, false),
            (&[VERSION, (KEY.0, "c2hvcnQ=")], E::KeyMalformed, true),
            (&[VERSION, (KEY.0, "dGhlIHNhbXBsZSBub25jZQ__")], E::KeyMalformed, true),
            (&[KEY], E::Version, false),
            (&[KEY, VERSION, VERSION], E::Version, false),
            (&[KEY, (VERSION.0, "13, 8")], E::Version, false),
            (&[KEY, (VERSION.0, "8")], E::Version, true),
            (&[KEY, VERSION, (protocol, "a b")], E::SubprotocolMalformed, true),
            (&[KEY, VERSION, (protocol, ",")], E::SubprotocolMalformed, true),
            (&[KEY, VERSION, (protocol, "a, a")], E::SubprotocolDuplicate, true),
            (&[KEY, VERSION, (extensions, "x;=1")], E::Extensions, true),
            (&[KEY, VERSION, ("content-length", "5")], E::Body, false),
            (&[KEY, VERSION, ("transfer-encoding", "chunked")], E::Body, false),
        ];
        for (fields, error, waivable) in cases {
            assert_eq!(check(fields, Waivers::default()).map(|_| ()), Err(error), "{fields:?}");
            let lenient = check(fields, Waivers::all());
            assert_eq!(lenient.is_ok(), waivable, "{fields:?}");
            assert!(lenient.is_err() || !lenient.unwrap().used().is_empty());
        }
    }

    #[test]
    fn many_subprotocols_are_refused_and_no_number_of_them_is_compared_each_with_each() {
        let check = |list: String| {
            let mut headers = HeaderMap::new();
            headers.append(KEY.0, HeaderValue::from_static(KEY.1));
            headers.append(VERSION.0, HeaderValue::from_static(VERSION.1));
            headers.append("sec-websocket-protocol", HeaderValue::try_from(list).unwrap());
            COMPARISONS.set(0);
            let checked = OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, Waivers::all());
            (checked.map(|opening| opening.subprotocols.len()), COMPARISONS.get())
        };
        let names = |count: usize| (0..count).map(|number| format!("p{number}")).collect::<Vec<_>>().join(", ");
        for (count, expected) in [
            (1, Ok(1)),
            (64, Ok(64)),
            (MAX_SUBPROTOCOLS, Ok(MAX_SUBPROTOCOLS)),
            (MAX_SUBPROTOCOLS + 1, Err(HandshakeError::SubprotocolCount)),
            (3900, Err(HandshakeError::SubprotocolCount)),
        ] {
            let (checked, compared) = check(names(count));
            assert_eq!(checked, expected, "{count}");
            assert!(compared <= 2 * MAX_SUBPROTOCOLS, "{count} subprotocols: {compared} comparisons");
        }
        // The same one again and again, with and without a waiver, and a token as one of them.
        assert_eq!(check(vec!["a"; 3900].join(",")).0, Err(HandshakeError::SubprotocolCount));
        assert!(check(vec!["a"; 100].join(",")).1 <= 2 * MAX_SUBPROTOCOLS);
        assert_eq!(check(format!("bearer, {}", "t".repeat(9000))).0, Ok(2));
        let mut headers = HeaderMap::new();
        headers.append(KEY.0, HeaderValue::from_static(KEY.1));
        headers.append(VERSION.0, HeaderValue::from_static(VERSION.1));
        headers.append("sec-websocket-extensions", HeaderValue::try_from(names(extensions::MAX + 1)).unwrap());
        let checked = OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, Waivers::all());
        assert_eq!(checked.map(|_| ()), Err(HandshakeError::ExtensionCount));
    }

    #[test]
    fn a_right_one_is_a_proof() {
        let opening = check(
            &[
                KEY,
                VERSION,
                ("content-length", "0"),
                ("sec-websocket-protocol", "chat, Chat"),
                ("sec-websocket-protocol", "soap"),
                ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits, x; y=\"1\""),
            ],
            Waivers::default(),
        )
        .unwrap();
        assert_eq!(opening.subprotocols(), [&b"chat"[..], b"Chat", b"soap"].map(Into::into));
        assert_eq!(opening.extensions, ["permessage-deflate", "x"]);
        assert!(opening.used().is_empty());
    }

    #[test]
    fn a_field_without_a_value_offers_nothing() {
        for fields in [
            &[("sec-websocket-protocol", ""), ("sec-websocket-extensions", "")][..],
            &[("sec-websocket-protocol", ""), ("sec-websocket-protocol", " \t")],
            &[("sec-websocket-extensions", " "), ("sec-websocket-extensions", "")],
        ] {
            let opening = check(&[&[KEY, VERSION], fields].concat(), Waivers::default()).unwrap();
            assert!(opening.subprotocols().is_empty() && opening.extensions.is_empty(), "{fields:?}");
        }
    }

    #[test]
    fn a_version_may_be_missing_over_http_2_where_it_is_waived() {
        let headers = HeaderMap::from_iter([(SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY.1))]);
        let check = |version, waivers| OpeningHandshake::check(&Method::GET, version, &headers, false, waivers);
        let waived = Waivers::from_iter([Waiver::Version]);
        assert_eq!(check(Version::HTTP_2, waived).unwrap().used(), [Waiver::Version]);
        assert_eq!(check(Version::HTTP_2, Waivers::default()).map(|_| ()), Err(HandshakeError::Version));
        assert_eq!(check(Version::HTTP_11, waived).map(|_| ()), Err(HandshakeError::Version));
    }

    #[test]
    fn only_get_over_http_1_1_without_a_body() {
        let headers = HeaderMap::new();
        let check = |method, version, body| {
            OpeningHandshake::check(&method, version, &headers, body, Waivers::all()).map(|_| ()).unwrap_err()
        };
        assert_eq!(check(Method::POST, Version::HTTP_11, false), HandshakeError::Method);
        assert_eq!(check(Method::GET, Version::HTTP_10, false), HandshakeError::HttpVersion);
        assert_eq!(check(Method::GET, Version::HTTP_11, true), HandshakeError::Body);
    }
}
