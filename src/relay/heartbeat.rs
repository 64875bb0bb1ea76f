//! Whether a side is still there: a Ping of ours after its silence, and its time to show a sign of life.

use super::{
    frames::{self, Token},
    moment::Moment,
};
use crate::config::relay_policy::Ping;

/// What is known of one side.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When the Ping that nothing followed yet was queued, or last could not have been answered.
    asked: Option<Moment>,
    /// Before then its silence was of our making.
    deaf_until: Option<Moment>,
    /// The payload of the last Ping: a prefix of this relay's and a count.
    token: Option<Token>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before then.
    Wait(Moment),
    /// Ask it now, with this payload.
    Ask(Token),
    /// It was asked in vain.
    Dead,
}

impl Heartbeat {
    /// Nothing is read from this side now: its silence proves nothing.
    pub(super) fn deaf(&mut self, now: Moment) {
        self.deaf_until = Some(now);
        self.asked = self.asked.map(|_| now);
    }

    /// The Ping has not left yet, since the side takes no more or a frame is under way. `taken` is when it last took
    /// something; the wait for its answer has not begun.
    pub(super) fn unsent(&mut self, taken: Moment) {
        self.asked = self.asked.map(|asked| asked.max(taken));
    }

    /// `heard` is when the last byte came from this side. Any byte is a sign of life.
    pub(super) fn beat(&mut self, ping: &Ping, heard: Moment, now: Moment) -> Beat {
        if self.asked.is_some_and(|asked| heard >= asked) {
            self.asked = None;
        }
        let heard = self.deaf_until.map_or(heard, |until| until.max(heard));
        match self.asked {
            Some(asked) if now >= asked + ping.timeout => Beat::Dead,
            Some(asked) => Beat::Wait(asked + ping.timeout),
            None if now >= heard + ping.every => {
                self.asked = Some(now);
                let token = frames::next_token(self.token);
                self.token = Some(token);
                Beat::Ask(token)
            }
            None => Beat::Wait(heard + ping.every),
        }
    }
}
