//! Which fields stop at this hop (RFC 9110 §7.6.1).

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, header::CONNECTION};

use super::token_list;

/// Removes hop-by-hop fields, with those named on any `Connection` line.
///
/// A peer may not name a field that a later check, the routing or the upstream's own policy stands on: a client that
/// sends `Connection: origin` would otherwise take its origin out of the upstream's sight.
pub fn remove(headers: &mut HeaderMap) {
    let named = named(headers);
    // The few that are there are looked at, rather than looked up the many that might be.
    let known: Vec<HeaderName> = headers.keys().filter(|name| stops_here(name.as_str())).cloned().collect();
    for name in named.into_iter().chain(known) {
        headers.remove(name);
    }
}

/// The fields that are there and named on a `Connection` line. A peer can name thousands; only those that are there cost
/// more than a look-up.
fn named(headers: &HeaderMap) -> HashSet<HeaderName> {
    token_list::members(headers.get_all(CONNECTION))
        .filter(|member| headers.contains_key(*member))
        .filter_map(|member| HeaderName::from_bytes(member.as_bytes()).ok())
        .filter(|name| !is_protected(name.as_str()))
        .collect()
}

fn stops_here(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "proxy-authenticate"
    )
}

fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "origin"
            | "host"
            | "cookie"
            | "set-cookie"
            | "authorization"
            | "content-length"
            | "content-type"
            | "cache-control"
            | "forwarded"
            | "via"
            | "x-real-ip"
    ) || name.starts_with("sec-websocket-")
        || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn however_many_fields_are_named_no_more_are_removed_than_there_are() {
        let options: Vec<String> = (0..3000).map(|number| format!("X-{}", number % 1500)).collect();
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::try_from(options.join(", ")).unwrap());
        for name in ["x-7", "X-1499", "x-1500", "accept"] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
        }
        assert_eq!(named(&headers).len(), 2);
        remove(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-1500"]);
    }

    #[test]
    fn fields_named_on_any_connection_line_stop_here_and_protected_ones_do_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "origin, cookie,sec-websocket-key , x-second, HOST, x-forwarded-for"),
            ("x-hop", "1"),
            ("x-second", "1"),
            ("origin", "https://a"),
            ("cookie", "c"),
            ("sec-websocket-key", "k"),
            ("host", "h"),
            ("x-forwarded-for", "f"),
            ("te", "trailers"),
            ("keep-alive", "1"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        remove(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie", "host", "origin", "sec-websocket-key", "x-forwarded-for"]);
    }
}
