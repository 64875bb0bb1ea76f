//! An upstream's stream after the opening handshake was refused, as hyper sees it: fresh.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::opening::Opening;

/// Gives hyper what was heard already, then the stream; what hyper writes is the head that was sent already.
pub(super) struct ReplayIo {
    opening: Opening,
    asked: bool,
    reader: Option<Waker>,
}

impl ReplayIo {
    pub(super) fn new(opening: Opening) -> Self {
        Self { opening, asked: false, reader: None }
    }
}

impl AsyncRead for ReplayIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.asked {
            // An answer before the request is a fault in hyper's eyes.
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (wire, heard) = self.opening.stream();
        if heard.is_empty() {
            return Pin::new(wire).poll_read(cx, buf);
        }
        let count = heard.len().min(buf.remaining());
        buf.put_slice(&heard.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReplayIo {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// What the upstream has not taken yet of the head goes out in its stead.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // One that refuses a head without reading it to its end has answered all the same (RFC 9112 §9.5).
        self.opening.poll_send(cx).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.opening.stream().0).poll_shutdown(cx)
    }
}
