//! Where a request begins and ends, decided from the raw bytes, strictly (RFC 9112 §2.2, §3, §5, §6).
//!
//! Two programs that read one message differently can be played against each other (request smuggling). So a
//! message that leaves any choice is refused before the HTTP library, which is more lenient, sees it.

use http::StatusCode;
use memchr::{memchr, memchr2};
use thiserror::Error;

use super::token_list::is_token_byte;

/// Bounds of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Largest head in bytes, request line and final empty line included.
    pub max_bytes: usize,
    /// Most field lines.
    pub max_fields: usize,
}

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks; see [`super::chunked::ChunkedFollower`].
    Chunked,
}

/// A complete, unambiguous head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How its body is delimited.
    pub body: Body,
    /// Its bytes, with empty lines before it and the one that ends it.
    pub len: usize,
}

/// What makes a request ambiguous or too large.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    /// The head is over its limit.
    #[error("the request head is larger than limits.max_head_size (RFC 6585 section 5)")]
    HeadTooLarge,
    /// Already the request line is.
    #[error("the request line is longer than limits.max_head_size (RFC 9110 section 15.5.15)")]
    RequestLineTooLong,
    /// More field lines than allowed.
    #[error("the request has more fields than limits.max_header_count (RFC 6585 section 5)")]
    TooManyFields,
    /// Not `METHOD SP target SP HTTP/1.x`.
    #[error("the request line is not `method target HTTP/1.1` (RFC 9112 section 3)")]
    RequestLine,
    /// HTTP/2 only: two names for the host.
    #[error("`:authority` and Host differ (RFC 9113 section 8.3.1)")]
    AuthorityAndHost,
    /// HTTP/2 only: a tunnel for something else than WebSocket.
    #[error("this `:protocol` is not carried here (RFC 8441 section 4)")]
    UnknownProtocol,
    /// HTTP/2 only: a tunnel with the length of a body.
    #[error("CONNECT with Content-Length; it has no body (RFC 9110 section 9.3.6)")]
    ConnectContentLength,
    /// The target has a fragment.
    #[error("the request target has a fragment (RFC 9112 section 3.2)")]
    Fragment,
    /// A line that does not end with CRLF.
    #[error("a line ends with a bare CR or LF (RFC 9112 section 2.2)")]
    BareLineEnd,
    /// A line that continues the one before.
    #[error("a field is folded over lines (RFC 9112 section 5.2)")]
    Folded,
    /// No token, a space before the colon, or no colon.
    #[error("a field name is not a token followed by a colon (RFC 9112 section 5.1)")]
    FieldName,
    /// A field that a backend may take for one of framing or of the opening handshake.
    #[error("a field name is a look-alike of a reserved one (RFC 3875 section 4.1.18)")]
    LookAlike,
    /// NUL or another control byte.
    #[error("a field value holds a control byte (RFC 9110 section 5.5)")]
    FieldValue,
    /// Not one plain number.
    #[error("Content-Length is not one number (RFC 9112 section 6.3)")]
    ContentLength,
    /// Two ways to find the end of the body.
    #[error("Content-Length and Transfer-Encoding together (RFC 9112 section 6.1)")]
    LengthAndEncoding,
    /// Not exactly `chunked`, or not HTTP/1.1.
    #[error("Transfer-Encoding is not exactly `chunked` (RFC 9112 section 6.1)")]
    TransferEncoding,
    /// A chunk that is not `size [;ext] CRLF data CRLF`.
    #[error("a chunk is malformed (RFC 9112 section 7.1)")]
    Chunk,
    /// Extensions or trailers beyond their bounds.
    #[error("chunk extensions or trailers are too long (RFC 9112 section 7.1.1)")]
    ChunkTooLong,
}

