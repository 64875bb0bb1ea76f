//! Refuses new WebSockets while the proxy stops.
//!
//! Reads `Intent`. Refuses with 503 and a `Retry-After` that differs from client to client.

use std::time::Duration;

use super::{Request, chance, check::Check, error::ProxyError, facts};
use crate::{drain::Tracker, protocol::upgrade::Intent};

/// By then another process should have taken over; with less to go by, clients are told to wait as long as this at most.
const LEAST_WINDOW: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Admit {
    pub(super) tracker: Tracker,
    /// The time over which clients are sent away, and so come back.
    pub(super) spread: Duration,
}

impl Check for Admit {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let intent: Intent = facts::expect(request.extensions())?;
        if intent != Intent::WebSocket || !self.tracker.is_draining() {
            return Ok(());
        }
        let window = self.spread.max(LEAST_WINDOW).mul_f64(chance::fraction());
        Err(ProxyError::Draining { retry_after: window.as_secs().saturating_add(1) })
    }
}
