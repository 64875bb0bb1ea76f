//! Both directions of one relay, its clocks, and the way it ends.

mod clocks;
mod closing;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Sleep;

use super::{
    Leg, Link,
    control::{Control, Wish},
    half::{self, Fault, Half, Lent, May, Step},
    heartbeat::Heartbeat,
    moment::{Epoch, Moment},
    rate::Bucket,
    report::{End, Report, Side},
    scratch,
    session::Session,
};
use crate::{
    config::relay_policy::{Excess, Policy},
    protocol::websocket::close,
};

/// See the module page.
pub(super) struct Pump<D, U, C> {
    downstream: D,
    upstream: U,
    to_upstream: Half,
    to_downstream: Half,
    policy: Arc<Policy>,
    max_lifetime: Option<Duration>,
    control: C,
    begun: Epoch,
    /// When the last byte came from each side.
    heard: Sides<Moment>,
    /// When each side last took something.
    taken: Sides<Moment>,
    beats: Option<Box<Sides<Heartbeat>>>,
    bucket: Option<Box<Bucket>>,
    began: Option<Side>,
    first_to_end: Option<Side>,
    first_to_close: Option<Side>,
    /// When the first side ended its stream.
    half_closed_at: Option<Moment>,
    /// When the first Close passed.
    close_at: Option<Moment>,
    closing: Option<Box<Closing>>,
    /// The downstream was sent the end of its stream because its closing handshake was complete.
    hung_up: bool,
    unwritable: Option<Box<Unwritable>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// No clock can strike before then: bytes only move deadlines away. `None` when something else has changed.
    quiet_until: Option<Moment>,
    /// The task that sockets, the timer and `control` were told to wake.
    task: Option<Waker>,
}

/// The end is decided; both sides have until then to take their Close and to answer it.
struct Closing {
    end: End,
    until: Moment,
    /// Until then a side that broke a rule may still be answered what it said before; see `break_off`.
    patience: Option<Moment>,
    /// A side that cannot be written to or read from any more.
    dead: Option<Side>,
    /// The side that is ended by a reset, as the other one was.
    resets: Option<Side>,
}

/// A side that takes nothing any more and may still have something to say.
struct Unwritable {
    side: Side,
    error: io::Error,
    until: Moment,
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

    /// The direction in which this side's bytes go.
    fn from(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Downstream => &mut self.to_upstream,
            Side::Upstream => &mut self.to_downstream,
        }
    }

    /// The direction that ends at this side.
    fn to(&mut self, side: Side) -> &mut Half {
        self.from(side.other())
    }
}

impl<D: Link, U: Link, C: AsRef<Control>> Pump<D, U, C> {
    pub(super) fn new(downstream: Leg<D>, upstream: Leg<U>, policy: Arc<Policy>, session: Session, control: C) -> Self {
        Self {
            to_upstream: Half::new(Side::Downstream, downstream.early, &policy, session.extensions),
            to_downstream: Half::new(Side::Upstream, upstream.early, &policy, session.extensions),
            downstream: downstream.stream,
            upstream: upstream.stream,
            beats: policy.ping.map(|_| Box::default()),
            bucket: policy.rate.map(|rate| Box::new(Bucket::new(rate, Moment::default()))),
            policy,
            max_lifetime: session.max_lifetime,
            control,
            begun: Epoch::begin(),
            heard: Sides::default(),
            taken: Sides::default(),
            began: None,
            first_to_end: None,
            first_to_close: None,
            half_closed_at: None,
            close_at: None,
            closing: None,
            hung_up: false,
            unwritable: None,
            timer: None,
            quiet_until: None,
            task: None,
        }
    }

    pub(super) fn report(&self, end: End) -> Report {
        let observed = |half: &Half, side| half.lane.observed().map(|error| (side, error));
        Report {
            to_upstream: self.control.as_ref().passed(Side::Downstream),
            to_downstream: self.control.as_ref().passed(Side::Upstream),
            duration: self.begun.now().since(Moment::default()),
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
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.control.as_ref().register(cx.waker());
            self.task = Some(cx.waker().clone());
            self.to_upstream.moved();
            self.to_downstream.moved();
            self.quiet_until = None;
        }
        scratch::with(|buffer| {
            loop {
                match self.turn(cx, buffer) {
                    // Each is one of few decisions, made once: an end, its deadline, a Ping that waits for its time.
                    Turn::Again => {}
                    Turn::Pending => return Poll::Pending,
                    Turn::Over(end) => return Poll::Ready(end),
                }
            }
        })
    }

