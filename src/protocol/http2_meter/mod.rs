//! What a peer may send over HTTP/2 beside requests and their bodies (RFC 9113 §10.5).
//!
//! Frames that carry neither a request nor data still cost CPU time, so each takes one or more points from a budget.
//! The budget is refilled over time, and by requests and by frames sent to the peer.
//!
//! WINDOW_UPDATE frames for sent data are free: the peer may return the window of every byte, in steps as small as
//! `SMALLEST_STEP`, on the stream and on the connection, at any time. An attacker must download 256 bytes for two
//! frames of 13 bytes, and the number of unused frames is limited to `MOST_UPDATES`.
//!
//! Only frame headers and window increments are parsed.

mod follower;
mod windows;

use std::time::Duration;

pub use follower::Unfinished;
use follower::{
    ACK, CONTINUATION, DATA, END_STREAM, Follower, FrameHead, HEADERS, PADDED, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};
use windows::{Taken, Windows};

/// Initial and maximum points, in addition to those for the reset of each stream.
const BURST: u32 = 2_000;

/// Points that come back each second.
const REFILL: u32 = 200;

/// Points returned for each DATA or HEADERS frame sent: the peer may answer it with a PING, for example.
const FOR_AN_ANSWER: u32 = 4;

/// Points returned for each request: clients send some further frames with it.
const FOR_A_REQUEST: u32 = 2;

/// Points for a request that is reset before its response: it costs far more to serve than to send (CVE-2023-44487).
const RESET_COST: u32 = 10;

/// Bytes for which the peer may send one WINDOW_UPDATE on the stream and one on the connection. Go's client returns
/// windows in steps of 2 or 4 KiB. One frame of any length may be answered with both.
const SMALLEST_STEP: u32 = 256;

/// Maximum unused WINDOW_UPDATE frames. Enough for the largest amount of unread data on a connection, 2³¹ - 1 bytes, in
/// steps of 4 KiB on both levels. An attacker that has downloaded 128 MiB may send 13 MB of them at once.
const MOST_UPDATES: u32 = 1 << 20;

/// Maximum outstanding acknowledgments of our PING and SETTINGS frames; at most one or two are sent at a time.
const MOST_ACKS: u32 = 16;

/// CONTINUATION frames below this length cost more: their number is what makes them expensive.
const SMALL: u32 = 256;

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It sent too many frames that carry neither a request nor data.
    Flood,
    /// It sent more on a stream than the window of that stream allows (RFC 9113 §6.9.1).
    Overrun,
    /// A frame or header block was not completed in time; see [`Meter::unfinished`].
    Stalled,
}

/// The budget of one connection.
#[derive(Debug)]
pub struct Meter {
    inbound: Follower,
    outbound: Follower,
    windows: Windows,
    account: Account,
    filled_at: Duration,
}

impl Meter {
    /// For a connection whose client may have `max_streams` at a time, each with this window at its beginning.
    pub fn new(max_streams: u32, stream_window: u32) -> Self {
        Self {
            inbound: Follower::of_client(),
            outbound: Follower::of_server(),
            windows: Windows::new(stream_window, max_streams),
            account: Account::new(max_streams),
            filled_at: Duration::ZERO,
        }
    }

    /// Takes in what came from the peer; `now` is the time since the connection began.
    pub fn received(&mut self, bytes: &[u8], now: Duration) {
        self.fill(now);
        let Self { inbound, windows, account, .. } = self;
        inbound.follow(bytes, |head| {
            account.receive(head);
            match head.kind {
                HEADERS if !head.has(END_STREAM) => windows.begin(head.stream),
                HEADERS | RST_STREAM => windows.end(head.stream),
                DATA => {
                    match windows.take(head.stream, head.length) {
                        Taken::Allowed => {}
                        Taken::Overrun => {
                            account.fault.get_or_insert(Fault::Overrun);
                        }
                        // The library drops it and opens the window of the connection again.
                        Taken::Unknown => account.spend(1 + head.length / SMALL),
                    }
                    if head.has(END_STREAM) {
                        windows.end(head.stream);
                    }
                }
                _ => {}
            }
        });
    }

