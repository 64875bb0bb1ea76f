//! What a request is for: authority and path (RFC 9112 §3.2, RFC 9110 §7.2), and every way the path may be read.

use std::fmt;

use http::{HeaderMap, Method, Uri, header::HOST};
use thiserror::Error;

/// Why a target names nothing for certain.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// No `Host`, or an empty one.
    #[error("Host is missing or empty (RFC 9112 section 3.2)")]
    HostMissing,
    /// Two of them.
    #[error("there is more than one Host (RFC 9112 section 3.2)")]
    HostRepeated,
    /// Not `host[:port]`.
    #[error("Host is malformed (RFC 9112 section 3.2)")]
    HostMalformed,
    /// `host:port` outside CONNECT, or `*` outside OPTIONS, or a strange scheme.
    #[error("this form of request target does not go with the method (RFC 9112 section 3.2)")]
    Form,
    /// `.` or `..`, written or encoded.
    #[error("the path has dot segments (RFC 3986 section 5.2.4)")]
    DotSegment,
    /// A malformed percent-encoding, or one of a control character.
    #[error("the path has a malformed or forbidden percent-encoding (RFC 3986 section 2.1)")]
    Encoding,
}

impl TargetError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostMalformed => "host-malformed",
            Self::Form => "target-form",
            Self::DotSegment => "dot-segment",
            Self::Encoding => "path-encoding",
        }
    }
}

/// A host and an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Both of them as they are written.
    text: String,
    host_length: usize,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host[:port]`; the host may be a name, an IPv4 address or an IPv6 address in brackets.
    ///
    /// # Errors
    /// `TargetError::HostMissing` when it is empty, `HostMalformed` when it is anything else.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::HostMissing);
        }
        let (host, port) = match text.rfind(']') {
            Some(end) => text.split_at_checked(end + 1).ok_or(TargetError::HostMalformed)?,
            None => text.find(':').and_then(|at| text.split_at_checked(at)).unwrap_or((text, "")),
        };
        let port: Option<u16> = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            // RFC 3986 section 3.2.3 lets the port be empty after its colon.
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| TargetError::HostMalformed)?)
            }
            _ => return Err(TargetError::HostMalformed),
        };
        let sound = match host.strip_prefix('[') {
            Some(literal) => literal.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
            None => is_name(host),
        };
        if !sound {
            return Err(TargetError::HostMalformed);
        }
        let mut text = host.to_ascii_lowercase();
        if let Some(port) = port {
            text.push(':');
            text.push_str(&port.to_string());
        }
        Ok(Self { text, host_length: host.len(), port })
    }

    /// The host in lower case, with the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.text.get(..self.host_length).unwrap_or_default()
    }

    /// `host[:port]`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let sound = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    labels.split('.').all(sound)
}

/// What a request is for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port; of the target itself where it is in absolute form (RFC 9112 §3.2.2), else of `Host`.
    pub authority: Authority,
    /// The path.
    pub path: RoutePath,
}

impl Target {
    /// The host for route matching: in lower case, without a final dot.
    pub fn route_host(&self) -> &str {
        let host = self.authority.host();
        host.strip_suffix('.').unwrap_or(host)
    }
}

/// A path, in the spelling that routes are matched against and in every other that an upstream may take it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath {
    matched: String,
    readings: Vec<String>,
}

impl RoutePath {
    /// The path with percent-encoded unreserved characters decoded (RFC 3986 §6.2.2.2).
    pub fn matched(&self) -> &str {
        &self.matched
    }

    /// What a lenient upstream may take it for: fully decoded, backslashes as slashes, slashes merged, parameters left
    /// out, cut at a decoded `?` or `#`. Only spellings that differ from [`Self::matched`].
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        self.readings.iter().map(String::as_str)
    }
}

/// Checks target and `Host` of a request.
///
/// # Errors
/// See [`TargetError`].
pub fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Target, TargetError> {
    let host = sole_host(headers)?;
    let authority = match (uri.scheme_str(), uri.authority()) {
        (None, None) => host,
        // RFC 9112 section 3.2.2: the target's own authority overrides `Host`.
        (Some("http" | "https" | "ws" | "wss"), Some(authority)) => Authority::parse(authority.as_str())?,
        _ => return Err(TargetError::Form),
    };
    let path = match uri.path() {
        "*" if method == Method::OPTIONS => "/",
        "*" | "" => return Err(TargetError::Form),
        path => path,
    };
    Ok(Target { authority, path: read_path(path)? })
}

fn sole_host(headers: &HeaderMap) -> Result<Authority, TargetError> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next().ok_or(TargetError::HostMissing)?;
    if lines.next().is_some() {
        return Err(TargetError::HostRepeated);
    }
    Authority::parse(line.to_str().map_err(|_| TargetError::HostMalformed)?)
}

