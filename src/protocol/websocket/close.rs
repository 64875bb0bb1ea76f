//! Close codes and reasons (RFC 6455 §5.5.1, §7.4).

use thiserror::Error;

/// The sender goes away: a stop, a timeout.
pub const GOING_AWAY: u16 = 1001;
/// A rule of RFC 6455 was broken.
pub const PROTOCOL_ERROR: u16 = 1002;
/// What an endpoint reports of a Close without a code; never on the wire.
pub const NO_STATUS: u16 = 1005;
/// What an endpoint reports of a peer that ended without Close; never on the wire.
pub const ABNORMAL: u16 = 1006;
/// A policy was broken: a rate was exceeded.
pub const POLICY: u16 = 1008;
/// A message beyond a limit.
pub const TOO_BIG: u16 = 1009;
/// The other side failed.
pub const INTERNAL: u16 = 1011;
/// The service restarts; come back.
pub const RESTART: u16 = 1012;
/// The service is overloaded; come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// What is wrong with the payload of a Close.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CloseError {
    /// One byte: half a code.
    #[error("a Close with half a code (RFC 6455 section 5.5.1)")]
    HalfCode,
    /// A code that may not be sent.
    #[error("a Close with a code that may not be sent (RFC 6455 section 7.4)")]
    Code,
    /// A reason that is not UTF-8.
    #[error("a Close whose reason is not UTF-8 (RFC 6455 section 5.5.1)")]
    Reason,
}

/// Reads the payload of a Close; `None` is one without a code.
///
/// # Errors
/// See [`CloseError`].
pub fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseError::HalfCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(CloseError::Code);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| CloseError::Reason)?;
    Ok(Some((code, reason)))
}

/// Whether a Close frame may carry this code: those of RFC 6455 and of IANA's registry, and 3000 to 4999.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether an operator may choose this code for a Close that tells a peer to reconnect: going away, an error, a restart,
/// overload, or a code of the application (RFC 6455 §7.4.2).
pub fn is_choosable(code: u16) -> bool {
    matches!(code, GOING_AWAY | INTERNAL | RESTART | TRY_AGAIN_LATER | 4000..=4999)
}

/// What [`is_choosable`] takes, for error texts.
pub const CHOOSABLE: &str = "1001, 1011, 1012, 1013 or 4000 to 4999";

/// A Close payload with this code and reason.
pub fn payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload
}
