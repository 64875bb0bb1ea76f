//! How a relay ends: what decides it, who is told, and how long that may take.

use std::{io, sync::Arc, task::Context, time::Duration};

use super::{
    super::{
        Link,
        control::Control,
        half::{self, Half},
        moment::Moment,
        report::{End, Side},
    },
    Closing, Pump, Turn, Unwritable,
};
use crate::{
    config::relay_policy::{Frames, Policy},
    protocol::websocket::{close, frame::FrameError},
};

/// How long a side that takes nothing any more is still read from. It is gone: what it said is here, or never comes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a side that broke a rule waits for its Close while the other one may still answer what came before. At most
/// half of `close_timeout`, so that there is time for the Close as well.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl<D: Link, U: Link, C: AsRef<Control>> Pump<D, U, C> {
    /// A side takes nothing any more. What it has said before may still wait to be read: a message, the code of its Close.
    pub(super) fn hear_out(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        side: Side,
        error: io::Error,
        now: Moment,
    ) -> Turn {
        if self.closing.is_some() || self.unwritable.is_some() {
            return self.lost(side, error);
        }
        self.to(side).abandon();
        self.began.get_or_insert(side);
        self.unwritable = Some(Box::new(Unwritable { side, error, until: now + LAST_WORDS }));
        self.quiet_until = None;
        // What is here already, before the error that is behind it: a reset shows once in each direction.
        match self.poll_half(cx, buffer, side, false, now) {
            Ok(_) => Turn::Again,
            Err(turn) => turn,
        }
    }

    /// The side that takes nothing, once it has said all, or has had its time to.
    pub(super) fn heard_out(&mut self, now: Moment) -> Option<(Side, io::Error)> {
        let &Unwritable { side, until, .. } = self.unwritable.as_deref().filter(|_| self.closing.is_none())?;
        if !self.from(side).has_ended() && now < until {
            return None;
        }
        self.unwritable.take().map(|unwritable| (unwritable.side, unwritable.error))
    }

    /// A side can neither be read from nor written to.
    pub(super) fn lost(&mut self, side: Side, error: io::Error) -> Turn {
        if self.closing.as_ref().is_some_and(|closing| closing.dead.is_some()) {
            // Nobody is left to be told.
            return Turn::Over(self.decided().unwrap_or(End::Failed(error)));
        }
        // Once both have said goodbye a reset is only a rough way to hang up.
        let both_said = self.to_upstream.lane.goodbye().is_some() && self.to_downstream.lane.goodbye().is_some();
        if self.closing.is_none() {
            self.first_to_end.get_or_insert(side);
            self.began.get_or_insert(side);
        }
        let resets = self.is_reset(side, &error).then(|| side.other());
        let end = if both_said { End::Closed } else { End::Failed(error) };
        let code = farewell(side, &self.policy);
        let decided = self.closing.is_some();
        let turn = self.begin_closing(end, (code, code), Some(side));
        if let Some(closing) = self.closing.as_mut().filter(|_| !decided) {
            closing.resets = resets;
        }
        turn
    }

    /// Whether the loss of this side is a reset to the other one too. Where frames are followed that one gets a Close.
    fn is_reset(&mut self, side: Side, error: &io::Error) -> bool {
        self.policy.frames == Frames::Off
            && match error.kind() {
                io::ErrorKind::ConnectionReset => true,
                // A TLS peer that hung up without close_notify, as many do. What it had sent must not be lost.
                io::ErrorKind::UnexpectedEof => false,
                // A peer that had ended its stream before has said all.
                _ => !self.from(side).has_ended(),
            }
    }

    /// Decides the end. `codes` are those for the downstream and for the upstream.
    pub(super) fn begin_closing(&mut self, end: End, codes: (u16, u16), dead: Option<Side>) -> Turn {
        if let Some(side) = dead {
            self.to(side).abandon();
        }
        if let Some(closing) = &mut self.closing {
            // It was decided before; only that nothing more can be said to a dead side, or will come from one that broke
            // a rule, is new.
            closing.dead = closing.dead.or(dead);
            self.hurry();
            return Turn::Again;
        }
        self.to_downstream.lane.queue_close(codes.0);
        self.to_upstream.lane.queue_close(codes.1);
        let until = self.begun.now() + self.policy.close_timeout;
        self.closing = Some(Box::new(Closing { end, until, patience: None, dead, resets: None }));
        self.quiet_until = None;
        Turn::Again
    }

    /// This side broke a rule. The other one is told at once; this one after it has had the answers to what it said
    /// before, as if there were no gate between them.
    pub(super) fn break_off(&mut self, side: Side, error: FrameError) -> Turn {
        let decided = self.closing.is_some();
        let out = self.to(side);
        if !decided && out.lane.is_followed() && !out.has_ended() {
            out.lane.queue_last_word(error.code());
        }
        let turn = self.begin_closing(End::Broken(side, error), (error.code(), error.code()), None);
        if let Some(closing) = self.closing.as_mut().filter(|_| !decided) {
            closing.patience = Some(self.begun.now() + LAST_ANSWERS.min(self.policy.close_timeout / 2));
        }
        let policy = Arc::clone(&self.policy);
        // What came with the broken rule; only now, so that a Close in it does not seem to be the first one.
        self.from(side).lane.skim(&[], &policy);
        turn
    }

    /// Whether this side may still answer a Close that was passed to it, and the answer would be seen.
    pub(super) fn may_answer(&mut self, side: Side, now: Moment) -> bool {
        let from = self.from(side);
        let silent = from.lane.is_followed() && !from.lane.has_closed() && !from.has_ended();
        silent && self.half_closed_at.is_none_or(|at| now < at + self.policy.close_timeout)
    }

    /// When the end of a stream that is kept back goes across all the same.
    pub(super) fn end_held_until(&self) -> Option<Moment> {
        let held = self.to_upstream.holds_end() || self.to_downstream.holds_end();
        self.half_closed_at.filter(|_| held).map(|at| at + self.policy.close_timeout)
    }

    /// Ends what the peers have closed in order (RFC 6455 §7.1.1). Some clients wait for that with their stream open.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>, now: Moment) -> Option<Turn> {
        for side in [Side::Downstream, Side::Upstream] {
            if self.to(side).holds_end() && !self.may_answer(side, now) {
                // Its Close came after the other direction was polled.
                return Some(Turn::Again);
            }
        }
        let downstream_closed = self.to_upstream.lane.goodbye().is_some()
            && self.to_downstream.lane.is_said()
            && self.to_downstream.is_flushed();
        let upstream_done = self.to_downstream.has_ended() && self.to_upstream.is_flushed();
        // Where rules are not enforced bytes may follow a Close, until the upstream has ended.
        let early = self.policy.frames == Frames::Enforce && !self.hung_up;
        if !downstream_closed || !(upstream_done || early) || half::shut_down(cx, &mut self.downstream).is_pending() {
            return None;
        }
        if upstream_done {
            let _ = half::shut_down(cx, &mut self.upstream);
            return Some(Turn::Over(End::Closed));
        }
        self.hung_up = true;
        self.downstream.release();
        // A released stream has an end to be read.
        Some(Turn::Again)
    }

    fn hurry(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.patience = None;
        }
        self.to_downstream.lane.hurry();
        self.to_upstream.lane.hurry();
    }

    pub(super) fn decided(&mut self) -> Option<End> {
        self.closing.take().map(|closing| closing.end)
    }

    pub(super) fn poll_closing(
        &mut self,
        cx: &mut Context<'_>,
        dead: Option<Side>,
        until: Moment,
        patience: Option<Moment>,
        now: Moment,
    ) -> Turn {
        if patience.is_some_and(|patience| now >= patience) {
            self.hurry();
            return Turn::Again;
        }
        let waited_in_vain = matches!(self.closing.as_deref(), Some(Closing { end: End::CloseWait(_), .. }));
        // A side is done with when it has taken all it can be told, and has answered or is past answering.
        let told = |out: &Half| {
            out.is_flushed() && (out.lane.is_said() || !out.lane.is_followed() || out.has_ended() || dead.is_some())
        };
        let answered = |back: &Half| {
            let silent = back.lane.is_followed() || back.lane.is_lost();
            waited_in_vain || back.lane.has_closed() || back.has_ended() || !silent
        };
        // The other side died within a frame: no Close can follow that, so no answer to one either.
        let mute = |out: &Half| dead.is_some() && !out.lane.is_said();
        let (downstream_told, upstream_told) = (told(&self.to_downstream), told(&self.to_upstream));
        // What a side that broke a rule says is not followed any more: the end of the stream is its sign to hang up.
        let downstream_lost = downstream_told && self.to_upstream.lane.is_lost();
        let upstream_lost = upstream_told && self.to_downstream.lane.is_lost();
        let downstream = dead == Some(Side::Downstream)
            || downstream_told && (answered(&self.to_upstream) || mute(&self.to_downstream));
        let upstream =
            dead == Some(Side::Upstream) || upstream_told && (answered(&self.to_downstream) || mute(&self.to_upstream));
        let over = now >= until || downstream && upstream;
        if over {
            match self.closing.as_ref().and_then(|closing| closing.resets) {
                Some(Side::Downstream) => self.downstream.reset(),
                Some(Side::Upstream) => self.upstream.reset(),
                None => self.hang_up(cx),
            }
            return Turn::Over(self.decided().unwrap_or(End::Closed));
        }
        // Each side as soon as it is done: the other may take its time. A reset waits for what is still to be written.
        if self.closing.as_ref().is_some_and(|closing| closing.resets.is_some()) {
            return self.wake_at(cx, until);
        }
        if downstream_lost || downstream {
            let shut = half::shut_down(cx, &mut self.downstream);
            if downstream && shut.is_ready() {
                self.downstream.release();
            }
        }
        if upstream_lost || upstream {
            let _ = half::shut_down(cx, &mut self.upstream);
        }
        self.wake_at(cx, patience.map_or(until, |patience| patience.min(until)))
    }

    /// TLS says goodbye of its own; a side that does not take it is not waited for.
    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>) {
        let _ = half::shut_down(cx, &mut self.downstream);
        let _ = half::shut_down(cx, &mut self.upstream);
    }
}

/// The code that tells the other side that `lost` is gone.
pub(super) fn farewell(lost: Side, policy: &Policy) -> u16 {
    match lost {
        Side::Downstream => close::GOING_AWAY,
        Side::Upstream => policy.upstream_lost_code,
    }
}
