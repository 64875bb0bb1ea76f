//! Comma-separated lists over repeated field lines (RFC 9110 §5.6.1). The one list parser of the crate.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The members of a list, over all lines given, without the white space around them. Empty members are left out
/// (RFC 9110 §5.6.1.2); commas inside quoted strings do not separate. A line that is not ASCII gives one member that
/// is no token.
pub fn members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    values.into_iter().flat_map(|value| Members(value.to_str().unwrap_or("\u{fffd}")))
}

struct Members<'a>(&'a str);

impl<'a> Iterator for Members<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            if self.0.is_empty() {
                return None;
            }
            let (mut quoted, mut escaped) = (false, false);
            let end = self.0.find(|c| {
                if escaped {
                    escaped = false;
                    return false;
                }
                match c {
                    '\\' if quoted => escaped = true,
                    '"' => quoted = !quoted,
                    ',' if !quoted => return true,
                    _ => {}
                }
                false
            });
            let (member, rest) = match end {
                Some(at) => (self.0.get(..at)?, self.0.get(at + 1..)?),
                None => (self.0, ""),
            };
            self.0 = rest;
            let member = member.trim_matches([' ', '\t']);
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

/// A member of a list from a peer, for sets. The tests count how often two of them are compared.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Member<'a>(pub &'a [u8]);

impl PartialEq for Member<'_> {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(test)]
        COMPARISONS.with(|count| count.set(count.get() + 1));
        self.0 == other.0
    }
}

impl Hash for Member<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[cfg(test)]
thread_local! {
    /// Comparisons of list members in this thread.
    pub(super) static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether two members are equal, in time that grows with the number of members, not with its square.
pub fn has_duplicate<'a>(mut members: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut seen = HashSet::new();
    !members.all(|member| seen.insert(Member(member)))
}

/// Whether each of `members` is one of `known`, in time that grows with the sum of both, not with their product.
pub fn all_known<'a>(members: impl IntoIterator<Item = &'a [u8]>, known: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut members = members.into_iter().peekable();
    // Most handshakes agree on no extension; they need no set.
    if members.peek().is_none() {
        return true;
    }
    let known: HashSet<Member<'a>> = known.into_iter().map(Member).collect();
    members.all(|member| known.contains(&Member(member)))
}

/// Whether any line of `name` lists `token`, whatever its case. Malformed members match nothing.
pub fn contains(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    members(headers.get_all(name)).any(|member| member.eq_ignore_ascii_case(token))
}

/// The members of a list that has no quoted strings, as bytes, without the white space around them: every comma
/// separates. Empty members are left out (RFC 9110 §5.6.1.2).
pub fn plain_members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    let members = values.into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Whether a field line has no value: nothing, or white space only.
pub fn is_blank(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &str) -> bool {
    is_token_bytes(text.as_bytes())
}

/// Whether `bytes` are a token (RFC 9110 §5.6.2).
pub fn is_token_bytes(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a token may hold this byte.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii() && TOKEN_BYTES >> byte & 1 == 1
}

/// A bit for each ASCII character that a token may hold. Every byte of every field name is looked up here.
const TOKEN_BYTES: u128 = {
    let mut bits = 0;
    let mut byte = 0u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            bits |= 1 << byte;
        }
        byte += 1;
    }
    let mut marks: &[u8] = b"!#$%&'*+-.^_`|~";
    while let [mark, rest @ ..] = marks {
        bits |= 1 << *mark;
        marks = rest;
    }
    bits
};

#[cfg(test)]
mod tests {
    use http::header::CONNECTION;
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONNECTION, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn members_of_odd_lists() {
        for (line, expected) in [
            ("keep-alive, Upgrade", vec!["keep-alive", "Upgrade"]),
            (",, a ,\t,b,", vec!["a", "b"]),
            ("a;x=\"1,2\", b", vec!["a;x=\"1,2\"", "b"]),
            ("a;x=\"\\\",\", b", vec!["a;x=\"\\\",\"", "b"]),
            ("", vec![]),
        ] {
            let value = HeaderValue::from_str(line).unwrap();
            assert_eq!(members([&value]).collect::<Vec<_>>(), expected, "{line:?}");
        }
    }

    #[test]
    fn every_comma_separates_members_that_are_never_quoted() {
        let value = HeaderValue::from_bytes(b" a/b ,\"c,d\",,\xff\x80,\t").unwrap();
        let members: Vec<_> = plain_members([&value]).collect();
        assert_eq!(members, [&b"a/b"[..], b"\"c", b"d\"", b"\xff\x80"]);
    }

    #[test]
    fn duplicates_and_unknown_members_are_found_without_comparing_each_with_each() {
        for count in [1000, 2000] {
            let names: Vec<String> = (0..count).map(|number| format!("name-{number}")).collect();
            let bytes = || names.iter().map(String::as_bytes);
            COMPARISONS.set(0);
            assert!(!has_duplicate(bytes()));
            assert!(has_duplicate(bytes().chain([&b"name-7"[..]])));
            assert!(all_known(bytes(), bytes()));
            assert!(!all_known([&b"other"[..]], bytes()));
            // A table compares an entry with itself, and now and then with one whose hash begins alike.
            assert!(COMPARISONS.get() < 4 * count, "{count} members: {} comparisons", COMPARISONS.get());
        }
    }

    #[test]
    fn a_substring_is_no_member() {
        let headers = lines(&["no-upgrade, upgraded".to_owned()]);
        assert!(!contains(&headers, &CONNECTION, "upgrade"));
    }

    proptest! {
        #[test]
        fn a_list_survives_being_split_over_lines_and_respaced(
            tokens in prop::collection::vec("[a-z!#-]{1,8}", 1..6),
            breaks in prop::collection::vec(any::<bool>(), 6),
            space in "[ \t]{0,3}",
        ) {
            let mut all = vec![String::new()];
            for (token, new_line) in tokens.iter().zip(breaks) {
                if new_line {
                    all.push(String::new());
                }
                let line = all.last_mut().unwrap();
                line.push_str(&format!("{space},{space}{token}{space}"));
            }
            let headers = lines(&all.iter().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
            prop_assert_eq!(members(headers.get_all(CONNECTION)).collect::<Vec<_>>(), tokens);
        }
    }
}
