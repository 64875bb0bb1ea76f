//! Detects a disconnected peer without reading its data.

use std::{os::fd::AsFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How a peer has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// It has ended its stream, and what it sent before may be unread.
    Ended,
    /// It has reset the connection; sent data cannot arrive.
    Reset,
}

/// Interval of the check while a stream is not read. Unread bytes keep a socket readable, so waiting for the runtime's
/// next event would either loop without a pause or miss the reset.
pub const HANG_UP_CHECK: Duration = Duration::from_millis(500);

/// Returns what the kernel knows of a socket's peer, without waiting.
pub(super) fn hang_up(socket: impl AsFd) -> Option<HangUp> {
    let mut sockets = [PollFd::new(&socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A failure of the call itself is no information about the peer.
    poll(&mut sockets, Some(&now)).ok()?;
    let [socket] = sockets;
    let events = socket.revents();
    if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        return Some(HangUp::Reset);
    }
    events.contains(PollFlags::RDHUP).then_some(HangUp::Ended)
}
