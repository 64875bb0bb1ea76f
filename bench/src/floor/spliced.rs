//! Moves pages through a pipe inside the kernel: for large messages nothing is cheaper.

use std::{io, net::Shutdown, os::fd::OwnedFd};

use mio::net::TcpStream;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// What a pipe holds, and so the most that one call moves.
const PIPE: usize = 256 * 1024;

/// Two sockets, and a pipe for each way.
pub(super) struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
}

/// From one side to the other.
struct Way {
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// Bytes in the pipe.
    held: usize,
    /// The end of its source was seen and passed on.
    ended: bool,
}

impl Way {
    fn new() -> io::Result<Self> {
        let (read_end, write_end) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller pipe works as well, only slower.
        let _ = fcntl_setpipe_size(&write_end, PIPE);
        Ok(Self { read_end, write_end, held: 0, ended: false })
    }
}

impl Pair {
    pub(super) fn new(sockets: [TcpStream; 2]) -> io::Result<Self> {
        Ok(Self { sockets, ways: [Way::new()?, Way::new()?] })
    }

    /// Moves what side `from` has until it is empty or the other is full. False when the pair is finished.
    pub(super) fn pump(&mut self, from: usize) -> bool {
        let [client, server] = &self.sockets;
        let [up, down] = &mut self.ways;
        let (source, target, way, other) =
            if from == 0 { (client, server, up, &*down) } else { (server, client, down, &*up) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            if way.held == 0 {
                if way.ended {
                    return !other.ended;
                }
                match splice(source, None, &way.write_end, None, PIPE, flags) {
                    Ok(0) => {
                        way.ended = true;
                        // Fails where that side is gone already.
                        let _ = target.shutdown(Shutdown::Write);
                    }
                    Ok(count) => way.held = count,
                    Err(Errno::AGAIN | Errno::INTR) => return true,
                    Err(_) => return false,
                }
            }
            while way.held > 0 {
                match splice(&way.read_end, None, target, None, way.held, flags) {
                    Ok(count) => way.held = way.held.saturating_sub(count),
                    Err(Errno::AGAIN | Errno::INTR) => return true,
                    Err(_) => return false,
                }
            }
        }
    }
}
