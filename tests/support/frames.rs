//! WebSocket frames by hand: what a peer puts on the wire, and what it finds there.

use tokio::io::{AsyncRead, AsyncWrite};

use super::Client;

/// What a client of these tests masks with.
pub(crate) const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// One frame as it was read, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close; `None` for any other frame.
    pub(crate) fn code(&self) -> Option<u16> {
        (self.first == CLOSE).then(|| u16::from_be_bytes([self.payload[0], self.payload[1]]))
    }
}

/// The bytes of one frame.
pub(crate) fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(masked | u8::try_from(short).unwrap()),
        middle @ ..0x1_0000 => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(masked | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let Some(key) = mask else {
        bytes.extend_from_slice(payload);
        return bytes;
    };
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

pub(crate) fn close(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes(), mask)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The next frame; `None` at the end of the stream. Half a frame fails the test.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        if self.seen.is_empty() && !self.fill().await {
            return None;
        }
        let start = self.take(2).await;
        let length = match start[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take(2).await.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).await.try_into().unwrap()),
            short => u64::from(short),
        };
        let masked = start[1] & 0x80 != 0;
        let key = if masked { self.take(4).await } else { Vec::new() };
        let mut payload = self.take(usize::try_from(length).unwrap()).await;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Some(Frame { first: start[0], masked, payload })
    }

    /// Takes the Close that must come next; answers its code.
    pub(crate) async fn expect_close(&mut self) -> u16 {
        let frame = self.frame().await.expect("a Close before the end");
        frame.code().unwrap_or_else(|| panic!("not a Close: {frame:?}"))
    }
}

/// Makes the drop of this socket a reset.
pub(crate) fn reset_on_drop(stream: &impl std::os::fd::AsFd) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}
