//! Reads and writes of a socket that ask the runtime as little as they can.
//!
//! A stream's own `poll_read` asks to be woken again each time there is nothing to read, under a lock. A relay polls
//! both directions whenever one of them stirs, so for the other one that is a question whose answer it knows.

use std::{
    io,
    task::{Context, Poll},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{io::Interest, net::TcpStream, task::coop::has_budget_remaining};

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
            // A task that has had its share of this turn is told to come again, and nothing was asked.
            let heard = has_budget_remaining();
            match socket.poll_read_ready(cx) {
                Poll::Ready(ready) => {
                    ready?;
                    *self = Self::Unknown;
                }
                Poll::Pending => {
                    if heard {
                        *self = Self::Asked;
                    }
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

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        io::Write,
        net::TcpListener,
        pin::pin,
        time::Duration,
    };

    use futures_util::future::join;
    use tokio::{
        task::{coop::consume_budget, yield_now},
        time::{Instant, timeout},
    };

    use super::*;

    const HANG: Duration = Duration::from_secs(3);

    /// Spends what is left of the task's share of this turn.
    fn spend(cx: &mut Context<'_>) {
        while has_budget_remaining() {
            let _pending = pin!(consume_budget()).poll(cx);
        }
    }

    #[tokio::test]
    async fn a_task_that_has_had_its_share_is_still_woken_by_what_comes_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (mut ear, mut buffer, mut polls) = (Ear::default(), [0; 64], 0);
        let heard = poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                spend(cx);
            } else if ear.is_at_rest(&socket) {
                // As the pump does it: the other direction may have stirred.
                return Poll::Pending;
            }
            ear.poll_read(cx, &socket, &mut buffer)
        });
        // The bytes come when the task has been told to come again, and has been there.
        let later = async {
            yield_now().await;
            yield_now().await;
            peer.write_all(b"later").unwrap();
        };
        let begun = Instant::now();
        let (count, ()) = timeout(HANG, join(heard, later)).await.expect("not woken");
        assert_eq!(count.unwrap(), 5);
        assert!(begun.elapsed() < HANG, "woken by the clock alone");
    }
}
