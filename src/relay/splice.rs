//! A big payload between two plain sockets, moved inside the kernel through a pipe (`splice(2)`).
//!
//! A pipe is taken only while such a payload passes; a few are kept by each thread for the next one.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// The least payload still to come for which a pipe is worth its system calls.
pub(super) const LEAST: u64 = 64 * 1024;

/// What a pipe is asked to hold; an unprivileged process gets this much by default.
const PIPE_SIZE: usize = 1024 * 1024;

/// Most idle pipes a thread keeps.
const MAX_KEPT: usize = 8;

/// Most pipes that the relays of a thread hold at a time: a crowd whose readers have stalled goes without.
const MAX_IN_USE: usize = 64;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A kept one or a new one; none beyond [`MAX_IN_USE`], or where the process has no descriptors left.
    fn take() -> Option<Box<Self>> {
        if IN_USE.get() >= MAX_IN_USE {
            return None;
        }
        let pipe = KEPT.with_borrow_mut(Vec::pop).or_else(|| Self::open().ok())?;
        IN_USE.set(IN_USE.get() + 1);
        Some(Box::new(pipe))
    }

    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe works too, only slower.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write })
    }
}

/// The pipe of one direction while it has one.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pipe: Option<Box<Pipe>>,
    /// Bytes in the pipe.
    filled: usize,
}

impl Splice {
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves up to `most` bytes from the socket into the pipe. No bytes are the end of the stream; `None` is no pipe to
    /// be had, and the bytes have to go another way.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<Option<u64>>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIPE_SIZE);
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                // A payload that pauses holds no descriptors.
                if self.is_empty() {
                    self.give_back();
                }
                return Poll::Pending;
            }
            let pipe = match &mut self.pipe {
                Some(pipe) => pipe,
                empty => match Pipe::take() {
                    Some(pipe) => empty.insert(pipe),
                    None => return Poll::Ready(Ok(None)),
                },
            };
            let moved = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &pipe.write, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Ok(count) => {
                    self.filled += count;
                    return Poll::Ready(Ok(Some(u64::try_from(count).unwrap_or(u64::MAX))));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves what the pipe holds into the socket; answers how much went, and whether all did.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> io::Result<(Poll<()>, u64)> {
        let mut moved = 0;
        let Some(pipe) = &self.pipe else { return Ok((Poll::Ready(()), 0)) };
        while self.filled > 0 {
            match to.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok((Poll::Pending, moved)),
            }
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            match to.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to, None, self.filled, flags)?)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.filled = self.filled.saturating_sub(count);
                    moved += u64::try_from(count).unwrap_or(u64::MAX);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Poll::Ready(()), moved))
    }

    /// Gives an empty pipe back to the thread. One that still holds bytes is closed with the relay, never kept.
    pub(super) fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            IN_USE.set(IN_USE.get().saturating_sub(1));
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < MAX_KEPT {
                    kept.push(*pipe);
                }
            });
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        if self.pipe.take().is_some() {
            IN_USE.set(IN_USE.get().saturating_sub(1));
        }
    }
}
