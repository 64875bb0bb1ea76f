//! Field names that a backend may confuse with reserved ones.
//!
//! CGI, WSGI, PHP and similar backends turn a field name into a variable name: letters become upper case, and every
//! byte that is not a letter or digit becomes `_`. `X.Forwarded.For`, `X_Forwarded_For` and `X-Forwarded-For` are then
//! the same field (CVE-2015-0219), and a client could forge the fields that the proxy sets.

use http::{HeaderMap, HeaderName};

use super::request_framing::FramingError;

/// How a request with a look-alike of a reserved name is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAlike {
    /// The field is dropped: the gateway sets or removes the reserved one.
    Dropped,
    /// The request is refused: the reserved one decides where a message ends or what a handshake is.
    Refused,
}

/// The reserved names, in lower case. One that ends with `*` stands for all names that begin so.
///
/// Bytes at the ends of a name are ignored too, in case a parser trims them: `_Origin` is a look-alike.
const RESERVED: [(&str, LookAlike); 23] = [
    ("client-cert", LookAlike::Dropped),
    ("client-cert-*", LookAlike::Dropped),
    ("forwarded", LookAlike::Dropped),
    ("http2-settings", LookAlike::Dropped),
    ("keep-alive", LookAlike::Dropped),
    ("proxy", LookAlike::Dropped),
    ("proxy-authenticate", LookAlike::Dropped),
    ("proxy-authentication-info", LookAlike::Dropped),
    ("proxy-authorization", LookAlike::Dropped),
    ("proxy-connection", LookAlike::Dropped),
    ("via", LookAlike::Dropped),
    ("x-forwarded-*", LookAlike::Dropped),
    ("x-real-ip", LookAlike::Dropped),
    ("connection", LookAlike::Refused),
    ("content-length", LookAlike::Refused),
    ("expect", LookAlike::Refused),
    ("host", LookAlike::Refused),
    ("origin", LookAlike::Refused),
    ("sec-websocket-*", LookAlike::Refused),
    ("te", LookAlike::Refused),
    ("trailer", LookAlike::Refused),
    ("transfer-encoding", LookAlike::Refused),
    ("upgrade", LookAlike::Refused),
];

/// Whether `name`, which is in lower case, is another name than a reserved one and folds to the same.
pub fn look_alike(name: &str) -> Option<LookAlike> {
    let bare = odd(name)?;
    RESERVED.iter().find(|(reserved, _)| folds_to(bare, reserved)).map(|(_, verdict)| *verdict)
}

/// Drops look-alikes of what the gateway sets or removes, and `Proxy`, which becomes `HTTP_PROXY` (CVE-2016-5385).
///
/// # Errors
/// `FramingError::LookAlike` for those of message framing and of the opening handshake.
pub fn screen(headers: &mut HeaderMap) -> Result<(), FramingError> {
    let mut dropped: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        match look_alike(name.as_str()) {
            Some(LookAlike::Refused) => return Err(FramingError::LookAlike),
            Some(LookAlike::Dropped) => dropped.push(name.clone()),
            None if name.as_str() == "proxy" => dropped.push(name.clone()),
            None => {}
        }
    }
    for name in dropped {
        headers.remove(name);
    }
    Ok(())
}

/// The name with every special byte replaced by a hyphen, as in reserved names; `None` if it has no special bytes.
pub(super) fn folded(name: &str) -> Option<String> {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_lowercase()) } else { '-' };
    odd(name).map(|bare| bare.bytes().map(fold).collect())
}

/// What may fold to another name, without the bytes at its ends that are no letters or digits; `None` for ordinary names.
fn odd(name: &str) -> Option<&str> {
    let bytes = name.as_bytes();
    let is_ordinary = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let is_bare = [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    // Nearly every name: nothing is trimmed.
    (!is_ordinary || !is_bare).then(|| name.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
}

fn folds_to(name: &str, reserved: &str) -> bool {
    let same = |(byte, wanted): (u8, u8)| match wanted {
        b'-' => !byte.is_ascii_alphanumeric(),
        _ => byte.eq_ignore_ascii_case(&wanted),
    };
    let (wanted, longer) = reserved.strip_suffix('*').map_or((reserved, false), |beginning| (beginning, true));
    let fits = if longer { name.len() >= wanted.len() } else { name.len() == wanted.len() };
    fits && name.bytes().zip(wanted.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// All special bytes that a token may have (RFC 9110 §5.6.2), except the hyphen.
    const OTHERS: &[u8] = b"!#$%&'*+.^_`|~";

    #[test]
    fn every_byte_in_place_of_a_hyphen_makes_a_look_alike() {
        for (reserved, verdict) in RESERVED {
            let name = reserved.replace('*', "anything-at-all");
            assert_eq!(look_alike(&name), None, "{name} itself");
            for other in OTHERS.iter().map(|byte| char::from(*byte)) {
                for alike in [
                    name.replace('-', &other.to_string()),
                    name.replacen('-', &other.to_string(), 1),
                    format!("{other}{name}"),
                    format!("{name}{other}"),
                ] {
                    let expected = (alike != name).then_some(verdict);
                    assert_eq!(look_alike(&alike), expected, "{alike}");
                }
            }
        }
    }

    #[test]
    fn other_names_are_nobodys_look_alikes() {
        for name in [
            "my_field",
            "x_request_id",
            "grpc.metadata",
            "x_forwarded",
            "xforwardedfor",
            "x__forwarded_for",
            "client_certificate",
            "content_length_hint",
            "sec_fetch_site",
            "origin_agent_cluster",
            "accept",
            "_",
            "-",
            "",
        ] {
            assert_eq!(look_alike(name), None, "{name}");
        }
    }

    #[test]
    fn screening_drops_or_refuses() {
        let with = |names: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(*name, HeaderValue::from_static("1"));
                headers.append(*name, HeaderValue::from_static("2"));
            }
            screen(&mut headers)?;
            let mut left: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            left.sort_unstable();
            Ok(left)
        };
        assert_eq!(
            with(&["accept", "client.cert.subject", "my_field", "proxy", "x-forwarded-for", "x!real!ip", "_via"])
                .unwrap(),
            ["accept", "my_field", "x-forwarded-for"]
        );
        for name in ["transfer_encoding", "content.length", "sec_websocket_key", "sec-websocket_version", "origin_"] {
            assert_eq!(with(&["accept", name]), Err(FramingError::LookAlike), "{name}");
        }
    }

    proptest! {
        /// The rule that the comparison stands for: the names of variables are the same.
        #[test]
        fn look_alikes_have_the_same_variable(name in "[_.!~-]?(x|client|via|te)[_.!~-](real|cert|forwarded)[_.!-](ip|for|x)?") {
            let variable = |name: &str| {
                let folded: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                folded.trim_matches('_').to_owned()
            };
            let same = |reserved: &str| match reserved.strip_suffix('*') {
                Some(beginning) => variable(&name).starts_with(&beginning.replace('-', "_")),
                None => variable(&name) == variable(reserved),
            };
            let genuine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !name.starts_with('-') && !name.ends_with('-');
            let expected = !genuine && RESERVED.iter().any(|(reserved, _)| same(reserved));
            prop_assert_eq!(look_alike(&name).is_some(), expected, "{}", name);
        }
    }
}
