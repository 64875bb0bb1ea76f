//! Requests of HTTP/2 as the HTTP/1.1 requests they stand for, and the way back (RFC 9113 §8, RFC 8441).
//!
//! Everything further in knows one kind of request. So a WebSocket over HTTP/2 becomes the opening handshake that it
//! will be upstream, with a key of ours, and passes the same checks.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    request, response,
    uri::{PathAndQuery, Scheme},
};

use super::{
    hop_by_hop,
    request_framing::{FramingError, HeadLimits},
    token_list,
    upgrade::{self, Intent},
    websocket::key,
};

/// What a request of HTTP/2 turned out to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A response.
    Response,
    /// A WebSocket (RFC 8441 §5).
    WebSocket,
    /// To carry something else (RFC 8441 §4), or CONNECT as such: the method still says so.
    Tunnel,
}

/// Turns a request into the one it stands for, and says what it asks for. `protocol` is its `:protocol`.
///
/// The version stays HTTP/2. `nonce` is 16 random bytes for the key.
///
/// # Errors
/// What a strict reader would not take, and HTTP/2 has no rule of its own for.
pub fn translate_request(
    head: &mut request::Parts,
    protocol: Option<&str>,
    nonce: [u8; 16],
    limits: HeadLimits,
) -> Result<Asked, FramingError> {
    if list_size(head, protocol) > limits.max_bytes {
        return Err(FramingError::HeadTooLarge);
    }
    join_cookies(&mut head.headers);
    if head.headers.len() > limits.max_fields {
        return Err(FramingError::TooManyFields);
    }
    // The library takes the same length twice, and so does not every upstream.
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(FramingError::ContentLength);
    }
    if head.headers.values().any(has_space_around) {
        return Err(FramingError::FieldValue);
    }
    one_host(head)?;
    if head.method != Method::CONNECT {
        head.uri = origin_form(&head.uri);
        return Ok(Asked::Response);
    }
    // The library would reset the stream at the first DATA frame.
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(FramingError::ConnectContentLength);
    }
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Ok(Asked::Tunnel);
    }
    head.method = Method::GET;
    head.uri = origin_form(&head.uri);
    upgrade::write_pair(&mut head.headers);
    // RFC 8441 section 5: HTTP/2 does without the key; the upstream does not.
    if let Ok(key) = HeaderValue::try_from(key::key_of(nonce)) {
        head.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    Ok(Asked::WebSocket)
}

/// Overhead of each field in the size of a header list (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Size of the header list of a request.
fn list_size(head: &request::Parts, protocol: Option<&str>) -> usize {
    let uri = &head.uri;
    let pseudo = [
        (":method", Some(head.method.as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(|authority| authority.as_str())),
        (":path", uri.path_and_query().map(|path| path.as_str())),
        (":protocol", protocol),
    ];
    let sizes = pseudo.iter().filter_map(|(name, value)| Some(name.len() + (*value)?.len() + FIELD_OVERHEAD));
    sizes.fold(fields_size(&head.headers), usize::saturating_add)
}

/// Size of these fields in a header list, in bytes (RFC 9113 §6.5.2).
pub fn fields_size(fields: &HeaderMap) -> usize {
    let sizes = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    sizes.fold(0, usize::saturating_add)
}

/// Whether a value begins or ends with white space, which makes a request malformed (RFC 9113 §8.2.1). HTTP/1.1 parsers
/// strip it, so the upstream would read a different value.
fn has_space_around(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// `:authority` as `Host` (RFC 9113 §8.3.1).
fn one_host(head: &mut request::Parts) -> Result<(), FramingError> {
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    let differs = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    if head.headers.get_all(HOST).iter().any(differs) {
        return Err(FramingError::AuthorityAndHost);
    }
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        head.headers.insert(HOST, host);
    }
    Ok(())
}

/// The scheme is the connection's own, and the authority is in `Host`.
fn origin_form(uri: &Uri) -> Uri {
    Uri::from(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// HTTP/2 may send cookies one by one, which HTTP/1.1 knows as one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())) {
        headers.insert(COOKIE, joined);
    }
}

/// Takes out of a response what HTTP/2 has no use for, and says a switch in its words.
pub fn translate_response(head: &mut response::Parts, asked: Asked) {
    head.version = Version::HTTP_2;
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        head.headers.remove(name);
    }
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6. Over HTTP/1.1 hyper takes it out; some clients of HTTP/2 take it for a broken answer.
        head.headers.remove(CONTENT_LENGTH);
    }
    if asked == Asked::WebSocket {
        head.status = match head.status {
            // RFC 8441 section 5: any 2xx, and the accept value has no meaning.
            StatusCode::SWITCHING_PROTOCOLS => StatusCode::OK,
            // A 426 names protocols in `Upgrade`, which HTTP/2 has not (RFC 9113 section 8.2.2).
            StatusCode::UPGRADE_REQUIRED => StatusCode::BAD_REQUEST,
            other => other,
        };
        head.headers.remove(SEC_WEBSOCKET_ACCEPT);
    }
}

