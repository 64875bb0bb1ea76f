//! One stream of an HTTP/2 connection as a byte stream (RFC 8441 §5).
//!
//! DATA frames are the bytes, and windows hold back whoever is too fast. END_STREAM ends a direction, as a TCP half-close
//! does; RST_STREAM is a reset, and a stream that is dropped before both its directions have ended is reset: with CANCEL,
//! or with NO_ERROR by a server that has sent END_STREAM (RFC 9113 §8.1).

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Lease;
use crate::net::Io;

/// Most bytes that a write takes: what a full frame of the default size carries (RFC 9113 §4.2).
const MAX_WRITE: usize = 16 * 1024;

/// See the module page.
pub struct Http2Stream {
    /// `None` once the stream was released.
    halves: Option<Halves>,
    /// The rest of a frame that a read did not take.
    rest: Bytes,
    ended: bool,
}

struct Halves {
    send: SendStream<Bytes>,
    receive: RecvStream,
    _lease: Option<Lease>,
}

impl Http2Stream {
    /// Joins the two halves of a stream.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { halves: Some(Halves { send, receive, _lease: None }), rest: Bytes::new(), ended: false }
    }

    /// The same that keeps its connection from being taken for idle.
    #[must_use]
    pub fn holding(self, lease: Lease) -> Self {
        Self { halves: self.halves.map(|halves| Halves { _lease: Some(lease), ..halves }), ..self }
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(Halves { receive, .. }) = &mut this.halves else { return Poll::Ready(Ok(())) };
        while this.rest.is_empty() {
            match ready!(receive.poll_data(cx)) {
                // Also an empty frame, which is no end.
                Some(Ok(bytes)) => this.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let now = this.rest.split_to(this.rest.remaining().min(buffer.remaining()));
        buffer.put_slice(&now);
        // The window opens again for what was taken. It cannot be more than was received.
        receive.flow_control().release_capacity(now.len()).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(Halves { send, .. }) = &mut this.halves else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let wanted = bytes.len().min(MAX_WRITE);
        // Asked for with bytes in hand, and never more than those: what a stream holds of the connection's window,
        // others go without.
        send.reserve_capacity(wanted);
        let granted = loop {
            // Each look takes the lock of the connection.
            match send.capacity() {
                0 => match ready!(send.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                granted => break granted,
            }
        };
        let now = bytes.get(..wanted.min(granted)).unwrap_or(bytes);
        send.send_data(Bytes::copy_from_slice(now), false).map_err(broken)?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes as soon as it can.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(Halves { send, .. }) = this.halves.as_mut().filter(|_| !this.ended) {
            this.ended = true;
            send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Io for Http2Stream {
    fn release(&mut self) {
        // What was sent still leaves. The library then resets the stream, if the peer has not ended it as well: as a
        // server with NO_ERROR, as a client with CANCEL.
        self.halves = None;
        self.rest = Bytes::new();
    }

    fn reset(&mut self) {
        if let Some(Halves { send, .. }) = &mut self.halves {
            send.send_reset(Reason::CANCEL);
        }
        self.ended = true;
    }
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.halves.as_ref().map(|halves| halves.receive.stream_id());
        f.debug_struct("Http2Stream").field("id", &id).finish_non_exhaustive()
    }
}

/// Whatever ended it before its time is a reset, whichever reason the peer gave.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
