//! The frames of one direction: what passes, what is taken out, and where a frame of ours goes in between.
//!
//! Only this file writes control frames, and only between two frames.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
};

use super::report::{Goodbye, Side};
use crate::{
    config::relay_policy::{Frames, Policy},
    protocol::websocket::{
        close,
        frame::{self, Control, ControlKind, Extensions, Follower, FrameError, FrameRules, Sender, Stop},
    },
};

/// Payload of a Ping of ours.
pub(super) type Token = [u8; 8];

/// Hash of a Ping payload of up to 125 bytes. The worst effect of a collision is that a heartbeat is sent early.
pub(super) type Digest = NonZeroU32;

/// Where bytes go that may pass.
pub(super) trait Outlet {
    /// Takes all of them, in order.
    fn put(&mut self, bytes: &[u8]);
}

/// What a slice brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) messages: u64,
    /// The rule it broke, where rules are enforced. Nothing passes after it.
    pub(super) broken: Option<FrameError>,
}

/// See the module page.
#[derive(Debug)]
pub(super) struct Lane {
    from: Side,
    extensions: Extensions,
    /// `None` where bytes are just bytes.
    follower: Option<Follower>,
    /// The beginning of a header or of a control frame; at most as long as the longest control frame.
    held: Vec<u8>,
    /// A Ping of ours that waits for a boundary.
    ping: Option<Token>,
    /// A Close of ours that waits for one.
    close: Option<u16>,
    /// A Close of ours that waits until the sender here has said all: its own Close, whose place it takes, or its end.
    last_word: Option<u16>,
    /// A Close has gone out here, theirs or ours, or nobody is left to take anything: nothing may follow.
    sealed: bool,
    /// The Ping whose Pong comes this way and is ours.
    awaited: Option<Token>,
    /// The newest forwarded Ping of the sender that `take_ping` has not returned yet.
    passed_ping: Option<Digest>,
    /// The newest Ping of the other side, whose Pong comes this way and passes.
    owed: Option<Digest>,
    goodbye: Option<Box<Goodbye>>,
    observed: Option<FrameError>,
    /// The sender broke a rule: nothing it sends passes any more.
    broken: bool,
    /// Finds the sender's Close behind a frame that was only too large.
    skimmer: Option<Box<Follower>>,
    /// The rule that the sender broke was in a Close of its own.
    closed_badly: bool,
}

impl Lane {
    pub(super) fn new(from: Side, policy: &Policy, extensions: Extensions) -> Self {
        Self {
            from,
            extensions,
            follower: (policy.frames != Frames::Off).then(Follower::default),
            held: Vec::new(),
            ping: None,
            close: None,
            last_word: None,
            sealed: false,
            awaited: None,
            passed_ping: None,
            owed: None,
            goodbye: None,
            observed: None,
            broken: false,
            skimmer: None,
            closed_badly: false,
        }
    }

    /// Whether frames are known here, so that one of ours can go between them.
    pub(super) fn is_followed(&self) -> bool {
        self.follower.is_some()
    }

    /// Whether the sender broke a rule after which no frame of it can be found.
    pub(super) fn is_lost(&self) -> bool {
        self.broken && self.skimmer.is_none() && !self.has_closed()
    }

    /// Whether the sender has sent its Close, be it one that broke a rule or that came too late to pass.
    pub(super) fn has_closed(&self) -> bool {
        self.goodbye.is_some() || self.closed_badly
    }

    /// Nothing passes any more.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    /// The Close that came this way.
    pub(super) fn goodbye(&self) -> Option<&Goodbye> {
        self.goodbye.as_deref()
    }

    pub(super) fn observed(&self) -> Option<FrameError> {
        self.observed
    }

    /// Payload of the current frame that is still to come, and that may pass without a look.
    pub(super) fn payload_ahead(&self) -> u64 {
        match &self.follower {
            Some(follower) if !self.sealed => follower.remaining(),
            _ => 0,
        }
    }

