//! One direction of a relay: read into the scratch, follow, write at once, keep only what was not taken, half-close.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::{
    Link,
    control::Passed,
    frames::{Brought, Lane, Outlet},
    report::Side,
    socket::{self, Ear},
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
#[derive(Debug, Default)]
pub(super) struct Did {
    /// Bytes that were read.
    pub(super) read: u64,
    /// What the writer took, and the messages that ended.
    pub(super) passed: Passed,
    /// Something came: bytes, or the end of the stream.
    pub(super) stirred: bool,
}

/// What a direction may do in this poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct May {
    /// Read so often; not at all while the sender is beyond its rate, or dead.
    pub(super) reads: usize,
    /// The code that tells the other side of an end without Close; `None` where that side has ended as well.
    pub(super) farewell: Option<u16>,
    /// Carry the end of the stream across; not once the end of the relay is decided.
    pub(super) finish: bool,
    /// Keep the end of the stream back where a Close has gone this way: the other side has not answered it yet.
    pub(super) hold_end: bool,
    /// Move big payloads through a pipe; not where each read counts against a rate.
    pub(super) splice: bool,
}

/// What a direction works with in one poll.
pub(super) struct Lent<'a, 'b, R, W> {
    pub(super) cx: &'a mut Context<'b>,
    pub(super) reader: &'a mut R,
    pub(super) writer: &'a mut W,
    pub(super) policy: &'a Policy,
    /// What a read lands in.
    pub(super) buffer: &'a mut [u8],
    pub(super) may: May,
}

#[derive(Debug)]
pub(super) struct Half {
    pub(super) lane: Lane,
    /// Read before the relay began, and not followed yet.
    early: Option<Box<Bytes>>,
    /// Not yet taken by the writer; at most one scratch buffer, or the early bytes, and two control frames. None is owned
    /// while there is nothing.
    pending: Option<Box<BytesMut>>,
    ear: Ear,
    splice: Splice,
    needs_flush: bool,
    ended: bool,
    /// The end of the stream is kept back, see [`May::hold_end`].
    held_end: bool,
    done: bool,
}

impl Half {
    pub(super) fn new(from: Side, early: Bytes, policy: &Policy, extensions: Extensions) -> Self {
        Self {
            lane: Lane::new(from, policy, extensions),
            // Empty ones may still hold the buffer they were read into.
            early: (!early.is_empty()).then(|| Box::new(early)),
            pending: None,
            ear: Ear::default(),
            splice: Splice::default(),
            needs_flush: false,
            ended: false,
            held_end: false,
            done: false,
        }
    }

    /// Whether the sender has ended its stream and the other side has not been sent that end.
    pub(super) fn holds_end(&self) -> bool {
        self.held_end
    }

