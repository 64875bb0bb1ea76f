//! What the user asked to probe, checked: the URL (RFC 6455 §3), subprotocols, further fields.

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Uri};
use rustls::pki_types::ServerName;
use thiserror::Error;

use crate::protocol::token_list;

/// A `ws` or `wss` URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    pub(super) secure: bool,
    /// Without the brackets of an IPv6 literal.
    pub(super) host: String,
    pub(super) port: u16,
    /// The `Host` field: with brackets, without a default port (RFC 6455 §4.1, request item 4).
    pub(super) authority: String,
    /// Path and query.
    pub(super) resource: String,
}

/// Why a URL cannot be probed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// Another scheme, or none.
    #[error("a WebSocket URL begins with `ws://` or `wss://`")]
    Scheme,
    /// RFC 6455 §3 forbids it.
    #[error("a WebSocket URL has no fragment (RFC 6455 section 3); leave out the `#`, or write it as `%23`")]
    Fragment,
    /// Credentials in a URL end up in logs, and few servers read them.
    #[error("leave the user name out of the URL and send it as a field: --header 'Authorization: ...'")]
    UserInfo,
    /// Neither a DNS name nor an address.
    #[error("the host is neither a DNS name nor an IP address; write a name beyond ASCII in punycode (`xn--`)")]
    Host,
    /// Not a URL for some other reason.
    #[error("not a URL; expected ws://host[:port]/path")]
    Malformed,
}

impl FromStr for ProbeTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(TargetError::Scheme),
        };
        if text.contains('#') {
            // The parser below would drop it without a word.
            return Err(TargetError::Fragment);
        }
        if !rest.split(['/', '?']).next().unwrap_or_default().is_ascii() {
            return Err(TargetError::Host);
        }
        let uri: Uri = text.parse().map_err(|_| TargetError::Malformed)?;
        let authority = uri.authority().ok_or(TargetError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let named = authority.host();
        let host = named.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(named);
        ServerName::try_from(host).map_err(|_| TargetError::Host)?;
        // `http` takes a port it cannot read for none at all.
        let written =
            authority.as_str().strip_prefix(named).and_then(|tail| tail.strip_prefix(':')).unwrap_or_default();
        let default = if secure { 443 } else { 80 };
        let port = match written {
            "" => default,
            digits => digits.parse().ok().filter(|&port| port != 0).ok_or(TargetError::Malformed)?,
        };
        let resource = match uri.path_and_query().map_or("/", |resource| resource.as_str()) {
            "" => "/".to_owned(),
            // RFC 6455 §3: an empty path is "/", also before a query.
            query if query.starts_with('?') => format!("/{query}"),
            whole => whole.to_owned(),
        };
        let authority = if port == default { named.to_owned() } else { format!("{named}:{port}") };
        Ok(Self { secure, host: host.to_owned(), port, authority, resource })
    }
}

impl std::fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "wss" } else { "ws" }, self.authority, self.resource)
    }
}

/// The name of a subprotocol to offer: a token (RFC 6455 §4.1, request item 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subprotocol(String);

impl Subprotocol {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subprotocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if token_list::is_token(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a subprotocol is a token: letters, digits and !#$%&'*+-.^_`|~, such as `chat.v2`")
        }
    }
}

/// A field to send besides those of the handshake, in the capitals it was given in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraField {
    pub(super) name: String,
    pub(super) value: String,
}

/// Why a field cannot be sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FieldError {
    /// No colon, a name that is no token, or a value that would break the line.
    #[error("expected `Name: value`, one line of visible characters")]
    Malformed,
    /// The probe writes this one, and judges the answer by it.
    #[error("`{0}` is written by the probe itself{hint}", hint = hint(.0))]
    Reserved(String),
}

fn hint(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        "origin" => "; use --origin",
        "sec-websocket-protocol" => "; use --subprotocol",
        _ => "",
    }
}

impl ExtraField {
    /// Whether this field is called `name`, whatever the capitals.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

impl FromStr for ExtraField {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let (name, value) = text.split_once(':').ok_or(FieldError::Malformed)?;
        let value = value.trim_matches([' ', '\t']);
        let parsed: HeaderName = name.parse().map_err(|_| FieldError::Malformed)?;
        HeaderValue::from_str(value).map_err(|_| FieldError::Malformed)?;
        let reserved = [
            "connection",
            "upgrade",
            "origin",
            "content-length",
            "transfer-encoding",
            "sec-websocket-key",
            "sec-websocket-version",
            "sec-websocket-protocol",
            "sec-websocket-accept",
        ];
        if reserved.contains(&parsed.as_str()) {
            return Err(FieldError::Reserved(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, secure, host, port, authority, resource) in [
            ("ws://localhost", false, "localhost", 80, "localhost", "/"),
            ("WS://localhost:80/a?b=c", false, "localhost", 80, "localhost", "/a?b=c"),
            ("wss://example.com", true, "example.com", 443, "example.com", "/"),
            ("wss://example.com:8443/chat", true, "example.com", 8443, "example.com:8443", "/chat"),
            ("ws://[::1]:9000/", false, "::1", 9000, "[::1]:9000", "/"),
            ("ws://127.0.0.1?x=1", false, "127.0.0.1", 80, "127.0.0.1", "/?x=1"),
        ] {
            let target: ProbeTarget = text.parse().unwrap();
            assert_eq!(
                (target.secure, &*target.host, target.port, &*target.authority, &*target.resource),
                (secure, host, port, authority, resource),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_named() {
        for (text, error) in [
            ("http://localhost/", TargetError::Scheme),
            ("localhost:8080", TargetError::Scheme),
            ("ws://localhost/#top", TargetError::Fragment),
            ("ws://me:secret@localhost/", TargetError::UserInfo),
            ("ws://bücher.example/", TargetError::Host),
            ("ws:///chat", TargetError::Malformed),
            ("ws://localhost:99999/", TargetError::Malformed),
            ("ws://localhost:0/", TargetError::Malformed),
            ("ws://local host/", TargetError::Malformed),
        ] {
            assert_eq!(text.parse::<ProbeTarget>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_field_that_the_rules_depend_on_is_not_overwritten() {
        assert!("X-Team: blue".parse::<ExtraField>().is_ok());
        assert!("Host: app.example.com".parse::<ExtraField>().is_ok());
        let refused = "Origin: https://a.example".parse::<ExtraField>().unwrap_err();
        assert_eq!(refused.to_string(), "`Origin` is written by the probe itself; use --origin");
        assert!("sec-websocket-KEY: x".parse::<ExtraField>().is_err());
    }

    #[test]
    fn a_field_cannot_smuggle_a_second_line() {
        for text in ["X: a\r\nHost: b", "X: a\nb", "X\r\n: a", "no colon", ": empty", "X : space"] {
            assert_eq!(text.parse::<ExtraField>(), Err(FieldError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_subprotocol_is_a_token() {
        assert!("chat.v2".parse::<Subprotocol>().is_ok());
        assert!("a, b".parse::<Subprotocol>().is_err());
        assert!("".parse::<Subprotocol>().is_err());
    }
}
