//! The path of a request: the spelling that routes are matched against, and the other spellings that a lenient backend
//! may take it for.

mod closure;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use thiserror::Error;

/// Why a path is refused, whatever its route.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// `.` or `..`, written or encoded.
    #[error("the path has dot segments (RFC 3986 section 5.2.4)")]
    DotSegment,
    /// A malformed percent-encoding, one of a control character, or one too deep.
    #[error("the path has a malformed or forbidden percent-encoding (RFC 3986 section 2.1)")]
    Encoding,
    /// A backslash that is not encoded; some backends read it as a slash.
    #[error("the path has a backslash (RFC 3986 section 3.3)")]
    Backslash,
    /// More spellings than are compared with the routes.
    #[error("the path has more than {} spellings (RFC 3986 section 6)", closure::MAX_SPELLINGS)]
    Spellings,
}

impl PathError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::DotSegment => "dot-segment",
            Self::Encoding => "path-encoding",
            Self::Backslash => "path-backslash",
            Self::Spellings => "path-spellings",
        }
    }
}

/// A path in its matched spelling, with all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath {
    matched: String,
    readings: Vec<String>,
}

impl RoutePath {
    /// Reads a path in origin form, without its query.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn read(path: &str) -> Result<Self, PathError> {
        if is_plain(path) {
            return Ok(Self { matched: path.to_owned(), readings: Vec::new() });
        }
        Self::read_any(path)
    }

    fn read_any(path: &str) -> Result<Self, PathError> {
        if path.contains('\\') {
            return Err(PathError::Backslash);
        }
        let matched = decode_unreserved(path.as_bytes())?;
        let spellings = closure::spellings(matched, &mut 0)?;
        let mut readings = spellings.iter().map(|spelling| String::from_utf8_lossy(spelling)).map(Cow::into_owned);
        let matched = readings.next().unwrap_or_default();
        Ok(Self { readings: readings.filter(|reading| *reading != matched).collect(), matched })
    }

    /// The path with percent-encoded unreserved characters decoded (RFC 3986 §6.2.2.2).
    pub fn matched(&self) -> &str {
        &self.matched
    }

    /// The spellings that a lenient backend may take it for, without [`Self::matched`]; at most 63.
    ///
    /// They are all results of these steps, in every order and number: decode, backslash as slash, drop the
    /// `;parameters` of segments, merge slashes, cut at a decoded `?` or `#`, drop dots and spaces at the end of
    /// segments, take `//name` for an authority.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        self.readings.iter().map(String::as_str)
    }
}

/// Whether the path has one spelling only: no step of a backend can change it, and no segment consists of dots or ends
/// with one.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b'.' | b':' | b'=' | b'@');
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.contains("/.")
        && !path.contains("./")
        && !path.ends_with('.')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Decodes unreserved characters; the others keep their encoding.
fn decode_unreserved(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(PathError::Encoding) };
        let (Some(h), Some(l)) = (hex(*high), hex(*low)) else { return Err(PathError::Encoding) };
        rest = tail;
        match h << 4 | l {
            byte if is_unreserved(byte) => out.push(byte),
            _ => out.extend_from_slice(&[b'%', *high, *low]),
        }
    }
    Ok(out)
}