/// How often a path is decoded before its depth counts as an attempt to hide something.
const MAX_DECODINGS: usize = 3;

/// Whether everybody reads the path alike: nothing is encoded, folded, merged or cut, and no segment is made of dots.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b'.' | b':' | b'=' | b'@');
    path.starts_with('/') && path.bytes().all(plain) && !path.contains("//") && !path.contains("/.")
}

fn read_path(path: &str) -> Result<RoutePath, TargetError> {
    if is_plain(path) {
        return Ok(RoutePath { matched: path.to_owned(), readings: Vec::new() });
    }
    read_any_path(path)
}

fn read_any_path(path: &str) -> Result<RoutePath, TargetError> {
    let matched = decode(path.as_bytes(), is_unreserved)?;
    let mut spellings = vec![matched.clone()];
    for round in 0.. {
        let last = spellings.last().map(Vec::as_slice).unwrap_or_default();
        // After the first round a `%` may be a decoded one and stand for itself.
        let next = if round == 0 { decode(last, |_| true)? } else { decode_leniently(last) };
        if next == last {
            break;
        }
        if round == MAX_DECODINGS {
            return Err(TargetError::Encoding);
        }
        spellings.push(next);
    }
    if spellings.iter().any(|spelling| spelling.iter().any(u8::is_ascii_control) || is_overlong(spelling)) {
        return Err(TargetError::Encoding);
    }
    let folded: Vec<Vec<u8>> =
        spellings.iter().flat_map(|spelling| [fold(spelling), fold(before_query(spelling))]).collect();
    spellings.extend(folded);
    if spellings.iter().any(|spelling| has_dot_segment(spelling)) {
        return Err(TargetError::DotSegment);
    }
    let matched = lossy(&matched);
    let mut readings: Vec<String> = spellings.iter().map(|spelling| lossy(spelling)).collect();
    readings.sort_unstable();
    readings.dedup();
    readings.retain(|reading| *reading != matched);
    Ok(RoutePath { matched, readings })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Decodes the octets that `wanted` names; the others keep their encoding.
fn decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Result<Vec<u8>, TargetError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(TargetError::Encoding) };
        let (Some(h), Some(l)) = (hex(*high), hex(*low)) else { return Err(TargetError::Encoding) };
        rest = tail;
        match h << 4 | l {
            byte if wanted(byte) => out.push(byte),
            _ => out.extend_from_slice(&[b'%', *high, *low]),
        }
    }
    Ok(out)
}

/// Decodes every octet, and leaves alone what is no encoding: one broken escape must not hide the sound ones.
fn decode_leniently(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let octet = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(octet.unwrap_or(*first));
        rest = if octet.is_some() { rest.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

/// Whether there is an ASCII character written in two bytes: `%c0%ae` is a dot to a careless reader of UTF-8.
fn is_overlong(path: &[u8]) -> bool {
    path.windows(2).any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf]))
}

/// What is left for one who decodes first and looks for the query and fragment afterwards.
fn before_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

