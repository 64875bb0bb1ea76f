//! All spellings that lenient backends may turn a path into.
//!
//! Backends decode, strip, merge and cut in different orders and numbers: Jetty 9.4 strips parameters and then decodes,
//! others the other way round, frameworks decode once more. Therefore each step is applied to each spelling until no
//! new one appears. Dot segments and control characters in any of them refuse the path.

use memchr::{memchr, memchr2, memmem};

use super::{PathError, hex};

/// Maximum spellings that are compared with the routes. Legitimate paths have fewer than 10, an encoded URL in a path
/// fewer than 20.
pub(super) const MAX_SPELLINGS: usize = 64;

/// Maximum bytes of all spellings together, since each costs some passes over its bytes: a path of 1 KiB may have 32
/// spellings. A path over HTTP/2 may be a few bytes on the wire that refer to the table of its connection.
const MAX_BYTES: usize = 32 * 1024;

/// Spellings that a path may have however long it is: the head that it stands in has a limit of its own.
const ANY_LENGTH: usize = 8;

/// Maximum decoding depth; deeper encodings are treated as an evasion attempt.
const MAX_DECODINGS: usize = 3;

/// A rewrite that a backend may apply to a path; `None` if it changes nothing.
type Step = fn(&[u8]) -> Option<Vec<u8>>;

const STEPS: [Step; 10] = [
    decode,
    decode_percent_signs,
    decode_backslashes,
    decode_but_delimiters,
    drop_parameters,
    backslash_as_slash,
    merge_slashes,
    cut_at_query,
    drop_trailing_dots,
    drop_authority,
];

/// `path` and all it may become, each once, `path` first; `tried` is raised by one for each step that is tried.
pub(super) fn spellings(path: Vec<u8>, tried: &mut usize) -> Result<Vec<Vec<u8>>, PathError> {
    check(&path)?;
    check_depth(&path)?;
    let most_bytes = MAX_BYTES.max(path.len().saturating_mul(ANY_LENGTH));
    let mut bytes = path.len();
    let mut found = vec![path];
    let mut at = 0;
    while at < found.len() {
        for step in STEPS.into_iter().chain([fold_letters as Step]) {
            *tried += 1;
            let Some(next) = found.get(at).and_then(|spelling| step(spelling)) else { continue };
            if found.contains(&next) {
                continue;
            }
            check(&next)?;
            bytes += next.len();
            if found.len() == MAX_SPELLINGS || bytes > most_bytes {
                return Err(PathError::Spellings);
            }
            found.push(next);
        }
        at += 1;
    }
    Ok(found)
}

fn check_depth(path: &[u8]) -> Result<(), PathError> {
    let mut path = decode(path);
    for _ in 1..=MAX_DECODINGS {
        let Some(last) = path else { return Ok(()) };
        check(&last)?;
        path = decode(&last);
    }
    path.map_or(Ok(()), |_| Err(PathError::Encoding))
}

/// Refuses what is refused in any spelling.
fn check(spelling: &[u8]) -> Result<(), PathError> {
    if spelling.iter().any(u8::is_ascii_control) || !spelling.is_ascii() && is_overlong(spelling) {
        return Err(PathError::Encoding);
    }
    let may_have_dots = memchr(b'.', spelling).is_some();
    if may_have_dots && has_dot_segment(spelling) { Err(PathError::DotSegment) } else { Ok(()) }
}

/// Whether there is an ASCII character written in more than one byte: `%c0%ae` is a dot to a careless reader of UTF-8.
fn is_overlong(path: &[u8]) -> bool {
    path.windows(2).any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

/// Windows ignores spaces after the dots.
fn has_dot_segment(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| matches!(segment.trim_ascii_end(), b"." | b".."))
}

/// Decodes every octet once, `%uXXXX` included, which IIS and classic ASP read. Malformed escapes are kept: one of them
/// must not hide the valid ones.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    decode_where(path, |_| true)
}

