//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1).

use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

use crate::protocol::token_list::{is_blank, is_token, is_token_byte, members};

/// Maximum extensions in one offer or response. Browsers offer one, repeated for each alternative set of its
/// parameters.
pub(super) const MAX: usize = 64;

/// Why a list of extensions cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListError {
    /// It breaks the grammar.
    Malformed,
    /// It has more than [`MAX`] members.
    TooMany,
}

/// Returns the names of the listed extensions. A field without a value lists none.
///
/// # Errors
/// See [`ListError`].
pub(super) fn names(headers: &HeaderMap) -> Result<Vec<String>, ListError> {
    let lines = headers.get_all(SEC_WEBSOCKET_EXTENSIONS);
    let mut names = Vec::new();
    for member in members(lines.iter()) {
        if names.len() == MAX {
            return Err(ListError::TooMany);
        }
        let mut parts = member.split(';').map(trim);
        let name = parts.next().filter(|name| is_token(name)).ok_or(ListError::Malformed)?;
        if !parts.all(is_parameter) {
            return Err(ListError::Malformed);
        }
        names.push(name.to_owned());
    }
    // The list has one member at least, and empty ones do not count (RFC 9110 section 5.6.1).
    if names.is_empty() && !lines.iter().all(is_blank) {
        return Err(ListError::Malformed);
    }
    Ok(names)
}

/// Returns the names that can be read in a malformed list, which a waiver may let pass.
pub(super) fn readable_names(headers: &HeaderMap) -> Vec<String> {
    let name = |member: &str| member.split(';').next().map(trim).filter(|name| is_token(name)).map(str::to_owned);
    members(headers.get_all(SEC_WEBSOCKET_EXTENSIONS)).take(MAX).filter_map(name).collect()
}

fn is_parameter(text: &str) -> bool {
    match text.split_once('=') {
        None => is_token(text),
        Some((name, value)) => is_token(trim(name)) && is_value(trim(value)),
    }
}

/// A token, or a quoted string that is a token after unescaping. Neither can contain a separator.
fn is_value(text: &str) -> bool {
    let Some(quoted) = text.strip_prefix('"') else { return is_token(text) };
    let Some(quoted) = quoted.strip_suffix('"').filter(|quoted| !quoted.is_empty()) else { return false };
    let mut bytes = quoted.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'\\' { bytes.next() } else { Some(byte) };
        if !byte.is_some_and(is_token_byte) {
            return false;
        }
    }
    true
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<String>, ListError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        names(&headers)
    }

    #[test]
    fn lists_of_the_grammar_are_read() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&["a"], &["a"]),
            (&["a, a; x=1"], &["a", "a"]),
            (&["a", "b;x"], &["a", "b"]),
            (&[",a,,b,"], &["a", "b"]),
            (&[" a ; x = 1 ;\ty=\"2\" "], &["a"]),
            (&["a; x=\"\\2\\3\""], &["a"]),
            (&["a", ","], &["a"]),
            (&["a", ""], &["a"]),
            (&[""], &[]),
            (&["", " \t"], &[]),
        ] {
            assert_eq!(read(lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_know_is_malformed() {
        for lines in [
            &[","][..],
            &[", ,"],
            &[",,,"],
            &[" ,\t"],
            &["", ","],
            &[",", ","],
            &[";"],
            &["a;"],
            &["a;;x"],
            &["a; x="],
            &["a; =1"],
            &["a; x=\"\""],
            &["a; x=\""],
            &["a; x=\"1"],
            &["a; x=1\""],
            &["a; x=\"1\"2"],
            &["a; x=\"1 2\""],
            &["a; x=\"1;2\""],
            &["a; x=\"1,2\""],
            &["a; x=\"1\\\""],
            &["a; x=\"\\\"\""],
            &["a; x=1=2"],
            &["a; x=1 2"],
            &["a b"],
            &["a=b"],
            &["\"a\""],
            &["a/b"],
            &["\u{e9}"],
            &["a; x=\u{e9}"],
        ] {
            assert_eq!(read(lines), Err(ListError::Malformed), "{lines:?}");
        }
    }
}
