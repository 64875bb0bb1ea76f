//! Carries bytes both ways between two streams; knows nothing of HTTP or TLS.
//!
//! Bytes go through one scratch buffer a thread. A relay owns a buffer only for what the other side would not
//! take yet, and reads nothing more in that direction until it is gone: a slow reader holds a fast sender.
//!
//! Where a route follows frames (RFC 6455 §5), a broken rule ends the relay before its first byte has passed, and a
//! Ping or a Close of ours goes out between two frames. Bytes of the peers are never changed.

mod control;
mod frames;
mod half;
mod heartbeat;
mod moment;
mod pump;
mod rate;
mod report;
mod scratch;
mod session;
mod socket;
mod splice;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

pub use control::{Cause, Control, Passed};
pub use report::{End, Goodbye, Report, Side};
pub use session::Session;

use crate::config::relay_policy::Policy;

/// One of the two streams of a relay.
pub trait Link: AsyncRead + AsyncWrite + Unpin {
    /// The error the transport holds, if any, learnt without reading.
    fn take_error(&self) -> Option<io::Error> {
        None
    }

    /// The socket itself, where what is written to the stream goes onto the wire as it is.
    fn as_tcp(&self) -> Option<&TcpStream> {
        None
    }

    /// Gives up a stream whose own direction was shut down: what the peer may still send is not wanted. Reads find the
    /// end of the stream from then on, where the transport can tell the peer; elsewhere nothing happens.
    fn release(&mut self) {}

    /// Ends the stream with a reset, at the latest when it is dropped, where the transport has one.
    fn reset(&mut self) {}
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

/// Relays until both directions have ended, one side fails, a limit of `policy` is reached, or `control` says so. Both
/// streams are closed with the future.
pub fn relay<D: Link, U: Link, C: AsRef<Control> + Unpin>(
    downstream: Leg<D>,
    upstream: Leg<U>,
    policy: Arc<Policy>,
    session: Session,
    control: C,
) -> Relay<D, U, C> {
    Relay(pump::Pump::new(downstream, upstream, policy, session, control))
}

/// A relay at work. A type of its own, since an `async fn` would hold its arguments a second time.
#[must_use = "a relay works only while it is polled"]
pub struct Relay<D, U, C>(pump::Pump<D, U, C>);

impl<D, U, C> Relay<D, U, C> {
    /// What holds the hand on it.
    pub fn holder(&self) -> &C {
        self.0.holder()
    }
}

impl<D, U, C> std::fmt::Debug for Relay<D, U, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl<D: Link, U: Link, C: AsRef<Control> + Unpin> Future for Relay<D, U, C> {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let end = ready!(self.0.poll(cx));
        Poll::Ready(self.0.report(end))
    }
}

#[cfg(test)]
mod tests;
