//! One direction of a relay: read into the scratch, follow, write at once, keep only what was not taken, half-close.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::ReadBuf, net::TcpStream};

use super::{
    Link,
    control::Passed,
    frames::{Brought, Lane, Outlet},
    report::Side,
    scratch,
    splice::{self, Splice},
};
use crate::{
    config::relay_policy::Policy,
    protocol::websocket::frame::{Extensions, FrameError},
};

/// Reads in one poll before other tasks get their turn; the runtime's own budget ends it earlier for sockets.
pub(super) const READS_A_POLL: usize = 16;

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
    Broken(FrameError),
}

/// What one poll did.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) step: Result<Step, Fault>,
    /// Bytes that were read.
    pub(super) read: u64,
    /// What the writer took, and the messages that ended.
    pub(super) passed: Passed,
}

/// What a direction may do in this poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct May {
    /// Read so often; not at all while the sender is beyond its rate, or dead.
    pub(super) reads: usize,
    /// The code that tells the other side of an end without Close; `None` where that side has ended as well.
    pub(super) farewell: Option<u16>,
    /// Carry the end of the stream across; not while a Close waits for its answer.
    pub(super) finish: bool,
    /// Move big payloads through a pipe; not where each read counts against a rate.
    pub(super) splice: bool,
}

#[derive(Debug)]
pub(super) struct Half {
    pub(super) lane: Lane,
    /// Read before the relay began, and not followed yet.
    early: Option<Box<Bytes>>,
    /// Not yet taken by the writer; at most one scratch buffer, or the early bytes, and two control frames. None is owned
    /// while there is nothing.
    pending: Option<Box<BytesMut>>,
    splice: Splice,
    needs_flush: bool,
    ended: bool,
    done: bool,
}

impl Half {
    pub(super) fn new(from: Side, early: Bytes, policy: &Policy, extensions: Extensions) -> Self {
        Self {
            lane: Lane::new(from, policy, extensions),
            // Empty ones may still hold the buffer they were read into.
            early: (!early.is_empty()).then(|| Box::new(early)),
            pending: None,
            splice: Splice::default(),
            needs_flush: false,
            ended: false,
            done: false,
        }
    }

