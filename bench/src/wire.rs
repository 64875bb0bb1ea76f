//! What goes over the wire, made once: the opening handshake, and frames as a client and as a server write them.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// The same key in every opening handshake, so that the answer is known beforehand.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The same mask in every frame. Not zero: a zero mask would let a backend skip its work.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a plain GET is answered with.
pub(crate) const BODY: [u8; 128] = [b'.'; 128];

/// Size of a server's frame header for a payload of 126 to 65,535 bytes.
pub(crate) const PUSH_HEADER: usize = 4;

/// A client's opening handshake, with what a browser sends and a gate checks.
pub(crate) fn opening(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Origin: https://app.example.com\r\nUser-Agent: bench\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// A plain request on a connection that stays.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// The accept value for a key (RFC 6455 §4.2.2).
pub(crate) fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// The accept value for the key of [`opening`].
pub(crate) fn expected_accept() -> String {
    accept_value(KEY)
}

/// How long a head is, its empty line included, or `None` while that line has not come.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a field, its name in any case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// First byte, length and mask bit of a frame (RFC 6455 §5.2).
pub(crate) fn frame_header(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut header = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(bit | short),
        (_, Ok(two)) => {
            header.push(bit | 126);
            header.extend_from_slice(&two.to_be_bytes());
        }
        _ => {
            header.push(bit | 127);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header
}

/// A binary message of `size` bytes as the client sends it, and as the echo comes back.
pub(crate) fn echo_pair(size: usize) -> (Vec<u8>, Vec<u8>) {
    // No two neighbouring blocks alike, so that a lost or doubled one shows.
    let payload: Vec<u8> = (0..size).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let mut request = frame_header(0x82, size as u64, true);
    request.extend_from_slice(&MASK);
    let at = request.len();
    request.extend_from_slice(&payload);
    if let Some(body) = request.get_mut(at..) {
        mask(body, MASK);
    }
    let mut reply = frame_header(0x82, size as u64, false);
    reply.extend_from_slice(&payload);
    (request, reply)
}

/// Masks or unmasks, eight bytes at a time where there are so many.
pub(crate) fn mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, rest) = bytes.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_the_rfc() {
        assert_eq!(expected_accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn headers_use_the_shortest_length() {
        assert_eq!(frame_header(0x82, 125, false), [0x82, 125]);
        assert_eq!(frame_header(0x82, 126, true), [0x82, 0xfe, 0, 126]);
        assert_eq!(frame_header(0x82, 65_536, false), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn masking_twice_changes_nothing() {
        for size in 0..40 {
            let plain: Vec<u8> = (0..size).collect();
            let mut masked = plain.clone();
            mask(&mut masked, MASK);
            assert!(masked.iter().enumerate().all(|(at, byte)| *byte == plain[at] ^ MASK[at % 4]));
            mask(&mut masked, MASK);
            assert_eq!(masked, plain);
        }
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let head = "GET / HTTP/1.1\r\nsec-websocket-KEY:  x \r\n\r\n";
        assert_eq!(field(head, "Sec-WebSocket-Key"), Some("x"));
        assert_eq!(field(head, "Host"), None);
        assert_eq!(head_length(head.as_bytes()), Some(head.len()));
    }
}
