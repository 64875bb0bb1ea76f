//! Frames in one direction of a connection, whatever pieces it comes in (RFC 9113 §4.1).

/// `PRI * HTTP/2.0…` (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEAD: usize = 9;

/// A head and the increment of a WINDOW_UPDATE behind it.
const MOST: usize = HEAD + 4;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// Of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Of a WINDOW_UPDATE; 0 for any other frame.
    pub(super) increment: u32,
}

impl FrameHead {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// A header block, or a frame other than DATA. The number tells one from the next.
    Head(u64),
    /// A DATA frame. The number grows with each byte.
    Data(u64),
}

/// Finds the heads.
#[derive(Debug)]
pub(super) struct Follower {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; MOST],
    filled: usize,
    /// Kind of the frame that `skip` belongs to; `None` in the preface.
    kind: Option<u8>,
    /// Whether a header block waits for its CONTINUATION.
    in_block: bool,
    /// Frames so far, those of one header block counted as one.
    count: u64,
    bytes: u64,
}

impl Follower {
    /// Follows what a client sends, from its preface on.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::of_server() }
    }

    /// Follows what a server sends.
    pub(super) fn of_server() -> Self {
        Self { skip: 0, head: [0; MOST], filled: 0, kind: None, in_block: false, count: 0, bytes: 0 }
    }

    pub(super) fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(FrameHead)) {
        self.bytes = self.bytes.wrapping_add(bytes.len() as u64);
        loop {
            let (skipped, rest) = bytes.split_at_checked(self.skip).unwrap_or((bytes, &[]));
            self.skip -= skipped.len();
            if self.skip > 0 {
                return;
            }
            let missing = self.wanted().saturating_sub(self.filled);
            let (now, rest) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            if now.is_empty() {
                return;
            }
            if let Some(room) = self.head.get_mut(self.filled..self.filled + now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            bytes = rest;
            // The head may have said that more is wanted.
            if self.filled >= HEAD && self.filled >= self.wanted() {
                found(self.take());
            }
        }
    }

    /// Bytes to look at, as far as known.
    fn wanted(&self) -> usize {
        let is_update = matches!(self.head, [0, 0, 4, WINDOW_UPDATE, ..]);
        if self.filled >= HEAD && is_update { MOST } else { HEAD }
    }

    fn take(&mut self) -> FrameHead {
        let [a, b, c, kind, flags, s0, s1, s2, s3, i0, i1, i2, i3] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let number = |bytes| u32::from_be_bytes(bytes) & 0x7fff_ffff;
        let increment = if self.filled == MOST { number([i0, i1, i2, i3]) } else { 0 };
        self.skip = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(self.filled - HEAD);
        self.filled = 0;
        self.kind = Some(kind);
        if !self.in_block {
            self.count = self.count.wrapping_add(1);
        }
        self.in_block = match kind {
            HEADERS | CONTINUATION => flags & END_HEADERS == 0,
            _ => self.in_block,
        };
        FrameHead { length, kind, flags, stream: number([s0, s1, s2, s3]), increment }
    }

    /// What the next byte belongs to, unless it begins a frame outside a header block.
    pub(super) fn unfinished(&self) -> Option<Unfinished> {
        let in_payload = self.skip > 0 && self.kind.is_some();
        // A head that has begun is one further frame.
        let number = if self.filled > 0 && !self.in_block { self.count.wrapping_add(1) } else { self.count };
        match self.kind {
            Some(DATA) if in_payload && !self.in_block => Some(Unfinished::Data(self.bytes)),
            _ if in_payload || self.filled > 0 || self.in_block => Some(Unfinished::Head(number)),
            _ => None,
        }
    }
}
