//! Interim responses of an upstream (RFC 9110 §15.2): their limits, and the forwarded part.

use bytes::{Buf, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, TRAILER},
};
use httparse::Status;
use memchr::memchr;
use thiserror::Error;

use super::{hop_by_hop, websocket::capitals};

/// Most interim responses of one exchange. A server that reports its progress once a second stays below it for longer
/// than the default `response_timeout`.
pub const MAX_COUNT: usize = 64;

/// Maximum bytes of all interim responses of one exchange. Early hints take one to a few KiB. Also limits what is
/// buffered for a client that does not read.
pub const MAX_BYTES: usize = 32 * 1024;

/// Most fields in one; hyper takes as many.
const MAX_FIELDS: usize = 100;

/// An upstream sent too many interim responses, or too large ones.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("more than {MAX_COUNT} interim responses or {MAX_BYTES} bytes of them (RFC 9110 section 15.2)")]
pub struct TooManyInterim;

/// An interim response as it is forwarded.
#[derive(Clone, Debug)]
pub struct Interim {
    /// Its status, never 100 or 101.
    pub status: StatusCode,
    /// Its fields, without those that end at this hop.
    pub headers: HeaderMap,
}

impl Interim {
    /// Returns what is forwarded of an interim response; `None` for 100 and 101, which concern this hop alone.
    ///
    /// Fields about a body are removed too: an interim response has none, and a client that believed them would read the
    /// final response as one.
    pub fn forwarded(status: StatusCode, mut headers: HeaderMap) -> Option<Self> {
        if !status.is_informational() || status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        hop_by_hop::remove(&mut headers);
        for name in [CONTENT_LENGTH, TRAILER] {
            headers.remove(name);
        }
        Some(Self { status, headers })
    }

    /// Adds it as it goes onto the wire of HTTP/1.1.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            capitals::write(out, name.as_str());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Counts the interim responses of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    count: usize,
    bytes: usize,
}

impl Budget {
    /// Takes in one more of so many bytes.
    ///
    /// # Errors
    /// [`TooManyInterim`] when it is one too many.
    pub fn take(&mut self, bytes: usize) -> Result<(), TooManyInterim> {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.check(0)
    }

    /// Whether there were any.
    pub fn is_used(&self) -> bool {
        self.count > 0
    }

    fn check(&self, unfinished: usize) -> Result<(), TooManyInterim> {
        let within = self.count <= MAX_COUNT && self.bytes.saturating_add(unfinished) <= MAX_BYTES;
        if within { Ok(()) } else { Err(TooManyInterim) }
    }
}

/// What fields take on the wire of HTTP/1.1, about as much as they take in memory.
pub fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Finds the interim responses at the beginning of an HTTP/1.1 response that arrives in arbitrary pieces.
#[derive(Debug, Default)]
pub struct Follower {
    budget: Budget,
    /// The final response has begun.
    done: bool,
    /// What has come of an interim response, or of a status line that may be one.
    head: BytesMut,
    /// Number of bytes already searched for the end of the head.
    scanned: usize,
}

