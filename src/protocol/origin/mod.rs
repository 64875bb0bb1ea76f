//! Serialised origins (RFC 6454 §6) and the allowlist (RFC 6455 §10.2).

mod policy;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use thiserror::Error;

pub use policy::{AllowEntry, AllowEntryError, ApplyTo, Mode, OriginFields, OriginPolicy, OriginRefusal, Verdict};

/// A scheme, host and port in one spelling: lower case, and no port where it is the scheme's default. Of an app it is the
/// scheme in lower case and the authority as it is written.
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
    /// A host or a label that no resolver takes.
    #[error("its host is longer than 253 characters, or one of its labels longer than 63")]
    TooLong,
    /// `127.1`, `0x7f.1`, `[0:0:0:0:0:0:0:1]`.
    #[error("its address is not in the form that browsers send, such as `127.0.0.1` or `[::1]`")]
    Address,
    /// No host, or bytes no host has.
    #[error("its host is empty or malformed; international names are written in their `xn--` form")]
    Host,
    /// The authority of an app holds a byte that no URL has, or it is very long.
    #[error("the part after `://` has a character that no app sends, or more than {MAX_HOST} characters")]
    Authority,
    /// `example.com.`
    #[error("its host ends with a dot; leave it out")]
    TrailingDot,
    /// Not a number of 16 bits above 0, or one with leading zeros.
    #[error("its port is not a number from 1 to 65535 without leading zeros")]
    Port,
}

/// Whether the authority of this scheme is a host with a port.
fn is_web(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"].iter().any(|web| scheme.eq_ignore_ascii_case(web))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Longest host in the form that resolvers take (RFC 1035 §3.1, without the final dot).
const MAX_HOST: usize = 253;

/// Longest label of a host (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

impl Origin {
    /// Reads a serialised origin, strictly: what no browser can send is malformed. Upper case and a default port that is
    /// written out are taken, since other clients write these and they leave no doubt.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        Self::parse_with_port(text).map(|(origin, _)| origin)
    }

    /// The same, with the port as it was written.
    fn parse_with_port(text: &str) -> Result<(Self, Option<u16>), OriginError> {
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
        if !is_web(scheme) {
            return Self::of_app(scheme, rest).map(|origin| (origin, None));
        }
        let (host, port) = split_port(rest)?;
        let origin = Self::of(scheme, host, port);
        check_host(&origin.host)?;
        Ok((origin, port))
    }

    /// The origin of a page that an app or a browser extension brings along: `file://`, `app://.`, `tauri://localhost`,
    /// `chrome-extension://…`. URL parsers leave the authority of such schemes as it is, so it is no host, may be empty,
    /// and is compared byte for byte (WHATWG URL §3.3).
    fn of_app(scheme: &str, authority: &str) -> Result<Self, OriginError> {
        if authority.len() > MAX_HOST || !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OriginError::Authority);
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: authority.to_owned(), port: None })
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

/// The one way in which browsers write an IPv6 address (WHATWG URL §3.5): unlike RFC 5952, never with a dotted tail.
fn ipv6_text(address: Ipv6Addr) -> String {
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
        _ => format!("[{address}]"),
    }
}

/// Whether a browser takes the host for an IPv4 address: its last label is a number (WHATWG URL §3.5).
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
            // No leading zero, and so no port 0 either: nothing can be served from that.
            let digits = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|_| digits).ok_or(OriginError::Port)?;
            Ok((host, Some(number)))
        }
    }
}

