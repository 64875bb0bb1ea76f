//! How an upstream is told of a client's certificate: `Client-Cert` (RFC 9440) and what can be read without decoding it.
//!
//! The names are fixed and always ours: what anybody else sends under them is removed, on every listener, so that a
//! backend that finds one knows that the certificate was verified here.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

const NAME: &str = "client-cert";
const CERTIFICATE: HeaderName = HeaderName::from_static(NAME);
const SUBJECT: HeaderName = HeaderName::from_static("client-cert-subject");
const SAN: HeaderName = HeaderName::from_static("client-cert-san");
const FINGERPRINT: HeaderName = HeaderName::from_static("client-cert-fingerprint");

/// Longest value. Common servers take lines of up to 8 KiB; a longer one would cost its client every request.
const MAX_VALUE: usize = 7 * 1024;

/// Whether only we may say this: `Client-Cert` and all that begins so, `Client-Cert-Chain` among them.
///
/// Look-alikes with other bytes in place of the hyphens: see [`super::field_names`].
pub(super) fn is_reserved(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// What is told of one certificate: put together once for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Told(Vec<(HeaderName, HeaderValue)>);

impl Told {
    /// A verified certificate; all texts are visible ASCII. A value that would be too long is left out: half of a
    /// name is another name.
    pub fn new(der: &[u8], subject: Option<&str>, alternatives: &[Box<str>], fingerprint: &str) -> Self {
        let list = Some(alternatives.join(", ")).filter(|list| !list.is_empty());
        // RFC 9440 section 2.1, a byte sequence of RFC 8941.
        let certificate = format!(":{}:", STANDARD.encode(der));
        let values = [
            (CERTIFICATE, Some(certificate)),
            (SUBJECT, subject.map(str::to_owned)),
            (SAN, list),
            (FINGERPRINT, Some(fingerprint.to_owned())),
        ];
        let fields = values.into_iter().filter_map(|(name, value)| {
            let value = value.filter(|value| value.len() <= MAX_VALUE)?;
            HeaderValue::try_from(value).ok().map(|value| (name, value))
        });
        Self(fields.collect())
    }
}

/// Removes what the peer said, trusted or not, and says what we know.
pub fn apply(headers: &mut HeaderMap, told: Option<&Told>) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name.as_str())).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    for (name, value) in told.into_iter().flat_map(|told| &told.0) {
        headers.insert(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_speaks_under_these_names() {
        let mut headers = HeaderMap::new();
        for name in [
            "client-cert",
            "client-cert-subject",
            "client-cert-chain",
            "client-cert-",
            "client-certificate",
            "client-cer",
            "x-client-cert",
        ] {
            headers.append(name, HeaderValue::from_static("forged"));
            headers.append(name, HeaderValue::from_static("forged"));
        }
        let mut in_clear = headers.clone();
        apply(&mut in_clear, None);
        let mut left: Vec<_> = in_clear.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["client-cer", "client-certificate", "x-client-cert"]);

        let told = Told::new(b"\x00\xff", Some("CN=alice"), &["DNS:a".into(), "URI:b".into()], "ab");
        apply(&mut headers, Some(&told));
        for (name, value) in
            [(CERTIFICATE, ":AP8=:"), (SUBJECT, "CN=alice"), (SAN, "DNS:a, URI:b"), (FINGERPRINT, "ab")]
        {
            assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
    }

    #[test]
    fn what_is_too_long_is_left_out_whole() {
        let told = Told::new(&[0; MAX_VALUE], Some(&"a".repeat(MAX_VALUE + 1)), &[], "ab");
        assert_eq!(told.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["client-cert-fingerprint"]);
    }
}
