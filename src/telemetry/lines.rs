//! The last step of an event: one line of printable text on standard error.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use crate::protocol::log_text::is_printable;

/// Standard error, one event a line.
///
/// Our events escape untrusted text themselves. This is the backstop for debug lines of libraries and for omissions:
/// every event is one line of printable text.
pub(super) struct Lines {
    pub(super) json: bool,
    /// Colors are escape sequences; what a field holds of these is escaped by the formatter.
    pub(super) ansi: bool,
}

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&one_line(event, self.json, self.ansi))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Returns an event with everything but printable characters escaped, except the line end that it has.
fn one_line(event: &[u8], json: bool, ansi: bool) -> Cow<'_, [u8]> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, ""), |text| (text, "\n"));
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') || ansi && *byte == 0x1b) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 16);
    for c in String::from_utf8_lossy(text).chars() {
        if is_printable(c) || ansi && c == '\x1b' {
            line.push(c);
        } else if json {
            // Outside strings JSON has none of these, and inside them this is the same character.
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            line.push_str(&units);
        } else {
            line.extend(c.escape_default());
        }
    }
    line.push_str(end);
    Cow::Owned(line.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line_of_printable_text() {
        for (event, pretty, json) in [
            ("plain\n", "plain\n", "plain\n"),
            ("no end", "no end", "no end"),
            ("a\r\nb\n", "a\\r\\nb\n", "a\\u000d\\u000ab\n"),
            ("a\u{202e}b\n", "a\\u{202e}b\n", "a\\u202eb\n"),
            ("\u{2028}\u{e0041}\n", "\\u{2028}\\u{e0041}\n", "\\u2028\\udb40\\udc41\n"),
            ("gr\u{fc}n\n", "gr\u{fc}n\n", "gr\u{fc}n\n"),
            ("\x1b[2m\n", "\\u{1b}[2m\n", "\\u001b[2m\n"),
        ] {
            assert_eq!(one_line(event.as_bytes(), false, false), pretty.as_bytes(), "{event:?}");
            assert_eq!(one_line(event.as_bytes(), true, false), json.as_bytes(), "{event:?}");
        }
        assert_eq!(one_line("\x1b[2m\u{9b}\n".as_bytes(), false, true), "\x1b[2m\\u{9b}\n".as_bytes());
        let text = "\u{202e}\u{e0041}\r\n\u{feff}";
        let event = serde_json::to_string(text).unwrap();
        let line = one_line(event.as_bytes(), true, false);
        assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
    }
}
