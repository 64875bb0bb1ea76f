//! RFC 6455: the opening handshake of §4, both sides of it, and the frames of §5.

pub mod capitals;
pub mod close;
mod extensions;
pub mod frame;
pub mod key;
mod request;
mod response;

pub use request::{HandshakeError, OpeningHandshake};
pub use response::{AcceptError, Agreed};

/// A check that a route may do without, for old clients and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiver {
    /// The key is any text of visible ASCII.
    KeyFormat,
    /// Versions 7 and 8 (drafts with the same frames) pass as well.
    Version,
    /// Malformed or repeated subprotocols pass; none of those is ever agreed to.
    SubprotocolSyntax,
    /// Malformed extension offers pass; none of those is ever agreed to.
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
