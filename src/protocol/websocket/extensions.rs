//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1).

use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

use crate::protocol::token_list::{is_token, members};

/// Most extensions in one offer or answer. Browsers offer one, and one again for each choice of its parameters.
pub(super) const MAX: usize = 64;

/// Why a list of extensions cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListError {
    /// It breaks the grammar.
    Malformed,
    /// It has more than [`MAX`] members.
    TooMany,
}

/// Returns the names of the listed extensions.
///
/// # Errors
/// See [`ListError`].
pub(super) fn names(headers: &HeaderMap) -> Result<Vec<String>, ListError> {
    let mut names = Vec::new();
    for member in members(headers.get_all(SEC_WEBSOCKET_EXTENSIONS)) {
        if names.len() == MAX {
            return Err(ListError::TooMany);
        }
        let mut parts = member.split(';');
        let name = parts.next().map(str::trim).filter(|name| is_token(name)).ok_or(ListError::Malformed)?;
        if !parts.all(is_parameter) {
            return Err(ListError::Malformed);
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn is_parameter(text: &str) -> bool {
    match text.split_once('=') {
        None => is_token(text.trim()),
        Some((name, value)) => {
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            is_token(name.trim()) && is_token(bare)
        }
    }
}
