//! What a route asks of its relays.

use std::time::Duration;

use crate::protocol::websocket::close;

/// How closely frames are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// A broken rule ends the relay.
    #[default]
    Enforce,
    /// A broken rule is reported, and following ends there.
    Observe,
    /// Bytes pass as bytes: no limits, no Ping, no Close of ours.
    Off,
}

/// What happens to a client beyond its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// Nothing more is read from it until it is within its rate again.
    #[default]
    Hold,
    /// Close 1008 to both sides.
    Close,
}

/// How much a client may send; a second's worth may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second.
    pub bytes: Option<u64>,
    /// Messages a second.
    pub messages: Option<u64>,
    /// Beyond it.
    pub excess: Excess,
}

/// Heartbeats of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Silence of a side after which it is asked.
    pub every: Duration,
    /// How long it may take to show any sign of life.
    pub timeout: Duration,
    /// The client is asked.
    pub client: bool,
    /// The upstream is asked.
    pub upstream: bool,
}

/// What a route asks of its relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How closely frames are looked at.
    pub frames: Frames,
    /// Largest payload of one frame; `u64::MAX` is no limit.
    pub max_frame_size: u64,
    /// Largest message on the wire; `u64::MAX` is no limit.
    pub max_message_size: u64,
    /// Longest silence in both directions together; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// How long one direction may go on after the other has ended; `None` is for ever.
    pub half_close_timeout: Option<Duration>,
    /// How long a Close may wait for its answer, and everything after it for its end.
    pub close_timeout: Duration,
    /// Heartbeats of ours.
    pub ping: Option<Ping>,
    /// What the client may send.
    pub rate: Option<Rate>,
    /// Longest life of a relay.
    pub max_lifetime: Option<Lifetime>,
    /// Close code for the client when the upstream is lost.
    pub upstream_lost_code: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            frames: Frames::Enforce,
            max_frame_size: u64::MAX,
            max_message_size: u64::MAX,
            idle_timeout: Some(Duration::from_secs(600)),
            half_close_timeout: Some(Duration::from_secs(30)),
            close_timeout: Duration::from_secs(5),
            ping: None,
            rate: None,
            max_lifetime: None,
            upstream_lost_code: close::RESTART,
        }
    }
}

/// A longest life, and how much of it chance may take away, so that what began together does not end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Longest life.
    pub limit: Duration,
    /// At most this much less.
    pub jitter: Duration,
}