/// Backslashes as slashes, each segment without `;parameters`, slashes merged.
fn fold(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if !name.is_empty() {
            out.push(b'/');
            out.extend_from_slice(name);
        }
    }
    let ends_with_slash = matches!(path.last(), Some(b'/' | b'\\'));
    if out.is_empty() || ends_with_slash {
        out.push(b'/');
    }
    out
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Result<RoutePath, TargetError> {
        read_path(text)
    }

    #[test]
    fn paths_that_hide_something_are_refused() {
        use TargetError as E;
        for (text, error) in [
            ("/a/../b", E::DotSegment),
            ("/a/./b", E::DotSegment),
            ("/a/%2e%2e/b", E::DotSegment),
            ("/a/%2E./b", E::DotSegment),
            ("/a/%252e%252e/b", E::DotSegment),
            ("/a/..%2fb", E::DotSegment),
            ("/a/..%5cb", E::DotSegment),
            ("/a/..\\b", E::DotSegment),
            ("/a/..;x=1/b", E::DotSegment),
            ("/a/%2e%2e%3bx/b", E::DotSegment),
            ("/a%00b", E::Encoding),
            ("/a%0d%0ab", E::Encoding),
            ("/a%zz", E::Encoding),
            ("/a%2", E::Encoding),
            ("/%25252525252e", E::Encoding),
            ("/a/%25zz/%252e%252e/b", E::DotSegment),
            ("/a%25/..%252fb", E::DotSegment),
            ("/a/..%3fx", E::DotSegment),
            ("/a/..%23x", E::DotSegment),
            ("/a%3fb/..;x/c", E::DotSegment),
            ("/a/;/../b", E::DotSegment),
            ("/..", E::DotSegment),
            ("/.;", E::DotSegment),
            ("/a/%c0%ae%c0%ae/b", E::Encoding),
            ("/a%25c0%25afb", E::Encoding),
            ("/a%2500b", E::Encoding),
            ("/a%7fb", E::Encoding),
            ("/a%09b", E::Encoding),
            ("/a%u002e", E::Encoding),
        ] {
            assert_eq!(path(text), Err(error), "{text}");
        }
    }

    #[test]
    fn readings_of_a_path() {
        let readings = |text: &str| path(text).unwrap().readings().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(path("/%61dmin").unwrap().matched(), "/admin");
        assert!(readings("/chat/room.1").is_empty());
        assert_eq!(readings("/a%2fb"), ["/a/b"]);
        assert_eq!(readings("//a"), ["/a"]);
        assert_eq!(readings("/a;v=1/b"), ["/a/b"]);
        assert_eq!(readings("/a%5Cb"), ["/a/b", "/a\\b"]);
        assert_eq!(readings("/admin%3Fx"), ["/admin", "/admin?x"]);
        assert_eq!(readings("/C%23"), ["/C", "/C#"]);
        assert_eq!(readings("/100%25"), ["/100%"]);
        assert_eq!(readings("/%C3%A9"), ["/é"]);
        assert_eq!(readings("/a%252fb"), ["/a%2fb", "/a/b"]);
        assert!(path("/a...b/..c").unwrap().readings().next().is_none());
    }

    #[test]
    fn hosts_and_forms() {
        use TargetError as E;
        let target = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            hosts.iter().for_each(|host| {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            });
            check(&Method::GET, &uri.parse().unwrap(), &headers).map(|target| target.authority.to_string())
        };
        for (uri, hosts, expected) in [
            ("/", &["Example.COM"][..], Ok("example.com")),
            ("/", &["example.com:8080"], Ok("example.com:8080")),
            ("/", &["[::1]:8080"], Ok("[::1]:8080")),
            ("/", &["127.0.0.1"], Ok("127.0.0.1")),
            ("http://other.example/x", &["example.com"], Ok("other.example")),
            ("http://other.example", &["example.com"], Ok("other.example")),
            ("http://user@other.example/", &["example.com"], Err(E::HostMalformed)),
            ("ftp://other.example/", &["example.com"], Err(E::Form)),
            ("other.example:80", &["example.com"], Err(E::Form)),
            ("*", &["example.com"], Err(E::Form)),
            ("/", &[], Err(E::HostMissing)),
            ("/", &[""], Err(E::HostMissing)),
            ("/", &["a", "a"], Err(E::HostRepeated)),
            ("/", &["a, b"], Err(E::HostMalformed)),
            ("/", &["user@a"], Err(E::HostMalformed)),
            ("/", &["a/b"], Err(E::HostMalformed)),
            ("/", &["a:99999"], Err(E::HostMalformed)),
            ("/", &["a:x"], Err(E::HostMalformed)),
            ("/", &["[::1"], Err(E::HostMalformed)),
            ("/", &["[1.2.3.4]"], Err(E::HostMalformed)),
            ("/", &[".a"], Err(E::HostMalformed)),
        ] {
            assert_eq!(target(uri, hosts), expected.map(str::to_owned), "{uri} {hosts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_needs_no_second_look(path in "/[a-zA-Z0-9/._~!$&'()*+,:=@-]{0,12}") {
            prop_assert_eq!(read_path(&path), read_any_path(&path));
        }

        #[test]
        fn no_path_makes_it_panic(text in "/[a-z%0-9A-F./;\\\\]{0,30}") {
            let _verdict = path(&text);
        }

        /// A `..` is found however each of its characters is written, whatever stands beside it.
        #[test]
        fn dot_segments_do_not_hide(
            before in "(/|//|/a|/%25zz|/%25|/;p|/%5c|/%C3%A9){0,3}",
            border in prop::sample::select(vec!["/", "\\", "%2f", "%2F", "%5c", "%252f", "%255C"]),
            dots in prop::collection::vec(prop::sample::select(vec![".", "%2e", "%2E", "%252e", "%25252E"]), 1..=2),
            after in prop::sample::select(vec!["", "/", ";x/", "%3bx/b", "%2fb", "%255cb", "%3f", "%23", "%253fx/"]),
        ) {
            let text = format!("/a{before}{border}{}{after}", dots.concat());
            prop_assert!(path(&text).is_err(), "{}", text);
        }

        #[test]
        fn plain_paths_have_one_reading(text in "(/[a-z0-9_~-]{1,5}){1,4}/?") {
            let read = path(&text).unwrap();
            prop_assert_eq!(read.matched(), text.as_str());
            prop_assert_eq!(read.readings().count(), 0);
        }

        #[test]
        fn an_authority_reads_back_what_it_shows(text in "[A-Za-z0-9.:_\\[\\]@/-]{0,12}") {
            if let Ok(read) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&read.to_string()), Ok(read));
            }
        }
    }
}
