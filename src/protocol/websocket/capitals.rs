//! The capitals of `Sec-WebSocket-*`.
//!
//! Field names are case-insensitive (RFC 9110 §5.1), yet some peers compare `Sec-WebSocket-Key` byte by byte, and
//! hyper knows only lower case and title case (`Sec-Websocket-Key`). The length stays the same, so a head can be
//! corrected in place.

use memchr::memchr;

const WRITTEN: &[u8; 15] = b"\nSec-WebSocket-";

/// Restores the RFC's capitals in a head as far as it is there; `true` once its end (an empty line) is seen.
///
/// Only field names are touched: a match must follow a line end.
pub fn restore(head: &mut [u8]) -> bool {
    let mut at = 0;
    while let Some(ahead) = head.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        at += ahead;
        if head.get(..=at).is_some_and(|upto| upto.ends_with(b"\r\n\r\n")) {
            return true;
        }
        let name = head.get_mut(at..at + WRITTEN.len());
        if let Some(name) = name.filter(|name| name.eq_ignore_ascii_case(WRITTEN)) {
            name.copy_from_slice(WRITTEN);
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_capitals_and_nothing_else_does() {
        let mut head = *b"GET /sec-websocket-x HTTP/1.1\r\nSec-Websocket-Key: sec-websocket-key\r\nsec-websocket-version: 13\r\n\r\n\nsec-websocket-";
        assert!(restore(&mut head));
        assert_eq!(
            head.as_slice(),
            b"GET /sec-websocket-x HTTP/1.1\r\nSec-WebSocket-Key: sec-websocket-key\r\nSec-WebSocket-version: 13\r\n\r\n\nsec-websocket-"
        );
    }

    #[test]
    fn an_unfinished_head_says_so() {
        assert!(!restore(&mut b"GET / HTTP/1.1\r\nSec-Websocket-Key: x\r\n".to_vec()));
    }
}
