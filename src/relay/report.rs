//! What is known of a relay once it has ended.

use std::{fmt, io, time::Duration};

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer that called us.
    Downstream,
    /// The peer we called.
    Upstream,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        })
    }
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides ended their streams in order.
    Closed,
    /// A read or a write failed; `Report::first_to_end` says on which side.
    Failed(io::Error),
    /// No byte passed in either direction for this long.
    Idle(Duration),
    /// It was told to stop.
    Stopped,
}

impl End {
    /// A fixed word for logs and counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed(error) if error.kind() == io::ErrorKind::ConnectionReset => "reset",
            // TLS says so of a peer that left without its closing alert, as many do.
            Self::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof => "unexpected_eof",
            Self::Failed(_) => "failed",
            Self::Idle(_) => "idle_timeout",
            Self::Stopped => "drain",
        }
    }
}

/// The account of one relay.
#[derive(Debug)]
pub struct Report {
    /// Bytes written to the upstream.
    pub to_upstream: u64,
    /// Bytes written to the downstream.
    pub to_downstream: u64,
    /// From the switch to the end.
    pub duration: Duration,
    /// The side that ended its stream or failed first; `None` when we ended both.
    pub first_to_end: Option<Side>,
    /// Why it ended.
    pub end: End,
}