/// Some servers keep encoded slashes, backslashes or percent signs and decode the rest (Tomcat's
/// `encodedSolidusHandling`), and only then look for parameters. So these three are decoded apart from the rest: the
/// slashes by [`decode`] alone.
fn decode_but_delimiters(path: &[u8]) -> Option<Vec<u8>> {
    decode_where(path, |character| !matches!(character, '/' | '\\' | '%'))
}

fn decode_percent_signs(path: &[u8]) -> Option<Vec<u8>> {
    decode_where(path, |character| character == '%')
}

fn decode_backslashes(path: &[u8]) -> Option<Vec<u8>> {
    decode_where(path, |character| character == '\\')
}

fn decode_where(path: &[u8], wanted: fn(char) -> bool) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut changed) = (Vec::new(), path, false);
    while let Some(at) = memchr(b'%', rest) {
        if out.is_empty() {
            out.reserve_exact(path.len());
        }
        let (before, escape) = rest.split_at_checked(at)?;
        out.extend_from_slice(before);
        let (decoded, length) = match escape {
            [_, b'u' | b'U', a, b, c, d, ..] => (wide([*a, *b, *c, *d]), 6),
            [_, high, low, ..] => (hex(*high).zip(hex(*low)).map(|(high, low)| Escaped::Octet(high << 4 | low)), 3),
            _ => (None, 1),
        };
        let decoded = decoded.filter(|decoded| wanted(decoded.character()));
        match decoded {
            Some(Escaped::Octet(octet)) => out.push(octet),
            Some(Escaped::Character(character)) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => out.push(b'%'),
        }
        changed |= decoded.is_some();
        rest = escape.get(if decoded.is_some() { length } else { 1 }..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    changed.then_some(out)
}

/// What an escape stands for.
#[derive(Clone, Copy)]
enum Escaped {
    Octet(u8),
    Character(char),
}

impl Escaped {
    fn character(self) -> char {
        match self {
            Self::Octet(octet) => char::from(octet),
            Self::Character(character) => character,
        }
    }
}

/// The character of `%uXXXX`; half of a surrogate pair is none.
fn wide(digits: [u8; 4]) -> Option<Escaped> {
    let value = digits.into_iter().try_fold(0u32, |value, digit| Some(value << 4 | u32::from(hex(digit)?)))?;
    char::from_u32(value).map(Escaped::Character)
}

/// Drops `;parameters`, each up to the next slash.
fn drop_parameters(path: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), path);
    memchr(b';', path)?;
    while let Some((name, parameters)) = memchr(b';', rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(name);
        rest = memchr(b'/', parameters).and_then(|at| parameters.get(at..)).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Some(out)
}

fn backslash_as_slash(path: &[u8]) -> Option<Vec<u8>> {
    memchr(b'\\', path)?;
    Some(path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect())
}

fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    memmem::find(path, b"//")?;
    let mut out = path.to_vec();
    out.dedup_by(|next, last| *next == b'/' && *last == b'/');
    Some(out)
}

/// Cuts at a decoded `?` or `#`, as backends do that decode before they split off the query.
fn cut_at_query(path: &[u8]) -> Option<Vec<u8>> {
    memchr2(b'?', b'#', path).and_then(|at| path.get(..at)).map(<[u8]>::to_vec)
}

/// Drops dots and spaces at the end of segments, as file names on Windows do.
fn drop_trailing_dots(path: &[u8]) -> Option<Vec<u8>> {
    memchr2(b'.', b' ', path)?;
    let is_dropped = |byte: &u8| matches!(byte, b'.' | b' ');
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path.iter().chain(b"/") {
        if *byte == b'/' {
            let kept = out.iter().rposition(|byte| !is_dropped(byte)).map_or(0, |at| at + 1);
            out.truncate(kept);
        }
        out.push(*byte);
    }
    out.pop();
    (out.len() < path.len()).then_some(out)
}

/// Treats `//name/rest` as an authority and its path, as parsers of URL references do (RFC 3986 §4.2).
fn drop_authority(path: &[u8]) -> Option<Vec<u8>> {
    // Without a name there is no authority to drop, and merging slashes does the rest.
    let reference = path.strip_prefix(b"//").filter(|reference| !reference.starts_with(b"/"))?;
    let rest = memchr(b'/', reference).and_then(|at| reference.get(at..)).unwrap_or(b"/");
    Some(rest.to_vec())
}

