//! Serialised origins (RFC 6454 §6) and the allowlist (RFC 6455 §10.2).

mod policy;

use std::fmt;

use thiserror::Error;

pub use policy::{AllowEntry, AllowEntryError, ApplyTo, Mode, OriginFields, OriginPolicy, OriginRefusal, Verdict};

/// A scheme, host and port, in one spelling: lower case, and no port where it is the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Why a text is no serialised origin.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OriginError {
    /// No `scheme://`.
    #[error("it has no scheme; write `https://host`")]
    Scheme,
    /// A path, query or fragment, even a lone slash.
    #[error("it goes on after host and port; leave out the path and any trailing slash")]
    Trailing,
    /// A user name.
    #[error("it holds a user name; leave out everything up to `@`")]
    Userinfo,
    /// No host, or bytes no host has.
    #[error("its host is empty or malformed; international names are written in their `xn--` form")]
    Host,
    /// `example.com.`
    #[error("its host ends with a dot; leave it out")]
    TrailingDot,
    /// No number of 16 bits.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

impl Origin {
    /// Reads a serialised origin, strictly.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Scheme)?;
        let sound = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !sound {
            return Err(OriginError::Scheme);
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(OriginError::Trailing);
        }
        if rest.contains('@') {
            return Err(OriginError::Userinfo);
        }
        let (host, port) = split_port(rest)?;
        check_host(host)?;
        Ok(Self::of(scheme, host, port))
    }

    /// An origin of parts that were checked elsewhere.
    pub fn of(scheme: &str, host: &str, port: Option<u16>) -> Self {
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Self { scheme, host: host.to_ascii_lowercase(), port }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Browsers write an address in one way only (WHATWG URL §3.5): any other spelling matches nothing.
fn canonical_address(host: &str) -> Option<String> {
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = literal.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    host.parse::<std::net::Ipv4Addr>().ok().map(|address| address.to_string())
}

/// Whether a browser would take the host for an IPv4 address: its last label is a number.
fn is_numeric(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), OriginError> {
    // The colons of an IPv6 literal are inside its brackets.
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    match authority.get(after_host..).and_then(|tail| tail.rfind(':')) {
        None => Ok((authority, None)),
        Some(at) => {
            let host = authority.get(..after_host + at).ok_or(OriginError::Host)?;
            let port = authority.get(after_host + at + 1..).ok_or(OriginError::Port)?;
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|port| digits && *port != 0).ok_or(OriginError::Port)?;
            Ok((host, Some(number)))
        }
    }
}

fn check_host(host: &str) -> Result<(), OriginError> {
    if let Some(literal) = host.strip_prefix('[') {
        let address = literal.strip_suffix(']').ok_or(OriginError::Host)?;
        return address.parse::<std::net::Ipv6Addr>().map(|_| ()).map_err(|_| OriginError::Host);
    }
    if host.ends_with('.') {
        return Err(OriginError::TrailingDot);
    }
    let sound = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.split('.').all(sound) { Ok(()) } else { Err(OriginError::Host) }
}