    /// Takes in what goes out to the peer.
    pub fn sent(&mut self, bytes: &[u8]) {
        let Self { outbound, windows, account, .. } = self;
        outbound.follow(bytes, |head| {
            account.send(head);
            match head.kind {
                WINDOW_UPDATE => windows.open(head.stream, head.increment),
                RST_STREAM => windows.reset(head.stream),
                _ => {}
            }
        });
    }

    /// What the peer did that ends its connection. Once there is something, it stays.
    pub fn fault(&self) -> Option<Fault> {
        self.account.fault
    }

    /// What the peer has begun and not ended.
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.inbound.unfinished()
    }

    fn fill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.filled_at).as_secs();
        if seconds > 0 {
            self.account.gain(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(REFILL));
            self.filled_at += Duration::from_secs(seconds);
        }
    }
}

/// What the peer may send.
#[derive(Debug)]
struct Account {
    budget: u32,
    /// Most of `budget`.
    burst: u32,
    /// WINDOW_UPDATEs for what was sent to it.
    updates: u32,
    /// Resets of streams that were answered.
    resets: u32,
    most_resets: u32,
    /// Answers to PING and SETTINGS.
    acks: u32,
    fault: Option<Fault>,
}

impl Account {
    fn new(max_streams: u32) -> Self {
        // A browser that leaves a page resets all its streams at once.
        let burst = BURST.saturating_add(max_streams.saturating_mul(RESET_COST));
        Self { budget: burst, burst, updates: 0, resets: 0, most_resets: max_streams, acks: 0, fault: None }
    }

    fn receive(&mut self, head: FrameHead) {
        match head.kind {
            DATA if head.has(END_STREAM) => {}
            // Nothing but padding is empty too. How much of it is padding stands further in, but 256 bytes are the most.
            DATA if head.length == 0 || head.has(PADDED) && head.length <= SMALL => self.spend(1),
            DATA => {}
            HEADERS => self.gain(FOR_A_REQUEST),
            CONTINUATION if head.length < SMALL => self.spend(5),
            // A head of many fields; how large it may be is bounded.
            CONTINUATION => {}
            RST_STREAM if take_one(&mut self.resets) => {}
            RST_STREAM => self.spend(RESET_COST),
            PING | SETTINGS if head.has(ACK) && take_one(&mut self.acks) => {}
            // Each is answered, and may change every stream.
            SETTINGS => self.spend(5),
            WINDOW_UPDATE if take_one(&mut self.updates) => {}
            // PRIORITY, PING, GOAWAY, and what nobody knows.
            _ => self.spend(1),
        }
    }

    fn send(&mut self, head: FrameHead) {
        match head.kind {
            DATA => {
                self.gain(FOR_AN_ANSWER);
                let steps = head.length.div_ceil(SMALLEST_STEP).max(1);
                self.updates = self.updates.saturating_add(steps.saturating_mul(2)).min(MOST_UPDATES);
            }
            HEADERS => {
                self.gain(FOR_AN_ANSWER);
                self.resets = self.resets.saturating_add(1).min(self.most_resets);
            }
            PING | SETTINGS if !head.has(ACK) => self.acks = self.acks.saturating_add(1).min(MOST_ACKS),
            _ => {}
        }
    }

    fn gain(&mut self, points: u32) {
        self.budget = self.budget.saturating_add(points).min(self.burst);
    }

    fn spend(&mut self, points: u32) {
        match self.budget.checked_sub(points) {
            Some(left) => self.budget = left,
            None => {
                self.fault.get_or_insert(Fault::Flood);
            }
        }
    }
}

/// Takes one of these, if there is one.
fn take_one(count: &mut u32) -> bool {
    let left = count.checked_sub(1);
    *count = left.unwrap_or(0);
    left.is_some()
}

#[cfg(test)]
mod tests;
