//! Where frames begin and end in bytes that pass (RFC 6455 §5.2).
//!
//! A [`Follower`] is fed with each slice of one direction. It keeps no byte: the caller holds back the beginning of a
//! frame header, or of a control frame, until the rest is there, and feeds it again. So whatever was let pass ends inside
//! the payload of a data frame or between two frames, and a broken rule is found before its first byte has passed.

use thiserror::Error;

use super::close::{self, CloseError};

/// Longest header: two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// Longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// Who sends the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client: every frame is masked.
    Client,
    /// The server: no frame is masked.
    Server,
}

/// What the negotiated extensions leave to the RSV bits and the opcodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extensions {
    /// None was negotiated: every RSV bit is zero.
    #[default]
    None,
    /// permessage-deflate alone: RSV1 on the first frame of a message (RFC 7692 §6).
    Deflate,
    /// One that switchgate does not know: its bits and opcodes pass.
    Unknown,
}

impl Extensions {
    /// From the names in the upstream's answer.
    pub fn negotiated<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(Self::None, |known, name| match (known, name) {
            (Self::None | Self::Deflate, "permessage-deflate") => Self::Deflate,
            _ => Self::Unknown,
        })
    }
}

/// What one direction of one connection must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRules {
    /// Who sends.
    pub sender: Sender,
    /// What was negotiated.
    pub extensions: Extensions,
    /// Largest payload of one frame, in bytes.
    pub max_frame_size: u64,
    /// Largest message, in bytes on the wire: what permessage-deflate makes of it is not looked at.
    pub max_message_size: u64,
}

/// A broken rule of RFC 6455.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A client frame without a mask.
    #[error("a client frame is not masked (RFC 6455 section 5.1)")]
    Unmasked,
    /// A server frame with one.
    #[error("a server frame is masked (RFC 6455 section 5.1)")]
    Masked,
    /// An opcode without a meaning.
    #[error("an unknown opcode (RFC 6455 section 5.2)")]
    Opcode,
    /// A reserved bit nobody negotiated.
    #[error("a reserved bit that no extension was negotiated for (RFC 6455 section 5.2)")]
    Reserved,
    /// A control frame in pieces.
    #[error("a fragmented control frame (RFC 6455 section 5.5)")]
    ControlFragmented,
    /// A control frame beyond 125 bytes.
    #[error("a control frame longer than 125 bytes (RFC 6455 section 5.5)")]
    ControlLength,
    /// A continuation of nothing.
    #[error("a continuation frame outside a message (RFC 6455 section 5.4)")]
    Continuation,
    /// A message inside a message.
    #[error("a new message before the last one ended (RFC 6455 section 5.4)")]
    Interrupted,
    /// A length in more bytes than it needs, or above 2^63.
    #[error("a length that is not encoded as it must be (RFC 6455 section 5.2)")]
    Length,
    /// A malformed Close.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// A frame beyond the limit of the route.
    #[error("a frame larger than `max_frame_size` (RFC 6455 section 10.4)")]
    FrameSize,
    /// A message beyond the limit of the route.
    #[error("a message larger than `max_message_size` (RFC 6455 section 10.4)")]
    MessageSize,
}

impl FrameError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Unmasked => "frame-unmasked",
            Self::Masked => "frame-masked",
            Self::Opcode => "frame-opcode",
            Self::Reserved => "frame-reserved-bit",
            Self::ControlFragmented => "frame-control-fragmented",
            Self::ControlLength => "frame-control-length",
            Self::Continuation => "frame-continuation",
            Self::Interrupted => "frame-interrupted",
            Self::Length => "frame-length",
            Self::Close(_) => "frame-close",
            Self::FrameSize => "max-frame-size",
            Self::MessageSize => "max-message-size",
        }
    }

    /// The close code that tells a peer of it (RFC 6455 §7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::FrameSize | Self::MessageSize => close::TOO_BIG,
            _ => close::PROTOCOL_ERROR,
        }
    }
}

/// The kind of a control frame (RFC 6455 §5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The sender ends the conversation.
    Close,
    /// The sender asks whether the peer is there.
    Ping,
    /// The sender is there.
    Pong,
}

/// A whole control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its kind.
    pub kind: ControlKind,
    /// Bytes of the whole frame.
    pub size: usize,
    /// Bytes of it before the payload; the last four are the mask where there is one.
    header: usize,
}

