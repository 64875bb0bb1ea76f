//! A hand on a running relay: its counters, and the wish that it end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures_util::task::AtomicWaker;

use super::{moment::Moment, report::Side};

/// A hand on one relay. The relay and whoever watches it share what holds it.
#[derive(Debug, Default)]
pub struct Control {
    /// Zero is no wish, [`CUT`] is the end, all between is a close code.
    wish: AtomicU32,
    waker: AtomicWaker,
    to_upstream: Counters,
    to_downstream: Counters,
    /// Nanoseconds from the relay's begin to the last byte of either side.
    last_byte: AtomicU64,
}

impl AsRef<Control> for Control {
    fn as_ref(&self) -> &Control {
        self
    }
}

/// What passed in one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes the writer has taken.
    pub bytes: u64,
    /// Messages whose last frame has come; what comes after a Close does not pass and does not count.
    pub messages: u64,
}

/// Why a relay was told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The process stops.
    Drain,
    /// Somebody wants this one closed.
    Asked,
}

/// What a relay was told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Close with this code.
    Close(u16, Cause),
    /// End at once.
    Cut,
}

const CUT: u32 = u32::MAX;

/// Beside the close code, in the bits above it.
const DRAIN: u32 = 1 << 16;

/// Written by the relay's task alone, so a load and a store do for an addition.
#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    messages: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
}

impl Control {
    /// Ends the relay with this close code to both sides, as far as frame boundaries allow. The first wish stands.
    pub fn close(&self, code: u16, cause: Cause) {
        let wish = u32::from(code.max(1)) | if cause == Cause::Drain { DRAIN } else { 0 };
        // Only the first: a second code would be one more Close on the wire.
        let _ = self.wish.compare_exchange(0, wish, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Ends the relay at once.
    pub fn cut(&self) {
        self.wish.store(CUT, Ordering::Release);
        self.waker.wake();
    }

    /// What passed from `from` to the other side.
    pub fn passed(&self, from: Side) -> Passed {
        let counters = self.counters(from);
        Passed { bytes: counters.bytes.load(Ordering::Relaxed), messages: counters.messages.load(Ordering::Relaxed) }
    }

    /// Milliseconds from the relay's begin to the last byte it read.
    pub fn last_byte_ms(&self) -> u64 {
        self.last_byte.load(Ordering::Relaxed) / 1_000_000
    }

    fn counters(&self, from: Side) -> &Counters {
        match from {
            Side::Downstream => &self.to_upstream,
            Side::Upstream => &self.to_downstream,
        }
    }

    pub(super) fn count(&self, from: Side, passed: Passed) {
        let counters = self.counters(from);
        add(&counters.bytes, passed.bytes);
        if passed.messages > 0 {
            add(&counters.messages, passed.messages);
        }
    }

    pub(super) fn heard(&self, at: Moment) {
        self.last_byte.store(at.nanos(), Ordering::Relaxed);
    }

    /// Names the task that is to be woken by a wish.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(super) fn wish(&self) -> Option<Wish> {
        match self.wish.load(Ordering::Acquire) {
            0 => None,
            CUT => Some(Wish::Cut),
            wish => {
                let cause = if wish & DRAIN == 0 { Cause::Asked } else { Cause::Drain };
                Some(Wish::Close(u16::try_from(wish & !DRAIN).unwrap_or(u16::MAX), cause))
            }
        }
    }
}
