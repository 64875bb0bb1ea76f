//! Reads and writes of a socket that ask the runtime as little as they can.
//!
//! A stream's own `poll_read` asks to be woken again each time there is nothing to read, under a lock. A relay polls
//! both directions whenever one of them stirs, so for the other one that is a question whose answer it knows.

use std::{
    io,
    task::{Context, Poll},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{io::Interest, net::TcpStream};

/// What is known of one socket's wish to be heard, for one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ear {
    /// Nothing.
    #[default]
    Unknown,
    /// It was empty a moment ago.
    Emptied,
    /// The runtime was asked to wake the task, and has not been told of anything to read since.
    Asked,
}

impl Ear {
    /// The task is another one, or somebody else has read.
    pub(super) fn forget(&mut self) {
        *self = Self::Unknown;
    }

    /// Whether there is nothing to read and the task will be woken when that changes.
    pub(super) fn is_at_rest(self, socket: &TcpStream) -> bool {
        if self != Self::Asked {
            return false;
        }
        let mut stirred = false;
        // Answered with `Ok`, the runtime keeps what it knows.
        let _looked = socket.try_io(Interest::READABLE, || {
            stirred = true;
            Ok(())
        });
        !stirred
    }

    /// Reads what is there. No bytes are the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if *self != Self::Emptied
                && let Some(read) = self.read(socket, buffer).transpose()
            {
                return Poll::Ready(read);
            }
            if *self == Self::Asked {
                return Poll::Pending;
            }
            match socket.poll_read_ready(cx) {
                Poll::Ready(ready) => {
                    ready?;
                    *self = Self::Unknown;
                }
                Poll::Pending => {
                    *self = Self::Asked;
                    return Poll::Pending;
                }
            }
        }
    }

    /// `None` is nothing to read.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let (mut looked, mut short) = (false, None);
        let read = socket.try_io(Interest::READABLE, || {
            looked = true;
            let (count, _) = recv(socket, &mut *buffer, RecvFlags::empty())?;
            if count == 0 || count == buffer.len() {
                return Ok(count);
            }
            // A short read has emptied the socket. Told so, the runtime waits for the next event, and a read in vain is
            // saved; its own streams do the same.
            short = Some(count);
            Err(io::ErrorKind::WouldBlock.into())
        });
        if looked {
            // An event came, and took with it what the runtime was asked.
            *self = if short.is_some() { Self::Emptied } else { Self::Unknown };
        }
        match (short, read) {
            (Some(count), _) | (None, Ok(count)) => Ok(Some(count)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            (None, Err(error)) => Err(error),
        }
    }
}

/// Writes what the socket takes at once; `None` is nothing, and nobody is woken when that changes.
pub(super) fn write(socket: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut short = None;
    let written = socket.try_io(Interest::WRITABLE, || {
        let count = send(socket, bytes, SendFlags::NOSIGNAL)?;
        if count == 0 || count == bytes.len() {
            return Ok(count);
        }
        // Its buffer is full, as in `Ear::poll_read`.
        short = Some(count);
        Err(io::ErrorKind::WouldBlock.into())
    });
    match (short, written) {
        (Some(count), _) | (None, Ok(count)) => Ok(Some(count)),
        (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        (None, Err(error)) => Err(error),
    }
}
