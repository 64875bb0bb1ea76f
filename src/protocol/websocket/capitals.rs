//! The capitals of field names, those of `Sec-WebSocket-*` above all.
//!
//! Field names are case-insensitive (RFC 9110 §5.1), yet some peers compare `Sec-WebSocket-Key` byte by byte, and
//! hyper knows only lower case and title case (`Sec-Websocket-Key`). The length stays the same, so a head can be
//! corrected in place.

use memchr::memchr;

const WRITTEN: &[u8; 15] = b"\nSec-WebSocket-";

/// Adds a field name, given in lower case, as the RFCs write it: each word with a capital.
pub fn write(head: &mut Vec<u8>, name: &str) {
    const LOWER: &str = "sec-websocket-";
    let rest = match name.strip_prefix(LOWER) {
        Some(rest) => {
            head.extend_from_slice(b"Sec-WebSocket-");
            rest
        }
        None => name,
    };
    let begins = head.len();
    head.extend_from_slice(rest.as_bytes());
    let mut before = b'-';
    for byte in head.iter_mut().skip(begins) {
        if before == b'-' {
            byte.make_ascii_uppercase();
        }
        before = *byte;
    }
}

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
    fn a_name_is_written_with_a_capital_for_each_word() {
        for (name, written) in [
            ("host", "Host"),
            ("x-forwarded-for", "X-Forwarded-For"),
            ("-a--b-", "-A--B-"),
            ("1st", "1st"),
            ("sec-websocket-key", "Sec-WebSocket-Key"),
            ("sec-websocket-key2", "Sec-WebSocket-Key2"),
            ("sec-websocket-", "Sec-WebSocket-"),
            ("sec-websocket", "Sec-Websocket"),
            ("x-sec-websocket-key", "X-Sec-Websocket-Key"),
        ] {
            let mut head = b"before-".to_vec();
            write(&mut head, name);
            assert_eq!(head, format!("before-{written}").into_bytes());
        }
    }

    #[test]
    fn an_unfinished_head_says_so() {
        assert!(!restore(&mut b"GET / HTTP/1.1\r\nSec-Websocket-Key: x\r\n".to_vec()));
    }
}
