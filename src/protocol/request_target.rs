//! What a request is for: authority and path (RFC 9112 §3.2, RFC 9110 §7.2).

use std::fmt;

use http::{HeaderMap, Method, Uri, header::HOST};
use thiserror::Error;

use super::request_path::{PathError, RoutePath};

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
    /// A path that no backend should see.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl TargetError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostMalformed => "host-malformed",
            Self::Form => "target-form",
            Self::Path(error) => error.rule(),
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
    Ok(Target { authority, path: RoutePath::read(path)? })
}

fn sole_host(headers: &HeaderMap) -> Result<Authority, TargetError> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next().ok_or(TargetError::HostMissing)?;
    if lines.next().is_some() {
        return Err(TargetError::HostRepeated);
    }
    Authority::parse(line.to_str().map_err(|_| TargetError::HostMalformed)?)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

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
        fn an_authority_reads_back_what_it_shows(text in "[A-Za-z0-9.:_\\[\\]@/-]{0,12}") {
            if let Ok(read) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&read.to_string()), Ok(read));
            }
        }
    }
}