    /// So much of it passed by another way; answers the messages that ended.
    pub(super) fn passed_by(&mut self, count: u64) -> u64 {
        self.follower.as_mut().map_or(0, |follower| u64::from(follower.skip(count)))
    }

    /// A Ping is to go out at the next boundary; its Pong is expected on the other lane.
    pub(super) fn queue_ping(&mut self, token: Token) {
        self.ping = Some(token);
    }

    /// The Pong with this payload is ours, and so are late ones to the Pings before.
    pub(super) fn await_pong(&mut self, token: Token) {
        self.awaited = Some(token);
    }

    /// The newest Ping of the sender that has passed since this was last asked.
    pub(super) fn take_ping(&mut self) -> Option<Digest> {
        self.passed_ping.take()
    }

    /// The sender owes the other side a Pong to this Ping; older ones need none (RFC 6455 §5.5.3).
    pub(super) fn owe_pong(&mut self, ping: Option<Digest>) {
        self.owed = ping;
    }

    pub(super) fn owes_pong(&self) -> bool {
        self.owed.is_some()
    }

    /// A Close is to go out at the next boundary, unless one has gone out.
    pub(super) fn queue_close(&mut self, code: u16) {
        if !self.is_said() && self.last_word.is_none() {
            self.close = Some(code);
        }
    }

    /// A Close is to go out when the sender here has said all it has to say, and no later than [`Lane::hurry`].
    pub(super) fn queue_last_word(&mut self, code: u16) {
        if !self.is_said() {
            self.last_word = Some(code);
        }
    }

    /// What waits for the sender's last word waits only for a boundary now.
    pub(super) fn hurry(&mut self) {
        if let Some(code) = self.last_word.take() {
            self.queue_close(code);
        }
    }

    /// A Close has gone this way, or nothing can any more: ours must not follow (RFC 6455 §5.5.1).
    pub(super) fn is_said(&self) -> bool {
        // One that came behind a broken rule has not passed.
        self.sealed || self.goodbye.is_some() && !self.broken
    }

    /// Whether a Ping of ours still waits for its boundary.
    pub(super) fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// Whether a frame of ours waits.
    pub(super) fn has_queued(&self) -> bool {
        self.ping.is_some() || self.close.is_some()
    }

    /// Writes what waits if this is a boundary; bytes held back have not passed, so before them is one.
    pub(super) fn inject(&mut self, out: &mut impl Outlet) {
        if self.has_queued() && self.follower.as_ref().is_some_and(Follower::at_boundary) {
            self.write_queued(out);
        }
    }

    fn write_queued(&mut self, out: &mut impl Outlet) {
        let (ping, code) = (self.ping.take(), self.close.take());
        if self.is_said() {
            return;
        }
        // RFC 6455 section 5.1: what goes upstream comes from a client.
        let masked = self.from == Side::Downstream;
        if let Some(token) = ping {
            out.put(&frame::control(ControlKind::Ping, &token, masked.then(mask)));
        }
        if let Some(code) = code {
            out.put(&frame::control(ControlKind::Close, &close::payload(code, ""), masked.then(mask)));
            self.sealed = true;
        }
    }

    fn rules(&self, policy: &Policy) -> FrameRules {
        FrameRules {
            sender: match self.from {
                Side::Downstream => Sender::Client,
                Side::Upstream => Sender::Server,
            },
            extensions: self.extensions,
            max_frame_size: policy.max_frame_size,
            max_message_size: policy.max_message_size,
        }
    }

