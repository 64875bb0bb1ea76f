//! Which trailers may pass (RFC 9110 §6.5.1).

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::{client_cert, field_names, hop_by_hop};

/// Removes trailers that a recipient could merge into the head: framing, routing, authentication, modifiers, and every
/// field that a gate sets or judges in the head, with their look-alikes.
///
/// Without this a client could say in a trailer what the head is not allowed to say.
pub fn trim(frame: &mut Frame<Bytes>) {
    if let Some(trailers) = frame.trailers_mut() {
        let is_barred = |name: &str| match field_names::folded(name) {
            // Trailers with underscores have no known legitimate use, but can be confused with other fields.
            Some(folded) => name.contains('_') || is_barred(&folded) || field_names::look_alike(name).is_some(),
            None => is_barred(name),
        };
        let barred: Vec<_> = trailers.keys().filter(|name| is_barred(name.as_str())).cloned().collect();
        for name in barred {
            trailers.remove(name);
        }
        remove_hop_by_hop(trailers);
    }
}

fn remove_hop_by_hop(trailers: &mut HeaderMap) {
    // `Connection` in a trailer names nothing: it is dropped like the others and not obeyed.
    trailers.remove(http::header::CONNECTION);
    hop_by_hop::remove(trailers);
}

fn is_barred(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "expect"
            | "expires"
            | "forwarded"
            | "host"
            | "location"
            | "max-forwards"
            | "origin"
            | "proxy"
            | "range"
            | "set-cookie"
            | "trailer"
            | "vary"
            | "via"
            | "x-real-ip"
            | "www-authenticate"
    ) || name.starts_with("sec-")
        || name.starts_with("if-")
        || name.starts_with("x-forwarded-")
        || client_cert::is_reserved(name)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_harmless_trailers_pass() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-checksum",
            "my.field",
            "grpc-status",
            "server-timing",
            "x-forwarded-for",
            "x_forwarded_for",
            "x.forwarded.for",
            "x!real!ip",
            "client.cert",
            "transfer.encoding",
            "content~length",
            "set.cookie",
            "cache|control",
            "sec+websocket+key",
            "keep.alive",
            "proxy.authorization",
            ".origin",
            "my_field",
            "proxy",
            "client-cert-subject",
            "forwarded",
            "cookie",
            "set-cookie",
            "origin",
            "host",
            "connection",
            "transfer-encoding",
            "content-length",
            "sec-websocket-key",
            "authorization",
            "proxy-authorization",
            "te",
        ] {
            trailers.append(name, HeaderValue::from_static("x-checksum"));
        }
        let mut frame = Frame::trailers(trailers);
        trim(&mut frame);
        let mut left: Vec<_> = frame.trailers_ref().unwrap().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "my.field", "server-timing", "x-checksum"]);
    }
}
