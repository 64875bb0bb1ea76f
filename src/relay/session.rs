//! What is particular to one relay.

use std::time::Duration;

use crate::protocol::websocket::frame::Extensions;

/// What is particular to one relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The extensions both sides agreed on.
    pub extensions: Extensions,
    /// Longest life, its jitter included; `None` is for ever.
    pub max_lifetime: Option<Duration>,
}
