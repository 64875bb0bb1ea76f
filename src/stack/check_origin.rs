//! Refuses requests whose `Origin` the route does not list (RFC 6455 §10.2).
//!
//! Reads `MatchedRoute`, `Intent`, `Target`, `Connection`. Writes nothing. Refuses with 403.

use std::sync::Arc;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, MatchedRoute},
    shown,
    trust::TrustedProxies,
};
use crate::{
    downstream::Connection,
    protocol::{
        forwarded,
        origin::{ApplyTo, Mode, Origin},
        request_target::Target,
        upgrade::Intent,
    },
};

#[derive(Clone, Debug)]
pub(super) struct CheckOrigin(pub(super) TrustedProxies);

impl Check for CheckOrigin {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let MatchedRoute(route) = facts::expect(request.extensions())?;
        let intent: Intent = facts::expect(request.extensions())?;
        if intent != Intent::WebSocket && route.origin.apply_to != ApplyTo::All {
            return Ok(());
        }
        let own = self.client_facing(request)?;
        match route.origin.check(request.headers(), &own) {
            Err(refusal) if route.origin.mode == Mode::Report => {
                tracing::warn!(route = %route.name, rule = refusal.rule(), origin = %shown::origin(request.headers()), "origin would be refused (mode = report)");
                Ok(())
            }
            Err(refusal) => {
                // The refusal's one event is written further out and shows this.
                tracing::Span::current()
                    .record("origin", tracing::field::display(shown::origin(request.headers())))
                    .record("own_origin", tracing::field::display(&own));
                Err(refusal.into())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl CheckOrigin {
    /// The origin under which the client reached us, as far as a trusted proxy in front tells.
    fn client_facing(&self, request: &Request) -> Result<Origin, ProxyError> {
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let target: Arc<Target> = facts::expect(request.extensions())?;
        let trust = self.0.trust(connection.remote);
        let scheme = forwarded::client_scheme(request.headers(), trust, connection.scheme());
        Ok(Origin::of(scheme, target.authority.host(), target.authority.port()))
    }
}