impl FramingError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "head-too-large",
            Self::RequestLineTooLong => "request-line-too-long",
            Self::TooManyFields => "too-many-fields",
            Self::RequestLine => "request-line",
            Self::AuthorityAndHost => "authority-and-host",
            Self::UnknownProtocol => "unknown-protocol",
            Self::ConnectContentLength => "connect-content-length",
            Self::Fragment => "fragment",
            Self::BareLineEnd => "bare-line-end",
            Self::Folded => "folded-field",
            Self::FieldName => "field-name",
            Self::LookAlike => "field-look-alike",
            Self::FieldValue => "field-value",
            Self::ContentLength => "content-length",
            Self::LengthAndEncoding => "length-and-encoding",
            Self::TransferEncoding => "transfer-encoding",
            Self::Chunk => "chunk",
            Self::ChunkTooLong => "chunk-too-long",
        }
    }

    /// The status that says it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestLineTooLong => StatusCode::URI_TOO_LONG,
            Self::UnknownProtocol => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Empty lines taken before a request line; some old clients send one after a body (RFC 9112 §2.2).
const MAX_EMPTY_LINES: usize = 2;

/// Finds and checks the head at the front of `bytes`; `None` when it is not complete yet.
///
/// `scanned` remembers what was looked through, so that a head that comes byte by byte costs no more than one that
/// comes whole. It is for the caller to keep, and to set to zero for the next head.
///
/// # Errors
/// As soon as it is certain, see [`FramingError`].
pub fn head(bytes: &[u8], limits: &HeadLimits, scanned: &mut usize) -> Result<Option<Head>, FramingError> {
    let Some(start) = find_start(bytes)? else {
        return Ok(None);
    };
    let window = bytes.get(..limits.max_bytes).unwrap_or(bytes);
    // The empty line that ends a head has two bytes before its LF and the LF before it.
    let from = scanned.saturating_sub(3).max(start);
    let Some(len) = find_end(window, from)? else {
        *scanned = window.len();
        if window.len() < limits.max_bytes {
            return Ok(None);
        }
        let one_line = !window.iter().skip(start).any(|byte| *byte == b'\n');
        return Err(if one_line { FramingError::RequestLineTooLong } else { FramingError::HeadTooLarge });
    };
    let body = check(bytes.get(start..len).unwrap_or_default(), limits.max_fields)?;
    Ok(Some(Head { body, len }))
}

/// Where the request line begins, after empty lines; `None` while that is open.
///
/// Says no to what is not HTTP at its first bytes: waiting for the end of a TLS hello would take until the deadline.
fn find_start(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let mut rest = bytes;
    for _ in 0..MAX_EMPTY_LINES {
        rest = match rest {
            [b'\r'] | [] => return Ok(None),
            [b'\r', b'\n', more @ ..] => more,
            _ => rest,
        };
    }
    if rest.is_empty() {
        return Ok(None);
    }
    // One byte beyond the longest method: the space has to be there.
    let front = rest.get(..=MAX_METHOD).unwrap_or(rest);
    let method = front.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Err(FramingError::RequestLine);
    }
    Ok(Some(bytes.len() - rest.len()))
}

/// The longest registered method has 17 bytes.
const MAX_METHOD: usize = 32;

