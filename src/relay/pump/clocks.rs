//! The clocks of a relay: idle, half-closed, waiting for a Close, too old, silent.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::coop::has_budget_remaining, time::sleep_until};

use super::{
    super::{
        Link,
        control::Control,
        heartbeat::{Beat, Heartbeat},
        moment::Moment,
        report::{End, Side},
    },
    Pump, Sides, Turn,
};
use crate::{
    config::relay_policy::{Ping, Policy},
    protocol::websocket::close,
};

/// How often a relay that waits for a slow side looks whether the other was reset meanwhile.
///
/// It does not read there, so no event would tell it.
const STALL_CHECK: Duration = Duration::from_secs(1);

impl<D: Link, U: Link, C: AsRef<Control>> Pump<D, U, C> {
    /// What the clocks say: the first deadline that has passed, or when to look again.
    pub(super) fn poll_clocks(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        now: Moment,
        unread: bool,
        held_until: Option<Moment>,
    ) -> Turn {
        let policy = Arc::clone(&self.policy);
        let last_byte = [self.heard, self.taken].map(|sides| sides.downstream.max(sides.upstream));
        let last_byte = last_byte.into_iter().max().unwrap_or(now);
        let away = (close::GOING_AWAY, close::GOING_AWAY);
        let clocks = [
            (policy.idle_timeout, Some(last_byte), End::Idle as fn(Duration) -> End),
            (self.max_lifetime, Some(Moment::default()), End::Lifetime),
            (policy.half_close_timeout, self.half_closed_at, End::HalfClose),
            (Some(policy.close_timeout), self.close_at, End::CloseWait),
        ];
        let mut next = held_until;
        let mut earlier = |at: Moment| next = Some(next.map_or(at, |known| known.min(at)));
        for (limit, from, end) in clocks {
            let (Some(limit), Some(from)) = (limit, from) else { continue };
            if now >= from + limit {
                let end = end(limit);
                let both_said =
                    self.to_upstream.lane.goodbye().is_some() && self.to_downstream.lane.goodbye().is_some();
                // Both have said goodbye and neither hangs up: there is nothing left to wait for.
                if both_said {
                    self.hang_up(cx);
                    return Turn::Over(End::Closed);
                }
                return self.begin_closing(end, away, None);
            }
            earlier(from + limit);
        }
        match self.poll_beats(&policy, now) {
            Ok(Some(at)) => earlier(at),
            Ok(None) => {}
            Err(turn) => return turn,
        }
        if let Some(unwritable) = &self.unwritable {
            earlier(unwritable.until);
        }
        if let Some(until) = self.end_held_until() {
            earlier(until);
        }
        if unread {
            earlier(now + STALL_CHECK);
            let lost = [Side::Downstream, Side::Upstream].into_iter().find_map(|side| {
                let error = match side {
                    Side::Downstream => self.downstream.take_error(),
                    Side::Upstream => self.upstream.take_error(),
                };
                error.map(|error| (side, error))
            });
            if let Some((side, error)) = lost {
                return self.hear_out(cx, buffer, side, error, now);
            }
        }
        match next {
            None => Turn::Pending,
            Some(at) => {
                // A task that has had its share of this turn is told to come again, and no timer was armed.
                let armed = has_budget_remaining();
                let turn = self.wake_at(cx, at);
                // The timer may go off earlier than asked for: then it has to be armed anew.
                let timer = self.timer.as_ref().filter(|_| armed);
                self.quiet_until = timer.map(|timer| self.begun.moment(timer.deadline()));
                turn
            }
        }
    }

    /// Asks a side that has been silent whether it is there; answers when to look again.
    fn poll_beats(&mut self, policy: &Policy, now: Moment) -> Result<Option<Moment>, Turn> {
        let (Some(ping), Some(mut beats)) = (&policy.ping, self.beats.take()) else { return Ok(None) };
        let beaten = self.beat_both(ping, &mut beats, now);
        self.beats = Some(beats);
        beaten
    }

    fn beat_both(&mut self, ping: &Ping, beats: &mut Sides<Heartbeat>, now: Moment) -> Result<Option<Moment>, Turn> {
        let followed = self.to_upstream.lane.is_followed() && self.to_downstream.lane.is_followed();
        if self.half_closed_at.is_some() || self.close_at.is_some() || !followed {
            return Ok(None);
        }
        let mut next: Option<Moment> = None;
        for (side, asks) in [(Side::Downstream, ping.client), (Side::Upstream, ping.upstream)] {
            if !asks {
                continue;
            }
            let (heard, taken) = (*self.heard.of(side), *self.taken.of(side));
            let out = self.to(side);
            if out.lane.has_ping() || !out.is_flushed() {
                beats.of(side).unsent(taken);
            }
            let owes_theirs = self.from(side).lane.owes_pong();
            match beats.of(side).beat(ping, heard, owes_theirs, now) {
                Beat::Wait(at) => next = Some(next.map_or(at, |known| known.min(at))),
                Beat::Ask(token) => {
                    self.to(side).lane.queue_ping(token);
                    self.from(side).lane.await_pong(token);
                    // One that it has not answered by now is not waited for any more.
                    self.from(side).lane.owe_pong(None);
                    return Err(Turn::Again);
                }
                Beat::Dead => {
                    let away = (close::GOING_AWAY, close::GOING_AWAY);
                    return Err(self.begin_closing(End::PeerDead(side, ping.timeout), away, Some(side)));
                }
            }
        }
        Ok(next)
    }

    /// Sees to it that the task is woken at that time. An armed timer that fires early costs one look; moving it at
    /// every byte would cost more.
    pub(super) fn wake_at(&mut self, cx: &mut Context<'_>, at: Moment) -> Turn {
        let at = self.begun.instant(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.is_elapsed() || timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        match timer.as_mut().poll(cx) {
            Poll::Pending => Turn::Pending,
            Poll::Ready(()) => Turn::Again,
        }
    }
}