impl Control {
    /// Its payload, unmasked. `bytes` are those that it was found at the front of.
    pub fn payload(&self, bytes: &[u8]) -> Payload {
        let mask = bytes.get(2..self.header).unwrap_or_default();
        let masked = bytes.get(self.header..self.size).unwrap_or_default();
        let mut payload = Payload { bytes: [0; MAX_CONTROL], length: masked.len().min(MAX_CONTROL) };
        for (at, (to, from)) in payload.bytes.iter_mut().zip(masked).enumerate() {
            *to = from ^ mask.get(at % 4).copied().unwrap_or(0);
        }
        payload
    }
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    bytes: [u8; MAX_CONTROL],
    length: usize,
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Why following stopped before the end of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What is left is the beginning of a header or of a control frame: hold it, and feed it again with more behind it.
    Partial,
    /// What is left begins with this control frame. The caller lets it pass or takes it out, and feeds what follows.
    Control(Control),
    /// The caller asked to be told of the next boundary between frames.
    Boundary,
    /// What is left breaks a rule. After this the follower knows no boundary any more.
    Broken(FrameError),
}

/// What became of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// So many bytes may pass.
    pub pass: usize,
    /// Messages that ended among them.
    pub messages: u32,
    /// Why it stopped; `None` at the end of the slice.
    pub stop: Option<Stop>,
}

/// Follows one direction.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    /// Payload bytes of the current data frame that are still to come.
    remaining: u64,
    /// Bytes of the current message in frames so far.
    message: u64,
    /// A message has begun and its last frame has not.
    in_message: bool,
    /// The current frame ends its message.
    last_frame: bool,
}

impl Follower {
    /// Whether what has passed so far ends between two frames.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }

    /// Payload bytes of the current data frame that are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Payload bytes that passed by another way than [`Follower::follow`]; never more than [`Follower::remaining`].
    /// Answers the messages that ended with them.
    pub fn skip(&mut self, count: u64) -> u32 {
        self.remaining = self.remaining.saturating_sub(count);
        u32::from(self.remaining == 0 && self.last_frame)
    }

    /// Follows the next slice of the stream.
    ///
    /// With `to_boundary` it stops between two frames as soon as it can, at once where it stands there.
    pub fn follow(&mut self, bytes: &[u8], rules: &FrameRules, to_boundary: bool) -> Followed {
        let mut followed = Followed { pass: 0, messages: 0, stop: None };
        loop {
            let rest = bytes.get(followed.pass..).unwrap_or_default();
            if self.remaining > 0 {
                let here = u64::try_from(rest.len()).unwrap_or(u64::MAX);
                if here < self.remaining {
                    self.remaining -= here;
                    followed.pass = bytes.len();
                    return followed;
                }
                // It fits: `remaining` is at most the length of a slice.
                followed.pass += usize::try_from(self.remaining).unwrap_or(rest.len());
                followed.messages += self.skip(self.remaining);
                continue;
            }
            followed.stop = if to_boundary {
                Some(Stop::Boundary)
            } else if rest.is_empty() {
                None
            } else {
                match self.begin(rest, rules) {
                    Ok(Begun::Data { header, empty_message }) => {
                        followed.pass += header;
                        followed.messages += u32::from(empty_message);
                        continue;
                    }
                    Ok(Begun::Control(control)) => Some(Stop::Control(control)),
                    Ok(Begun::Partial) => Some(Stop::Partial),
                    Err(error) => Some(Stop::Broken(error)),
                }
            };
            return followed;
        }
    }