    fn turn(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Turn {
        if let Some(turn) = self.heed(cx) {
            return turn;
        }
        let now = self.begun.now();
        // Once the end is decided its rate is not what keeps a client from answering.
        let bucket = self.bucket.as_mut().filter(|_| self.closing.is_none());
        let held_until = bucket.and_then(|bucket| bucket.held_until(now));
        // Nothing is read from a side that is beyond its rate, or whose peer takes nothing: no event tells of its end.
        let mut unread = false;
        for from in [Side::Downstream, Side::Upstream] {
            let held = from == Side::Downstream && held_until.is_some();
            if !held && self.is_at_rest(from) {
                continue;
            }
            match self.poll_half(cx, buffer, from, held, now) {
                Ok(step) if held || step == Step::Stalled => {
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
            let (dead, until, patience) = (closing.dead, closing.until, closing.patience);
            return self.poll_closing(cx, dead, until, patience, now);
        }
        if let Some(turn) = self.poll_closed(cx, now) {
            return turn;
        }
        if self.to_upstream.has_ended() && self.to_downstream.has_ended() && !unread {
            return Turn::Over(End::Closed);
        }
        if !unread && self.quiet_until.is_some_and(|until| now < until) {
            // The timer is armed for then, and with this task's waker.
            return Turn::Pending;
        }
        self.poll_clocks(cx, buffer, now, unread, held_until)
    }

    /// What was asked for from outside, where that decides something.
    fn heed(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        self.control.as_ref().wish()?;
        // The wish took the waker with it, and another one may follow.
        self.control.as_ref().register(cx.waker());
        match self.control.as_ref().wish()? {
            Wish::Cut => Some(Turn::Over(self.decided().unwrap_or(End::Cut))),
            Wish::Close(code, cause) if self.closing.is_none() => {
                Some(self.begin_closing(End::Asked(code, cause), (code, code), None))
            }
            Wish::Close(..) => None,
        }
    }

    fn is_at_rest(&self, from: Side) -> bool {
        // What a dead side is asked for is another matter.
        self.closing.is_none()
            && match from {
                Side::Downstream => self.to_upstream.is_at_rest(&self.downstream),
                Side::Upstream => self.to_downstream.is_at_rest(&self.upstream),
            }
    }

    /// Polls the direction from `from` to the other side, and takes in what it did.
    fn poll_half(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        from: Side,
        held: bool,
        now: Moment,
    ) -> Result<Step, Turn> {
        let dead = self.closing.as_ref().and_then(|closing| closing.dead);
        let may = May {
            reads: match (dead == Some(from) || held, &self.bucket) {
                (true, _) => 0,
                (false, Some(_)) if from == Side::Downstream => 1,
                (false, _) => half::READS_A_POLL,
            },
            farewell: (!self.to(from).has_ended()).then(|| closing::farewell(from, &self.policy)),
            finish: self.closing.is_none(),
            hold_end: self.may_answer(from.other(), now),
            splice: from == Side::Upstream || self.bucket.is_none(),
        };
        let Self { downstream, upstream, policy, .. } = self;
        let (step, did) = match from {
            Side::Downstream => {
                self.to_upstream.poll(Lent { cx, reader: downstream, writer: upstream, policy, buffer, may })
            }
            Side::Upstream => {
                self.to_downstream.poll(Lent { cx, reader: upstream, writer: downstream, policy, buffer, may })
            }
        };
        if did.read > 0 {
            *self.heard.of(from) = now;
            self.control.as_ref().heard(now);
        }
        if did.passed.bytes > 0 {
            *self.taken.of(from.other()) = now;
        }
        if did.passed.bytes > 0 || did.passed.messages > 0 {
            self.control.as_ref().count(from, did.passed);
        }
        if did.stirred || step.is_err() {
            self.note_ping(from, now);
            self.note_goodbye(from, now);
            if from == Side::Downstream
                && let Some(bucket) = &mut self.bucket
            {
                bucket.take(did.read, did.passed.messages);
                let excess = self.policy.rate.is_some_and(|rate| rate.excess == Excess::Close);
                if excess && self.closing.is_none() && bucket.held_until(now).is_some() {
                    return Err(self.begin_closing(End::Rate, (close::POLICY, close::POLICY), None));
                }
            }
        }
        match step {
            Ok(step) => Ok(step),
            Err(Fault::Read(error)) => Err(self.lost(from, error)),
            Err(Fault::Write(error)) => Err(self.hear_out(cx, buffer, from.other(), error, now)),
            Err(Fault::Broken(error)) => Err(self.break_off(from, error)),
        }
    }

    /// Takes in that a Ping of this side has passed to the other one.
    fn note_ping(&mut self, from: Side, now: Moment) {
        let Some(ping) = self.from(from).lane.take_ping() else { return };
        let asked = from.other();
        let heard = *self.heard.of(asked);
        self.from(asked).lane.owe_pong(Some(ping));
        if let Some(beats) = &mut self.beats {
            beats.of(asked).passed_theirs(heard, now);
        }
    }

    /// Takes in that this side has said Close, or has ended its stream.
    fn note_goodbye(&mut self, from: Side, now: Moment) {
        let undecided = self.closing.is_none();
        let half = self.from(from);
        let (said, ended) = (half.lane.goodbye().is_some(), half.has_ended());
        if said {
            if self.close_at.is_none() {
                self.close_at = Some(now);
                self.quiet_until = None;
            }
            if undecided {
                self.first_to_close.get_or_insert(from);
                self.began.get_or_insert(from);
            }
        }
        if ended && self.half_closed_at.is_none() {
            self.half_closed_at = Some(now);
            self.quiet_until = None;
            if undecided {
                self.first_to_end.get_or_insert(from);
                self.began.get_or_insert(from);
            }
        }
    }
}
