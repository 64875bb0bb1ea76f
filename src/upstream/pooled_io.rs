//! A pooled upstream connection that remembers whether it was used before and whether it has answered.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::WriteTimeout;
use crate::net::{Io, Wire, timer::Timer};

/// How far the exchanges of one connection have come: even while it is answered, odd while a request is out.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    turns: AtomicU32,
    abandoned: AtomicBool,
    broken: AtomicBool,
}

impl Turns {
    /// A request went out on a connection that had answered before, and not a byte has come back.
    ///
    /// Such a request met a connection that the upstream was closing; another connection may take it.
    pub(super) fn died_unanswered_after_use(&self) -> bool {
        let turns = self.0.turns.load(Ordering::Acquire);
        turns > 2 && turns % 2 == 1
    }

    /// Nobody waits for the connection any more: what the upstream does not take at once of a request is given up.
    ///
    /// hyper would still wait for the upstream to take it, after the client has left.
    pub(super) fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::Release);
    }

    /// A body of the exchange was given up before its end: the connection ends with a reset, so that neither a request
    /// nor what the upstream still sends seems to be complete.
    pub(super) fn break_off(&self) {
        self.0.broken.store(true, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Acquire)
    }

    // Only the connection's own task writes, so a load and a store make one step.
    fn wrote(&self) {
        let turns = self.0.turns.load(Ordering::Acquire);
        if turns.is_multiple_of(2) {
            self.0.turns.store(turns.wrapping_add(1), Ordering::Release);
        }
    }

    fn read(&self) {
        let turns = self.0.turns.load(Ordering::Acquire);
        if turns % 2 == 1 {
            self.0.turns.store(turns.wrapping_add(1), Ordering::Release);
        }
    }
}

pub(super) struct PooledIo {
    io: Wire,
    turns: Turns,
    write_limit: Duration,
    write_timer: Timer,
}

impl PooledIo {
    /// `write_limit`: the longest time in which the upstream takes not one byte.
    pub(super) fn new(io: Wire, write_limit: Duration) -> Self {
        Self { io, turns: Turns::default(), write_limit, write_timer: Timer::default() }
    }

    /// How far its exchanges have come, for whoever sends them.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    fn watch_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.turns.is_abandoned() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let limit = self.write_limit;
        let late = || io::Error::new(io::ErrorKind::TimedOut, WriteTimeout(limit));
        self.write_timer.watch_write(cx, polled, limit, late)
    }
}

impl Drop for PooledIo {
    fn drop(&mut self) {
        if self.turns.is_broken() {
            self.io.reset();
        }
    }
}

impl AsyncRead for PooledIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.turns.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PooledIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.turns.wrote();
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch_write(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.turns.is_broken() {
            // The drop that follows is the end.
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.turns.wrote();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
