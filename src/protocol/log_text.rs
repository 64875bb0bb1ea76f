//! Escapes untrusted text for logs and terminals. The only escaping function of the crate.
//!
//! Printable characters stay: ASCII, and letters, digits, marks and symbols of other scripts. Everything else could
//! forge a line, reorder its text or be invisible, and is escaped: `\n`, `\r`, `\t`, `\u{202e}`, and `\xff` for a byte
//! that is not UTF-8. A backslash is written `\\`, so that each text has one reading.

use std::fmt::{self, Write};

/// Longest text of a field or a name, in characters of the original.
pub const MAX_FIELD: usize = 256;

/// Longest error text, in characters of the original. Errors of libraries may quote a whole message of a peer.
const MAX_ERROR: usize = 1024;

/// Returns `bytes` in printable form, cut at [`MAX_FIELD`] characters. A text that was cut ends with `…`.
pub fn escape(bytes: &[u8]) -> String {
    escape_to(bytes, MAX_FIELD)
}

/// The same with another bound.
pub fn escape_to(bytes: &[u8], max_chars: usize) -> String {
    // Most texts: every request has some in its event.
    if bytes.len() <= max_chars && bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\') {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = Escaper { out: String::with_capacity(bytes.len().min(max_chars)), left: max_chars };
    for chunk in bytes.utf8_chunks() {
        let _never_fails = text.write_str(chunk.valid());
        for byte in chunk.invalid() {
            if text.left == 0 {
                break;
            }
            text.left -= 1;
            let _never_fails = write!(text.out, "\\x{byte:02x}");
        }
    }
    let shown = text.out;
    let is_cut = text.left == 0 && bytes.utf8_chunks().map(count).sum::<usize>() > max_chars;
    if is_cut { shown + "…" } else { shown }
}

fn count(chunk: std::str::Utf8Chunk<'_>) -> usize {
    chunk.valid().chars().count() + chunk.invalid().len()
}

/// Returns the start of a text that is printable already and has escapes of its own, such as the subject of a certificate
/// (RFC 4514).
pub fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_FIELD).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// Shows what it holds in printable form, for errors and other texts that may quote a peer. Long ones are cut.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper { out: f, left: MAX_ERROR }, "{}", self.0)
    }
}

/// Whether a log shows this character as it is. A backslash is printable, but not plain text.
pub fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Invisible letters and a symbol: Hangul fillers, and the blank Braille pattern.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => false,
        // The standard library knows Unicode's categories: it escapes control, format, private, unassigned characters,
        // separators, and marks that have no place of their own.
        _ => c.escape_debug().eq([c]),
    }
}

struct Escaper<W> {
    out: W,
    left: usize,
}

impl<W: Write> Write for Escaper<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
            self.left = left;
            match c {
                '\\' => self.out.write_str("\\\\")?,
                _ if is_printable(c) => self.out.write_char(c)?,
                _ => write!(self.out, "{}", c.escape_default())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_reorder_or_hide_is_escaped() {
        for (bytes, expected) in [
            (&b"plain text, \"quoted\" = {1}"[..], "plain text, \"quoted\" = {1}"),
            ("gr\u{fc}\u{df}e \u{4f60}\u{597d} \u{1f600}".as_bytes(), "gr\u{fc}\u{df}e \u{4f60}\u{597d} \u{1f600}"),
            (b"a\\nb", "a\\\\nb"),
            (b"a\r\nb", "a\\r\\nb"),
            (b"a\tb\0\x07\x08\x0b\x1b[31m\x7f", "a\\tb\\u{0}\\u{7}\\u{8}\\u{b}\\u{1b}[31m\\u{7f}"),
            ("\u{85}\u{9b}\u{a0}\u{ad}".as_bytes(), "\\u{85}\\u{9b}\\u{a0}\\u{ad}"),
            ("\u{2028}\u{2029}".as_bytes(), "\\u{2028}\\u{2029}"),
            ("\u{61c}\u{200e}\u{200f}".as_bytes(), "\\u{61c}\\u{200e}\\u{200f}"),
            ("\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}".as_bytes(), "\\u{200b}\\u{200c}\\u{200d}\\u{2060}\\u{feff}"),
            ("\u{180e}\u{34f}\u{fe0f}\u{3164}".as_bytes(), "\\u{180e}\\u{34f}\\u{fe0f}\\u{3164}"),
            ("\u{fff9}\u{e0041}\u{e000}\u{10ffff}".as_bytes(), "\\u{fff9}\\u{e0041}\\u{e000}\\u{10ffff}"),
            (b"a\xffb\xc3", "a\\xffb\\xc3"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ] {
            assert_eq!(escape(bytes), expected);
        }
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert_eq!(escape(c.to_string().as_bytes()), format!("\\u{{{:x}}}", u32::from(c)));
        }
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(escape(&[b'a'; MAX_FIELD]), "a".repeat(MAX_FIELD));
        assert_eq!(escape(&[b'a'; MAX_FIELD + 1]), "a".repeat(MAX_FIELD) + "…");
        assert_eq!(escape(&[0xff; 300]), "\\xff".repeat(MAX_FIELD) + "…");
        assert_eq!(escape_to("\u{4f60}\u{597d}".as_bytes(), 1), "\u{4f60}…");
        assert_eq!(Escaped("b".repeat(5000)).to_string().len(), MAX_ERROR);
        assert_eq!(Escaped("a\r\nb").to_string(), "a\\r\\nb");
    }

    proptest! {
        #[test]
        fn every_text_is_printable_and_has_one_reading(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 60)) {
            let mut readings = HashMap::new();
            for text in texts {
                let shown = escape(&text);
                prop_assert!(shown.chars().all(is_printable), "{:?}", shown);
                let first = readings.entry(shown).or_insert_with(|| text.clone());
                prop_assert_eq!(first, &text);
            }
        }
    }
}