/// `host` is in lower case.
fn check_host(host: &str) -> Result<(), OriginError> {
    if let Some(literal) = host.strip_prefix('[') {
        let address = literal.strip_suffix(']').ok_or(OriginError::Host)?;
        let address = address.parse().map_err(|_| OriginError::Host)?;
        return if ipv6_text(address) == host { Ok(()) } else { Err(OriginError::Address) };
    }
    if host.ends_with('.') {
        return Err(OriginError::TrailingDot);
    }
    // An `xn--` label holds at least one character of Punycode, which never ends with a hyphen (RFC 3492 section 3.1).
    let is_punycode =
        |label: &str| label.strip_prefix("xn--").is_none_or(|rest| !rest.is_empty() && !rest.ends_with('-'));
    let sound = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && is_punycode(label)
    };
    if !host.split('.').all(sound) {
        return Err(OriginError::Host);
    }
    if host.len() > MAX_HOST || host.split('.').any(|label| label.len() > MAX_LABEL) {
        return Err(OriginError::TooLong);
    }
    if is_numeric(host) && host.parse::<Ipv4Addr>().is_err() {
        return Err(OriginError::Address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_browser_can_send_is_no_origin() {
        use OriginError as E;
        let label = |length: usize| "a".repeat(length);
        let host = |length: usize| format!("{}{}", "a.".repeat((length - 3) / 2), "a".repeat(3 + (length - 3) % 2));
        for (text, expected) in [
            (format!("https://{}.example", label(63)), Ok(())),
            (format!("https://{}.example", label(64)), Err(E::TooLong)),
            (format!("https://{}.trusted.example", label(70)), Err(E::TooLong)),
            (format!("https://trusted.{}", label(64)), Err(E::TooLong)),
            (format!("https://{}", host(253)), Ok(())),
            (format!("https://{}", host(254)), Err(E::TooLong)),
            (format!("https://{}:8443", host(253)), Ok(())),
            ("https://app.example.com:0443".to_owned(), Err(E::Port)),
            ("https://app.example.com:00443".to_owned(), Err(E::Port)),
            ("https://app.example.com:08443".to_owned(), Err(E::Port)),
            ("https://app.example.com:0".to_owned(), Err(E::Port)),
            ("https://app.example.com:00".to_owned(), Err(E::Port)),
            ("https://app.example.com:65535".to_owned(), Ok(())),
            ("https://app.example.com:65536".to_owned(), Err(E::Port)),
            ("https://app.example.com:99999999999999999999".to_owned(), Err(E::Port)),
            ("https://app.example.com:+443".to_owned(), Err(E::Port)),
            ("https://app.example.com:-1".to_owned(), Err(E::Port)),
            ("https://app.example.com:4 43".to_owned(), Err(E::Port)),
            ("https://app.example.com:".to_owned(), Err(E::Port)),
            ("https://app.example.com:0x1bb".to_owned(), Err(E::Port)),
            ("https://app.example.com:443:443".to_owned(), Err(E::Host)),
            ("https://a..example".to_owned(), Err(E::Host)),
            ("https://.example".to_owned(), Err(E::Host)),
            ("https://app.example.com.".to_owned(), Err(E::TrailingDot)),
            ("https://app.example.com..".to_owned(), Err(E::TrailingDot)),
            ("https://".to_owned(), Err(E::Host)),
            ("https://:443".to_owned(), Err(E::Host)),
            ("https://app%2eexample.com".to_owned(), Err(E::Host)),
            ("https://app example.com".to_owned(), Err(E::Host)),
            ("https://b\u{fc}cher.example".to_owned(), Err(E::Host)),
            ("https://xn--bcher-kva.example".to_owned(), Ok(())),
            ("https://xn--.example".to_owned(), Err(E::Host)),
            ("https://xn--a-.example".to_owned(), Err(E::Host)),
            // Browsers check no hyphens (UTS 46 with CheckHyphens=false) and take underscores.
            ("https://-a-.my_app.example".to_owned(), Ok(())),
            ("https://localhost:3000".to_owned(), Ok(())),
            ("https://127.0.0.1".to_owned(), Ok(())),
            ("https://127.1".to_owned(), Err(E::Address)),
            ("https://2130706433".to_owned(), Err(E::Address)),
            ("https://0x7f.1".to_owned(), Err(E::Address)),
            ("https://0X7F.0.0.0x1".to_owned(), Err(E::Address)),
            ("https://0177.0.0.1".to_owned(), Err(E::Address)),
            ("https://127.0.0.01".to_owned(), Err(E::Address)),
            ("https://256.0.0.1".to_owned(), Err(E::Address)),
            ("https://1.2.3.4.5".to_owned(), Err(E::Address)),
            ("https://app.example.1".to_owned(), Err(E::Address)),
            ("https://app.example.0x".to_owned(), Err(E::Address)),
            ("https://1.example".to_owned(), Ok(())),
            ("https://[::1]:8443".to_owned(), Ok(())),
            ("https://[2001:db8::1:0:0:1]".to_owned(), Ok(())),
            ("https://[::ffff:7f00:1]".to_owned(), Ok(())),
            ("https://[::ffff:127.0.0.1]".to_owned(), Err(E::Address)),
            ("https://[::127.0.0.1]".to_owned(), Err(E::Address)),
            ("https://[0:0:0:0:0:0:0:1]".to_owned(), Err(E::Address)),
            ("https://[2001:0db8::1]".to_owned(), Err(E::Address)),
            ("https://[fe80::1%25eth0]".to_owned(), Err(E::Host)),
            ("https://[fe80::1%eth0]".to_owned(), Err(E::Host)),
            ("https://[v1.a]".to_owned(), Err(E::Host)),
            ("https://[127.0.0.1]".to_owned(), Err(E::Host)),
            ("https://[::1".to_owned(), Err(E::Host)),
            ("https://::1".to_owned(), Err(E::Host)),
            ("https://user@app.example.com".to_owned(), Err(E::Userinfo)),
            ("https://app.example.com/".to_owned(), Err(E::Trailing)),
            ("https://app.example.com?".to_owned(), Err(E::Trailing)),
            ("https://app.example.com#".to_owned(), Err(E::Trailing)),
            ("https:app.example.com".to_owned(), Err(E::Scheme)),
            ("https:/app.example.com".to_owned(), Err(E::Scheme)),
            ("://app.example.com".to_owned(), Err(E::Scheme)),
            ("1s://app.example.com".to_owned(), Err(E::Scheme)),
            (" https://app.example.com".to_owned(), Err(E::Scheme)),
        ] {
            assert_eq!(Origin::parse(&text).map(|_| ()), expected, "{text}");
        }
    }

    /// What app shells and browser extensions send.
    pub(super) const APPS: [&str; 18] = [
        "file://",
        "app://.",
        "app://localhost",
        "app://obsidian.md",
        "capacitor://localhost",
        "capacitor-electron://-",
        "ionic://localhost",
        "tauri://localhost",
        "chrome-extension://aapocclcgogkmnckokdopfmhonfmgoek",
        "moz-extension://d5b5b9f3-8b0e-4f5e-9c4e-0a3a2a4f6f11",
        "safari-web-extension://5CF1A8E5-4D1B-4F0A-9A5E-3C3F5D6B7A8B",
        "vscode-webview://0f8hk7rsqvnd1v5hcqv3bhm3d4p1hvvt2tk2t6c9m3q4a5b6c7d8",
        "vscode-file://vscode-app",
        "qrc://",
        "ms-appx-web://microsoft.microsoftedge",
        "x-custom+scheme.2://a:b,c;d",
        "content://com.example.app",
        "wails://wails.localhost:34115",
    ];

    #[test]
    fn the_origin_of_an_app_is_its_scheme_and_any_authority() {
        for text in APPS {
            assert_eq!(Origin::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Origin::parse("APP://Local"), Origin::parse("app://Local"));
        assert_ne!(Origin::parse("app://Local"), Origin::parse("app://local"));
        let most = "a".repeat(MAX_HOST);
        assert!(Origin::parse(&format!("app://{most}")).is_ok());
        for (text, expected) in [
            (&format!("app://{most}a") as &str, OriginError::Authority),
            ("app://a b", OriginError::Authority),
            ("app://a\tb", OriginError::Authority),
            ("app://\u{e9}", OriginError::Authority),
            ("file:///", OriginError::Trailing),
            ("file:///C:/x.html", OriginError::Trailing),
            ("app://./index.html", OriginError::Trailing),
            ("tauri://localhost/", OriginError::Trailing),
            ("app://a\\b", OriginError::Trailing),
            ("app://a?b", OriginError::Trailing),
            ("app://a#b", OriginError::Trailing),
            ("app://u@a", OriginError::Userinfo),
            ("file:", OriginError::Scheme),
            ("app:a", OriginError::Scheme),
            ("://a", OriginError::Scheme),
            ("a_b://c", OriginError::Scheme),
            ("app://a app://b", OriginError::Trailing),
        ] {
            assert_eq!(Origin::parse(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_itself(text in "\\PC{0,40}") {
            if let Ok(origin) = Origin::parse(&text) {
                prop_assert_eq!(Origin::parse(&origin.to_string()), Ok(origin));
            }
        }

        #[test]
        fn an_ipv6_address_has_one_spelling(segments: [u16; 8], zeros in 0..256usize) {
            let segments: Vec<u16> =
                segments.into_iter().enumerate().map(|(at, segment)| if zeros >> at & 1 == 1 { 0 } else { segment }).collect();
            let address = Ipv6Addr::from(<[u16; 8]>::try_from(segments).unwrap());
            let text = ipv6_text(address);
            prop_assert!(Origin::parse(&format!("https://{text}")).is_ok(), "{}", text);
            prop_assert_eq!(text.trim_matches(['[', ']']).parse::<Ipv6Addr>(), Ok(address));
        }
    }
}