/// Letters that comparing without case takes for ASCII in some languages (Java's `equalsIgnoreCase`): long s, Kelvin
/// sign, and i with or without its dot.
const FOLDED: [(&str, u8); 4] = [("\u{17f}", b's'), ("\u{212a}", b'k'), ("\u{131}", b'i'), ("\u{130}", b'i')];

fn fold_letters(path: &[u8]) -> Option<Vec<u8>> {
    if path.is_ascii() {
        return None;
    }
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path);
    while let [first, tail @ ..] = rest {
        let folded = FOLDED.iter().find_map(|(letter, ascii)| Some((*ascii, rest.strip_prefix(letter.as_bytes())?)));
        let (byte, next) = folded.unwrap_or((*first, tail));
        out.push(byte);
        rest = next;
    }
    (out.len() < path.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(path: &str) -> (Result<Vec<Vec<u8>>, PathError>, usize) {
        let mut tried = 0;
        (spellings(path.as_bytes().to_vec(), &mut tried), tried)
    }

    /// The work is counted in steps, each linear in the length of the path.
    #[test]
    fn no_path_has_more_than_64_spellings_or_costs_more_than_704_steps() {
        let pieces = ["%3b", "%2f", "%5c", "//", "%3f", "%23", "%20", "%252f", "%253b", "%2525", "\u{17f}", ".", "a"];
        let mut refused = 0;
        for first in 0..pieces.len() {
            for count in 1..=24 {
                let text: String =
                    (0..count).map(|at| pieces[(first + at * 5 + at * at) % pieces.len()].to_owned() + "b/").collect();
                let (found, tried) = spelled(&format!("/{text}"));
                assert!(tried <= MAX_SPELLINGS * (STEPS.len() + 1), "{text}: {tried}");
                match found {
                    Ok(found) => assert!(found.len() <= MAX_SPELLINGS, "{text}"),
                    Err(error) => refused += usize::from(error == PathError::Spellings),
                }
            }
        }
        assert!(refused > 10, "the bound was reached {refused} times only");
    }

    /// A step costs as much as its path is long, so the bytes of all spellings are bounded as well.
    #[test]
    fn all_spellings_of_a_path_together_are_bounded_in_bytes() {
        for piece in ["/", "%3b%2f", "%253b//%255c", "%3f;//", "%2525", "//a", "/%5c;"] {
            for length in [1_000, 3_900, 16_000, 60_000] {
                let path = format!("/{}", piece.repeat(length / piece.len()));
                if let (Ok(found), _) = spelled(&path) {
                    let bytes: usize = found.iter().map(Vec::len).sum();
                    assert!(bytes <= MAX_BYTES.max(ANY_LENGTH * path.len()), "{piece} x {length}: {bytes}");
                }
            }
        }
        // Honest long paths are far from it.
        assert!(spelled(&format!("/{}", "a%20b/".repeat(10_000))).0.is_ok());
    }

    #[test]
    fn honest_paths_are_far_from_the_bound() {
        for (path, most) in [
            ("/a%20b/c", 2),
            ("/app/page;jsessionid=1A2B3C", 2),
            ("/%E4%BD%A0%E5%A5%BD/%F0%9F%98%80", 2),
            ("/wiki/C%23", 3),
            ("/proxy/https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26d%3D%23e", 20),
            ("/proxy/https%253A%252F%252Fexample.com%252Fa%253Fb%253Dc", 20),
            ("/owner%2Frepo%2Ftree%2Fmain/a%20file.txt", 3),
            ("//ws//x", 5),
            ("/a/photo%20of%20C:%5CUsers%5Cme.png", 6),
        ] {
            let (found, _) = spelled(path);
            let found = found.unwrap();
            assert!(found.len() <= most, "{path}: {}", found.len());
        }
    }
}
