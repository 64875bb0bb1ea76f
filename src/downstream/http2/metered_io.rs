//! The stream that an HTTP/2 connection reads and writes. It finds what a client may not do, and ends when nothing is
//! taken.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::super::took_nothing;
use crate::{
    net::{Wire, timer::Timer},
    protocol::http2_meter::{Fault, Meter},
};

/// What a client did that ends its connection; shared by the stream and the task that serves the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<OnceLock<Fault>>);

impl Verdict {
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.get().copied()
    }
}

/// See the module page. After a fault it reads nothing more: all that is left is to send the GOAWAY.
pub(super) struct MeteredIo {
    io: Wire,
    meter: Meter,
    begun: Instant,
    verdict: Verdict,
    /// Longest time in which the client takes not one byte. The windows know nothing of it: what fits into them is no
    /// longer waited for by whoever sent it.
    write_timeout: Duration,
    write_timer: Timer,
}

impl MeteredIo {
    pub(super) fn new(io: Wire, meter: Meter, verdict: Verdict, write_timeout: Duration) -> Self {
        Self { io, meter, begun: Instant::now(), verdict, write_timeout, write_timer: Timer::default() }
    }

    fn watch_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.write_timer.watch_write(cx, polled, self.write_timeout, took_nothing)
    }
}

impl AsyncRead for MeteredIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.verdict.fault().is_some() {
            // Whoever polls this looks at the verdict next.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        this.meter.received(buffer.filled().get(before..).unwrap_or_default(), this.begun.elapsed());
        if let Some(fault) = this.meter.fault() {
            this.verdict.0.get_or_init(|| fault);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        let count = ready!(this.watch_write(cx, polled))?;
        this.meter.sent(bytes.get(..count).unwrap_or(bytes));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.watch_write(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.watch_write(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_waited_for_so_long_and_no_longer() {
        const LIMIT: Duration = Duration::from_secs(10);
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut io = MeteredIo::new(Wire::boxed(ours), Meter::new(100, 65_536), Verdict::default(), LIMIT);
        let write = io.write_all(&[0; 64]);
        let read = async {
            // A little now and then is enough.
            for _ in 0..4 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 8]).await.unwrap();
            }
            Instant::now()
        };
        let (written, last) = tokio::join!(write, read);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(last.elapsed(), LIMIT);
    }
}
