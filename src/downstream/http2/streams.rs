//! Counts the live streams of one connection, to log when `max_streams` is reached.

use std::sync::Arc;

use super::Http2Options;
use crate::{downstream::Connection, http2::Lease};

/// See the module docs. The library enforces the limit but does not report it, and compliant clients wait for a free
/// stream without an error.
pub(super) struct LiveStreams {
    options: Http2Options,
    /// Held by each stream.
    lease: Lease,
}

impl LiveStreams {
    pub(super) fn new(options: Http2Options) -> Self {
        Self { options, lease: Lease::default() }
    }

    /// Counts one more, until the returned value is dropped.
    pub(super) fn enter(&self, connection: &Connection) -> Lease {
        let place = Lease::clone(&self.lease);
        let live = Arc::strong_count(&self.lease).saturating_sub(1);
        let limit = usize::try_from(self.options.max_streams).unwrap_or(usize::MAX);
        if live == limit
            && let Some(times) = self.options.limit_reached.note()
        {
            tracing::warn!(
                listener = %connection.listener,
                client = %connection.remote,
                limit,
                times,
                hint = "raise limits.max_streams",
                "max_streams reached; further requests and WebSockets of this HTTP/2 connection wait or are refused"
            );
        }
        place
    }
}
