//! The address of a peer, or of the client behind it, and those that we listen on.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where a peer is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address with a port.
    Socket(SocketAddr),
    /// An address alone, as forwarding fields tell it.
    Ip(IpAddr),
    /// This machine, over a Unix-domain socket.
    Local,
}

impl PeerAddress {
    /// The address; an IPv4 address mapped into IPv6 counts as IPv4.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Socket(address) => Some(address.ip().to_canonical()),
            Self::Ip(address) => Some(address.to_canonical()),
            Self::Local => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// As logs show it.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Local => f.write_str("unix"),
        }
    }
}

/// Where a listener accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An address with a port.
    Socket(SocketAddr),
    /// A file, over a Unix-domain socket.
    Unix(PathBuf),
}

/// As the config writes it.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
