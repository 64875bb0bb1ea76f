//! One direction of a relay: read into the scratch, write at once, keep only what was not taken, half-close.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch;

/// Reads in one poll before other tasks get their turn; the runtime's own budget ends it earlier for sockets.
const READS_A_POLL: usize = 16;

/// Where a direction stands after a poll that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waits for bytes to read.
    Waiting,
    /// Waits for the writer; nothing is read meanwhile.
    Stalled,
    /// The end of the stream was carried across.
    Done,
}

#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Write(io::Error),
}

#[derive(Debug)]
pub(super) struct Polled {
    pub(super) step: Result<Step, Fault>,
    /// At least one byte was read.
    pub(super) read_some: bool,
    /// The reader has ended its stream.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct Half {
    /// Read but not yet taken by the writer; at most one scratch buffer, or the early bytes.
    pending: Bytes,
    carried: u64,
    needs_flush: bool,
    ended: bool,
    done: bool,
}

impl Half {
    pub(super) fn new(early: Bytes) -> Self {
        Self { pending: early, carried: 0, needs_flush: false, ended: false, done: false }
    }

    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    pub(super) fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Polled
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut read_some = false;
        let step = self.step(cx, reader, writer, &mut read_some);
        Polled { step, read_some, ended: self.ended }
    }

    fn step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        read_some: &mut bool,
    ) -> Result<Step, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Ok(Step::Done);
        }
        for _ in 0..READS_A_POLL {
            if self.poll_pending(cx, writer).map_err(Fault::Write)?.is_pending() {
                return Ok(Step::Stalled);
            }
            if self.ended {
                return self.finish(cx, writer);
            }
            let read = scratch::with(|buffer| self.read_and_write(cx, reader, writer, buffer));
            match read {
                Poll::Ready(result) => *read_some |= result? > 0,
                Poll::Pending => {
                    // A TLS writer may hold a record back until it is flushed; do it when nothing more comes.
                    return if self.poll_flush(cx, writer).map_err(Fault::Write)?.is_pending() {
                        Ok(Step::Stalled)
                    } else {
                        Ok(Step::Waiting)
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(Step::Waiting)
    }

    /// One read and, at once, one write of it. `Ready(Ok(0))` is the end of the reader's stream.
    fn read_and_write<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(reader).poll_read(cx, &mut read)).map_err(Fault::Read)?;
        let mut rest: &[u8] = read.filled();
        let count = rest.len();
        if count == 0 {
            self.ended = true;
        }
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(written) => {
                    let written = some(written).map_err(Fault::Write)?;
                    self.took(written);
                    rest.advance(written);
                }
                Poll::Pending => {
                    self.pending = Bytes::copy_from_slice(rest);
                    break;
                }
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_pending<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> io::Result<Poll<()>> {
        while !self.pending.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, &self.pending) {
                Poll::Ready(written) => {
                    let written = some(written)?;
                    self.took(written);
                    self.pending.advance(written);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // An empty `Bytes` may still hold the allocation of what went through it.
        self.pending = Bytes::new();
        Ok(Poll::Ready(()))
    }

    fn took(&mut self, written: usize) {
        self.carried = self.carried.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        self.needs_flush = true;
    }

    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> io::Result<Poll<()>> {
        if self.needs_flush {
            match Pin::new(writer).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            self.needs_flush = false;
        }
        Ok(Poll::Ready(()))
    }

    fn finish<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Result<Step, Fault> {
        match Pin::new(writer).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {}
            // The writer is closed already: nobody is left to be told of the end.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {}
            Poll::Ready(Err(error)) => return Err(Fault::Write(error)),
            Poll::Pending => return Ok(Step::Stalled),
        }
        self.done = true;
        Ok(Step::Done)
    }
}

/// A write of no bytes would be tried for ever.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
