//! Refuses malformed opening handshakes (RFC 6455 §4.2.1) and upgrades the route does not take.
//!
//! Reads `MatchedRoute`, `Intent`. Writes `Opening`. Refuses with 400, 403, 405, 426.

use std::sync::Arc;

use http::{HeaderValue, header::SEC_WEBSOCKET_VERSION};
use http_body::Body as _;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, MatchedRoute, Opening},
};
use crate::{
    config::model::OtherUpgrades,
    protocol::{
        upgrade::Intent,
        websocket::{self, OpeningHandshake, Waiver},
    },
};

#[derive(Clone, Debug)]
pub(super) struct CheckHandshake;

impl Check for CheckHandshake {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let MatchedRoute(route) = facts::expect(request.extensions())?;
        match facts::expect(request.extensions())? {
            Intent::None => Ok(()),
            Intent::Other if route.other_upgrades == OtherUpgrades::Refuse => Err(ProxyError::OtherUpgrade),
            Intent::Other => Ok(()),
            Intent::WebSocket if !route.websocket => Err(ProxyError::WebSocketNotAllowed),
            Intent::WebSocket => {
                let has_body = !request.body().is_end_stream();
                let opening = OpeningHandshake::check(
                    request.method(),
                    request.version(),
                    request.headers(),
                    has_body,
                    route.waivers,
                )?;
                for waiver in opening.used() {
                    tracing::info!(route = %route.name, waiver = waiver.name(), "handshake check waived for a client");
                }
                websocket::drop_empty_lists(request.headers_mut());
                if opening.used().contains(&Waiver::Version) {
                    // Only HTTP/2 may leave it out, and the upstream needs one.
                    request.headers_mut().entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
                }
                request.extensions_mut().insert(Opening(Arc::new(opening)));
                Ok(())
            }
        }
    }
}
