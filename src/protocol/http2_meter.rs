//! How much of what a peer sends over HTTP/2 is noise (RFC 9113 §10.5).
//!
//! Frames that ask for nothing still cost their reader something. So each takes from a budget; time fills it, and so
//! does work that is done for the peer: whoever is served may say much beside it, whoever is not soon goes silent.
//! Only heads of frames are looked at.

use std::time::Duration;

/// What the peer may send at once beside what asks for something. A browser that leaves a page resets all its streams.
const BURST: u32 = 2_000;

/// What it gets back each second.
const REFILL: u32 = 200;

/// What each frame that goes out to it gives back: it is an answer, or a part of one.
const FOR_AN_ANSWER: u32 = 4;

/// What a request gives back: clients send a little beside each.
const FOR_A_REQUEST: u32 = 2;

/// `PRI * HTTP/2.0…` (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEAD: usize = 9;

/// The head of a frame (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
}

/// Finds the heads in one direction of a connection, whatever pieces it comes in.
#[derive(Debug)]
struct Follower {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Follower {
    fn new(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], filled: 0 }
    }

    fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(FrameHead)) {
        loop {
            let (skipped, rest) = bytes.split_at_checked(self.skip).unwrap_or((bytes, &[]));
            self.skip -= skipped.len();
            let missing = HEAD - self.filled;
            let (now, rest) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            if self.skip > 0 || now.is_empty() {
                return;
            }
            if let Some(room) = self.head.get_mut(self.filled..self.filled + now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            if self.filled < HEAD {
                return;
            }
            let [a, b, c, kind, flags, ..] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            found(FrameHead { length, kind, flags });
            self.filled = 0;
            self.skip = usize::try_from(length).unwrap_or(usize::MAX);
            bytes = rest;
        }
    }
}

/// The budget of one connection.
#[derive(Debug)]
pub struct Meter {
    inbound: Follower,
    outbound: Follower,
    budget: u32,
    filled_at: Duration,
    spent: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            inbound: Follower::new(PREFACE),
            outbound: Follower::new(0),
            budget: BURST,
            filled_at: Duration::ZERO,
            spent: false,
        }
    }
}

impl Meter {
    /// Takes in what came from the peer; `now` is the time since the connection began.
    pub fn received(&mut self, bytes: &[u8], now: Duration) {
        self.fill(now);
        let (mut budget, mut spent) = (self.budget, self.spent);
        self.inbound.follow(bytes, |head| match weigh(head) {
            Weight::Gives(more) => budget = budget.saturating_add(more).min(BURST),
            Weight::Costs(cost) => match budget.checked_sub(cost) {
                Some(left) => budget = left,
                None => spent = true,
            },
        });
        (self.budget, self.spent) = (budget, spent);
    }

    /// Takes in what goes out to the peer.
    pub fn sent(&mut self, bytes: &[u8]) {
        let mut answers: u32 = 0;
        self.outbound.follow(bytes, |head| {
            if matches!(head.kind, DATA | HEADERS) {
                answers = answers.saturating_add(1);
            }
        });
        self.budget = self.budget.saturating_add(answers.saturating_mul(FOR_AN_ANSWER)).min(BURST);
    }

    /// Whether the peer has sent more noise than it may. Once it has, it has for good.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    fn fill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.filled_at).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(REFILL);
            self.budget = self.budget.saturating_add(more).min(BURST);
            self.filled_at += Duration::from_secs(seconds);
        }
    }
}

