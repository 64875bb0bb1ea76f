//! The stream that hyper reads: whole, strictly checked heads only, and nothing past a request that is unanswered.
//!
//! hyper is lenient where a gate must not be: it takes a bare LF for a line end and, where a request has both
//! `Transfer-Encoding` and `Content-Length`, drops one of them unseen. So each head is checked here first. One
//! that fails never reaches hyper; a harmless stand-in does, and the stack refuses it like any other request.
//!
//! What a client sends after a request waits here until that request is answered. After a 101 it is the beginning
//! of the relay; after anything else it is a further request and is checked like one.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ConnectionLimits, Malformed, state::State, took_nothing};
use crate::{
    net::{HangUp, Io, Wire, timer::Timer},
    protocol::{
        chunked::ChunkedFollower,
        request_framing::{Body, HeadLimits, head},
        websocket::capitals,
    },
};

/// Takes the place of a head that was refused; the stack never forwards it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// One read from the socket while a head is collected.
const HEAD_READ: usize = 4096;

thread_local! {
    /// What a read lands in: a connection owns no room for bytes that have not come.
    static SCRATCH: RefCell<[u8; HEAD_READ]> = const { RefCell::new([0; HEAD_READ]) };
}

/// After the last response, what still comes is read and dropped for this long and this much, so that the kernel does
/// not reset the connection before the client has read the response (RFC 9112 §9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1024 * 1024);

/// The same during a graceful shutdown, which waits for it; applies when no data is known to be in flight.
const LINGER_AT_STOP: Duration = Duration::from_millis(300);

enum Reading {
    /// Collecting a head. The flag: part of it has arrived, or it is the first of the connection.
    Head {
        begun: bool,
    },
    /// So many bytes of a body are still to come.
    Length(u64),
    Chunked(ChunkedFollower),
    /// The request is complete; what follows waits for the answer.
    Complete,
    /// A stand-in was handed on; nothing is read any more.
    Refused,
}

/// See the module page.
pub(super) struct StrictIo {
    io: Wire,
    state: State,
    limits: Arc<ConnectionLimits>,
    reading: Reading,
    inbound: BytesMut,
    /// How much of the front of `inbound` may be handed on.
    passable: usize,
    scanned: usize,
    read_timer: Timer,
    write_timer: Timer,
    /// Bytes of a 101 on their way out; see `poll_write`.
    switching: BytesMut,
    switched_head_sent: bool,
    /// Rest of interim responses on their way out; nothing else may be written before it is.
    interim: Bytes,
    /// Bytes dropped after the last answer; `None` until that begins.
    lingered: Option<usize>,
    /// The client has ended its stream, or the stream has failed.
    ended: bool,
}

impl StrictIo {
    pub(super) fn new(io: Wire, state: State, limits: Arc<ConnectionLimits>) -> Self {
        let mut read_timer = Timer::default();
        read_timer.start(limits.head_timeout);
        Self {
            io,
            state,
            limits,
            reading: Reading::Head { begun: true },
            inbound: BytesMut::new(),
            passable: 0,
            scanned: 0,
            read_timer,
            write_timer: Timer::default(),
            switching: BytesMut::new(),
            switched_head_sent: false,
            interim: Bytes::new(),
            lingered: None,
            ended: false,
        }
    }

    /// The stream itself and what the client had sent early. For a switched connection.
    pub(super) fn into_parts(mut self) -> (Wire, Bytes) {
        (std::mem::replace(&mut self.io, Wire::none()), std::mem::take(&mut self.inbound).freeze())
    }

    fn refuse(&mut self, malformed: Malformed) {
        self.state.begin();
        self.state.set_mid_head(false);
        self.state.replace(malformed);
        self.inbound = BytesMut::from(STAND_IN);
        self.passable = STAND_IN.len();
        self.reading = Reading::Refused;
        self.read_timer.stop();
    }