/// The key of an opening handshake, which HTTP/2 does without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(HeaderValue);

/// Turns a request of HTTP/1.1 for an upstream into one of HTTP/2. An opening handshake becomes an extended CONNECT, for
/// which `:protocol` is to be `websocket`, and its key is answered.
///
/// # Errors
/// When its `Host` is no authority.
pub fn request_to_http2(head: &mut request::Parts, scheme: Scheme) -> Result<Option<Key>, http::Error> {
    let is_websocket = upgrade::intent(&head.headers) == Intent::WebSocket;
    let takes_trailers = token_list::contains(&head.headers, &TE, "trailers");
    let host = head.headers.remove(HOST).unwrap_or_else(|| HeaderValue::from_static(""));
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build()?;
    head.version = Version::HTTP_2;
    hop_by_hop::remove(&mut head.headers);
    if takes_trailers {
        // The one thing that HTTP/2 lets it say (RFC 9113 section 8.2.2).
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !is_websocket {
        return Ok(None);
    }
    head.method = Method::CONNECT;
    Ok(head.headers.remove(SEC_WEBSOCKET_KEY).map(Key))
}

/// Turns an upstream's answer into the one of HTTP/1.1 that it stands for; `key` is that of the opening handshake.
pub fn response_from_http2(head: &mut response::Parts, key: Option<&Key>) {
    head.version = Version::HTTP_11;
    hop_by_hop::remove(&mut head.headers);
    // RFC 8441 section 5: any 2xx accepts, and the value has no meaning there, whatever it says.
    head.headers.remove(SEC_WEBSOCKET_ACCEPT);
    let Some(Key(key)) = key.filter(|_| head.status.is_success()) else { return };
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    upgrade::write_pair(&mut head.headers);
    let accept = key.to_str().map(key::accept_value).ok().and_then(|accept| HeaderValue::try_from(accept).ok());
    if let Some(accept) = accept {
        head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    const NONCE: [u8; 16] = *b"the sample nonce";

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 16 * 1024, max_fields: 100 };

    fn head(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_websocket_becomes_the_opening_handshake_it_stands_for() {
        let mut head = head(
            "CONNECT",
            "https://gate.example:8443/chat?a=b",
            &[("sec-websocket-version", "13"), ("sec-websocket-key", "of the client")],
        );
        assert_eq!(translate_request(&mut head, Some("websocket"), NONCE, LIMITS), Ok(Asked::WebSocket));
        assert_eq!((&head.method, head.uri.to_string().as_str()), (&Method::GET, "/chat?a=b"));
        for (name, value) in [
            ("host", "gate.example:8443"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(head.headers[name], value);
            assert_eq!(head.headers.get_all(name).iter().count(), 1);
        }
    }

    #[test]
    fn other_tunnels_stay_what_they_are() {
        for protocol in [None, Some("connect-udp"), Some("websocket2"), Some("")] {
            let mut head = head("CONNECT", "https://gate.example/", &[]);
            assert_eq!(translate_request(&mut head, protocol, NONCE, LIMITS), Ok(Asked::Tunnel), "{protocol:?}");
            assert_eq!(head.method, Method::CONNECT);
        }
    }

    #[test]
    fn the_authority_is_the_host_and_no_other() {
        for (uri, host, expected) in [
            ("https://a.example/", None, Ok("a.example")),
            ("https://a.example/", Some("A.example"), Ok("a.example")),
            ("https://a.example/", Some("b.example"), Err(FramingError::AuthorityAndHost)),
            ("https://a.example:1/", Some("a.example"), Err(FramingError::AuthorityAndHost)),
            ("/", Some("b.example"), Ok("b.example")),
        ] {
            let fields: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let mut head = head("GET", uri, &fields);
            let seen =
                translate_request(&mut head, None, NONCE, LIMITS).map(|_| head.headers["host"].to_str().unwrap());
            assert_eq!(seen, expected, "{uri} {host:?}");
        }
        let mut two = head("GET", "https://a.example/", &[("host", "a.example"), ("host", "b.example")]);
        assert_eq!(translate_request(&mut two, None, NONCE, LIMITS), Err(FramingError::AuthorityAndHost));
    }

    #[test]
    fn cookies_are_one_field_and_fields_are_counted() {
        // Browsers send each cookie by itself: over HTTP/1.1 the same request has two fields.
        let mut crumbs =
            head("GET", "https://a.example/", &[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("accept", "*")]);
        assert_eq!(
            translate_request(&mut crumbs, None, NONCE, HeadLimits { max_fields: 2, ..LIMITS }),
            Ok(Asked::Response)
        );
        let cookies: Vec<_> = crumbs.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        let mut many = head("GET", "/", &[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(
            translate_request(&mut many, None, NONCE, HeadLimits { max_fields: 2, ..LIMITS }),
            Err(FramingError::TooManyFields)
        );
    }

    #[test]
    fn there_is_one_length() {
        let twice = [("content-length", "3"), ("content-length", "3")];
        for (fields, expected) in [(&twice[..1], Ok(Asked::Response)), (&twice, Err(FramingError::ContentLength))] {
            let mut head = head("POST", "https://a.example/", fields);
            assert_eq!(translate_request(&mut head, None, NONCE, LIMITS), expected);
        }
    }

    #[test]
    fn white_space_around_a_value_is_malformed() {
        for (value, expected) in [
            ("a b", Ok(Asked::Response)),
            ("", Ok(Asked::Response)),
            (" a", Err(FramingError::FieldValue)),
            ("a ", Err(FramingError::FieldValue)),
            ("\ta", Err(FramingError::FieldValue)),
            ("a\t", Err(FramingError::FieldValue)),
            (" ", Err(FramingError::FieldValue)),
        ] {
            let mut head = head("GET", "https://a.example/", &[("x", value)]);
            assert_eq!(translate_request(&mut head, None, NONCE, LIMITS), expected, "{value:?}");
        }
    }

    #[test]
    fn a_tunnel_has_no_length_of_its_own() {
        for length in ["0", "5", "x"] {
            for protocol in [None, Some("websocket"), Some("connect-udp")] {
                let mut head = head("CONNECT", "https://gate.example/", &[("content-length", length)]);
                let refused = Err(FramingError::ConnectContentLength);
                assert_eq!(translate_request(&mut head, protocol, NONCE, LIMITS), refused, "{protocol:?} {length}");
            }
        }
    }

    #[test]
    fn a_head_is_as_large_as_its_header_list() {
        // :method GET, :scheme https, :authority a.example, :path /, and one field.
        let size = (7 + 3) + (7 + 5) + (10 + 9) + (5 + 1) + (1 + 1) + 5 * 32;
        for (max_bytes, expected) in [(size, Ok(Asked::Response)), (size - 1, Err(FramingError::HeadTooLarge))] {
            let mut head = head("GET", "https://a.example/", &[("x", "1")]);
            let limits = HeadLimits { max_bytes, ..LIMITS };
            assert_eq!(translate_request(&mut head, None, NONCE, limits), expected);
        }
        let mut long = head("GET", &format!("https://a.example/{}", "a".repeat(20_000)), &[]);
        assert_eq!(translate_request(&mut long, None, NONCE, LIMITS), Err(FramingError::HeadTooLarge));
    }

    #[test]
    fn a_response_says_nothing_of_connections() {
        for (status, asked, expected) in [
            (101, Asked::WebSocket, 200),
            (426, Asked::WebSocket, 400),
            (403, Asked::WebSocket, 403),
            (426, Asked::Response, 426),
            (204, Asked::Response, 204),
        ] {
            let response = Response::builder()
                .status(status)
                .header("connection", "close")
                .header("upgrade", "websocket")
                .header("keep-alive", "5")
                .header("x-own", "stays");
            let response = if status == 204 { response.header("content-length", "2") } else { response };
            let mut head = response.body(()).unwrap().into_parts().0;
            translate_response(&mut head, asked);
            assert_eq!(head.status, expected);
            assert_eq!(head.headers.len(), 1, "{:?}", head.headers);
        }
    }

    #[test]
    fn upstream_an_opening_handshake_becomes_an_extended_connect_and_its_acceptance_a_101() {
        let mut asked = head(
            "GET",
            "/chat?a=b",
            &[
                ("host", "chat.example:8443"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
            ],
        );
        let key = request_to_http2(&mut asked, Scheme::HTTPS).unwrap().unwrap();
        assert_eq!(
            (&asked.method, asked.uri.to_string().as_str()),
            (&Method::CONNECT, "https://chat.example:8443/chat?a=b")
        );
        let names: Vec<_> = asked.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["sec-websocket-version"]);
        for (status, key, expected, accept) in [
            (200, Some(&key), 101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            (204, Some(&key), 101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            (403, Some(&key), 403, None),
            (200, None, 200, None),
        ] {
            let response = Response::builder().status(status).header("sec-websocket-accept", "of the upstream");
            let mut head = response.body(()).unwrap().into_parts().0;
            response_from_http2(&mut head, key);
            assert_eq!(head.status, expected);
            let seen = head.headers.get("sec-websocket-accept").map(|accept| accept.to_str().unwrap());
            assert_eq!(seen, accept, "{status}");
        }
    }

    #[test]
    fn upstream_a_plain_request_says_nothing_of_connections() {
        let fields = [("host", "a.example"), ("connection", "te"), ("te", "trailers"), ("x-own", "stays")];
        let mut asked = head("POST", "/form", &fields);
        assert_eq!(request_to_http2(&mut asked, Scheme::HTTP).unwrap(), None);
        assert_eq!(asked.uri.to_string(), "http://a.example/form");
        let mut names: Vec<_> = asked.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["te", "x-own"]);
    }
}