enum Weight {
    Costs(u32),
    Gives(u32),
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

fn weigh(head: FrameHead) -> Weight {
    match head.kind {
        DATA if head.flags & END_STREAM != 0 => Weight::Costs(0),
        // Nothing but padding is empty too. How much of it is padding stands further in, but 256 bytes are the most.
        DATA if head.length == 0 || head.flags & PADDED != 0 && head.length <= 256 => Weight::Costs(1),
        DATA => Weight::Costs(0),
        HEADERS => Weight::Gives(FOR_A_REQUEST),
        // A request that is taken back has cost more than it says (CVE-2023-44487).
        RST_STREAM => Weight::Costs(10),
        // Each is answered, and may change every stream.
        SETTINGS => Weight::Costs(5),
        CONTINUATION => Weight::Costs(5),
        // PRIORITY, PING, WINDOW_UPDATE, GOAWAY, and what nobody knows.
        _ => Weight::Costs(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + length, 7);
        bytes
    }

    fn begun() -> Meter {
        let mut meter = Meter::default();
        meter.received(&[b'P'; PREFACE], Duration::ZERO);
        meter
    }

    /// How many of these pass at once.
    fn allowed(kind: u8, flags: u8, length: usize) -> u32 {
        let (mut meter, frame) = (begun(), frame(kind, flags, length));
        (0..100_000)
            .find(|_| {
                meter.received(&frame, Duration::ZERO);
                meter.is_spent()
            })
            .unwrap_or(u32::MAX)
    }

    #[test]
    fn noise_has_an_end_and_work_has_none() {
        const PRIORITY: u8 = 2;
        const PING: u8 = 6;
        const WINDOW_UPDATE: u8 = 8;
        for (name, kind, flags, length, expected) in [
            ("ping", PING, 0, 8, 2_000),
            ("answered ping", PING, 1, 8, 2_000),
            ("settings", SETTINGS, 0, 0, 400),
            ("reset", RST_STREAM, 0, 4, 200),
            ("empty data", DATA, 0, 0, 2_000),
            ("padding", DATA, PADDED, 256, 2_000),
            ("priority", PRIORITY, 0, 5, 2_000),
            ("window update", WINDOW_UPDATE, 0, 4, 2_000),
            ("continuation", CONTINUATION, 0, 1, 400),
            ("unknown", 0xfa, 0, 0, 2_000),
            ("data", DATA, 0, 1, u32::MAX),
            ("padded data", DATA, PADDED, 257, u32::MAX),
            ("end of a stream", DATA, END_STREAM, 0, u32::MAX),
            ("request", HEADERS, 0x4, 10, u32::MAX),
        ] {
            assert_eq!(allowed(kind, flags, length), expected, "{name}");
        }
    }

    #[test]
    fn time_and_answers_fill_the_budget() {
        let (mut meter, ping) = (begun(), frame(6, 0, 8));
        for second in 0..60 {
            for _ in 0..REFILL {
                meter.received(&ping, Duration::from_secs(second));
            }
        }
        assert!(!meter.is_spent());
        // A download: each piece that goes out is answered with two updates of the window.
        let (mut meter, update, piece) = (begun(), frame(8, 0, 4), frame(DATA, 0, 1000));
        for _ in 0..100_000 {
            meter.sent(&piece);
            meter.received(&update, Duration::ZERO);
            meter.received(&update, Duration::ZERO);
        }
        assert!(!meter.is_spent());
    }

    #[test]
    fn resets_are_weighed_against_requests() {
        let (mut meter, request, reset) = (begun(), frame(HEADERS, 0x5, 30), frame(RST_STREAM, 0, 4));
        let rapid = (0..10_000).find(|_| {
            meter.received(&request, Duration::ZERO);
            meter.received(&reset, Duration::ZERO);
            meter.is_spent()
        });
        assert!((200..300).contains(&rapid.unwrap()), "{rapid:?}");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            frames in prop::collection::vec((0u8..10, any::<u8>(), 0usize..40), 0..60),
            cuts in prop::collection::vec(1usize..30, 1..60),
        ) {
            let all: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let (mut whole, mut heads) = (Follower::new(0), Vec::new());
            whole.follow(&all, |head| heads.push(head));
            prop_assert_eq!(heads.len(), frames.len());
            let (mut pieces, mut rest, mut seen) = (Follower::new(0), all.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                pieces.follow(now, |head| seen.push(head));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, heads);
        }
    }
}
