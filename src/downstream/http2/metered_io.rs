//! The stream under an HTTP/2 connection. It detects abuse by the client, and ends when the client does not read.

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

use super::super::{ConnectionLimits, took_nothing};
use crate::{
    net::{Wire, timer::Timer},
    protocol::http2_meter::{Fault, Meter, Unfinished},
};

/// What a client did that ends its connection; shared by the stream and the task that serves the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<OnceLock<Fault>>);

impl Verdict {
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.get().copied()
    }
}

/// See the module docs. After a fault it reads nothing more; only the GOAWAY is still sent.
pub(super) struct MeteredIo {
    io: Wire,
    meter: Meter,
    begun: Instant,
    verdict: Verdict,
    /// Longest time in which the client takes not one byte. The windows know nothing of it: what fits into them is no
    /// longer waited for by whoever sent it.
    write_timeout: Duration,
    write_timer: Timer,
    stall: Stall,
}

/// Deadline for the rest of a frame or a header block. No other stream can send anything before that.
struct Stall {
    /// Longest time for a header block, and for a frame other than DATA.
    head_timeout: Duration,
    /// Longest silence within a DATA frame.
    body_timeout: Duration,
    /// What the timer runs for.
    unfinished: Option<Unfinished>,
    timer: Timer,
}

impl Stall {
    /// Nothing more has come for now. Answers whether the wait is over.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>, unfinished: Option<Unfinished>) -> bool {
        if self.unfinished != unfinished {
            self.unfinished = unfinished;
            match unfinished {
                Some(Unfinished::Head(_)) => self.timer.start(self.head_timeout),
                Some(Unfinished::Data(_)) => self.timer.start(self.body_timeout),
                None => self.timer.stop(),
            }
        }
        self.timer.poll_elapsed(cx)
    }
}

impl MeteredIo {
    pub(super) fn new(io: Wire, meter: Meter, verdict: Verdict, limits: &ConnectionLimits) -> Self {
        let (head_timeout, body_timeout) = (limits.head_timeout, limits.body_timeout);
        Self {
            io,
            meter,
            begun: Instant::now(),
            verdict,
            write_timeout: limits.write_timeout,
            write_timer: Timer::default(),
            stall: Stall { head_timeout, body_timeout, unfinished: None, timer: Timer::default() },
        }
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
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        if polled.is_pending() && this.stall.poll_elapsed(cx, this.meter.unfinished()) {
            this.verdict.0.get_or_init(|| Fault::Stalled);
        }
        ready!(polled)?;
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
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Of a DATA frame, where silence counts.
    const SILENCE: Duration = Duration::from_secs(60);

    fn started(buffer: usize) -> (MeteredIo, DuplexStream, Verdict) {
        let limits = ConnectionLimits {
            head_timeout: LIMIT,
            keep_alive_timeout: LIMIT,
            max_head_size: 16 * 1024,
            max_header_count: 100,
            max_early_bytes: 1024,
            body_timeout: SILENCE,
            write_timeout: LIMIT,
        };
        let ((ours, theirs), verdict) = (tokio::io::duplex(buffer), Verdict::default());
        (MeteredIo::new(Wire::boxed(ours), Meter::new(100, 65_536), verdict.clone(), &limits), theirs, verdict)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_waited_for_so_long_and_no_longer() {
        let (mut io, mut theirs, _verdict) = started(8);
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

    /// Reads until there is a fault, for an hour at most.
    async fn fault(io: &mut MeteredIo, verdict: &Verdict) -> Option<Fault> {
        let reading = poll_fn(|cx| {
            let mut room = [0; 64];
            while Pin::new(&mut *io).poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready() {}
            verdict.fault().map_or(Poll::Pending, Poll::Ready)
        });
        tokio::time::timeout(Duration::from_secs(3600), reading).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_ends_in_time_or_the_connection_does() {
        const HEADERS: &[u8] = &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
        const CONTINUATION: &[u8] = &[0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82];
        const LAST: &[u8] = &[0, 0, 1, 9, 4, 0, 0, 0, 1, 0x82];
        const DATA: &[u8] = &[0, 0, 50, 0, 0, 0, 0, 0, 1];
        let second = Duration::from_secs(1);
        // What comes at first, what comes again and again, and how often and seldom; when it ends, if it does.
        for (name, first, again, pause, times, expected) in [
            ("silence between frames", [HEADERS, LAST].concat(), &b""[..], second, 0, None),
            ("a header block without an end", HEADERS.to_vec(), b"", second, 0, Some(LIMIT)),
            ("one that goes on slowly", HEADERS.to_vec(), CONTINUATION, second, 100, Some(LIMIT)),
            ("one that goes on byte by byte", HEADERS[..9].to_vec(), &HEADERS[9..], 3 * second, 1, Some(LIMIT)),
            ("one that ends in time", HEADERS.to_vec(), LAST, 9 * second, 1, None),
            ("half the head of a frame", HEADERS[..4].to_vec(), b"", second, 0, Some(LIMIT)),
            ("half of SETTINGS", vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0], b"", second, 0, Some(LIMIT)),
            ("half of an update", vec![0, 0, 4, 8, 0, 0, 0, 0, 0, 0], b"", second, 0, Some(LIMIT)),
            ("half of what nobody knows", vec![0, 0, 9, 77, 0, 0, 0, 0, 0, 0], b"", second, 0, Some(LIMIT)),
            ("a long one, byte by byte", vec![0, 0, 200, 77, 0, 0, 0, 0, 0, 0], b"1", second, 100, Some(LIMIT)),
            // As slow as it is, each ends in time.
            ("many slow frames", LAST.to_vec(), LAST, 9 * second, 100, None),
            ("half of DATA", DATA.to_vec(), b"", second, 0, Some(SILENCE)),
            ("slow DATA", DATA.to_vec(), b"1", 59 * second, 50, None),
            ("slow DATA that stops", DATA.to_vec(), b"1", 59 * second, 3, Some(3 * 59 * second + SILENCE)),
        ] {
            let (mut io, mut theirs, verdict) = started(1024);
            theirs.write_all(&[&[b'P'; 24][..], &first].concat()).await.unwrap();
            let begun = Instant::now();
            let client = async {
                for _ in 0..times {
                    tokio::time::sleep(pause).await;
                    theirs.write_all(again).await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                fault = fault(&mut io, &verdict) => fault,
                () = client => unreachable!(),
            };
            assert_eq!(ended, expected.map(|_| Fault::Stalled), "{name}");
            if let Some(after) = expected {
                assert_eq!(begun.elapsed(), after, "{name}");
            }
        }
    }
}
