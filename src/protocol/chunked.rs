//! Follows a chunked body to its end (RFC 9112 §7.1), strictly, holding none of it.

use super::{request_framing::FramingError, token_list::is_token_byte};

/// Longest chunk extensions of one chunk, and of a whole body; nobody uses them but attackers.
const MAX_EXTENSION: (usize, usize) = (1024, 16 * 1024);

/// Longest trailer section.
const MAX_TRAILERS: usize = 16 * 1024;

/// How far a slice took the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the slice that belong to the body.
    pub consumed: usize,
    /// The body has ended.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In the size; how many digits there were.
    #[default]
    SizeStart,
    Size(u8),
    /// White space after the size: only an extension may follow.
    Space(usize),
    Extension(usize),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// The follower. Fed with each passing slice.
#[derive(Clone, Debug, Default)]
pub struct ChunkedFollower {
    state: State,
    size: u64,
    extensions: usize,
    trailers: usize,
}

impl ChunkedFollower {
    /// Takes the next slice.
    ///
    /// # Errors
    /// `FramingError::Chunk`, `ChunkTooLong`, or what is wrong with a trailer field.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, FramingError> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Done {
                break;
            }
            if self.state == State::Data {
                let take = rest.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= u64::try_from(take).unwrap_or(u64::MAX).min(self.size);
                at += take;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let Some(byte) = rest.first() else { break };
            self.state = self.step(*byte)?;
            at += 1;
        }
        Ok(Progress { consumed: at, done: self.state == State::Done })
    }

    fn step(&mut self, byte: u8) -> Result<State, FramingError> {
        match (self.state, byte) {
            (State::SizeStart, _) => {
                self.size = u64::from(digit(byte)?);
                Ok(State::Size(1))
            }
            (State::Size(_), b'\r') => Ok(State::SizeLf),
            (State::Size(_), b';') => Ok(State::Extension(1)),
            (State::Size(_), b' ' | b'\t') => Ok(State::Space(1)),
            // Sixteen digits fill 64 bits.
            (State::Size(count), _) if count < 16 => {
                self.size = (self.size << 4) | u64::from(digit(byte)?);
                Ok(State::Size(count + 1))
            }
            (State::Space(count) | State::Extension(count), _) => {
                self.extensions += 1;
                let too_long = count >= MAX_EXTENSION.0 || self.extensions > MAX_EXTENSION.1;
                match (self.state, byte) {
                    (State::Extension(_), b'\r') => Ok(State::SizeLf),
                    _ if too_long => Err(FramingError::ChunkTooLong),
                    (State::Space(_), b' ' | b'\t') => Ok(State::Space(count + 1)),
                    (State::Space(_), b';') => Ok(State::Extension(count + 1)),
                    (State::Extension(_), b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension(count + 1)),
                    _ => Err(FramingError::Chunk),
                }
            }
            (State::SizeLf, b'\n') if self.size == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf, _) => {
                self.trailer(byte)
            }
            _ => Err(FramingError::Chunk),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, FramingError> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(FramingError::ChunkTooLong);
        }
        match (self.state, byte) {
            (State::TrailerStart, b' ' | b'\t') => Err(FramingError::Folded),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerStart | State::TrailerName, _) => Err(FramingError::FieldName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\n') => Err(FramingError::BareLineEnd),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) => Err(FramingError::BareLineEnd),
            _ => Err(FramingError::FieldValue),
        }
    }
}

fn digit(byte: u8) -> Result<u8, FramingError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(FramingError::Chunk),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Result<Progress, FramingError> {
        ChunkedFollower::default().advance(bytes)
    }

    #[test]
    fn sound_bodies_end_where_they_end() {
        for text in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "1;a=b\r\nx\r\n00\r\n\r\n",
            "1 \t;a\r\nx\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
        ] {
            let with_more = format!("{text}GET /");
            assert_eq!(whole(with_more.as_bytes()), Ok(Progress { consumed: text.len(), done: true }), "{text:?}");
        }
    }

    #[test]
    fn tricks_with_chunks_are_refused() {
        for (text, attack) in [
            ("3\nabc\r\n", "bare LF after the size"),
            ("3\r\nabcd\r\n", "data longer than its size"),
            ("3\r\nabc\n0\r\n", "bare LF after the data"),
            ("0x3\r\nabc", "prefixed size"),
            ("-1\r\n", "negative size"),
            ("\r\n", "no size"),
            ("+3\r\nabc", "signed size"),
            ("11111111111111111\r\n", "a size over 64 bits"),
            ("3;\nabc", "LF in an extension"),
            ("3 \nabc", "LF after white space"),
            ("3 \r\nabc\r\n", "white space that no extension follows"),
            ("3 4\r\nabc\r\n", "a second size"),
            ("3 a=b\r\nabc\r\n", "an extension without its semicolon"),
            ("3;a\rb\r\nabc", "bare CR in an extension"),
            ("3;\0\r\nabc", "NUL in an extension"),
            ("3\r\nabc\r\r\n0", "a CR too many after the data"),
            ("3\r\nabc0\r\n\r\n", "no line end after the data"),
            (" 3\r\nabc", "white space before the size"),
            ("3,\r\nabc", "a list of sizes"),
            ("0\r\nX: y\rZ: 1\r\n\r\n", "bare CR in trailers"),
            ("0\r\n\n", "bare LF as the last line"),
            ("0\r\n: y\r\n\r\n", "a trailer without a name"),
            ("0\r\nX : y\r\n\r\n", "space before the colon of a trailer"),
            ("0\r\n X: y\r\n\r\n", "folded trailer"),
            ("0\r\nX: y\n\r\n", "bare LF in trailers"),
            ("0\r\nX: \0\r\n\r\n", "NUL in a trailer"),
        ] {
            assert!(whole(text.as_bytes()).is_err(), "{attack}");
        }
        assert_eq!(whole(format!("1;{}", "a".repeat(2000)).as_bytes()), Err(FramingError::ChunkTooLong));
        assert_eq!(whole(format!("1{}", " ".repeat(2000)).as_bytes()), Err(FramingError::ChunkTooLong));
        let many = format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(17);
        assert_eq!(whole(many.as_bytes()), Err(FramingError::ChunkTooLong));
        assert_eq!(whole(format!("0\r\nX: {}", "a".repeat(20_000)).as_bytes()), Err(FramingError::ChunkTooLong));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(
            text in "([0-3]{1,2}( |;a| ;a)?\r\n[ab]{0,4}(\r\n|\n)){0,3}0\r\n(X: y\r\n)?\r\n[a-z]{0,3}",
            step in 1usize..7,
        ) {
            let expected = whole(text.as_bytes());
            let mut follower = ChunkedFollower::default();
            let mut got = Ok(Progress { consumed: 0, done: false });
            for piece in text.as_bytes().chunks(step) {
                match (got, follower.advance(piece)) {
                    (Ok(before), Ok(now)) if !before.done => {
                        got = Ok(Progress { consumed: before.consumed + now.consumed, done: now.done });
                    }
                    (Ok(before), Err(error)) if !before.done => got = Err(error),
                    _ => break,
                }
            }
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in prop::collection::vec("[0-9a-f;: \t\r\nX\0]{0,20}", 0..8)) {
            let mut follower = ChunkedFollower::default();
            for piece in pieces {
                let Ok(progress) = follower.advance(piece.as_bytes()) else { break };
                prop_assert!(progress.done || progress.consumed == piece.len());
            }
        }
    }
}
