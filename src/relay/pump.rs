//! Both directions of one relay, its clocks, and the way it ends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Leg, Link,
    control::{Control, Wish},
    half::{self, Fault, Half, May, Polled, Step},
    heartbeat::{Beat, Heartbeat},
    rate::Bucket,
    report::{End, Report, Side},
    session::Session,
};
use crate::{
    config::relay_policy::{Excess, Policy},
    protocol::websocket::close,
};

/// How often a relay that waits for a slow side looks whether the other was reset meanwhile.
///
/// It does not read there, so no event would tell it.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// How long a side that takes nothing any more is still read from. It is gone: what it said is here, or never comes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the module page.
pub(super) struct Pump<D, U, C> {
    downstream: D,
    upstream: U,
    to_upstream: Half,
    to_downstream: Half,
    policy: Arc<Policy>,
    max_lifetime: Option<Duration>,
    control: C,
    begun: Instant,
    /// When the last byte came from each side.
    heard: Sides<Instant>,
    /// When each side last took something.
    taken: Sides<Instant>,
    beats: Option<Box<Sides<Heartbeat>>>,
    bucket: Option<Box<Bucket>>,
    began: Option<Side>,
    first_to_end: Option<Side>,
    first_to_close: Option<Side>,
    /// When the first side ended its stream.
    half_closed_at: Option<Instant>,
    /// When the first Close passed.
    close_at: Option<Instant>,
    closing: Option<Box<Closing>>,
    unwritable: Option<Box<Unwritable>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// No clock can strike before then: bytes only move deadlines away. `None` when something else has changed.
    quiet_until: Option<Instant>,
}

/// The end is decided; both sides have until then to take their Close and to answer it.
struct Closing {
    end: End,
    until: Instant,
    /// A side that cannot be written to or read from any more.
    dead: Option<Side>,
}

/// A side that takes nothing any more and may still have something to say.
struct Unwritable {
    side: Side,
    error: io::Error,
    until: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sides<T> {
    downstream: T,
    upstream: T,
}

impl<T> Sides<T> {
    fn of(&mut self, side: Side) -> &mut T {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }
}

/// What a turn came to.
enum Turn {
    /// Something was decided that the halves have to act on.
    Again,
    Pending,
    Over(End),
}

impl<D, U, C> Pump<D, U, C> {
    pub(super) fn holder(&self) -> &C {
        &self.control
    }
}

impl<D: Link, U: Link, C: AsRef<Control>> Pump<D, U, C> {
    pub(super) fn new(downstream: Leg<D>, upstream: Leg<U>, policy: Arc<Policy>, session: Session, control: C) -> Self {
        let begun = Instant::now();
        Self {
            to_upstream: Half::new(Side::Downstream, downstream.early, &policy, session.extensions),
            to_downstream: Half::new(Side::Upstream, upstream.early, &policy, session.extensions),
            downstream: downstream.stream,
            upstream: upstream.stream,
            beats: policy.ping.map(|_| Box::default()),
            bucket: policy.rate.map(|rate| Box::new(Bucket::new(rate, begun))),
            policy,
            max_lifetime: session.max_lifetime,
            control,
            begun,
            heard: Sides { downstream: begun, upstream: begun },
            taken: Sides { downstream: begun, upstream: begun },
            began: None,
            first_to_end: None,
            first_to_close: None,
            half_closed_at: None,
            close_at: None,
            closing: None,
            unwritable: None,
            timer: None,
            quiet_until: None,
        }
    }

