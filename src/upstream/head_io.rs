//! The upstream's stream while the opening handshake is written: the request head leaves with the RFC's capitals.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{net::Wire, protocol::websocket::capitals};

/// See the module page. An upgrade request has no body, so all that hyper writes before the 101 is one head.
pub(super) struct HeadIo {
    io: Wire,
    head: BytesMut,
    complete: bool,
}

impl HeadIo {
    pub(super) fn new(io: Wire) -> Self {
        Self { io, head: BytesMut::new(), complete: false }
    }

    pub(super) fn into_inner(self) -> Wire {
        self.io
    }
}

impl AsyncRead for HeadIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for HeadIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.complete && self.head.is_empty() {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        if self.complete {
            ready!(self.as_mut().poll_flush(cx))?;
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        self.head.extend_from_slice(bytes);
        self.complete = capitals::restore(&mut self.head);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.complete && !this.head.is_empty() {
            let count = ready!(Pin::new(&mut this.io).poll_write(cx, &this.head))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.head.advance(count);
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