/// The end of the first empty line at or after `from`.
///
/// A CR or LF that is not half of a CRLF is refused where it stands: a reader that takes it for the end of a line, or
/// of the head, sees another message than one that does not.
fn find_end(bytes: &[u8], from: usize) -> Result<Option<usize>, FramingError> {
    let mut at = from;
    while let Some(ahead) = bytes.get(at..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
        at += ahead;
        let (before, rest) = bytes.split_at_checked(at).unwrap_or_default();
        // `from` may lie inside a pair.
        let (line, pair) = match rest {
            [b'\r', b'\n', ..] => (before, 2),
            [b'\r'] => return Ok(None),
            [b'\n', ..] => (before.strip_suffix(b"\r").ok_or(FramingError::BareLineEnd)?, 1),
            _ => return Err(FramingError::BareLineEnd),
        };
        at += pair;
        if line.ends_with(b"\r\n") {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn check(head: &[u8], max_fields: usize) -> Result<Body, FramingError> {
    let mut lines = Lines(head);
    let http_10 = check_request_line(lines.next_line()?)?;
    let mut fields = 0usize;
    let mut length = None;
    let mut chunked = false;
    loop {
        let line = lines.next_line()?;
        if line.is_empty() {
            break;
        }
        fields += 1;
        if fields > max_fields {
            return Err(FramingError::TooManyFields);
        }
        let (name, value) = split_field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let parsed = parse_length(value).ok_or(FramingError::ContentLength)?;
            if length.replace(parsed).is_some() {
                return Err(FramingError::ContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FramingError::TransferEncoding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(FramingError::LengthAndEncoding),
        (None, true) => Ok(Body::Chunked),
        (Some(0) | None, false) => Ok(Body::None),
        (Some(length), false) => Ok(Body::Length(length)),
    }
}

struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its CRLF.
    fn next_line(&mut self) -> Result<&'a [u8], FramingError> {
        let at = memchr2(b'\r', b'\n', self.0).ok_or(FramingError::BareLineEnd)?;
        let (line, rest) = self.0.split_at_checked(at).ok_or(FramingError::BareLineEnd)?;
        self.0 = rest.strip_prefix(b"\r\n").ok_or(FramingError::BareLineEnd)?;
        Ok(line)
    }
}

/// Answers whether the version is HTTP/1.0.
fn check_request_line(line: &[u8]) -> Result<bool, FramingError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FramingError::RequestLine);
    };
    if method.is_empty() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Err(FramingError::RequestLine);
    }
    if target.contains(&b'#') {
        return Err(FramingError::Fragment);
    }
    // Bytes above ASCII are not allowed either, but are common enough in paths, and harmless: nobody folds them.
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(FramingError::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(FramingError::RequestLine),
    }
}

