//! Turns a stream of client frames into the stream that echoes them, whatever slices it comes in.

use crate::wire;

/// Longest header of a client's frame: two bytes, eight of length, four of mask.
const LONGEST: usize = 14;

/// Where in the stream of frames we are. Never holds a payload.
#[derive(Default)]
pub(super) struct Echo {
    header: [u8; LONGEST],
    have: usize,
    payload_left: u64,
    mask: [u8; 4],
}

/// A frame without a mask: some proxy changed the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmasked;

impl Echo {
    /// Reads `input` and appends to `out` what goes back.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Unmasked> {
        while !input.is_empty() {
            if self.payload_left == 0 {
                let Some((byte, rest)) = input.split_first() else { break };
                input = rest;
                if let Some(place) = self.header.get_mut(self.have) {
                    *place = *byte;
                }
                self.have += 1;
                if self.have >= 2 && self.have == self.header_length()? {
                    self.begin(out);
                }
                continue;
            }
            let take = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(input.len());
            let (now, later) = input.split_at(take);
            input = later;
            let at = out.len();
            out.extend_from_slice(now);
            if let Some(tail) = out.get_mut(at..) {
                wire::mask(tail, self.mask);
            }
            self.payload_left -= take as u64;
            self.mask.rotate_left(take % 4);
        }
        Ok(())
    }

    fn header_length(&self) -> Result<usize, Unmasked> {
        let [_, second, ..] = self.header;
        if second & 0x80 == 0 {
            return Err(Unmasked);
        }
        Ok(match second & 0x7f {
            126 => 8,
            127 => 14,
            _ => 6,
        })
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let [first, second, a, b, c, d, e, f, g, h, i, j, k, l] = self.header;
        (self.payload_left, self.mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l]),
            short => (u64::from(short), [a, b, c, d]),
        };
        self.have = 0;
        // A Ping is answered with a Pong, a Close with the same Close, a message with itself.
        let first = if first & 0x0f == 9 { first + 1 } else { first };
        out.extend_from_slice(&wire::frame_header(first, self.payload_left, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunking_gives_the_same_echo() {
        let mut sent = Vec::new();
        let mut due = Vec::new();
        for size in [0, 1, 125, 126, 3000, 70_000] {
            let (request, reply) = wire::echo_pair(size);
            sent.extend(request);
            due.extend(reply);
        }
        for chunk in [1, 2, 3, 5, 7, 64, 4096, sent.len()] {
            let mut echo = Echo::default();
            let mut out = Vec::new();
            for slice in sent.chunks(chunk) {
                echo.feed(slice, &mut out).unwrap();
            }
            assert!(out == due, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_ping_comes_back_as_a_pong() {
        let mut out = Vec::new();
        Echo::default().feed(&[0x89, 0x81, 1, 1, 1, 1, b'a' ^ 1], &mut out).unwrap();
        assert_eq!(out, [0x8a, 1, b'a']);
    }

    #[test]
    fn a_frame_without_mask_is_noticed() {
        assert_eq!(Echo::default().feed(&[0x82, 1, 0], &mut Vec::new()), Err(Unmasked));
    }
}