    /// Reads more into `inbound`; `Ready(false)` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<bool>> {
        let (io, inbound, ended) = (&mut self.io, &mut self.inbound, &mut self.ended);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch.get_mut(..limit.min(HEAD_READ)).unwrap_or_default());
            let polled = match Pin::new(io).poll_read(cx, &mut buffer) {
                Poll::Ready(polled) => polled,
                Poll::Pending => {
                    self.state.wait_for_more();
                    return Poll::Pending;
                }
            };
            *ended |= buffer.filled().is_empty();
            polled?;
            inbound.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, begun: bool) -> Poll<io::Result<bool>> {
        let limits = HeadLimits { max_bytes: self.limits.max_head_size, max_fields: self.limits.max_header_count };
        if !self.inbound.is_empty() {
            match head(&self.inbound, &limits, &mut self.scanned) {
                Ok(Some(found)) => {
                    self.state.begin();
                    self.state.set_mid_head(false);
                    self.read_timer.stop();
                    self.scanned = 0;
                    self.passable = found.len;
                    self.reading = match found.body {
                        Body::None => Reading::Complete,
                        Body::Length(0) => Reading::Complete,
                        Body::Length(length) => Reading::Length(length),
                        Body::Chunked => Reading::Chunked(ChunkedFollower::default()),
                    };
                    return Poll::Ready(Ok(true));
                }
                Ok(None) => {
                    self.state.set_mid_head(true);
                    if !begun {
                        self.reading = Reading::Head { begun: true };
                        self.read_timer.start(self.limits.head_timeout);
                    }
                }
                Err(error) => {
                    self.refuse(Malformed::Framing(error));
                    return Poll::Ready(Ok(true));
                }
            }
        }
        match self.poll_fill(cx, HEAD_READ) {
            Poll::Ready(more) => Poll::Ready(more),
            Poll::Pending if !self.read_timer.poll_elapsed(cx) => Poll::Pending,
            // Nothing of a request was sent: there is nobody to answer.
            Poll::Pending if self.inbound.is_empty() => Poll::Ready(Ok(false)),
            Poll::Pending => {
                self.refuse(Malformed::Slow(self.limits.head_timeout));
                Poll::Ready(Ok(true))
            }
        }
    }

    /// A stretch of body straight into hyper's buffer, bounded by `remaining`.
    fn poll_length(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>, remaining: u64) -> Poll<io::Result<()>> {
        let room = out.remaining().min(usize::try_from(remaining).unwrap_or(usize::MAX));
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let count = part.filled().len();
        if polled.is_pending() {
            self.state.wait_for_more();
            return self.poll_silence(cx);
        }
        out.advance(count);
        self.ended |= count == 0;
        self.read_timer.stop();
        self.consume_length(count, remaining);
        polled
    }

    fn consume_length(&mut self, count: usize, remaining: u64) {
        let left = remaining.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        self.reading = if left == 0 { Reading::Complete } else { Reading::Length(left) };
    }

    fn poll_silence<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.read_timer.start_if_idle(self.limits.body_timeout);
        if self.read_timer.poll_elapsed(cx) {
            let text = "the request body stopped for longer than limits.body_timeout";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        Poll::Pending
    }

    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.state.may_read_on(cx.waker()) {
            self.reading = Reading::Head { begun: false };
            self.scanned = 0;
            self.read_timer.start(self.limits.keep_alive_timeout);
            return Poll::Ready(Ok(true));
        }
        // Read on so that a client that hangs up is noticed, but hold what comes, and only so much of it.
        let room = self.limits.max_early_bytes.saturating_sub(self.inbound.len());
        if room == 0 {
            return Poll::Pending;
        }
        self.poll_fill(cx, room)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.passable > 0 {
                let count = self.passable.min(out.remaining()).min(self.inbound.len());
                out.put_slice(&self.inbound.split_to(count));
                self.passable -= count;
                return Poll::Ready(Ok(()));
            }
            if self.inbound.is_empty() && self.inbound.capacity() > 0 {
                self.inbound = BytesMut::new();
            }
            let go_on = match &mut self.reading {
                Reading::Head { begun } => {
                    let begun = *begun;
                    ready!(self.poll_head(cx, begun))?
                }
                Reading::Length(remaining) => {
                    let remaining = *remaining;
                    if self.inbound.is_empty() {
                        return self.poll_length(cx, out, remaining);
                    }
                    let count = self.inbound.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                    self.passable = count;
                    self.consume_length(count, remaining);
                    true
                }
                Reading::Chunked(follower) => {
                    if self.inbound.is_empty() {
                        match self.poll_fill(cx, HEAD_READ) {
                            Poll::Ready(more) => {
                                self.read_timer.stop();
                                more?
                            }
                            Poll::Pending => ready!(self.poll_silence(cx))?,
                        }
                    } else {
                        let progress = follower
                            .advance(&self.inbound)
                            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                        self.passable = progress.consumed;
                        if progress.done {
                            self.reading = Reading::Complete;
                        }
                        true
                    }
                }
                Reading::Complete => ready!(self.poll_complete(cx))?,
                Reading::Refused => return Poll::Pending,
            };
            if !go_on {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// For how long to linger, if at all. Between two requests the client has sent nothing; behind a request it may have
    /// sent anything.
    fn linger(&self) -> Option<Duration> {
        let is_certain = match self.reading {
            Reading::Refused | Reading::Length(_) | Reading::Chunked(_) => true,
            Reading::Head { .. } | Reading::Complete => !self.inbound.is_empty(),
        };
        match self.reading {
            _ if self.ended => None,
            _ if is_certain => Some(LINGER.0),
            Reading::Complete => Some(if self.state.is_stopping() { LINGER_AT_STOP } else { LINGER.0 }),
            _ => None,
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if self.lingered.is_none() {
            self.read_timer.start(limit);
        }
        let dropped = self.lingered.get_or_insert(0);
        loop {
            let mut sink = [0u8; HEAD_READ];
            let mut buffer = ReadBuf::new(&mut sink);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *dropped += buffer.filled().len();
                    if *dropped > LINGER.1 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.read_timer.poll_elapsed(cx) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Fails once the client is gone.
    ///
    /// A client that ends its stream after a request counts as disconnected. After an upload it may have sent all of
    /// the body, and counts as disconnected once that has been read.
    fn look(&self) -> io::Result<()> {
        let left = match self.io.hang_up() {
            None => false,
            Some(HangUp::Reset) => true,
            Some(HangUp::Ended) => matches!(self.reading, Reading::Complete),
        };
        if left { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn watch_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let watched = self.write_timer.watch_write(cx, polled, self.limits.write_timeout, took_nothing);
        if matches!(watched, Poll::Ready(Err(_))) {
            self.state.break_off();
        }
        watched
    }

    /// Writes the rest of the interim responses that were begun.
    fn poll_send_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.interim);
            let count = ready!(self.watch_write(cx, polled))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(count);
            if self.interim.is_empty() {
                self.state.interims_written();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_switching(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.switching.is_empty() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.switching);
            let count = ready!(self.watch_write(cx, polled))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.switching.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StrictIo {
    fn drop(&mut self) {
        if self.state.is_broken() {
            self.io.reset();
        }
    }
}

impl AsyncRead for StrictIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_next(cx, out)
    }
}

impl AsyncWrite for StrictIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.switched_head_sent && this.state.is_switched() {
            // hyper writes `Sec-Websocket-Accept`; some clients read only the capitals of the RFC.
            this.switching.extend_from_slice(bytes);
            if capitals::restore(&mut this.switching) {
                this.switched_head_sent = true;
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_send_interim(cx))?;
        ready!(this.poll_send_switching(cx))?;
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.watch_write(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.switched_head_sent {
            ready!(this.poll_send_switching(cx))?;
        }
        ready!(this.poll_send_interim(cx))?;
        // hyper flushes when it has nothing left to write, so here is the boundary between two of its messages.
        while let Some(interims) = this.state.take_interims() {
            this.interim = interims.into();
            ready!(this.poll_send_interim(cx))?;
        }
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        ready!(this.watch_write(cx, polled))?;
        if this.state.flushed() {
            this.look()?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        ready!(this.watch_write(cx, polled))?;
        if let Some(limit) = this.linger() {
            ready!(this.poll_linger(cx, limit));
        }
        Poll::Ready(Ok(()))
    }
}
