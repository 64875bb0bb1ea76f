//! Carries bytes both ways between two streams; knows nothing of HTTP, TLS or WebSocket.
//!
//! Bytes go through one scratch buffer a thread. A relay owns a buffer only for what the other side would not
//! take yet, and reads nothing more in that direction until it is gone: a slow reader holds a fast sender.

mod half;
mod report;
mod scratch;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use half::{Half, Step};
pub use report::{End, Report, Side};

/// One of the two streams of a relay.
pub trait Link: AsyncRead + AsyncWrite + Unpin {
    /// The error the transport holds, if any, learnt without reading.
    fn take_error(&self) -> Option<io::Error> {
        None
    }
}

impl Link for tokio::io::DuplexStream {}

/// A stream and the bytes that were read from it before the relay began; those go first.
#[derive(Debug)]
pub struct Leg<S> {
    /// The stream.
    pub stream: S,
    /// Bytes already read from it.
    pub early: Bytes,
}

/// How often a relay that waits for a slow side looks whether the other was reset meanwhile.
///
/// It does not read there, so no event would tell it.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// Relays until both directions have ended, one side fails, `idle_timeout` passes without a byte in either
/// direction, or `stop` resolves. Both streams are dropped when it returns.
///
/// `idle_timeout` is counted from the last byte read on either side; `None` is never.
pub async fn relay<D: Link, U: Link>(
    downstream: Leg<D>,
    upstream: Leg<U>,
    idle_timeout: Option<Duration>,
    stop: impl Future<Output = ()>,
) -> Report {
    let begun = Instant::now();
    let mut pump = Pump {
        downstream: downstream.stream,
        upstream: upstream.stream,
        to_upstream: Half::new(downstream.early),
        to_downstream: Half::new(upstream.early),
        idle_timeout,
        last_byte: begun,
        first_to_end: None,
        timer: None,
    };
    let mut stop = std::pin::pin!(stop);
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = pump.poll(cx) {
            return Poll::Ready(end);
        }
        stop.as_mut().poll(cx).map(|()| End::Stopped)
    })
    .await;
    Report {
        to_upstream: pump.to_upstream.carried(),
        to_downstream: pump.to_downstream.carried(),
        duration: begun.elapsed(),
        first_to_end: pump.first_to_end,
        end,
    }
}

struct Pump<D, U> {
    downstream: D,
    upstream: U,
    to_upstream: Half,
    to_downstream: Half,
    idle_timeout: Option<Duration>,
    last_byte: Instant,
    first_to_end: Option<Side>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<D: Link, U: Link> Pump<D, U> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.to_upstream.poll(cx, &mut self.downstream, &mut self.upstream);
        let up = match self.settle(up, Side::Downstream, Side::Upstream) {
            Ok(step) => step,
            Err(end) => return Poll::Ready(end),
        };
        let down = self.to_downstream.poll(cx, &mut self.upstream, &mut self.downstream);
        let down = match self.settle(down, Side::Upstream, Side::Downstream) {
            Ok(step) => step,
            Err(end) => return Poll::Ready(end),
        };
        if up == Step::Done && down == Step::Done {
            return Poll::Ready(End::Closed);
        }
        self.poll_timer(cx, up == Step::Stalled || down == Step::Stalled)
    }

    /// Takes in what one direction reports, and names the side at fault when it failed.
    fn settle(&mut self, polled: half::Polled, reader: Side, writer: Side) -> Result<Step, End> {
        if polled.read_some {
            self.last_byte = Instant::now();
        }
        match polled.step {
            Ok(step) => {
                if polled.ended {
                    self.first_to_end.get_or_insert(reader);
                }
                Ok(step)
            }
            Err(half::Fault::Read(error)) => Err(self.failed(reader, error)),
            Err(half::Fault::Write(error)) => Err(self.failed(writer, error)),
        }
    }

    fn failed(&mut self, side: Side, error: io::Error) -> End {
        self.first_to_end.get_or_insert(side);
        End::Failed(error)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, stalled: bool) -> Poll<End> {
        loop {
            let now = Instant::now();
            let idle_end = self.idle_timeout.map(|limit| (self.last_byte + limit, limit));
            if let Some((_, limit)) = idle_end.filter(|(at, _)| *at <= now) {
                return Poll::Ready(End::Idle(limit));
            }
            let check = stalled.then(|| now + STALL_CHECK);
            let Some(wake_at) = [idle_end.map(|(at, _)| at), check].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(wake_at)));
            // An armed timer that fires early costs one look; moving it at every byte would cost more.
            if timer.is_elapsed() || timer.deadline() > wake_at {
                timer.as_mut().reset(wake_at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if stalled {
                if let Some(error) = self.downstream.take_error() {
                    return Poll::Ready(self.failed(Side::Downstream, error));
                }
                if let Some(error) = self.upstream.take_error() {
                    return Poll::Ready(self.failed(Side::Upstream, error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