    /// Follows what was read and passes on what may pass.
    pub(super) fn take(&mut self, fresh: &[u8], policy: &Policy, out: &mut impl Outlet) -> Brought {
        if self.broken {
            self.skim(fresh, policy);
            return Brought::default();
        }
        if self.follower.is_none() {
            if !self.sealed {
                out.put(fresh);
            }
            return Brought::default();
        }
        if self.held.is_empty() {
            return self.follow(fresh, policy, out);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(fresh);
        self.follow(&joined, policy, out)
    }

    fn follow(&mut self, bytes: &[u8], policy: &Policy, out: &mut impl Outlet) -> Brought {
        let rules = self.rules(policy);
        let mut brought = Brought::default();
        // What has been found good and not written yet: one write for as much as possible.
        let (mut good_from, mut at) = (0, 0);
        loop {
            let Some(follower) = &mut self.follower else { return brought };
            let rest = bytes.get(at..).unwrap_or_default();
            let followed = follower.follow(rest, &rules, self.ping.is_some() || self.close.is_some());
            at += followed.pass;
            if !self.sealed {
                brought.messages += u64::from(followed.messages);
            }
            match followed.stop {
                None => break,
                Some(Stop::Partial) => {
                    self.held = bytes.get(at..).unwrap_or_default().to_vec();
                    break;
                }
                Some(Stop::Boundary) => {
                    self.pass(bytes.get(good_from..at), out);
                    good_from = at;
                    self.write_queued(out);
                }
                Some(Stop::Control(control)) if self.is_ours(&control, bytes.get(at..)) => {
                    self.pass(bytes.get(good_from..at), out);
                    at += control.size;
                    good_from = at;
                }
                Some(Stop::Control(control)) => {
                    let payload = (control.kind == ControlKind::Close)
                        .then(|| control.payload(bytes.get(at..).unwrap_or_default()));
                    if policy.ping.is_some() && !self.sealed {
                        self.note_ping(&control, bytes.get(at..).unwrap_or_default());
                    }
                    at += control.size;
                    if let Some(payload) = payload {
                        if self.last_word.is_some() {
                            self.pass(bytes.get(good_from..at - control.size), out);
                            self.hurry();
                            self.write_queued(out);
                        } else {
                            self.pass(bytes.get(good_from..at), out);
                        }
                        good_from = at;
                        self.note_close(&payload, policy);
                    }
                }
                Some(Stop::Broken(error)) => {
                    self.pass(bytes.get(good_from..at), out);
                    if policy.frames == Frames::Enforce {
                        self.break_at(error, bytes.get(at..).unwrap_or_default());
                        brought.broken = Some(error);
                    } else {
                        // From here on no boundary is known: bytes pass as bytes, and nothing of ours between them.
                        self.observed = Some(error);
                        self.follower = None;
                        self.pass(bytes.get(at..), out);
                    }
                    return brought;
                }
            }
        }
        self.pass(bytes.get(good_from..at), out);
        brought
    }

    /// Nothing passes any more. `rest` is what came with the broken rule, that frame included.
    fn break_at(&mut self, error: FrameError, rest: &[u8]) {
        self.broken = true;
        match error {
            FrameError::FrameSize | FrameError::MessageSize => {
                // Such a frame is well-formed: a Close after it shows that the sender expects nothing more.
                self.skimmer = self.follower.clone().map(Box::new);
                self.held = rest.to_vec();
            }
            FrameError::Close(_) => self.closed_badly = true,
            _ => {}
        }
    }

    /// Looks for the Close of a sender that broke a rule. Other bytes are thrown away.
    pub(super) fn skim(&mut self, fresh: &[u8], policy: &Policy) {
        let Some(mut skimmer) = self.skimmer.take() else { return };
        let unlimited = FrameRules { max_frame_size: u64::MAX, max_message_size: u64::MAX, ..self.rules(policy) };
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(fresh);
        let mut rest = bytes.as_slice();
        loop {
            let followed = skimmer.follow(rest, &unlimited, false);
            rest = rest.get(followed.pass..).unwrap_or_default();
            match followed.stop {
                Some(Stop::Control(control)) if control.kind == ControlKind::Close => {
                    return self.set_goodbye(&control.payload(rest));
                }
                Some(Stop::Control(control)) => rest = rest.get(control.size..).unwrap_or_default(),
                Some(Stop::Partial) => {
                    self.held = rest.to_vec();
                    break;
                }
                Some(Stop::Broken(error)) => {
                    self.closed_badly = matches!(error, FrameError::Close(_));
                    return;
                }
                Some(Stop::Boundary) | None => break,
            }
        }
        self.skimmer = Some(skimmer);
    }

    fn pass(&self, bytes: Option<&[u8]>, out: &mut impl Outlet) {
        if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty() && !self.sealed) {
            out.put(bytes);
        }
    }