/// Splits `name: value`; the value comes without the white space around it.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingError> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Err(FramingError::Folded);
    }
    let colon = memchr(b':', line).ok_or(FramingError::FieldName)?;
    let (name, rest) = line.split_at_checked(colon).ok_or(FramingError::FieldName)?;
    if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) {
        return Err(FramingError::FieldName);
    }
    let value = rest.strip_prefix(b":").unwrap_or_default();
    // To the end of it, whatever it finds: so the compiler looks at many bytes at once.
    if value.iter().fold(false, |bad, byte| bad | (*byte < b' ') & (*byte != b'\t') | (*byte == 0x7f)) {
        return Err(FramingError::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 400, max_fields: 4 };

    fn whole(bytes: &[u8]) -> Result<Option<Head>, FramingError> {
        head(bytes, &LIMITS, &mut 0)
    }

    fn body(fields: &str) -> Result<Body, FramingError> {
        let text = format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        whole(text.as_bytes()).map(|head| head.expect("complete").body)
    }

    #[test]
    fn framing_of_sound_requests() {
        for (fields, expected) in [
            ("", Body::None),
            ("Content-Length: 0\r\n", Body::None),
            ("Content-Length: 12\r\n", Body::Length(12)),
            ("content-length:12 \r\n", Body::Length(12)),
            ("Transfer-Encoding: chunked\r\n", Body::Chunked),
            ("transfer-encoding: CHUNKED\r\n", Body::Chunked),
            ("X: a\tb\r\nY:\r\n", Body::None),
        ] {
            assert_eq!(body(fields), Ok(expected), "{fields:?}");
        }
    }

    #[test]
    fn a_field_that_can_be_read_two_ways_is_refused() {
        use FramingError as E;
        for (fields, expected, attack) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", E::LengthAndEncoding, "CL.TE"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", E::LengthAndEncoding, "TE.CL"),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", E::ContentLength, "two lengths"),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", E::ContentLength, "the same twice"),
            ("Content-Length: 1, 1\r\n", E::ContentLength, "a list"),
            ("Content-Length: +1\r\n", E::ContentLength, "a sign"),
            ("Content-Length: 0x1\r\n", E::ContentLength, "hexadecimal"),
            ("Content-Length:\r\n", E::ContentLength, "empty"),
            ("Content-Length: 99999999999999999999\r\n", E::ContentLength, "over 64 bits"),
            ("Transfer-Encoding: chunked, identity\r\n", E::TransferEncoding, "chunked not last"),
            ("Transfer-Encoding: gzip, chunked\r\n", E::TransferEncoding, "another coding"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", E::TransferEncoding, "TE.TE"),
            ("Transfer-Encoding: xchunked\r\n", E::TransferEncoding, "look-alike"),
            ("Transfer-Encoding : chunked\r\n", E::FieldName, "space before the colon"),
            (" Transfer-Encoding: chunked\r\n", E::Folded, "obs-fold"),
            ("X: a\r\n\tb\r\n", E::Folded, "obs-fold with a tab"),
            ("X: a\nY: b\r\n", E::BareLineEnd, "bare LF"),
            ("X: a\rY: b\r\n", E::BareLineEnd, "bare CR"),
            ("X: a\r\r\n", E::BareLineEnd, "a CR too many"),
            ("\nX: a\r\n", E::BareLineEnd, "a bare LF as the empty line: the rest would be a body"),
            ("X: a\r\n\rY: b\r\n", E::BareLineEnd, "a bare CR as the empty line"),
            ("Transfer-Encoding: \x0bchunked\r\n", E::FieldValue, "TE behind a vertical tab"),
            ("Transfer-Encoding\t: chunked\r\n", E::FieldName, "tab before the colon"),
            ("Transfer-Encoding: chunked;q=1\r\n", E::TransferEncoding, "a parameter"),
            ("Transfer-Encoding: chunked,\r\n", E::TransferEncoding, "an empty member"),
            ("Transfer-Encoding: \"chunked\"\r\n", E::TransferEncoding, "quoted"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", E::TransferEncoding, "TE.TE, the same"),
            ("Transfer-Encoding:\r\n", E::TransferEncoding, "empty coding"),
            ("Transfer-Encoding: x\r\n chunked\r\n", E::TransferEncoding, "TE folded; its first line is wrong already"),
            ("Content-Length: -1\r\n", E::ContentLength, "negative"),
            ("Content-Length: 1 2\r\n", E::ContentLength, "two numbers"),
            ("Content-Length: 1_0\r\n", E::ContentLength, "digit separator"),
            ("Content-Length: 18446744073709551616\r\n", E::ContentLength, "2^64"),
            ("X: a\x7fb\r\n", E::FieldValue, "DEL"),
            ("X: a\0b\r\n", E::FieldValue, "NUL"),
            ("X: a\x0bb\r\n", E::FieldValue, "vertical tab"),
            ("X\0: a\r\n", E::FieldName, "NUL in the name"),
            (": a\r\n", E::FieldName, "no name"),
            ("Xa\r\n", E::FieldName, "no colon"),
            ("A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n", E::TooManyFields, "one over the limit"),
        ] {
            assert_eq!(body(fields), Err(expected), "{attack}");
        }
    }

    #[test]
    fn request_lines() {
        use FramingError as E;
        for (line, expected) in [
            ("GET / HTTP/1.1", Ok(())),
            ("GET * HTTP/1.0", Ok(())),
            ("\r\nGET / HTTP/1.1", Ok(())),
            ("GET  / HTTP/1.1", Err(E::RequestLine)),
            ("GET / HTTP/1.1 ", Err(E::RequestLine)),
            ("GET /\tx HTTP/1.1", Err(E::RequestLine)),
            ("GET / HTTP/2.0", Err(E::RequestLine)),
            ("GET /", Err(E::RequestLine)),
            ("G(T / HTTP/1.1", Err(E::RequestLine)),
            ("GET /#f HTTP/1.1", Err(E::Fragment)),
        ] {
            let text = format!("{line}\r\nHost: a\r\n\r\n");
            assert_eq!(whole(text.as_bytes()).map(|_| ()), expected, "{line:?}");
        }
    }

    #[test]
    fn http_1_0_has_no_chunks() {
        let text = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(whole(text), Err(FramingError::TransferEncoding));
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_bytes() {
        assert_eq!(whole(&[0x16, 0x03, 0x01, 0x02]), Err(FramingError::RequestLine));
        assert_eq!(whole(&[0x81, 0x85, 0x01]), Err(FramingError::RequestLine));
    }

    #[test]
    fn a_head_over_its_limit_is_refused_before_it_ends() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(400));
        assert_eq!(whole(long.as_bytes()), Err(FramingError::HeadTooLarge));
        let long = format!("GET /{}", "a".repeat(400));
        assert_eq!(whole(long.as_bytes()), Err(FramingError::RequestLineTooLong));
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let sized = |len: usize| {
            let front = "GET / HTTP/1.1\r\nX: ";
            format!("{front}{}\r\n\r\n", "a".repeat(len - front.len() - 4))
        };
        assert_eq!(whole(sized(400).as_bytes()), Ok(Some(Head { body: Body::None, len: 400 })));
        assert_eq!(whole(sized(401).as_bytes()), Err(FramingError::HeadTooLarge));
        let after_an_empty_line = format!("\r\nGET /{}", "a".repeat(400));
        assert_eq!(whole(after_an_empty_line.as_bytes()), Err(FramingError::RequestLineTooLong));
        assert_eq!(whole("M".repeat(33).as_bytes()), Err(FramingError::RequestLine));
        assert_eq!(whole("M".repeat(32).as_bytes()), Ok(None));
    }

    #[test]
    fn empty_lines_before_a_request_count_in_its_length() {
        let text = "\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(piecewise(text.as_bytes(), 1), Ok(Some(Head { body: Body::None, len: text.len() })));
        assert_eq!(whole(format!("\r\n{text}").as_bytes()), Err(FramingError::RequestLine));
        assert_eq!(whole(b"\nGET / HTTP/1.1\r\n\r\n"), Err(FramingError::RequestLine));
        assert_eq!(whole(b"\r\n\r\n"), Ok(None));
    }

    #[test]
    fn what_follows_a_head_is_not_looked_at() {
        let text = "GET / HTTP/1.1\r\n\r\n";
        let with_more = format!("{text}\n\r\0");
        assert_eq!(whole(with_more.as_bytes()), Ok(Some(Head { body: Body::None, len: text.len() })));
    }

    fn piecewise(bytes: &[u8], step: usize) -> Result<Option<Head>, FramingError> {
        let mut scanned = 0;
        let mut upto = 0;
        while upto < bytes.len() {
            upto = (upto + step).min(bytes.len());
            let verdict = head(&bytes[..upto], &LIMITS, &mut scanned)?;
            if verdict.is_some() {
                return Ok(verdict);
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(
            text in prop_oneof![
                Just("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
                Just("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_owned()),
                "(GET|P T) /[a-z]{0,3} HTTP/1\\.[01](\r\n|\n|\r)(Host: a(\r\n|\n))?(Content-Length: [0-9,]{0,3}\r\n)?\r\n[a-z]{0,5}",
                // Line ends in every disorder, before, within and after the head.
                "[\r\n]{0,5}GET / HTTP/1.1\r\n(X: a\r\n)?[\r\n]{0,6}(X: a[\r\n]{1,4})?",
                "(\r\n){0,3}GET / HTTP/1.1\r\n(X: a{100,200}\r\n){0,4}\r\n",
                "[A-Z]{28,36}( / HTTP/1.1\r\n\r\n)?",
            ],
            step in 1usize..9,
        ) {
            prop_assert_eq!(piecewise(text.as_bytes(), step), whole(text.as_bytes()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), scanned in 0usize..400) {
            let _verdict = head(&bytes, &LIMITS, &mut { scanned });
        }

        /// What is let through is split by a careless reader (any LF ends a line) as it is by a careful one.
        #[test]
        fn an_accepted_head_has_one_reading(fields in "(X:[ a\r\n\t\0]{0,4}\r\n|[\r\n :]{1,3}){0,3}") {
            let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            if let Ok(Some(found)) = whole(text.as_bytes()) {
                let head = text.get(..found.len).unwrap();
                prop_assert_eq!(head.split('\n').count(), head.split("\r\n").count());
                prop_assert!(head.lines().all(|line| !line.contains('\r') && !line.starts_with([' ', '\t'])));
            }
        }
    }
}