    /// Whether the sender has ended its stream.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the writer has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_none() && self.splice.is_empty() && !self.needs_flush
    }

    /// The writer is dead: what its peer still says, such as its Close, is followed, and goes nowhere.
    pub(super) fn abandon(&mut self) {
        self.lane.seal();
        self.pending = None;
        self.splice = Splice::default();
        self.needs_flush = false;
    }

    pub(super) fn poll<R: Link, W: Link>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        policy: &Policy,
        may: May,
    ) -> Polled {
        let (mut read, mut passed) = (0, Passed::default());
        let step = self.step(cx, reader, writer, policy, may, &mut read, &mut passed);
        Polled { step, read, passed }
    }

    #[allow(clippy::too_many_arguments, reason = "the body of `poll`, apart so that `?` can leave it")]
    fn step<R: Link, W: Link>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        policy: &Policy,
        may: May,
        read: &mut u64,
        passed: &mut Passed,
    ) -> Result<Step, Fault> {
        if self.done {
            return Ok(Step::Done);
        }
        if let Some(early) = self.early.take() {
            self.carry(cx, writer, passed, |lane, out| lane.take(&early, policy, out))?;
        }
        let mut reads = may.reads;
        loop {
            if self.poll_pending(cx, writer, passed).map_err(Fault::Write)?.is_pending() {
                return Ok(Step::Stalled);
            }
            if self.lane.has_queued() {
                self.carry(cx, writer, passed, |lane, out| {
                    lane.inject(out);
                    Brought::default()
                })?;
            }
            if self.ended && may.finish {
                return self.finish(cx, writer);
            }
            if self.ended || may.reads == 0 {
                return self.rest(cx, writer);
            }
            if reads == 0 {
                cx.waker().wake_by_ref();
                return Ok(Step::Waiting);
            }
            reads -= 1;
            let sockets = reader.as_tcp().filter(|_| may.splice && writer.as_tcp().is_some());
            let spliced = match sockets.filter(|_| self.lane.payload_ahead() >= splice::LEAST) {
                Some(from) => self.splice_ahead(cx, from, passed),
                None => None,
            };
            let polled = spliced.unwrap_or_else(|| {
                scratch::with(|buffer| self.read_and_write(cx, reader, writer, policy, may.farewell, passed, buffer))
            });
            match polled {
                Poll::Ready(count) => *read += count?,
                Poll::Pending => return self.rest(cx, writer),
            }
        }
    }

    /// A TLS writer may hold a record back until it is flushed; this is when nothing more comes.
    fn rest<W: Link>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Result<Step, Fault> {
        let flushed = self.pending.is_none() && self.poll_flush(cx, writer).map_err(Fault::Write)?.is_ready();
        Ok(if flushed { Step::Waiting } else { Step::Stalled })
    }

    #[allow(clippy::too_many_arguments, reason = "one step of `step`, which lends all it has")]
    /// One read and, at once, one write of what may pass of it. No bytes are the end of the sender's stream.
    fn read_and_write<R: Link, W: Link>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        policy: &Policy,
        farewell: Option<u16>,
        passed: &mut Passed,
        buffer: &mut [u8],
    ) -> Poll<Result<u64, Fault>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(reader).poll_read(cx, &mut read)).map_err(Fault::Read)?;
        let bytes: &[u8] = read.filled();
        if bytes.is_empty() {
            self.ended = true;
            self.carry(cx, writer, passed, |lane, out| {
                lane.end(policy, farewell, out);
                Brought::default()
            })?;
            return Poll::Ready(Ok(0));
        }
        self.carry(cx, writer, passed, |lane, out| lane.take(bytes, policy, out))?;
        Poll::Ready(Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
    }

    /// Moves payload from one socket towards the other inside the kernel; `None` where there is no pipe for it.
    fn splice_ahead(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        passed: &mut Passed,
    ) -> Option<Poll<Result<u64, Fault>>> {
        let count = match self.splice.poll_fill(cx, from, self.lane.payload_ahead()) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(Fault::Read(error)))),
            Poll::Ready(Ok(count)) => count?,
        };
        if count == 0 {
            self.ended = true;
        }
        passed.messages += self.lane.passed_by(count);
        Some(Poll::Ready(Ok(count)))
    }

    /// Lets the lane put bytes out, and takes in what that brought.
    fn carry<W: Link>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        passed: &mut Passed,
        body: impl FnOnce(&mut Lane, &mut Writing<'_, '_, W>) -> Brought,
    ) -> Result<(), Fault> {
        let mut out = Writing { cx, writer, pending: &mut self.pending, written: 0, error: None };
        let brought = body(&mut self.lane, &mut out);
        let Writing { written, error, .. } = out;
        if written > 0 {
            self.needs_flush = true;
            passed.bytes += written;
        }
        passed.messages += brought.messages;
        match (error, brought.broken) {
            (Some(error), _) => Err(Fault::Write(error)),
            (None, Some(broken)) => Err(Fault::Broken(broken)),
            (None, None) => Ok(()),
        }
    }

    fn poll_pending<W: Link>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        passed: &mut Passed,
    ) -> io::Result<Poll<()>> {
        if let Some(to) = writer.as_tcp().filter(|_| !self.splice.is_empty()) {
            let (emptied, count) = self.splice.poll_drain(cx, to)?;
            passed.bytes += count;
            if emptied.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.lane.payload_ahead() < splice::LEAST {
                self.splice.give_back();
            }
        }
        let Some(pending) = &mut self.pending else { return Ok(Poll::Ready(())) };
        while !pending.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, pending) {
                Poll::Ready(written) => {
                    let written = some(written)?;
                    passed.bytes += u64::try_from(written).unwrap_or(u64::MAX);
                    self.needs_flush = true;
                    pending.advance(written);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.pending = None;
        Ok(Poll::Ready(()))
    }

    fn poll_flush<W: Link>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> io::Result<Poll<()>> {
        if self.needs_flush {
            match Pin::new(writer).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            self.needs_flush = false;
        }
        Ok(Poll::Ready(()))
    }

    fn finish<W: Link>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Result<Step, Fault> {
        if self.pending.is_some() {
            return Ok(Step::Stalled);
        }
        match shut_down(cx, writer) {
            Poll::Ready(Ok(())) => {
                self.done = true;
                Ok(Step::Done)
            }
            Poll::Ready(Err(error)) => Err(Fault::Write(error)),
            Poll::Pending => Ok(Step::Stalled),
        }
    }
}

/// Ends our half of a stream.
pub(super) fn shut_down<W: Link>(cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
    match ready!(Pin::new(writer).poll_shutdown(cx)) {
        // The writer is closed already: nobody is left to be told of the end.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
        shut => Poll::Ready(shut),
    }
}

/// Writes at once, and keeps what is not taken.
struct Writing<'a, 'b, W> {
    cx: &'a mut Context<'b>,
    writer: &'a mut W,
    pending: &'a mut Option<Box<BytesMut>>,
    written: u64,
    error: Option<io::Error>,
}

impl<W: Link> Outlet for Writing<'_, '_, W> {
    fn put(&mut self, mut bytes: &[u8]) {
        while self.pending.is_none() && self.error.is_none() && !bytes.is_empty() {
            match Pin::new(&mut *self.writer).poll_write(self.cx, bytes) {
                Poll::Ready(written) => match some(written) {
                    Ok(count) => {
                        self.written += u64::try_from(count).unwrap_or(u64::MAX);
                        bytes.advance(count);
                    }
                    Err(error) => self.error = Some(error),
                },
                Poll::Pending => break,
            }
        }
        if !bytes.is_empty() {
            self.pending.get_or_insert_default().extend_from_slice(bytes);
        }
    }
}

/// A write of no bytes would be tried for ever.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
