//! A pooled upstream connection that remembers whether it was used before and whether it has answered.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::WriteTimeout;
use crate::{
    interim::Interims,
    net::{Io, Wire, timer::Timer},
    protocol::interim::Follower,
};

/// How far the exchanges of one connection have come: even while it is answered, odd while a request is out.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    turns: AtomicU32,
    abandoned: AtomicBool,
    broken: AtomicBool,
    next: Mutex<Option<Next>>,
}

/// A further exchange begins, and where its interim responses go.
#[derive(Debug)]
struct Next(Option<Interims>);

impl Turns {
    /// A request went out on a connection that had answered before, and not a byte has come back.
    ///
    /// Such a request met a connection that the upstream was closing; another connection may take it.
    pub(super) fn died_unanswered_after_use(&self) -> bool {
        let turns = self.0.turns.load(Ordering::Acquire);
        turns > 2 && turns % 2 == 1
    }

    /// A further exchange begins. Its interim responses go to `interims`, or nowhere.
    pub(super) fn begin(&self, interims: Option<Interims>) {
        *self.next() = Some(Next(interims));
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        // One assignment: a poisoned lock still holds a sound value.
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exchange was dropped: request data that the upstream does not accept at once is discarded.
    ///
    /// hyper would still wait for the upstream to accept it, after the client has disconnected.
    pub(super) fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::Release);
    }

    /// A body of the exchange was dropped before its end: the connection ends with a reset, so that neither the request
    /// nor the response looks complete.
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
    follower: Follower,
    interims: Option<Interims>,
}

impl PooledIo {
    /// `write_limit`: the longest time in which the upstream takes not one byte.
    pub(super) fn new(io: Wire, write_limit: Duration) -> Self {
        Self {
            io,
            turns: Turns::default(),
            write_limit,
            write_timer: Timer::default(),
            follower: Follower::default(),
            interims: None,
        }
    }

    /// How far its exchanges have come, for whoever sends them.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Finds and counts the interim responses in what the buffer got beyond `before`.
    ///
    /// hyper continues to read as long as more of them arrive; its callback cannot stop it.
    fn follow(&mut self, buffer: &ReadBuf<'_>, before: usize) -> io::Result<()> {
        if let Some(Next(interims)) = self.turns.next().take() {
            self.interims = interims;
            self.follower.restart();
        }
        let interims = &self.interims;
        let followed = self.follower.advance(buffer.filled().get(before..).unwrap_or_default(), |interim| {
            if let Some(interims) = interims {
                interims.push(interim);
            }
        });
        followed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
            self.follow(buf, before)?;
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
            // The following drop resets the connection.
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
