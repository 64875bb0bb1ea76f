//! The relay over in-memory pipes, on paused time.

#![allow(clippy::disallowed_methods, reason = "tests start their own peers")]

mod bytes;
mod closing;
mod frames;
mod heartbeat;
mod sockets;
mod timers;

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::{
    config::relay_policy::{Frames, Policy},
    protocol::websocket::{
        close,
        frame::{self, ControlKind, tests::frame as data},
    },
};

/// A relay between two pipes, and their far ends.
struct Rig {
    client: Peer,
    server: Peer,
    control: Arc<Control>,
    relay: JoinHandle<Report>,
}

fn off() -> Policy {
    Policy { frames: Frames::Off, ..Policy::default() }
}

impl Rig {
    fn new(policy: Policy) -> Self {
        Self::with(policy, Session::default(), 64 * 1024, (b"", b""))
    }

    fn with(policy: Policy, session: Session, room: usize, early: (&'static [u8], &'static [u8])) -> Self {
        let (client, down) = duplex(room);
        let (server, up) = duplex(room);
        let leg = |stream, early| Leg { stream, early: Bytes::from_static(early) };
        let control = Arc::new(Control::default());
        let relay = relay(leg(down, early.0), leg(up, early.1), Arc::new(policy), session, Arc::clone(&control));
        Self {
            client: Peer { stream: client, mask: Some([1, 2, 3, 4]) },
            server: Peer { stream: server, mask: None },
            control,
            relay: tokio::spawn(relay),
        }
    }

    async fn report(self) -> Report {
        tokio::time::timeout(Duration::from_secs(3600), self.relay).await.unwrap().unwrap()
    }
}

/// One frame as it was read, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn close(code: u16) -> Self {
        Self { first: 0x88, payload: close::payload(code, "") }
    }
}

struct Peer {
    stream: DuplexStream,
    /// Frames it writes are masked with this; those it reads are masked when this is `None`.
    mask: Option<[u8; 4]>,
}

impl Peer {
    fn frame(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        data(first, payload, self.mask)
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        let bytes = self.frame(first, payload);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn close(&mut self, code: u16) {
        let bytes = frame::control(ControlKind::Close, &close::payload(code, ""), self.mask);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next frame; `None` at the end of the stream. Panics on half a frame and on a wrong mask.
    async fn frame_read(&mut self) -> Option<Frame> {
        let first = self.stream.read_u8().await.ok()?;
        let second = self.stream.read_u8().await.unwrap();
        assert_eq!(second & 0x80 != 0, self.mask.is_none(), "only what goes upstream is masked");
        let length = match second & 0x7f {
            126 => u64::from(self.stream.read_u16().await.unwrap()),
            127 => self.stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        if self.mask.is_none() {
            self.stream.read_exact(&mut mask).await.unwrap();
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Some(Frame { first, payload })
    }

    async fn expect(&mut self, first: u8, payload: &[u8]) {
        assert_eq!(self.frame_read().await, Some(Frame { first, payload: payload.to_vec() }));
    }

    async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.frame_read().await, Some(Frame::close(code)));
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.frame_read().await, None);
    }

    /// Nothing comes for a second, not even the end of the stream.
    async fn expect_silence(&mut self) {
        let read = tokio::time::timeout(Duration::from_secs(1), self.frame_read()).await;
        assert!(read.is_err(), "{read:?}");
    }
}
