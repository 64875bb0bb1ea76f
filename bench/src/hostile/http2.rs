//! Frames of HTTP/2 as an attacker writes them (RFC 9113 §4.1), with header fields as plain literals (RFC 7541 §6.2).

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a connection begins with; the window for answers is as large as it can be.
pub(super) fn opening() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()));
    bytes
}

/// The number of the stream of the request with this number.
pub(super) fn stream(number: u32) -> u32 {
    number * 2 + 1
}

/// `GET /` for `localhost`.
pub(super) fn get() -> Vec<u8> {
    let mut block = vec![0x82, 0x84, 0x87];
    literal(&mut block, 0x01, "localhost");
    block
}

/// An opening handshake (RFC 8441). Its `Sec-WebSocket-Protocol` is put into the table by the first request of a
/// connection, and is one byte from then on.
pub(super) fn handshake(number: u32, subprotocols: &str) -> Vec<u8> {
    let mut block = Vec::new();
    literal(&mut block, 0x02, "CONNECT");
    block.extend([0x84, 0x87]);
    literal(&mut block, 0x01, "localhost");
    block.push(0);
    text(&mut block, ":protocol");
    text(&mut block, "websocket");
    block.push(0);
    text(&mut block, "sec-websocket-version");
    text(&mut block, "13");
    if number == 0 {
        block.push(0x40);
        text(&mut block, "sec-websocket-protocol");
        text(&mut block, subprotocols);
    } else {
        block.push(0x80 | 62);
    }
    block
}

fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(name);
    text(block, value);
}

/// A string (RFC 7541 §5.2), its length as an integer with a prefix of seven bits.
fn text(block: &mut Vec<u8>, text: &str) {
    let length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap_or_default());
    } else {
        block.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            block.push(0x80 | u8::try_from(rest % 128).unwrap_or_default());
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or_default());
    }
    block.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_have_their_length_in_several_bytes() {
        let mut block = Vec::new();
        // Appendix C.1.2 of RFC 7541, with a prefix of seven bits: 1306 is 31 and 154 and 10.
        text(&mut block, &"a".repeat(1306 + 127));
        assert_eq!(block[..3], [127, 154, 10]);
        assert_eq!(frame(PING, 1, 3, b"abc"), [0, 0, 3, 6, 1, 0, 0, 0, 3, b'a', b'b', b'c']);
    }
}