    pub(super) fn report(&self, end: End) -> Report {
        let observed = |half: &Half, side| half.lane.observed().map(|error| (side, error));
        Report {
            to_upstream: self.control.as_ref().passed(Side::Downstream),
            to_downstream: self.control.as_ref().passed(Side::Upstream),
            duration: self.begun.elapsed(),
            began: self.began,
            first_to_end: self.first_to_end,
            first_to_close: self.first_to_close,
            downstream_close: self.to_upstream.lane.goodbye().cloned(),
            upstream_close: self.to_downstream.lane.goodbye().cloned(),
            observed: observed(&self.to_upstream, Side::Downstream)
                .or_else(|| observed(&self.to_downstream, Side::Upstream)),
            end,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.control.as_ref().register(cx.waker());
        loop {
            match self.turn(cx) {
                // Each `Again` is one of few decisions, made once: an end, its deadline, a Ping that waits for its time.
                Turn::Again => {}
                Turn::Pending => return Poll::Pending,
                Turn::Over(end) => return Poll::Ready(end),
            }
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        match self.control.as_ref().wish() {
            Some(Wish::Cut) => return Turn::Over(self.decided().unwrap_or(End::Cut)),
            Some(Wish::Close(code, cause)) if self.closing.is_none() => {
                return self.begin_closing(End::Asked(code, cause), (code, code), None);
            }
            _ => {}
        }
        let now = Instant::now();
        // Once the end is decided its rate is not what keeps a client from answering.
        let bucket = self.bucket.as_mut().filter(|_| self.closing.is_none());
        let held_until = bucket.and_then(|bucket| bucket.held_until(now));
        // Nothing is read from a side that is beyond its rate, or whose peer takes nothing: no event tells of its end.
        let mut unread = false;
        for from in [Side::Downstream, Side::Upstream] {
            let held = from == Side::Downstream && held_until.is_some();
            match self.poll_half(cx, from, held, now) {
                Ok((step, _)) if held || step == Step::Stalled => {
                    unread = true;
                    if let Some(beats) = &mut self.beats {
                        beats.of(from).deaf(now);
                    }
                }
                Ok(_) => {}
                Err(turn) => return turn,
            }
        }
        if let Some((side, error)) = self.heard_out(now) {
            return self.lost(side, error);
        }
        if let Some(closing) = &self.closing {
            let (dead, until) = (closing.dead, closing.until);
            return self.poll_closing(cx, dead, until, now);
        }
        if self.to_upstream.has_ended() && self.to_downstream.has_ended() && !unread {
            return Turn::Over(End::Closed);
        }
        if !unread && self.quiet_until.is_some_and(|until| now < until) {
            // The timer is armed for then, and with this task's waker.
            return Turn::Pending;
        }
        self.poll_clocks(cx, now, unread, held_until)
    }

    /// Polls the direction from `from` to the other side, takes in what it reports, and says how many bytes were read.
    fn poll_half(&mut self, cx: &mut Context<'_>, from: Side, held: bool, now: Instant) -> Result<(Step, u64), Turn> {
        let dead = self.closing.as_ref().and_then(|closing| closing.dead);
        let other_ended = match from {
            Side::Downstream => self.to_downstream.has_ended(),
            Side::Upstream => self.to_upstream.has_ended(),
        };
        let may = May {
            reads: match (dead == Some(from) || held, &self.bucket) {
                (true, _) => 0,
                (false, Some(_)) if from == Side::Downstream => 1,
                (false, _) => half::READS_A_POLL,
            },
            farewell: (!other_ended).then(|| farewell(from, &self.policy)),
            finish: self.closing.is_none(),
            splice: from == Side::Upstream || self.bucket.is_none(),
        };
        let (half, polled) = match from {
            Side::Downstream => {
                let half = &mut self.to_upstream;
                let polled = half.poll(cx, &mut self.downstream, &mut self.upstream, &self.policy, may);
                (half, polled)
            }
            Side::Upstream => {
                let half = &mut self.to_downstream;
                let polled = half.poll(cx, &mut self.upstream, &mut self.downstream, &self.policy, may);
                (half, polled)
            }
        };
        let Polled { step, read, passed } = polled;
        if read > 0 {
            *self.heard.of(from) = now;
            let since = now.saturating_duration_since(self.begun);
            self.control.as_ref().heard(since.as_secs() * 1000 + u64::from(since.subsec_millis()));
        }
        if passed.bytes > 0 {
            *self.taken.of(from.other()) = now;
        }
        if passed.bytes > 0 || passed.messages > 0 {
            self.control.as_ref().count(from, passed);
        }
        if half.lane.goodbye().is_some() {
            if self.close_at.is_none() {
                self.close_at = Some(now);
                self.quiet_until = None;
            }
            if self.closing.is_none() {
                self.first_to_close.get_or_insert(from);
                self.began.get_or_insert(from);
            }
        }
        if half.has_ended() && self.half_closed_at.is_none() {
            self.half_closed_at = Some(now);
            self.quiet_until = None;
            if self.closing.is_none() {
                self.first_to_end.get_or_insert(from);
                self.began.get_or_insert(from);
            }
        }
        if from == Side::Downstream
            && let Some(bucket) = &mut self.bucket
        {
            bucket.take(read, passed.messages);
            let excess = self.policy.rate.is_some_and(|rate| rate.excess == Excess::Close);
            if excess && self.closing.is_none() && bucket.held_until(now).is_some() {
                return Err(self.begin_closing(End::Rate, (close::POLICY, close::POLICY), None));
            }
        }
        match step {
            Ok(step) => Ok((step, read)),
            Err(Fault::Read(error)) => Err(self.lost(from, error)),
            Err(Fault::Write(error)) => Err(self.hear_out(cx, from.other(), error, now)),
            Err(Fault::Broken(error)) => {
                Err(self.begin_closing(End::Broken(from, error), (error.code(), error.code()), None))
            }
        }
    }

    /// A side takes nothing any more. What it has said before may still wait to be read: a message, the code of its Close.
    fn hear_out(&mut self, cx: &mut Context<'_>, side: Side, error: io::Error, now: Instant) -> Turn {
        if self.closing.is_some() || self.unwritable.is_some() {
            return self.lost(side, error);
        }
        match side {
            Side::Downstream => self.to_downstream.abandon(),
            Side::Upstream => self.to_upstream.abandon(),
        }
        self.began.get_or_insert(side);
        self.unwritable = Some(Box::new(Unwritable { side, error, until: now + LAST_WORDS }));
        self.quiet_until = None;
        // What is here already, before the error that is behind it: a reset shows once in each direction.
        match self.poll_half(cx, side, false, now) {
            Ok(_) => Turn::Again,
            Err(turn) => turn,
        }
    }

    /// The side that takes nothing, once it has said all, or has had its time to.
    fn heard_out(&mut self, now: Instant) -> Option<(Side, io::Error)> {
        let Unwritable { side, until, .. } = self.unwritable.as_deref().filter(|_| self.closing.is_none())?;
        let ended = match side {
            Side::Downstream => self.to_upstream.has_ended(),
            Side::Upstream => self.to_downstream.has_ended(),
        };
        if !ended && now < *until {
            return None;
        }
        self.unwritable.take().map(|unwritable| (unwritable.side, unwritable.error))
    }

    /// A side can neither be read from nor written to.
    fn lost(&mut self, side: Side, error: io::Error) -> Turn {
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
        let end = if both_said { End::Closed } else { End::Failed(error) };
        let code = farewell(side, &self.policy);
        self.begin_closing(end, (code, code), Some(side))
    }

    /// Decides the end. `codes` are those for the downstream and for the upstream.
    fn begin_closing(&mut self, end: End, codes: (u16, u16), dead: Option<Side>) -> Turn {
        match dead {
            Some(Side::Downstream) => self.to_downstream.abandon(),
            Some(Side::Upstream) => self.to_upstream.abandon(),
            None => {}
        }
        if let Some(closing) = &mut self.closing {
            // It was decided before; only that nothing more can be said to a dead side is new.
            closing.dead = closing.dead.or(dead);
            return Turn::Again;
        }
        self.to_downstream.lane.queue_close(codes.0);
        self.to_upstream.lane.queue_close(codes.1);
        let until = Instant::now() + self.policy.close_timeout;
        self.closing = Some(Box::new(Closing { end, until, dead }));
        self.quiet_until = None;
        Turn::Again
    }

    fn decided(&mut self) -> Option<End> {
        self.closing.take().map(|closing| closing.end)
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, dead: Option<Side>, until: Instant, now: Instant) -> Turn {
        // A side is done with when it has taken all it can be told, and has answered or is past answering.
        let told = |out: &Half| {
            out.is_flushed() && (out.lane.is_said() || !out.lane.is_followed() || out.has_ended() || dead.is_some())
        };
        let answered = |back: &Half| {
            back.lane.goodbye().is_some() || back.has_ended() || !(back.lane.is_followed() || back.lane.is_broken())
        };
        // The other side died within a frame: no Close can follow that, so no answer to one either.
        let mute = |out: &Half| dead.is_some() && !out.lane.is_said();
        let (downstream_told, upstream_told) = (told(&self.to_downstream), told(&self.to_upstream));
        // What a side that broke a rule says is not followed any more: the end of the stream is its sign to hang up.
        if downstream_told && self.to_upstream.lane.is_broken() {
            let _ = half::shut_down(cx, &mut self.downstream);
        }
        if upstream_told && self.to_downstream.lane.is_broken() {
            let _ = half::shut_down(cx, &mut self.upstream);
        }
        let downstream = dead == Some(Side::Downstream)
            || downstream_told && (answered(&self.to_upstream) || mute(&self.to_downstream));
        let upstream =
            dead == Some(Side::Upstream) || upstream_told && (answered(&self.to_downstream) || mute(&self.to_upstream));
        let over = now >= until || downstream && upstream;
        if over {
            self.hang_up(cx);
            return Turn::Over(self.decided().unwrap_or(End::Closed));
        }
        self.wake_at(cx, until)
    }

    /// TLS says goodbye of its own; a side that does not take it is not waited for.
    fn hang_up(&mut self, cx: &mut Context<'_>) {
        let _ = half::shut_down(cx, &mut self.downstream);
        let _ = half::shut_down(cx, &mut self.upstream);
    }

    /// What the clocks say: the first deadline that has passed, or when to look again.
    fn poll_clocks(&mut self, cx: &mut Context<'_>, now: Instant, unread: bool, held_until: Option<Instant>) -> Turn {
        let policy = Arc::clone(&self.policy);
        let last_byte = [self.heard, self.taken].map(|sides| sides.downstream.max(sides.upstream));
        let last_byte = last_byte.into_iter().max().unwrap_or(now);
        let away = (close::GOING_AWAY, close::GOING_AWAY);
        let clocks = [
            (policy.idle_timeout, Some(last_byte), End::Idle as fn(Duration) -> End),
            (self.max_lifetime, Some(self.begun), End::Lifetime),
            (policy.half_close_timeout, self.half_closed_at, End::HalfClose),
            (Some(policy.close_timeout), self.close_at, End::CloseWait),
        ];
        let mut next = held_until;
        let mut earlier = |at: Instant| next = Some(next.map_or(at, |known| known.min(at)));
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
        let followed = self.to_upstream.lane.is_followed() && self.to_downstream.lane.is_followed();
        if let (Some(ping), Some(beats)) = (&policy.ping, &mut self.beats) {
            for (side, asks) in [(Side::Downstream, ping.client), (Side::Upstream, ping.upstream)] {
                if !asks || self.half_closed_at.is_some() || self.close_at.is_some() || !followed {
                    continue;
                }
                let (heard, taken) = (*self.heard.of(side), *self.taken.of(side));
                let out = match side {
                    Side::Downstream => &self.to_downstream,
                    Side::Upstream => &self.to_upstream,
                };
                if out.lane.has_ping() || !out.is_flushed() {
                    beats.of(side).unsent(taken);
                }
                match beats.of(side).beat(ping, heard, now) {
                    Beat::Wait(at) => earlier(at),
                    Beat::Ask(token) => {
                        let (out, back) = match side {
                            Side::Downstream => (&mut self.to_downstream, &mut self.to_upstream),
                            Side::Upstream => (&mut self.to_upstream, &mut self.to_downstream),
                        };
                        out.lane.queue_ping(token);
                        back.lane.await_pong(token);
                        return Turn::Again;
                    }
                    Beat::Dead => {
                        return self.begin_closing(End::PeerDead(side, ping.timeout), away, Some(side));
                    }
                }
            }
        }
        if let Some(unwritable) = &self.unwritable {
            earlier(unwritable.until);
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
                return self.hear_out(cx, side, error, now);
            }
        }
        match next {
            None => Turn::Pending,
            Some(at) => {
                let turn = self.wake_at(cx, at);
                // The timer may go off earlier than asked for: then it has to be armed anew.
                self.quiet_until = self.timer.as_ref().map(|timer| timer.deadline());
                turn
            }
        }
    }

    /// Sees to it that the task is woken at that time. An armed timer that fires early costs one look; moving it at
    /// every byte would cost more.
    fn wake_at(&mut self, cx: &mut Context<'_>, at: Instant) -> Turn {
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

/// The code that tells the other side that `lost` is gone.
fn farewell(lost: Side, policy: &Policy) -> u16 {
    match lost {
        Side::Downstream => close::GOING_AWAY,
        Side::Upstream => policy.upstream_lost_code,
    }
}
