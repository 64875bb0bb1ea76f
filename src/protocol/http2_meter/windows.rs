//! Receive window of each stream (RFC 9113 §6.9.1).
//!
//! The library enforces the window of a stream only until it resets that stream. It drops later data, but still returns
//! the connection window for it, so the peer could continue at full speed. Therefore the window is enforced here.

use std::collections::{BTreeMap, VecDeque};

/// Reset streams that are still tracked, in addition to `max_streams`: a peer may use up its window before it learns of
/// the reset. The library no longer knows older ones and counts each frame for them as an error.
const MOST_RESET: usize = 128;

/// Further tracked streams: those that are about to be refused.
const SPARE: usize = 256;

/// What a DATA frame is to the window of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Allowed,
    /// It is more than the window allows.
    Overrun,
    /// The peer has ended or reset this stream itself, or it was reset long ago (RFC 9113 §5.1).
    Unknown,
}

#[derive(Debug)]
pub(super) struct Windows {
    /// At the beginning of a stream.
    initial: u32,
    most: usize,
    most_reset: usize,
    /// What is left, by stream.
    left: BTreeMap<u32, u32>,
    /// The last ones that were reset by this side, oldest first.
    reset: VecDeque<u32>,
}

impl Windows {
    pub(super) fn new(initial: u32, max_streams: u32) -> Self {
        let max_streams = usize::try_from(max_streams).unwrap_or(usize::MAX);
        let most_reset = max_streams.saturating_add(MOST_RESET);
        let most = max_streams.saturating_add(most_reset).saturating_add(SPARE);
        Self { initial, most, most_reset, left: BTreeMap::new(), reset: VecDeque::new() }
    }

    /// The peer has sent a head on this stream.
    pub(super) fn begin(&mut self, stream: u32) {
        // Beyond the bound are only streams that nobody answers, after a GOAWAY.
        if self.left.len() < self.most {
            self.left.entry(stream).or_insert(self.initial);
        }
    }

    /// The peer will send nothing more on this stream.
    pub(super) fn end(&mut self, stream: u32) {
        self.left.remove(&stream);
    }

    /// This side has reset the stream.
    pub(super) fn reset(&mut self, stream: u32) {
        if !self.left.contains_key(&stream) {
            return;
        }
        self.reset.push_back(stream);
        if self.reset.len() > self.most_reset
            && let Some(oldest) = self.reset.pop_front()
        {
            self.left.remove(&oldest);
        }
    }

    /// This side lets the peer send so much more.
    pub(super) fn open(&mut self, stream: u32, increment: u32) {
        if let Some(left) = self.left.get_mut(&stream) {
            *left = left.saturating_add(increment);
        }
    }

    /// The peer has sent a DATA frame of this length.
    pub(super) fn take(&mut self, stream: u32, length: u32) -> Taken {
        let Some(left) = self.left.get_mut(&stream) else { return Taken::Unknown };
        match left.checked_sub(length) {
            Some(rest) => {
                *left = rest;
                Taken::Allowed
            }
            None => Taken::Overrun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken::*, *};

    #[test]
    fn a_stream_may_send_its_window_and_what_it_is_opened_by() {
        let mut windows = Windows::new(100, 4);
        windows.begin(1);
        windows.begin(3);
        assert_eq!([60, 40, 1].map(|length| windows.take(1, length)), [Allowed, Allowed, Overrun]);
        assert_eq!(windows.take(1, 0), Allowed, "an empty frame needs no window");
        windows.open(1, 50);
        // Trailers are no new stream.
        windows.begin(1);
        assert_eq!([50, 1].map(|length| windows.take(1, length)), [Allowed, Overrun]);
        assert_eq!(windows.take(3, 100), Allowed, "another stream");
        assert_eq!(windows.take(5, 1000), Unknown);
        windows.end(3);
        assert_eq!(windows.take(3, 0), Unknown);
    }

    #[test]
    fn a_stream_that_was_reset_may_send_the_rest_of_its_window() {
        let mut windows = Windows::new(100, 4);
        windows.begin(1);
        windows.reset(1);
        assert_eq!([100, 1].map(|length| windows.take(1, length)), [Allowed, Overrun]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut windows = Windows::new(100, 4);
        for stream in (1..200_000).step_by(2) {
            windows.begin(stream);
            windows.reset(stream);
        }
        assert_eq!((windows.left.len(), windows.reset.len()), (MOST_RESET + 4, MOST_RESET + 4));
        for stream in (200_001..400_000).step_by(2) {
            windows.begin(stream);
        }
        assert_eq!(windows.left.len(), windows.most);
        for stream in (200_001..400_000).step_by(2) {
            windows.end(stream);
        }
        assert_eq!(windows.left.len(), MOST_RESET + 4);
    }
}
