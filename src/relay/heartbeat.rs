//! Whether a side is still there: a Ping of ours after its silence, and its time to show a sign of life.

use tokio::time::Instant;

use super::frames::{self, Token};
use crate::config::relay_policy::Ping;

/// What is known of one side.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When the Ping that nothing followed yet was queued.
    asked: Option<Instant>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before then.
    Wait(Instant),
    /// Ask it now, with this payload.
    Ask(Token),
    /// It was asked in vain.
    Dead,
}

impl Heartbeat {
    /// `heard` is when the last byte came from this side. Any byte is a sign of life.
    pub(super) fn beat(&mut self, ping: &Ping, heard: Instant, now: Instant) -> Beat {
        if self.asked.is_some_and(|asked| heard >= asked) {
            self.asked = None;
        }
        match self.asked {
            Some(asked) if now >= asked + ping.timeout => Beat::Dead,
            Some(asked) => Beat::Wait(asked + ping.timeout),
            None if now >= heard + ping.every => {
                self.asked = Some(now);
                Beat::Ask(frames::random())
            }
            None => Beat::Wait(heard + ping.every),
        }
    }
}