    fn is_ours(&self, control: &Control, bytes: Option<&[u8]>) -> bool {
        let ours = |last| is_up_to(&control.payload(bytes.unwrap_or_default()), last);
        control.kind == ControlKind::Pong && self.awaited.is_some_and(ours)
    }

    /// Takes note of a Ping that passes, and of the Pong to one of the other side.
    fn note_ping(&mut self, control: &Control, bytes: &[u8]) {
        match control.kind {
            ControlKind::Ping => self.passed_ping = Some(digest(&control.payload(bytes))),
            ControlKind::Pong => self.owed = self.owed.filter(|owed| *owed != digest(&control.payload(bytes))),
            ControlKind::Close => {}
        }
    }

    fn set_goodbye(&mut self, payload: &[u8]) {
        let said = close::parse(payload).unwrap_or_default();
        let (code, reason) = said.map_or((None, ""), |(code, reason)| (Some(code), reason));
        self.goodbye.get_or_insert_with(|| Box::new(Goodbye { code, reason: reason.into() }));
    }

    fn note_close(&mut self, payload: &[u8], policy: &Policy) {
        self.set_goodbye(payload);
        if policy.frames == Frames::Enforce {
            // RFC 6455 section 5.5.1: nothing follows a Close.
            self.sealed = true;
        }
    }

    /// The sender has ended its stream. If it did so without Close, between two frames, the other side is told with
    /// `farewell` and need not guess.
    pub(super) fn end(&mut self, policy: &Policy, farewell: Option<u16>, out: &mut impl Outlet) {
        self.hurry();
        let held = std::mem::take(&mut self.held);
        if policy.frames != Frames::Enforce && !held.is_empty() {
            self.pass(Some(&held), out);
            self.follower = None;
        }
        if let Some(code) = farewell.filter(|_| self.goodbye.is_none() && self.close.is_none()) {
            self.queue_close(code);
        }
        self.inject(out);
    }
}

/// The payload of the next Ping: a random prefix that stays with the relay, and a count.
pub(super) fn next_token(last: Option<Token>) -> Token {
    match last.map(u64::from_be_bytes) {
        None => (u64::from(u32::from_be_bytes(random())) << 32).to_be_bytes(),
        Some(last) => (last & !0xffff_ffff | (last.wrapping_add(1) & 0xffff_ffff)).to_be_bytes(),
    }
}

/// Whether a Pong answers the Ping with this payload or one before it.
fn is_up_to(payload: &[u8], last: Token) -> bool {
    let (last, Ok(payload)) = (u64::from_be_bytes(last), <[u8; 8]>::try_from(payload)) else { return false };
    let payload = u64::from_be_bytes(payload);
    payload >> 32 == last >> 32 && payload <= last
}

fn digest(payload: &[u8]) -> Digest {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    // Half of it will do, and two of them in each direction of an idle relay are small.
    let [_, _, _, _, low @ ..] = hasher.finish().to_be_bytes();
    NonZeroU32::new(u32::from_be_bytes(low)).unwrap_or(NonZeroU32::MIN)
}

/// A masking key (RFC 6455 §5.3).
pub(super) fn mask() -> [u8; 4] {
    random()
}

/// Random bytes. They protect nothing of ours here: what they mask is a fixed text, so a system without any is borne.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}