    /// Whether the sender has ended its stream.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the writer has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_none() && self.splice.is_empty() && !self.needs_flush
    }

    /// Whether a poll would do nothing: the sender is silent, and nothing waits for the writer.
    pub(super) fn is_at_rest(&self, reader: &impl Link) -> bool {
        let waits = self.early.is_some() || self.lane.has_queued() || !self.is_flushed();
        !waits && !self.ended && reader.as_tcp().is_some_and(|socket| self.ear.is_at_rest(socket))
    }

    /// Another task polls from now on.
    pub(super) fn moved(&mut self) {
        self.ear.forget();
    }

    /// The writer is dead: what its peer still says, such as its Close, is followed, and goes nowhere.
    pub(super) fn abandon(&mut self) {
        self.lane.seal();
        self.pending = None;
        self.splice = Splice::default();
        self.needs_flush = false;
    }

    pub(super) fn poll<R: Link, W: Link>(&mut self, mut lent: Lent<'_, '_, R, W>) -> (Result<Step, Fault>, Did) {
        let mut did = Did::default();
        let step = self.step(&mut lent, &mut did);
        (step, did)
    }

    fn step<R: Link, W: Link>(&mut self, lent: &mut Lent<'_, '_, R, W>, did: &mut Did) -> Result<Step, Fault> {
        if self.done {
            return Ok(Step::Done);
        }
        self.held_end = false;
        if let Some(early) = self.early.take() {
            did.stirred = true;
            self.carry(lent, did, |lane, policy, _, out| lane.take(&early, policy, out))?;
        }
        let mut reads = lent.may.reads;
        loop {
            if self.poll_pending(lent, did).map_err(Fault::Write)?.is_pending() {
                return Ok(Step::Stalled);
            }
            if self.lane.has_queued() {
                self.carry(lent, did, |lane, _, _, out| {
                    lane.inject(out);
                    Brought::default()
                })?;
            }
            if self.ended && lent.may.finish {
                // Endpoints treat the end of the stream as a lost connection and do not answer the Close before it.
                self.held_end = lent.may.hold_end && self.lane.is_said();
                if !self.held_end {
                    return self.finish(lent);
                }
            }
            if self.ended || lent.may.reads == 0 {
                return self.rest(lent);
            }
            if reads == 0 {
                lent.cx.waker().wake_by_ref();
                return Ok(Step::Waiting);
            }
            reads -= 1;
            let polled = match self.poll_splice(lent, did) {
                Some(polled) => polled,
                None => self.read_and_write(lent, did),
            };
            match polled {
                Poll::Ready(done) => done?,
                Poll::Pending => return self.rest(lent),
            }
            did.stirred = true;
        }
    }

    /// A TLS writer may hold a record back until it is flushed; this is when nothing more comes.
    fn rest<R: Link, W: Link>(&mut self, lent: &mut Lent<'_, '_, R, W>) -> Result<Step, Fault> {
        let flushed = self.pending.is_none() && self.poll_flush(lent).map_err(Fault::Write)?.is_ready();
        Ok(if flushed { Step::Waiting } else { Step::Stalled })
    }

    /// One read and, at once, one write of what may pass of it. No bytes are the end of the sender's stream.
    fn read_and_write<R: Link, W: Link>(
        &mut self,
        lent: &mut Lent<'_, '_, R, W>,
        did: &mut Did,
    ) -> Poll<Result<(), Fault>> {
        let read = match lent.reader.as_tcp() {
            Some(socket) => ready!(self.ear.poll_read(lent.cx, socket, lent.buffer)),
            None => {
                let mut read = ReadBuf::new(lent.buffer);
                let polled = ready!(Pin::new(&mut *lent.reader).poll_read(lent.cx, &mut read));
                polled.map(|()| read.filled().len())
            }
        };
        let count = read.map_err(Fault::Read)?;
        did.read += u64::try_from(count).unwrap_or(u64::MAX);
        let farewell = lent.may.farewell;
        if count == 0 {
            self.ended = true;
            return Poll::Ready(self.carry(lent, did, |lane, policy, _, out| {
                lane.end(policy, farewell, out);
                Brought::default()
            }));
        }
        Poll::Ready(self.carry(lent, did, |lane, policy, buffer, out| {
            lane.take(buffer.get(..count).unwrap_or_default(), policy, out)
        }))
    }

    /// Moves payload from one socket towards the other inside the kernel; `None` where it has to go another way.
    fn poll_splice<R: Link, W: Link>(
        &mut self,
        lent: &mut Lent<'_, '_, R, W>,
        did: &mut Did,
    ) -> Option<Poll<Result<(), Fault>>> {
        let ahead = self.lane.payload_ahead();
        if ahead < splice::LEAST || !lent.may.splice {
            return None;
        }
        let from = lent.writer.as_tcp().and_then(|_| lent.reader.as_tcp())?;
        self.ear.forget();
        let count = match self.splice.poll_fill(lent.cx, from, ahead) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(Fault::Read(error)))),
            Poll::Ready(Ok(count)) => count?,
        };
        if count == 0 {
            self.ended = true;
        }
        did.read += count;
        did.passed.messages += self.lane.passed_by(count);
        Some(Poll::Ready(Ok(())))
    }

    /// Lets the lane put bytes out, and takes in what that brought.
    fn carry<R: Link, W: Link>(
        &mut self,
        lent: &mut Lent<'_, '_, R, W>,
        did: &mut Did,
        body: impl FnOnce(&mut Lane, &Policy, &[u8], &mut Writing<'_, '_, W>) -> Brought,
    ) -> Result<(), Fault> {
        let mut out = Writing { cx: lent.cx, writer: lent.writer, pending: &mut self.pending, written: 0, error: None };
        let brought = body(&mut self.lane, lent.policy, lent.buffer, &mut out);
        let Writing { written, error, .. } = out;
        if written > 0 {
            self.needs_flush = true;
            did.passed.bytes += written;
        }
        did.passed.messages += brought.messages;
        match (error, brought.broken) {
            (Some(error), _) => Err(Fault::Write(error)),
            (None, Some(broken)) => Err(Fault::Broken(broken)),
            (None, None) => Ok(()),
        }
    }

    fn poll_pending<R: Link, W: Link>(&mut self, lent: &mut Lent<'_, '_, R, W>, did: &mut Did) -> io::Result<Poll<()>> {
        if !self.splice.is_empty()
            && let Some(to) = lent.writer.as_tcp()
        {
            let (emptied, count) = self.splice.poll_drain(lent.cx, to)?;
            did.passed.bytes += count;
            if emptied.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.lane.payload_ahead() < splice::LEAST {
                self.splice.give_back();
            }
        }
        let Some(pending) = &mut self.pending else { return Ok(Poll::Ready(())) };
        while !pending.is_empty() {
            match Pin::new(&mut *lent.writer).poll_write(lent.cx, pending) {
                Poll::Ready(written) => {
                    let written = some(written)?;
                    did.passed.bytes += u64::try_from(written).unwrap_or(u64::MAX);
                    self.needs_flush = true;
                    pending.advance(written);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.pending = None;
        Ok(Poll::Ready(()))
    }

    fn poll_flush<R: Link, W: Link>(&mut self, lent: &mut Lent<'_, '_, R, W>) -> io::Result<Poll<()>> {
        // What a socket has taken is on its way.
        if self.needs_flush && lent.writer.as_tcp().is_none() {
            match Pin::new(&mut *lent.writer).poll_flush(lent.cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.needs_flush = false;
        Ok(Poll::Ready(()))
    }

    fn finish<R: Link, W: Link>(&mut self, lent: &mut Lent<'_, '_, R, W>) -> Result<Step, Fault> {
        if self.pending.is_some() {
            return Ok(Step::Stalled);
        }
        if lent.may.farewell.is_none() && lent.writer.as_tcp().is_some() {
            // That side has ended as well, so its socket is closed next, which says the same.
            self.needs_flush = false;
            self.done = true;
            return Ok(Step::Done);
        }
        match shut_down(lent.cx, lent.writer) {
            Poll::Ready(Ok(())) => {
                // The end of a stream takes along what was held back before it.
                self.needs_flush = false;
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

impl<W: Link> Writing<'_, '_, W> {
    fn poll_write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(socket) = self.writer.as_tcp()
            && let Some(written) = socket::write(socket, bytes).transpose()
        {
            return Poll::Ready(written);
        }
        // A socket that takes nothing now is asked once more this way, which has the task woken when it does.
        Pin::new(&mut *self.writer).poll_write(self.cx, bytes)
    }
}

impl<W: Link> Outlet for Writing<'_, '_, W> {
    fn put(&mut self, mut bytes: &[u8]) {
        while self.pending.is_none() && self.error.is_none() && !bytes.is_empty() {
            match self.poll_write(bytes) {
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
