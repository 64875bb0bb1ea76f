//! The key of an opening handshake and the value that accepts it (RFC 6455 §4.1, §4.2.2).

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key that 16 random bytes make.
pub fn key_of(bytes: [u8; 16]) -> String {
    STANDARD.encode(bytes)
}

/// The `Sec-WebSocket-Accept` for a key: the key's text itself, not what it decodes to, goes into the hash.
pub fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    STANDARD.encode(hash.finalize())
}

/// Whether a key is the canonical base64 of 16 bytes.
pub fn is_canonical_key(key: &str) -> bool {
    // The engine refuses missing padding and set trailing bits, so each value has one spelling.
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vector_of_the_rfc() {
        assert_eq!(key_of(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys() {
        for (key, sound) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZR==", false),
            ("dGhlIHNhbXBsZSBub25jZQ=_", false),
            ("dGhlIHNhbXBsZSBub25jZQ__", false),
            ("dGhlIHNhbXBsZSBub25jZSEh", false),
            ("c2hvcnQ=", false),
            ("", false),
        ] {
            assert_eq!(is_canonical_key(key), sound, "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_sixteen_bytes_make_a_key(bytes in any::<[u8; 16]>()) {
            prop_assert!(is_canonical_key(&STANDARD.encode(bytes)));
        }
    }
}
