//! Whether a side is still there: a Ping of ours after its silence, and its time to show a sign of life.
//!
//! An endpoint may answer only the newest of several Pings (RFC 6455 §5.5.3). A heartbeat after an unanswered Ping of
//! the other side could suppress the Pong that the other side waits for, so none is sent then. If the side has sent
//! nothing since that Ping, that Ping serves as the heartbeat. If it has sent something but no Pong, the heartbeat
//! follows after `timeout`, so that a Ping that is never answered does not disable it.

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
    /// When a Ping of the other side was passed to it, the first one since it was last heard.
    theirs: Option<Moment>,
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
        self.theirs = self.theirs.map(|at| at.max(taken));
    }

    /// A Ping of the other side was passed to this one, from which the last byte came at `heard`.
    pub(super) fn passed_theirs(&mut self, heard: Moment, now: Moment) {
        if self.theirs.is_none_or(|at| at < heard) {
            self.theirs = Some(now);
        }
    }

    /// `heard` is when the last byte came from this side. Any byte is a sign of life. `owes_theirs` is whether a Ping of
    /// the other side has no Pong yet.
    pub(super) fn beat(&mut self, ping: &Ping, heard: Moment, owes_theirs: bool, now: Moment) -> Beat {
        if self.asked.is_some_and(|asked| heard >= asked) {
            self.asked = None;
        }
        let heard = self.deaf_until.map_or(heard, |until| until.max(heard));
        let due = heard + ping.every;
        let theirs = self.theirs.filter(|_| owes_theirs);
        let asked = self.asked.or(theirs.filter(|at| *at >= heard).map(|at| at.max(due)));
        match asked {
            _ if self.asked.is_none() && now < due => Beat::Wait(due),
            Some(asked) if now >= asked + ping.timeout => Beat::Dead,
            Some(asked) => Beat::Wait(asked + ping.timeout),
            None if theirs.is_some() && now < due + ping.timeout => Beat::Wait(due + ping.timeout),
            None => {
                self.asked = Some(now);
                let token = frames::next_token(self.token);
                self.token = Some(token);
                Beat::Ask(token)
            }
        }
    }
}