impl Follower {
    /// A further response begins.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Takes in what has come, and gives each interim response that is to be forwarded to `found`.
    ///
    /// What is no HTTP ends the following: whoever reads the response says what is wrong with it.
    ///
    /// # Errors
    /// [`TooManyInterim`]; the response cannot be read on.
    pub fn advance(&mut self, bytes: &[u8], mut found: impl FnMut(Interim)) -> Result<(), TooManyInterim> {
        if self.done {
            return Ok(());
        }
        if self.head.is_empty() && kind(bytes) == Some(Kind::Final) {
            // Nearly every response: nothing of it is copied.
            self.done = true;
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        loop {
            match kind(&self.head) {
                Some(Kind::Interim) => {}
                Some(Kind::Final) => {
                    self.done = true;
                    self.head = BytesMut::new();
                    return Ok(());
                }
                None => break,
            }
            let Some(end) = self.end() else { break };
            self.budget.take(end)?;
            if let Some(interim) = self.head.get(..end).and_then(parse) {
                found(interim);
            }
            self.head.advance(end);
            self.scanned = 0;
        }
        self.budget.check(self.head.len())
    }

    /// The length of the head at the beginning, where its end has come.
    fn end(&mut self) -> Option<usize> {
        let mut at = self.scanned;
        while let Some(ahead) = self.head.get(at..).and_then(|rest| memchr(b'\n', rest)) {
            at += ahead + 1;
            match self.head.get(at..).unwrap_or_default() {
                [b'\n', ..] => return Some(at + 1),
                [b'\r', b'\n', ..] => return Some(at + 2),
                // The next piece decides.
                [] | [b'\r'] => {
                    self.scanned = at - 1;
                    return None;
                }
                _ => {}
            }
        }
        self.scanned = self.head.len();
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Interim,
    Final,
}

/// What begins here; `None` while that is open. The empty lines that hyper skips before a head are skipped here too.
fn kind(bytes: &[u8]) -> Option<Kind> {
    const VERSION: &[u8] = b"HTTP/1.";
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let line = bytes.get(skipped..).unwrap_or_default();
    let begun = line.get(..VERSION.len()).unwrap_or(line);
    if !VERSION.starts_with(begun) {
        return Some(Kind::Final);
    }
    match line.get(9..12) {
        // To hyper it is a final response.
        Some(b"101") => Some(Kind::Final),
        Some([b'1', ..]) => Some(Kind::Interim),
        Some(_) => Some(Kind::Final),
        None => line.get(9).filter(|digit| **digit != b'1').map(|_| Kind::Final),
    }
}

fn parse(head: &[u8]) -> Option<Interim> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(Status::Complete(_)) = response.parse(head) else { return None };
    let status = StatusCode::from_u16(response.code?).ok()?;
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Interim::forwarded(status, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, as it is forwarded, and whether the final response was seen.
    fn follow(text: &str, piece: usize) -> (Result<(), TooManyInterim>, String, bool) {
        let (mut follower, mut out) = (Follower::default(), Vec::new());
        let mut result = Ok(());
        for part in text.as_bytes().chunks(piece) {
            result = follower.advance(part, |interim| interim.write(&mut out));
            if result.is_err() {
                break;
            }
        }
        (result, String::from_utf8(out).unwrap(), follower.done)
    }

    #[test]
    fn interim_responses_are_found_in_whatever_pieces_they_come() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let dropped = "HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\
                       Transfer-Encoding: chunked\r\nTrailer: x\r\nKeep-Alive: 1\r\nUpgrade: a\r\n\r\n";
        let bare = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let done = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 Body\r\n\r\n";
        for (text, expected) in [
            (done.to_owned(), String::new()),
            (format!("{hints}{done}"), hints.to_owned()),
            (format!("{hints}{hints}{done}"), hints.repeat(2)),
            (format!("\r\n\r\n{hints}\r\n{done}"), hints.to_owned()),
            (format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{done}"), hints.to_owned()),
            (format!("{dropped}{done}"), bare.to_owned()),
            (format!("HTTP/1.1 102\nX: 1\n\n{done}"), "HTTP/1.1 102 Processing\r\nX: 1\r\n\r\n".to_owned()),
            (format!("HTTP/1.0 199 Any\r\n\r\n{done}"), "HTTP/1.1 199 \r\n\r\n".to_owned()),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), String::new()),
            ("SSH-2.0\r\n\r\n".to_owned(), String::new()),
            ("HTTP/1.1 1".to_owned() + "000 x\r\n", String::new()),
        ] {
            for piece in [1, 2, 3, 7, 10, 1000] {
                let (result, found, is_done) = follow(&text, piece);
                assert_eq!((result, found.as_str()), (Ok(()), expected.as_str()), "{text:?} in pieces of {piece}");
                assert!(is_done || text.contains("1000"), "{text:?}");
            }
        }
    }

    #[test]
    fn too_many_and_too_large_ones_are_an_error() {
        let one = "HTTP/1.1 103 x\r\n\r\n";
        let done = "HTTP/1.1 200 OK\r\n\r\n";
        let field = "a".repeat(1000);
        let large = format!("HTTP/1.1 103 x\r\nX: {field}\r\n\r\n");
        for (text, within) in [
            (one.repeat(MAX_COUNT) + done, true),
            (one.repeat(MAX_COUNT + 1) + done, false),
            (large.repeat(30) + done, true),
            (large.repeat(33) + done, false),
            // Without an end.
            (format!("HTTP/1.1 103 x\r\nX: {}", "a".repeat(MAX_BYTES)), false),
            // Two thousand 100 count like others.
            ("HTTP/1.1 100 Continue\r\n\r\n".repeat(2000), false),
        ] {
            for piece in [1, 17, 100_000] {
                assert_eq!(follow(&text, piece).0.is_ok(), within, "{} bytes in pieces of {piece}", text.len());
            }
        }
    }

    #[test]
    fn only_what_is_meant_for_the_client_is_forwarded() {
        for (status, forwarded) in
            [(100, false), (101, false), (102, true), (103, true), (104, true), (199, true), (200, false)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Interim::forwarded(status, HeaderMap::new()).is_some(), forwarded, "{status}");
        }
    }
}
