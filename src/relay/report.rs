//! What is known of a relay once it has ended.

use std::{fmt, io, time::Duration};

use super::control::{Cause, Passed};
use crate::protocol::websocket::frame::FrameError;

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The peer that called us.
    Downstream,
    /// The peer we called.
    Upstream,
}

impl Side {
    /// Its name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides ended in order.
    Closed,
    /// A read or a write failed; `Report::first_to_end` says on which side.
    Failed(io::Error),
    /// No byte came from either side for this long.
    Idle(Duration),
    /// One side had ended, and the other went on for this long.
    HalfClose(Duration),
    /// A Close had passed, and nothing had answered it for this long.
    CloseWait(Duration),
    /// It was as old as it may become.
    Lifetime(Duration),
    /// This side gave no sign of life within this time after a Ping.
    PeerDead(Side, Duration),
    /// This side broke a rule.
    Broken(Side, FrameError),
    /// The client sent more than it may.
    Rate,
    /// It was told to close with this code.
    Asked(u16, Cause),
    /// It was told to end at once.
    Cut,
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
            Self::HalfClose(_) => "half_close_timeout",
            Self::CloseWait(_) => "close_timeout",
            Self::Lifetime(_) => "max_lifetime",
            Self::PeerDead(..) => "peer_dead",
            Self::Broken(_, error) => error.rule(),
            Self::Rate => "rate",
            Self::Asked(_, Cause::Drain) => "drain",
            Self::Asked(_, Cause::Asked) => "asked",
            Self::Cut => "cut",
        }
    }
}

impl fmt::Display for End {
    /// The particulars beyond [`End::reason`]; empty where there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed | Self::Rate | Self::Cut => Ok(()),
            Self::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Idle(limit) => write!(f, "idle_timeout {limit:?}"),
            Self::HalfClose(limit) => write!(f, "half_close_timeout {limit:?}"),
            Self::CloseWait(limit) => write!(f, "close_timeout {limit:?}"),
            Self::Lifetime(limit) => write!(f, "max_lifetime {limit:?}"),
            Self::PeerDead(side, limit) => write!(f, "{side} was silent for ping.timeout {limit:?}"),
            Self::Broken(side, error) => write!(f, "{side}: {error}"),
            Self::Asked(code, _) => write!(f, "code {code}"),
        }
    }
}

/// How one side said goodbye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The code of its Close; `None` for one without a code, which its peer reports as 1005.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: Box<str>,
}

/// The account of one relay.
#[derive(Debug)]
pub struct Report {
    /// What the upstream was sent.
    pub to_upstream: Passed,
    /// What the downstream was sent.
    pub to_downstream: Passed,
    /// From the switch to the end.
    pub duration: Duration,
    /// The side that began the end, by a Close, the end of its stream or a failure; `None` when we did.
    pub began: Option<Side>,
    /// The side that ended its stream or failed first; `None` when we ended both.
    pub first_to_end: Option<Side>,
    /// The side whose Close came first; `None` when none came before ours.
    pub first_to_close: Option<Side>,
    /// The Close of the downstream; `None` where none was seen: its socket just ended, or we ended it.
    pub downstream_close: Option<Goodbye>,
    /// The Close of the upstream.
    pub upstream_close: Option<Goodbye>,
    /// The first broken rule that was only observed.
    pub observed: Option<(Side, FrameError)>,
    /// Why it ended.
    pub end: End,
}
