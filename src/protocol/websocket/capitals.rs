//! The capitals of `Sec-WebSocket-*`.
//!
//! Field names are case-insensitive (RFC 9110 §5.1), yet some peers compare `Sec-WebSocket-Key` byte by byte, and
//! hyper knows only lower case and title case (`Sec-Websocket-Key`). The length stays the same, so a head can be
//! corrected in place.

const WRITTEN: &[u8; 15] = b"\nSec-WebSocket-";

/// Restores the RFC's capitals in a head as far as it is there; `true` once its end (an empty line) is seen.
///
/// Only field names are touched: a match must follow a line end.
pub fn restore(head: &mut [u8]) -> bool {
    let end = end(head);
    let length = end.unwrap_or(head.len());
    let Some(mut rest) = head.get_mut(..length) else { return false };
    while let Some((_, line)) = rest.iter().position(|byte| *byte == b'\n').and_then(|at| rest.split_at_mut_checked(at))
    {
        if let Some(name) = line.get_mut(..WRITTEN.len()).filter(|name| name.eq_ignore_ascii_case(WRITTEN)) {
            name.copy_from_slice(WRITTEN);
        }
        rest = line.get_mut(1..).unwrap_or_default();
    }
    end.is_some()
}

/// Where the empty line after the fields ends.
fn end(head: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += head.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        if head.get(..at)?.ends_with(b"\r\n\r\n") {
            return Some(at);
        }
    }
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
