//! HTTP/2 frame by frame, for what no library would send.

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::{Client, doors::Gate};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const FLOW_CONTROL_ERROR: u32 = 0x3;
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET / ` for `gate.test`, in literals that need no table (RFC 7541 §6.2.2) but the static one.
pub(super) fn request() -> Vec<u8> {
    let mut block = vec![0x82, 0x84, 0x87, 0x41, 9];
    block.extend(b"gate.test");
    block
}

/// A WebSocket at `/` of `gate.test` (RFC 8441 §5), without END_STREAM.
pub(super) fn websocket_request() -> Vec<u8> {
    let mut block = vec![2, 7];
    block.extend(b"CONNECT");
    block.extend([0x84, 0x87, 0x41, 9]);
    block.extend(b"gate.test");
    for (name, value) in [(":protocol", "websocket"), ("sec-websocket-version", "13")] {
        block.extend(field(name, value));
    }
    block
}

/// A field in literals, with a value of up to 2²⁰ bytes (RFC 7541 §5.1).
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    match value.len().checked_sub(127) {
        None => bytes.push(u8::try_from(value.len()).unwrap()),
        Some(mut rest) => {
            bytes.push(127);
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).unwrap());
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
    }
    bytes.extend(value.as_bytes());
    bytes
}

/// A connection that has said hello.
pub(super) async fn begun(gate: &Gate) -> TlsStream<TcpStream> {
    let mut stream = gate.secure(&[b"h2"]).await;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    stream
}

/// The kind and payload of the next frame of the gate.
pub(super) async fn next_frame(client: &mut Client<TlsStream<TcpStream>>) -> (u8, Vec<u8>) {
    let head = client.take(9).await;
    (head[3], client.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).await)
}

/// The code of the GOAWAY that the gate ends with; `None` when it just ends.
pub(super) fn goaway(mut bytes: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = after;
    }
    code
}
