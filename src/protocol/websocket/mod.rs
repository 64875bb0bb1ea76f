//! RFC 6455: the opening handshake of §4, both sides of it, and the frames of §5.

pub mod capitals;
pub mod close;
mod extensions;
pub mod frame;
pub mod key;
mod request;
mod response;

use http::{
    HeaderMap, HeaderValue,
    header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
};

pub use request::{HandshakeError, OpeningHandshake};
pub use response::{AcceptError, Agreed};

/// A check that a route may do without, for old clients and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiver {
    /// The key is any text of visible ASCII.
    KeyFormat,
    /// Versions 7 and 8 (drafts with the same frames) pass as well, and over HTTP/2 a handshake without a version.
    Version,
    /// Malformed or repeated subprotocols pass, and the upstream may select one of them, byte for byte.
    SubprotocolSyntax,
    /// Malformed extension offers pass; the upstream may use those whose name is a token.
    ExtensionsSyntax,
    /// A 101 without `Connection: upgrade`.
    ResponseConnection,
    /// A 101 without `Upgrade: websocket`.
    ResponseUpgrade,
    /// A 101 that selects a subprotocol nobody offered.
    ResponseSubprotocol,
}

impl Waiver {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::KeyFormat,
        Self::Version,
        Self::SubprotocolSyntax,
        Self::ExtensionsSyntax,
        Self::ResponseConnection,
        Self::ResponseUpgrade,
        Self::ResponseSubprotocol,
    ];

    /// Its name in the config and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyFormat => "key-format",
            Self::Version => "version",
            Self::SubprotocolSyntax => "subprotocol-syntax",
            Self::ExtensionsSyntax => "extensions-syntax",
            Self::ResponseConnection => "response-connection",
            Self::ResponseUpgrade => "response-upgrade",
            Self::ResponseSubprotocol => "response-subprotocol",
        }
    }

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|waiver| waiver.name() == name)
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// A set of waivers; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waivers(u8);

impl Waivers {
    /// Every one.
    pub fn all() -> Self {
        Waiver::ALL.into_iter().collect()
    }

    /// Whether the set holds `waiver`.
    pub fn contains(self, waiver: Waiver) -> bool {
        self.0 & waiver.bit() != 0
    }
}

impl FromIterator<Waiver> for Waivers {
    fn from_iter<I: IntoIterator<Item = Waiver>>(waivers: I) -> Self {
        Self(waivers.into_iter().fold(0, |bits, waiver| bits | waiver.bit()))
    }
}

/// Removes empty `Sec-WebSocket-Extensions` and `Sec-WebSocket-Protocol` lines: they have no meaning, and some peers
/// fail the handshake because of them.
pub fn drop_empty_lists(headers: &mut HeaderMap) {
    for name in [SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL] {
        let lines = headers.get_all(&name);
        if !lines.iter().any(lists_nothing) {
            continue;
        }
        let kept: Vec<HeaderValue> = lines.iter().filter(|line| !lists_nothing(line)).cloned().collect();
        headers.remove(&name);
        for line in kept {
            headers.append(&name, line);
        }
    }
}

fn lists_nothing(line: &HeaderValue) -> bool {
    line.as_bytes().iter().all(|byte| matches!(byte, b' ' | b'\t' | b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_list_nothing_are_dropped_and_the_others_stay_as_they_are() {
        for (lines, left) in [
            (&[""][..], &[][..]),
            (&[" ", ",", " ,, "], &[]),
            (&["", "a", ",", "b,"], &["a", "b,"]),
            (&["a, b"], &["a, b"]),
        ] {
            for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
                let mut headers = HeaderMap::new();
                for line in lines {
                    headers.append(name, HeaderValue::from_static(line));
                }
                headers.append("x-empty", HeaderValue::from_static(""));
                drop_empty_lists(&mut headers);
                assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), left, "{name} {lines:?}");
                assert!(headers.contains_key("x-empty"));
            }
        }
    }
}
