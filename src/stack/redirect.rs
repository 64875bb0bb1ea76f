//! Sends whoever comes to a redirecting listener to https (RFC 9110 §15.4.9).
//!
//! Reads `Connection`, `Target`. Answers 308, to WebSockets too: WebKitGTK follows it, other browsers only log where it
//! leads. What must be answered in clear stands before this layer.

use std::{fmt::Write, sync::Arc};

use http::{HeaderValue, Uri};

use super::{Request, check::Check, error::ProxyError, facts};
use crate::{downstream::Connection, protocol::request_target::Target};

#[derive(Clone, Debug)]
pub(super) struct Redirect;

impl Check for Redirect {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let Some(port) = connection.redirect else { return Ok(()) };
        let target: Arc<Target> = facts::expect(request.extensions())?;
        Err(ProxyError::Redirect { location: location(&target, request.uri(), port) })
    }
}

/// The same host, path and query. Host and path were checked: the one is a name or an address, the other begins with
/// a slash, so nothing in it can become another host.
fn location(target: &Target, uri: &Uri, port: u16) -> Option<HeaderValue> {
    let mut text = format!("https://{}", target.authority.host());
    if port != 443 {
        let _never_fails = write!(text, ":{port}");
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // `OPTIONS *` and the empty path of an absolute form.
    if !path.starts_with('/') {
        text.push('/');
    }
    for byte in path.strip_prefix('*').unwrap_or(path).bytes() {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => {
                let _never_fails = write!(text, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, header::HOST};

    use super::*;
    use crate::protocol::request_target;

    #[test]
    fn only_scheme_and_port_change() {
        for (uri, host, port, expected) in [
            ("/", "gate.test", 443, "https://gate.test/"),
            ("/a/b?c=d&e=https://evil.test/", "Gate.Test:8080", 443, "https://gate.test/a/b?c=d&e=https://evil.test/"),
            ("/a", "gate.test:8080", 8443, "https://gate.test:8443/a"),
            ("/", "gate.test.", 443, "https://gate.test./"),
            ("/", "[::1]:80", 8443, "https://[::1]:8443/"),
            ("//evil.test/x", "gate.test", 443, "https://gate.test//evil.test/x"),
            ("/@evil.test", "gate.test", 443, "https://gate.test/@evil.test"),
            ("http://other.test/x?y", "gate.test", 443, "https://other.test/x?y"),
            ("ws://other.test:9000", "gate.test", 443, "https://other.test/"),
            ("http://other.test?y", "gate.test", 443, "https://other.test/?y"),
            ("*", "gate.test", 443, "https://gate.test/"),
            ("/\u{e9}", "gate.test", 443, "https://gate.test/%C3%A9"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            let target = request_target::check(&Method::OPTIONS, &uri, &headers).unwrap();
            assert_eq!(location(&target, &uri, port).unwrap(), expected, "{uri}");
        }
    }
}
