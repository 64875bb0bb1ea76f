//! The stream that an HTTP/2 connection reads and writes: it counts what is noise.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{net::Wire, protocol::http2_meter::Meter};

/// Whether a peer was found to send too much noise; shared by the stream and whoever serves the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<AtomicBool>);

impl Verdict {
    pub(super) fn is_flood(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module page. After a flood it reads nothing more: what is left to do is to say goodbye.
pub(super) struct MeteredIo {
    io: Wire,
    meter: Meter,
    begun: Instant,
    verdict: Verdict,
}

impl MeteredIo {
    pub(super) fn new(io: Wire, verdict: Verdict) -> Self {
        Self { io, meter: Meter::default(), begun: Instant::now(), verdict }
    }
}

impl AsyncRead for MeteredIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.verdict.is_flood() {
            // Whoever polls this looks at the verdict next.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        this.meter.received(buffer.filled().get(before..).unwrap_or_default(), this.begun.elapsed());
        if this.meter.is_spent() {
            this.verdict.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.meter.sent(bytes.get(..count).unwrap_or(bytes));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
