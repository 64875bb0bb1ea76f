//! A TLS stream over rustls's unbuffered connection.
//!
//! Ciphertext is read into a buffer that all streams of a thread share, decrypted there, and goes straight to the
//! reader; what is written is encrypted into another and goes straight to the socket. A stream owns a buffer only for
//! what was left over: part of a record, plaintext the reader had no room for, ciphertext the socket did not take.

mod handshake;
mod records;
mod scratch;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{CommonState, Error, client::UnbufferedClientConnection, server::UnbufferedServerConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub use handshake::{Plaintext, accept, connect};
pub use records::Engine;

use super::{HangUp, Io, hang_up, pending_error, reset_on_drop};
use records::{Opened, Outgoing};

/// A connection that a peer opened to us.
pub type ServerStream = TlsStream<UnbufferedServerConnection>;

/// A connection that we opened.
pub type ClientStream = TlsStream<UnbufferedClientConnection>;

/// Plaintext that one write takes at most: four records for a system call.
const MAX_WRITE: usize = 4 * records::MAX_PLAIN;

/// Ciphertext that is read at least, however small the reader's buffer.
const LEAST_READ: usize = 4096;

/// Longest unfinished input. rustls takes handshake messages of up to 64 KiB, which may come in many records.
const MAX_HELD: usize = 0xffff;

/// A TLS connection after its handshake.
pub struct TlsStream<E> {
    socket: TcpStream,
    engine: E,
    /// Ciphertext of a record (or records of a handshake message) of which the rest has not come yet.
    inbound: Vec<u8>,
    /// Decrypted and not read yet.
    plain: Rest,
    /// Encrypted and not taken by the socket yet.
    outbound: Rest,
    reading: Reading,
    writing: Writing,
}

#[derive(Debug)]
enum Reading {
    Open,
    /// The peer said so: close_notify.
    Closed,
    /// The socket ended without it.
    Truncated,
    /// The reader has not been told yet, where the error is still here.
    Failed(Option<io::Error>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// Nothing may follow: close_notify or an alert is out, or queued.
    Closed,
}

/// Bytes of which the front may be gone; no allocation when it is empty.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    gone: usize,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.gone..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.gone += count;
        if self.gone >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl<E: Engine> TlsStream<E> {
    /// Fails if the engine does, which then has nothing to tell the peer.
    fn new(socket: TcpStream, engine: E) -> io::Result<Self> {
        let mut stream = Self {
            socket,
            engine,
            inbound: Vec::new(),
            plain: Rest::default(),
            outbound: Rest::default(),
            reading: Reading::Open,
            writing: Writing::Open,
        };
        // A client has something to say before it hears anything.
        records::open(&mut stream.engine, &mut [], |_| {}, &mut stream.outbound.bytes).map_err(invalid)?;
        Ok(stream)
    }

    /// What rustls knows: version, suite, protocol, kind of handshake.
    pub fn facts(&self) -> &CommonState {
        self.engine.common()
    }

    /// One read of ciphertext and what comes of it. Ready when there is plaintext, or something else to look at.
    fn poll_open(&mut self, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        scratch::inbound(|buffer| {
            let held = self.inbound.len();
            let missing = records::missing(&self.inbound);
            let fitting = records::ciphertext_of(self.engine.common(), reader.remaining().min(MAX_WRITE));
            let room = fitting.max(LEAST_READ).saturating_sub(held).max(missing.unwrap_or(1)).max(1);
            let end = buffer.len().min(held + room);
            let mut fresh = ReadBuf::new(buffer.get_mut(held..end).unwrap_or_default());
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut fresh))?;
            let count = fresh.filled().len();
            if count == 0 {
                self.reading = Reading::Truncated;
                return Poll::Ready(Ok(()));
            }
            if missing.is_some_and(|missing| count < missing) {
                // rustls has seen the header, and there is nothing more to see: a peer that dribbles costs a copy of
                // its bytes, not of the record so far.
                self.inbound.extend_from_slice(fresh.filled());
                return Poll::Ready(Ok(()));
            }
            if let Some(front) = buffer.get_mut(..held) {
                front.copy_from_slice(&self.inbound);
            }
            self.open(buffer.get_mut(..held + count).unwrap_or_default(), reader);
            Poll::Ready(Ok(()))
        })
    }