    /// Reads the header at the start of `bytes`.
    fn begin(&mut self, bytes: &[u8], rules: &FrameRules) -> Result<Begun, FrameError> {
        let Some(&first) = bytes.first() else { return Ok(Begun::Partial) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let control = check_first(first, rules.extensions)?;
        if !control {
            match (opcode, self.in_message) {
                (0, false) => return Err(FrameError::Continuation),
                (1 | 2, true) => return Err(FrameError::Interrupted),
                _ => {}
            }
        }
        let Some(&second) = bytes.get(1) else { return Ok(Begun::Partial) };
        match (rules.sender, second & 0x80 != 0) {
            (Sender::Client, false) => return Err(FrameError::Unmasked),
            (Sender::Server, true) => return Err(FrameError::Masked),
            _ => {}
        }
        let mask_size = if second & 0x80 == 0 { 0 } else { 4 };
        if control {
            return control_frame(bytes, opcode, usize::from(second & 0x7f), mask_size);
        }
        let Some((length, length_size)) = length(bytes, second & 0x7f)? else { return Ok(Begun::Partial) };
        if length > rules.max_frame_size {
            return Err(FrameError::FrameSize);
        }
        let so_far = if opcode == 0 { self.message } else { 0 };
        let message = so_far.saturating_add(length);
        if message > rules.max_message_size {
            return Err(FrameError::MessageSize);
        }
        let header = 2 + length_size + mask_size;
        if bytes.len() < header {
            return Ok(Begun::Partial);
        }
        // An opcode of an unknown extension belongs to no message that we could count.
        if opcode <= 2 {
            (self.message, self.in_message) = (message, !fin);
        }
        self.last_frame = fin && opcode <= 2;
        self.remaining = length;
        Ok(Begun::Data { header, empty_message: self.last_frame && length == 0 })
    }
}

enum Begun {
    Data { header: usize, empty_message: bool },
    Control(Control),
    Partial,
}

/// Whether it is a control frame of RFC 6455.
fn check_first(first: u8, extensions: Extensions) -> Result<bool, FrameError> {
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let (data, control) = (opcode <= 2, (8..=10).contains(&opcode));
    if !data && !control && extensions != Extensions::Unknown {
        return Err(FrameError::Opcode);
    }
    let allowed = match extensions {
        Extensions::None => 0,
        Extensions::Deflate if opcode == 1 || opcode == 2 => 0x40,
        Extensions::Deflate => 0,
        Extensions::Unknown => 0x70,
    };
    if reserved & !allowed != 0 {
        return Err(FrameError::Reserved);
    }
    if opcode >= 8 && !fin {
        return Err(FrameError::ControlFragmented);
    }
    Ok(control)
}

/// The payload length and the bytes that hold it beyond the second one; `None` until they are all there.
fn length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, FrameError> {
    let (length, size, least) = match short {
        126 => match bytes.get(2..4).and_then(|two| two.try_into().ok()) {
            Some(two) => (u64::from(u16::from_be_bytes(two)), 2, 126),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|eight| eight.try_into().ok()) {
            Some(eight) => (u64::from_be_bytes(eight), 8, 0x1_0000),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 0),
    };
    if length < least || length > i64::MAX.unsigned_abs() {
        return Err(FrameError::Length);
    }
    Ok(Some((length, size)))
}

fn control_frame(bytes: &[u8], opcode: u8, length: usize, mask_size: usize) -> Result<Begun, FrameError> {
    if length > MAX_CONTROL {
        return Err(FrameError::ControlLength);
    }
    let (header, size) = (2 + mask_size, 2 + mask_size + length);
    if bytes.len() < size {
        return Ok(Begun::Partial);
    }
    let kind = match opcode {
        8 => ControlKind::Close,
        9 => ControlKind::Ping,
        _ => ControlKind::Pong,
    };
    let control = Control { kind, size, header };
    if kind == ControlKind::Close {
        close::parse(&control.payload(bytes))?;
    }
    Ok(Begun::Control(control))
}

/// A control frame as it goes on the wire; with a mask, as a client sends it (RFC 6455 §5.3).
///
/// A payload beyond [`MAX_CONTROL`] is cut.
pub fn control(kind: ControlKind, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = payload.get(..MAX_CONTROL).unwrap_or(payload);
    let opcode = match kind {
        ControlKind::Close => 8,
        ControlKind::Ping => 9,
        ControlKind::Pong => 10,
    };
    // At most 125, so that it fits seven bits.
    let length = u8::try_from(payload.len()).unwrap_or(0);
    let mut frame = Vec::with_capacity(2 + 4 + payload.len());
    frame.push(0x80 | opcode);
    match mask {
        None => {
            frame.push(length);
            frame.extend_from_slice(payload);
        }
        Some(mask) => {
            frame.push(0x80 | length);
            frame.extend_from_slice(&mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

#[cfg(test)]
#[path = "frame_tests.rs"]
pub(crate) mod tests;
