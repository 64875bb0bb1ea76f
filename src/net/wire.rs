//! A byte stream of either side, after its transport no longer matters.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{HangUp, Io};

/// A byte stream of either side.
///
/// A bare socket is held in place: a relay looks at both of its sockets for every message, and one look through a
/// pointer less is one cache line less.
pub enum Wire {
    /// A socket whose bytes go onto the wire as they are.
    Tcp(TcpStream),
    /// Anything else.
    Boxed(Box<dyn Io>),
}

impl Wire {
    /// No stream: reads find its end, and writes fail. Stands where one was taken away.
    pub fn none() -> Self {
        // No allocation: it has no size.
        Self::boxed(Nothing)
    }

    /// A stream that is not a bare socket.
    pub fn boxed(stream: impl Io + 'static) -> Self {
        Self::Boxed(Box::new(stream))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Boxed(_) => "Boxed",
        })
    }
}

impl Io for Wire {
    fn take_error(&self) -> Option<io::Error> {
        match self {
            Self::Tcp(stream) => super::pending_error(stream),
            Self::Boxed(stream) => stream.take_error(),
        }
    }

    fn hang_up(&self) -> Option<HangUp> {
        match self {
            Self::Tcp(stream) => super::hang_up(stream),
            Self::Boxed(stream) => stream.hang_up(),
        }
    }

    fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Boxed(stream) => stream.as_tcp(),
        }
    }

    fn release(&mut self) {
        match self {
            Self::Tcp(_) => {}
            Self::Boxed(stream) => stream.release(),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Tcp(stream) => super::reset_on_drop(stream),
            Self::Boxed(stream) => stream.reset(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Boxed(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Boxed(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Boxed(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Boxed(stream) => stream.is_write_vectored(),
        }
    }
}

struct Nothing;

impl AsyncRead for Nothing {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Nothing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Nothing {}
