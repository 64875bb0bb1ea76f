//! The hash of a certificate's public key, as it is written down (RFC 7469 §2.4).

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

/// SHA-256 of a SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

/// A text that is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected `sha256/` and the base64 of 32 bytes, 44 characters with one `=` at the end")]
pub struct NotAPin;

const ALGORITHM: &str = "sha256/";

impl FromStr for Pin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let encoded = text.strip_prefix(ALGORITHM).ok_or(NotAPin)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| NotAPin)?;
        bytes.try_into().map(Self).map_err(|_| NotAPin)
    }
}

/// As it is read.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_form_is_a_pin() {
        let sound = "sha256/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY=";
        assert_eq!(sound.parse::<Pin>().unwrap().to_string(), sound);
        for text in [
            "",
            "RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY=",
            "sha1/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY=",
            "SHA256/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY=",
            "sha256//RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY=",
            "sha256/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY",
            "sha256/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einZ=",
            "sha256/RkhWTcfJAQN_YxOR12VkPo-PhmIoSfWd_JVkg44einY=",
            "sha256/RkhWTcfJAQN/YxOR12VkPo+PhmIoSfWd/JVkg44einY= ",
            "sha256/AAAA",
        ] {
            assert_eq!(text.parse::<Pin>(), Err(NotAPin), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_hash_is_read_as_it_is_written(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(Pin(bytes).to_string().parse(), Ok(Pin(bytes)));
        }
    }
}
