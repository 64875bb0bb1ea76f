//! One connection of the backend: HTTP until it switches, then an echo, or silence until a push.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::{echo::Echo, push::Order};
use crate::wire;

/// Longest request head that is read.
const LONGEST_HEAD: usize = 16 * 1024;

/// A socket, what it speaks, and what it has not taken yet.
pub(super) struct Connection {
    socket: TcpStream,
    speaks: Speaks,
    unsent: Vec<u8>,
}

enum Speaks {
    Http {
        head: Vec<u8>,
    },
    Echo(Echo),
    /// Listens only; the push of this group writes.
    Push {
        group: u64,
    },
}

/// What came of a readable or writable socket.
pub(super) enum Outcome {
    /// Nothing more to do for now.
    Waits,
    /// Closed, or broken beyond use.
    Gone,
    /// Somebody asks for a push.
    Ordered(Order),
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, speaks: Speaks::Http { head: Vec::new() }, unsent: Vec::new() }
    }

    /// The socket, to register it.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_in(&self, wanted: u64) -> bool {
        matches!(self.speaks, Speaks::Push { group } if group == wanted)
    }

    /// Writes and reads until the socket would block; `scratch` and `out` are lent.
    ///
    /// # Errors
    /// A sentence when the peer breaks the protocol; the connection is of no use then.
    pub(super) fn ready(
        &mut self,
        read_closed: bool,
        scratch: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Outcome, &'static str> {
        loop {
            match self.flush() {
                Ok(true) => {}
                // An echo that is not taken is not read further: that is the back-pressure a proxy has to pass on.
                Ok(false) => return Ok(Outcome::Waits),
                Err(_) => return Ok(Outcome::Gone),
            }
            let count = match self.socket.read(scratch) {
                Ok(0) => return Ok(Outcome::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Outcome::Gone),
            };
            out.clear();
            let order = self.feed(scratch.get(..count).unwrap_or_default(), out)?;
            if self.write(out).is_err() {
                return Ok(Outcome::Gone);
            }
            if let Some(order) = order {
                return Ok(Outcome::Ordered(order));
            }
            // A short read emptied the socket, unless its end was already announced: that edge comes only once.
            if count < scratch.len() && !read_closed {
                return Ok(Outcome::Waits);
            }
        }
    }

    /// Writes, keeping what the socket does not take.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let taken = write_some(&mut self.socket, bytes)?;
        self.unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Answers a control request.
    pub(super) fn answer_order(&mut self, accepted: bool) -> io::Result<()> {
        if accepted { self.write(&plain_answer()) } else { self.write(&refusal("409 Conflict")) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let taken = write_some(&mut self.socket, &self.unsent)?;
            self.unsent.drain(..taken);
        }
        Ok(self.unsent.is_empty())
    }

    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Order>, &'static str> {
        match &mut self.speaks {
            Speaks::Echo(echo) => {
                echo.feed(input, out).map_err(|_| "a frame arrived without a mask")?;
                Ok(None)
            }
            // A Close, a Pong: nothing that a push cares about.
            Speaks::Push { .. } => Ok(None),
            Speaks::Http { head } => {
                head.extend_from_slice(input);
                let bytes = std::mem::take(head);
                self.requests(&bytes, out)
            }
        }
    }

    fn requests(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Order>, &'static str> {
        while let Some(length) = wire::head_length(bytes) {
            let (head, rest) = bytes.split_at(length);
            bytes = rest;
            let head = str::from_utf8(head).map_err(|_| "a request head is not text")?;
            let target = head.split(' ').nth(1).ok_or("a request line has no target")?;
            if let Some(order) = Order::parse(target) {
                return Ok(Some(order));
            }
            let key = wire::field(head, "sec-websocket-key");
            let wanted = wire::field(head, "upgrade").is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
            let (true, Some(key)) = (wanted, key) else {
                out.extend_from_slice(&plain_answer());
                continue;
            };
            out.extend_from_slice(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {}\r\n\r\n",
                    wire::accept_value(key)
                )
                .as_bytes(),
            );
            self.speaks = match super::push::group_of(target) {
                Some(group) => Speaks::Push { group },
                None => Speaks::Echo(Echo::default()),
            };
            return self.feed(bytes, out);
        }
        if bytes.len() > LONGEST_HEAD {
            return Err("a request head has no end");
        }
        if let Speaks::Http { head } = &mut self.speaks {
            head.extend_from_slice(bytes);
        }
        Ok(None)
    }
}

fn plain_answer() -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", wire::BODY.len())
            .into_bytes();
    answer.extend_from_slice(&wire::BODY);
    answer
}

fn refusal(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Writes until all is taken or the socket would block; how much was taken.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match socket.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}
