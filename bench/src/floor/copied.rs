//! Copies through one buffer that the whole thread shares: a pair owns memory only for bytes its other side would not
//! take.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

/// Two sockets, and what neither took yet.
pub(super) struct Pair {
    sides: [Side; 2],
}

struct Side {
    socket: TcpStream,
    /// Read from the other side, not taken by this one.
    unsent: Vec<u8>,
    /// Its end was seen and passed on.
    ended: bool,
}

impl Pair {
    pub(super) fn new(sockets: [TcpStream; 2]) -> Self {
        Self { sides: sockets.map(|socket| Side { socket, unsent: Vec::new(), ended: false }) }
    }

    fn ways(&mut self, from: usize) -> (&mut Side, &mut Side) {
        let [client, server] = &mut self.sides;
        if from == 0 { (client, server) } else { (server, client) }
    }

    pub(super) fn pump(&mut self, from: usize, read_closed: bool, buffer: &mut [u8]) -> bool {
        let (from, to) = self.ways(from);
        while to.unsent.is_empty() && !from.ended {
            let count = match from.socket.read(buffer) {
                Ok(0) => {
                    from.ended = true;
                    // Fails where that side is gone already.
                    let _ = to.socket.shutdown(std::net::Shutdown::Write);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            match to.socket.write(bytes) {
                Ok(taken) => to.unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => to.unsent.extend_from_slice(bytes),
                // Not connected yet: the writable event comes when it is.
                Err(error) if error.kind() == ErrorKind::NotConnected => to.unsent.extend_from_slice(bytes),
                Err(_) => return false,
            }
            // A short read emptied the socket, unless its end was already announced: that edge comes only once.
            if count < buffer.len() && !read_closed {
                break;
            }
        }
        !(from.ended && to.ended)
    }

    pub(super) fn resume(&mut self, to: usize, buffer: &mut [u8]) -> bool {
        let (side, _) = self.ways(to);
        if side.unsent.is_empty() {
            return true;
        }
        match side.socket.write(&side.unsent) {
            Ok(taken) if taken < side.unsent.len() => {
                side.unsent.drain(..taken);
                true
            }
            Ok(_) => {
                // Given back, not only emptied: an idle pair owns nothing.
                side.unsent = Vec::new();
                self.pump(1 - to, true, buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(_) => false,
        }
    }
}