    /// Decrypts `tls`, what is left of earlier reads at its front, and keeps what is unfinished at its end.
    fn open(&mut self, tls: &mut [u8], reader: &mut ReadBuf<'_>) {
        if self.engine.common().is_handshaking() {
            match handshake::is_plaintext(tls) {
                Some(false) => {}
                Some(true) => return self.fail_in_clear(),
                // Not for rustls: it would call the first letter no record, and nobody would be told what was meant.
                None => {
                    self.inbound.clear();
                    return self.inbound.extend_from_slice(tls);
                }
            }
        }
        let plain = &mut self.plain.bytes;
        let deliver = |bytes: &[u8]| {
            // In order: what does not fit is followed by nothing that does.
            let (now, later) = bytes.split_at_checked(reader.remaining()).unwrap_or((bytes, &[]));
            reader.put_slice(now);
            plain.extend_from_slice(later);
        };
        let behind = !self.outbound.is_empty();
        let opened = records::open(&mut self.engine, tls, deliver, &mut self.outbound.bytes);
        let Opened { consumed, closed } = match opened {
            Ok(opened) => opened,
            Err(error) => return self.fail(error),
        };
        let rest = tls.get(consumed..).unwrap_or_default();
        if closed {
            // What follows a close_notify is ignored (RFC 8446 §6.1).
            self.reading = Reading::Closed;
            self.inbound = Vec::new();
        } else if rest.is_empty() {
            self.inbound = Vec::new();
        } else if rest.len() >= MAX_HELD {
            return self.fail(Error::PeerSentOversizedRecord);
        } else {
            self.inbound.clear();
            self.inbound.extend_from_slice(rest);
        }
        if !behind {
            self.offer();
        }
    }

    /// Offers the socket what is queued, from a reader's call: whoever writes is woken for the rest, not the reader.
    fn offer(&mut self) {
        if self.outbound.is_empty() {
            return;
        }
        // An error shows in the next call that writes or reads.
        if let Ok(count) = self.socket.try_write(self.outbound.as_slice()) {
            self.outbound.advance(count);
        }
    }

    /// Ends the connection over an error, and tells the peer if the socket takes it at once.
    fn fail(&mut self, error: Error) {
        self.reading = Reading::Failed(Some(invalid(error)));
        self.writing = Writing::Closed;
        self.inbound = Vec::new();
        records::farewell(&mut self.engine, &mut self.outbound.bytes);
        self.offer();
    }

    /// How the stream of plaintext ended, if it has.
    fn end(&mut self) -> Option<io::Result<()>> {
        let text = "peer closed the connection without TLS close_notify";
        match &mut self.reading {
            Reading::Open => None,
            Reading::Closed => Some(Ok(())),
            Reading::Truncated => Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))),
            Reading::Failed(error) => Some(Err(error.take().unwrap_or_else(|| io::ErrorKind::InvalidData.into()))),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, self.outbound.as_slice()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outbound.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts and writes; what the socket does not take is queued. Only with nothing queued before.
    fn seal(&mut self, cx: &mut Context<'_>, outgoing: Outgoing<'_>) -> io::Result<()> {
        scratch::outbound(|buffer| {
            let sealed = records::seal(&mut self.engine, &mut self.inbound, outgoing, buffer);
            let length = sealed.map_err(|error| {
                self.fail(error.clone());
                invalid(error)
            })?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                match Pin::new(&mut self.socket).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => rest = rest.get(written?..).unwrap_or_default(),
                    Poll::Pending => {
                        self.outbound.bytes.extend_from_slice(rest);
                        break;
                    }
                }
            }
            Ok(())
        })
    }
}

impl<E: Engine> AsyncRead for TlsStream<E> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if reader.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.plain.is_empty() {
            let rest = this.plain.as_slice();
            let now = rest.split_at_checked(reader.remaining()).map_or(rest, |(now, _)| now);
            let count = now.len();
            reader.put_slice(now);
            this.plain.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = reader.filled().len();
        loop {
            if let Some(end) = this.end() {
                return Poll::Ready(end);
            }
            // A record without plaintext leads to another read; the runtime's budget bounds how often.
            ready!(this.poll_open(cx, reader))?;
            if reader.filled().len() > before {
                // An end behind good records shows in the next call.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<E: Engine> AsyncWrite for TlsStream<E> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.writing == Writing::Closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // What the socket would not take is better not encrypted yet: it would have to be kept.
        ready!(this.socket.poll_write_ready(cx))?;
        let bytes = bytes.split_at_checked(MAX_WRITE).map_or(bytes, |(now, _)| now);
        this.seal(cx, Outgoing::Plain(bytes))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.writing == Writing::Open {
            this.writing = Writing::Closed;
            this.seal(cx, Outgoing::CloseNotify)?;
            ready!(this.poll_drain(cx))?;
        }
        match ready!(Pin::new(&mut this.socket).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

impl<E: Engine> Io for TlsStream<E> {
    fn take_error(&self) -> Option<io::Error> {
        pending_error(&self.socket)
    }

    fn hang_up(&self) -> Option<HangUp> {
        hang_up(&self.socket)
    }

    fn reset(&mut self) {
        // Without close_notify: it would say that all was sent (RFC 8446 §6.1).
        self.writing = Writing::Closed;
        self.outbound = Rest::default();
        reset_on_drop(&self.socket);
    }
}

impl<E> fmt::Debug for TlsStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("reading", &self.reading).field("writing", &self.writing).finish()
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
