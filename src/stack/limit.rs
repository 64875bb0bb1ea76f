//! Refuses WebSockets beyond the limits of their route.
//!
//! Reads `MatchedRoute`, `Intent`, `Client`, `Opening`. Writes `Admitted`. Refuses with 429 what the client has used up alone, and
//! with 503 what it shares with others.

use std::sync::Arc;

use super::{
    Request, chance,
    check::Check,
    error::ProxyError,
    facts::{self, Admitted, Client, MatchedRoute},
};
use crate::{
    admission::{Admission, Refusal},
    protocol::upgrade::Intent,
};

#[derive(Clone, Debug)]
pub(super) struct Limit(pub(super) Admission);

impl Check for Limit {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        if self.0.is_unlimited() || facts::expect::<Intent>(request.extensions())? != Intent::WebSocket {
            return Ok(());
        }
        let MatchedRoute(route) = facts::expect(request.extensions())?;
        let Client { address: client, .. } = facts::expect(request.extensions())?;
        let origin = facts::origin_fields(request.extensions()).first(request.headers());
        let admitted = self.0.admit(&route, client.ip(), origin);
        let slot = admitted.map_err(|refusal| ProxyError::Limit { refusal, retry_after: retry_after(refusal) })?;
        if let Some(slot) = slot {
            request.extensions_mut().insert(Admitted(Arc::new(slot)));
        }
        Ok(())
    }
}

/// In seconds.
fn retry_after(refusal: Refusal) -> u64 {
    match refusal {
        // Rounded up: a second too early is refused again.
        Refusal::ClientRate { wait } => (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1),
        _ => chance::retry_after(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_is_told_its_own_wait_and_a_crowd_is_spread() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            let wait = Duration::from_millis(millis);
            assert_eq!(retry_after(Refusal::ClientRate { wait }), seconds, "{wait:?}");
        }
        for refusal in [Refusal::ClientFull, Refusal::OriginFull, Refusal::RouteFull, Refusal::RouteRate] {
            let told: std::collections::BTreeSet<u64> = (0..1000).map(|_| retry_after(refusal)).collect();
            assert_eq!(told.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{refusal:?}");
        }
    }
}
